"""How the error of a network's head falls with the number of features that it may see."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.network_features import networks
from sfnetlab.surveys.catalog import unit_of

_FILLS = {
    "zero": ("others zero", style.MethodStyle(style.BLUE, "o", "-")),
    "train_mean": ("others at train mean", style.MethodStyle(style.VERMILION, "s", "--")),
}


def draw(findings: Findings) -> Figures:
    """Draw a figure a network."""
    for network in networks(findings):
        ablation = network.need("ablation")
        unit = unit_of(ablation["column"].iloc[0])
        yield from style.drawn(f"ablation-{network.spec.features}", plot_ablation, ablation, unit)


@style.paper_figure
def plot_ablation(table: pd.DataFrame, unit: str) -> Figure:
    """Draw the test RMSE of a network's own head on its most frequent features, a panel a label column.

    Bars are 95 % intervals over galaxies. Ticks above the panel say in how many train galaxies the kept features are
    active at least, where there is room for them.

    Parameters
    ----------
    table : DataFrame
        `interpret.ablation.ablate_features` of one network, with `seed`: columns `rule, threshold, n_kept, fill,
        column, rmse, low, high, seed`.
    unit : str
        Unit of all label columns; "" for a pure number.

    Raises
    ------
    ValueError
        If columns or rows are missing.
    """
    needed = ("rule", "threshold", "n_kept", "fill", "column", "rmse", "low", "high", "seed")
    style.require_columns(table, needed, "the ablation table")
    rows = table[(table["rule"] == "most_frequent") & (table["n_kept"] > 0)]
    if rows.empty:
        raise style.EmptyFigureError("the ablation table has no rows of the rule 'most_frequent'")
    columns = list(rows["column"].unique())
    labels = [label for label, _ in _FILLS.values()]
    fig, axes = style.panel_grid(len(columns), style.with_unit("test RMSE", unit), labels)
    for ax, column in zip(axes, columns, strict=True):
        of_column = rows[rows["column"] == column].rename(columns={"n_kept": "x", "rmse": "y"})
        curves = [
            style.Curve(label, look, of_column.loc[of_column["fill"] == fill, ["x", "y", "low", "high", "seed"]])
            for fill, (label, look) in _FILLS.items()
        ]
        style.draw_budget_panel(ax, curves, "most frequent features kept")
        bounds = table[(table["rule"] == "min_galaxies") & (table["column"] == column) & (table["n_kept"] > 0)]
        _mark_galaxies(ax, bounds)
        if len(columns) > 1:
            ax.set_title(style.wrapped(str(column), 30))
    style.share_legend(fig, axes)
    return fig


def _mark_galaxies(ax: Axes, bounds: pd.DataFrame) -> None:
    """Write numbers of galaxies above the axes: of those that keep the same features the largest."""
    largest = bounds.groupby("threshold")["n_kept"].median().reset_index().groupby("n_kept")["threshold"].max()
    low, high = ax.get_xlim()
    places = [float(x) for x in largest.index if low <= x <= high]
    width_pt = ax.bbox.width / style.figure_of(ax).dpi * 72
    octave_pt = 0.85 * width_pt / float(np.log2(high / low))
    kept: list[float] = []
    for x in places:
        text_pt = 1.1 * style.text_width_pt(f"{largest[x]:,.0f}") + 6
        if all(octave_pt * abs(np.log2(x / other)) > text_pt for other in kept):
            kept.append(x)
    top = ax.secondary_xaxis("top")
    top.set_xticks(kept, [f"{largest[x]:,.0f}" for x in kept])
    top.set_xticks([], minor=True)
    top.set_xlabel("active in at least … train galaxies")
    ax.tick_params(axis="x", which="both", top=False)
