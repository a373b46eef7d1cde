"""What methods share: correlations of their matched features, beside what permuted galaxies give."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.metrics.nulls import ALIKE

N_PANELS = 9
"""Pairs of tables whose correlations are drawn: those that share most."""


def draw(findings: Findings) -> Figures:
    """Draw all pairs of tables in a matrix, and the correlations of those that share most."""
    summary, pairs, null = (findings.relations(name) for name in ("matching", "pairs", "null"))
    if summary is None or pairs is None or null is None:
        return
    yield "matching", plot_matching_matrix(summary)
    best = summary.sort_values("mean_correlation", ascending=False).head(N_PANELS)
    chosen = best[["table_a", "table_b"]]
    yield "matched_correlations", plot_matched_correlations(pairs.merge(chosen), null.merge(chosen))


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
    labels = [style.wrapped(name, 18) for name in names]
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


@style.paper_figure
def plot_matched_correlations(pairs: pd.DataFrame, null: pd.DataFrame) -> Figure:
    """Draw the share of matched pairs of features above each |correlation|, a panel every two tables.

    Parameters
    ----------
    pairs : DataFrame
        `interpret.matching.MatchedTables.pairs` of up to nine pairs of tables, with the columns `table_a`, `table_b`
        and `correlation_test`.
    null : DataFrame
        `MatchedTables.null`: columns `table_a`, `table_b`, `level`, `correlation`.

    Raises
    ------
    ValueError
        If columns or rows are missing, or two tables have no null.
    """
    style.require_columns(pairs, ("table_a", "table_b", "correlation_test"), "the table of pairs")
    style.require_columns(null, ("table_a", "table_b", "level", "correlation"), "the null of matching")
    labels = {"matched": "matched features", "null": "the same, galaxies permuted"}
    panels = list(pairs.groupby(["table_a", "table_b"], sort=False))
    fig, axes = style.panel_grid(len(panels), "share of pairs above", labels.values())
    for ax, ((a, b), matched) in zip(axes, panels, strict=True):
        chance = null[(null["table_a"] == a) & (null["table_b"] == b)].sort_values("level")
        if chance.empty:
            raise ValueError(f"the null of matching has no rows for {a} and {b}")
        strength = np.sort(matched["correlation_test"].abs())
        ax.step(
            [0, *strength], [1, *(1 - np.arange(1, len(strength) + 1) / len(strength))], where="post",
            color=style.BLUE, label=labels["matched"],
        )  # fmt: skip
        ax.fill_between(chance["correlation"], 1 - chance["level"], color="#DDDDDD", linewidth=0)
        ax.plot(chance["correlation"], 1 - chance["level"], color=style.GREY, linestyle="--", label=labels["null"])
        title = f"{style.wrapped(str(a), 32)}\n{style.wrapped(str(b), 32)}, {len(matched)} pairs"
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="|correlation| of a pair")
        ax.set_title(title)
    style.share_legend(fig, axes)
    return fig
