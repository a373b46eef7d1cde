"""How pure the first galaxies that one inspects are, for each way of searching for rare ones."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings

SEARCH = "search"
"""In the column `kind`: not a feature table but a way of searching an embedding."""
_SEARCH_LOOKS = (
    style.MethodStyle(style.BLACK, "x", ":"),
    style.MethodStyle(style.PURPLE, "P", "-."),
    style.MethodStyle(style.SILVER, "1", "--"),
)
_BEST = "no search is purer"
_COLUMNS = ("rare", "method", "kind", "seed", "n_inspected", "metric", "value", "low", "high", "n_rare", "n")


def draw(findings: Findings) -> Figures:
    """Draw all methods and searches in one figure, where the experiment asks for rare galaxies."""
    found = findings.relations("yield")
    if found is not None:
        tables = list(findings.related.values())
        kinds = {table.features: table.kind for table in tables}
        seeds = {table.features: table.seed for table in reversed(tables)}  # the first of each
        kind = found["method"].map(kinds).fillna(SEARCH)
        yield "yields", plot_yields(found.assign(kind=kind, seed=found["method"].map(seeds)))


@style.paper_figure
def plot_yields(table: pd.DataFrame) -> Figure:
    """Draw the purity against the number of galaxies inspected, a panel for each kind of rare galaxy.

    Lines are means over seeds, small dots the seeds, bars the 95 % interval over galaxies and runs (of one run none).
    The dotted edge of the shaded part is the purity of a search that makes no mistake.

    Parameters
    ----------
    table : DataFrame
        `interpret.yields.find_rare`, with the columns `rare` (name of the class), `kind` (of the feature table;
        "search" for what is none) and `seed` added.

    Raises
    ------
    ValueError
        If columns are missing, no row is of the metric "purity", or a number appears twice.
    """
    style.require_columns(table, _COLUMNS, "the table of yields")
    rows = table[table["metric"] == "purity"].rename(columns={"n_inspected": "x"})
    if rows.empty:
        raise style.EmptyFigureError('the table of yields has no row of the metric "purity"')
    if rows.duplicated(["rare", "method", "seed", "x"]).any():
        raise ValueError("a purity appears twice; give the yields of one experiment")
    for _, runs in rows.groupby(["rare", "method", "x"]):
        rows.loc[runs.index, ["low", "high"]] = style.over_runs(runs)[1:]
    rows = rows.rename(columns={"value": "y"})
    kinds = {str(name): str(kind) for name, kind in rows.groupby("method", sort=False)["kind"].first().items()}
    looks = _looks(kinds)
    labels = {name: style.wrapped(style.method_name(name, kind), 24) for name, kind in kinds.items()}
    panels = list(rows.groupby("rare", sort=False))
    fig, axes = style.panel_grid(len(panels), "purity of the test galaxies inspected", [*labels.values(), _BEST])
    for ax, (rare, panel) in zip(axes, panels, strict=True):
        curves = [
            style.Curve(labels[name], looks[name], of_method, kinds[name] != SEARCH)
            for name in kinds
            if len(of_method := panel[panel["method"] == name])
        ]
        style.draw_budget_panel(ax, curves, "test galaxies inspected")
        ax.set_ylim(0, 1.05)
        n_rare, n = int(panel["n_rare"].iloc[0]), int(panel["n"].iloc[0])
        budgets = np.geomspace(*ax.get_xlim(), 200)
        best = np.minimum(1, n_rare / budgets)
        ax.fill_between(budgets, best, 1.1, color="#EEEEEE", linewidth=0, zorder=0)
        ax.plot(budgets, best, color=style.GREY, linewidth=0.8, linestyle=":", label=_BEST)
        ax.set_title(style.wrapped(f"{rare}: {n_rare} of {n}", 34))
    style.share_legend(fig, axes)
    return fig


def _looks(kinds: dict[str, str]) -> dict[str, style.MethodStyle]:
    searches = [name for name, kind in kinds.items() if kind == SEARCH]
    looks = {name: _SEARCH_LOOKS[rank % len(_SEARCH_LOOKS)] for rank, name in enumerate(searches)}
    for name, kind in kinds.items():
        if kind != SEARCH:
            looks[name] = style.method_style(name, kind, [peer for peer in kinds if kinds[peer] == kind])
    return looks
