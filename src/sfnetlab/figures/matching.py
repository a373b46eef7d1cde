"""What methods share: how many of their matched features are alike, beside what an untrained network shares."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.metrics.nulls import ALIKE


def draw(findings: Findings) -> Figures:
    """Draw all pairs of tables in a matrix."""
    summary = findings.relations("matching")
    if summary is not None:
        yield "matching", plot_matching_matrix(summary)


@style.paper_figure
def plot_matching_matrix(summary: pd.DataFrame) -> Figure:
    """Draw which share of the matched features of every two tables is alike below the diagonal, its null above.

    The null is what either table shares with as many features of an untrained network, where there is one, else what
    permuted galaxies give.

    Parameters
    ----------
    summary : DataFrame
        `interpret.matching.MatchedTables.summary`, a row every two tables, with the columns `table_a`, `table_b`,
        `share_alike`, `untrained_alike` and `permuted_alike`. Names are drawn as they are, in the order in which they
        come.

    Raises
    ------
    ValueError
        If columns or rows are missing, or two tables appear twice.
    """
    columns = ("table_a", "table_b", "share_alike", "untrained_alike", "permuted_alike")
    style.require_columns(summary, columns, "the summary of matches")
    is_untrained = bool(summary["untrained_alike"].notna().any())
    null = "untrained_alike" if is_untrained else "permuted_alike"
    names = list(dict.fromkeys([*summary["table_a"], *summary["table_b"]]))
    place = {name: i for i, name in enumerate(names)}
    shown = np.full((len(names), len(names)), np.nan)
    for row in summary.to_dict("records"):
        low, high = sorted((place[row["table_a"]], place[row["table_b"]]))
        if low == high or not np.isnan(shown[high, low]):
            raise ValueError(f"{row['table_a']} and {row['table_b']} appear twice, expected a row every two tables")
        shown[high, low], shown[low, high] = row["share_alike"], row[null]
    seed = {name.rpartition("-seed")[2] for name in names}
    shown_names = [name.rpartition("-seed")[0] for name in names] if len(seed) == 1 else names
    labels = [style.wrapped(name, 18) for name in shown_names]
    side_in = min(0.42 * len(names), style.PAGE_WIDTH_IN - 2.0)
    fig = Figure(figsize=(max(side_in + 1.9, style.COLUMN_WIDTH_IN), side_in + 1.3), layout="constrained")
    ax = fig.add_subplot()
    ax.set_facecolor("#EEEEEE")
    image = ax.imshow(shown, cmap="viridis", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(shown):
        if np.isfinite(value):
            ax.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=style.SMALL_PT,
                color="white" if value < 0.6 else "black",
            )  # fmt: skip
    ax.plot([-0.5, len(names) - 0.5], [-0.5, len(names) - 0.5], color=style.BLACK, linewidth=0.6)
    ax.set_xticks(range(len(names)), labels, rotation=90)
    ax.set_yticks(range(len(names)), labels)
    ax.tick_params(length=0)
    beside = "either with an untrained network" if is_untrained else "the same, galaxies permuted"
    ax.set_title(f"above the diagonal:\n{beside}", fontsize=style.SMALL_PT)
    fig.colorbar(image, ax=ax, label=f"share of matched features\nwith |r| > {ALIKE}, test galaxies", shrink=0.9)
    return fig
