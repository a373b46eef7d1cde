"""How well each method recovers the factors that made the mock galaxies."""

import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.equal_numbers import plot_at_equal_numbers
from sfnetlab.figures.findings import Figures, Findings, every_seed, methods_of

_LABEL = "mean correlation of matched features and factors (MCC)"


def draw(findings: Findings) -> Figures:
    """Draw all methods on a survey whose factors are known, in every run, and what their features absorb."""
    tables = methods_of(every_seed(findings))
    recovery, absorption = findings.gathered("recovery", tables), findings.gathered("absorption", tables)
    if recovery is not None:
        is_shown = (recovery["factor"] == "all") & (recovery["metric"] == "correlation") & recovery["n_drawn"].notna()
        table = recovery[is_shown].rename(columns={"n_drawn": "n"})
        yield from style.drawn("recovery", plot_at_equal_numbers, table, _LABEL)
    if absorption is not None and absorption["absorption"].notna().any():
        yield "absorption", plot_absorption(absorption)


@style.paper_figure
def plot_absorption(table: pd.DataFrame) -> Figure:
    """Draw how much more often a label's feature is silent where a more special label holds; chance is 0.

    A row is two labels, a marker a method over its runs with the 95 % interval over galaxies and runs (what has one run
    has none), small dots the runs. Crosses are what 95 % of permuted galaxies stay below. Methods whose features do not
    detect their labels have no marker.

    Parameters
    ----------
    table : DataFrame
        `interpret.recovery.family_absorption` with the columns `features`, `kind` and `seed` added.

    Raises
    ------
    ValueError
        If columns are missing, or there is no number.
    """
    wanted = ("features", "kind", "seed", "parent", "child", "absorption", "low", "high", "null_q95")
    style.require_columns(table, wanted, "the table of absorption")
    known = table.dropna(subset=["absorption"]).rename(columns={"absorption": "value"})
    if known.empty:
        raise ValueError("the table of absorption has no number")
    labels = list(dict.fromkeys(zip(known["child"], known["parent"], strict=True)))
    kinds = known.groupby("features", sort=False)["kind"].first()
    looks = style.looks_of(known)
    legend_in = style.legend_height_in([*map(str, kinds.index), "permuted"])
    height_in = 0.9 + len(labels) * (0.12 + 0.09 * len(kinds)) + legend_in
    fig = Figure(figsize=(style.COLUMN_WIDTH_IN, height_in), layout="constrained")
    ax = fig.add_subplot()
    for rank, (name, kind) in enumerate(kinds.items()):
        look = looks[str(name)]
        for pair, runs in known[known["features"] == name].groupby(["child", "parent"]):
            y = labels.index(pair) + 0.7 * ((rank + 0.5) / len(kinds) - 0.5)
            value, low, high = style.over_runs(runs)
            ax.plot([low, high], [y, y], color=look.color, linewidth=0.8, label="_interval")
            ax.plot(value, y, color=look.color, marker=look.marker, linestyle="none", label="_value")
            ax.plot(runs["null_q95"].mean(), y, "x", color=style.BLACK, markersize=4, label="_null")
            if len(runs) > 1:
                ax.plot(runs["value"], [y] * len(runs), ".", color=look.color, markersize=2.5, label="_runs")
        label = style.method_name(str(name), str(kind))
        ax.plot([], [], color=look.color, marker=look.marker, linestyle="none", label=label)
    ax.plot([], [], "x", color=style.BLACK, markersize=4, label="95 % of permuted")
    for edge in range(1, len(labels)):
        ax.axhline(edge - 0.5, color="#DDDDDD", linewidth=0.6)
    ax.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(labels)), labels=[f"{child} in {parent}".replace("_", " ") for child, parent in labels])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_xlabel("absorption (difference of shares of galaxies)")
    fig.legend(loc="outside lower center", ncols=2, columnspacing=1)
    return fig
