"""How well features align with labels: densities over features, beside what permuted galaxies give."""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.kinds import EMBEDDINGS, TRAINED_DICTIONARIES

By = Literal["features", "group", "matryoshka_group"]

_SCORE = "alignment of the strongest 2 % of galaxies\nwith a label (2 AUC - 1, of the largest possible)"
MIN_FOR_DENSITY = 8
"""Of fewer features only the share above is drawn, no density."""

_GROUP_TITLES = {"group": "ranks by frequency", "matryoshka_group": "Matryoshka groups"}


class Quantity(NamedTuple):
    """A number a feature to draw densities of."""

    column: str
    """Its column."""
    null_column: str
    """The column of what permuted galaxies give."""
    x_label: str
    what: str
    """What messages call the table."""
    lowest: float = 0
    """Its smallest value possible; the largest is 1."""


def draw(findings: Findings) -> Figures:
    """Draw all methods in one figure, and dictionaries by their groups of latents.

    A figure is drawn where features of some group differ: on few galaxies all may be the same.
    """
    alignment = findings.gathered("alignment", findings.typical())
    if alignment is None:
        return
    by_feature = methods_of(alignment)
    if differ(by_feature, "features", "score"):
        yield "alignment", plot_alignment(by_feature, "features")
    latents = alignment[alignment["kind"].isin(TRAINED_DICTIONARIES)]
    if differ(latents, "group", "score"):
        yield "alignment_by_frequency", plot_alignment(latents, "group")
    if differ(latents, "matryoshka_group", "score"):
        yield "alignment_by_prefix", plot_alignment(latents, "matryoshka_group")


def methods_of(alignment: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of methods, without those of embeddings that are there to be decomposed; all if no others."""
    learned = alignment[~alignment["kind"].isin(EMBEDDINGS)]
    return learned if len(learned) else alignment


def differ(alignment: pd.DataFrame, by: By, column: str) -> bool:
    """Return whether two features of one group have different values in a column."""
    if by not in alignment:
        return False
    values = alignment.dropna(subset=[by]).groupby(["features", by])[column]
    return bool((values.min() < values.max()).any())


@style.paper_figure
def plot_alignment(table: pd.DataFrame, by: By) -> Figure:
    """Draw the density over features of how well each goes with a label: all features that vary, none picked.

    Above are kernel densities (Scott's bandwidth times 0.7, as in the Euclid paper, reflected at either end) of at
    least `MIN_FOR_DENSITY` features. Below is the share of features above each value, which no bandwidth smooths.
    Dotted lines of the same colour are the same under one permutation of the galaxies, as many draws as features; they
    are narrow and may leave the panel.

    Parameters
    ----------
    table : DataFrame
        Rows of `interpret.alignment.align_features` (`score`, `null_score`) with `features` and `kind`; seeds are
        pooled.
    by : {"features", "group", "matryoshka_group"}
        What a curve is. "features" draws all tables in one panel; the others draw a panel a table and a curve a group,
        from frequent (dark) to rare, or from the first prefix on. Tables without groups (NaN) have no panel.

    Raises
    ------
    ValueError
        If columns or rows are missing, or no curve has two different values.
    """
    words = Quantity("score", "null_score", _SCORE, "the alignment table", -1)
    return plot_unit_densities(table, by, words)


def plot_unit_densities(table: pd.DataFrame, by: By, quantity: Quantity) -> Figure:
    """Draw what `plot_alignment` and `plot_novelty` share; they call it inside `style.paper_figure`."""
    column, null = quantity.column, quantity.null_column
    style.require_columns(table, ("features", "kind", column, null, by), quantity.what)
    rows = table.dropna(subset=[column, by])
    is_drawn = rows.groupby(["features", by])[column].transform("nunique") > 1
    rows = rows[is_drawn]
    if rows.empty:
        raise style.EmptyFigureError(f"{quantity.what} has no {by} with two different values of {column}")
    kinds = {str(name): str(kind) for name, kind in rows.groupby("features", sort=True)["kind"].first().items()}
    panels: list[tuple[str, list[tuple[str, str, str, pd.DataFrame]]]] = []
    if by == "features":
        panels.append(("", [_of_table(name, kinds, rows[rows["features"] == name]) for name in kinds]))
    else:
        for name, kind in kinds.items():
            title = style.wrapped(style.method_name(name, kind), 30)
            panels.append((title, _of_groups(by, rows[rows["features"] == name])))
    n_columns, n_rows = min(3, len(panels)), -(-len(panels) // 3)
    legend_in = max(style.legend_height_in(label for label, *_ in curves) for _, curves in panels) + 0.3
    width_in = style.COLUMN_WIDTH_IN if n_columns == 1 else style.PAGE_WIDTH_IN
    fig = Figure(figsize=(width_in, n_rows * (3.6 + legend_in) + 0.3), layout="constrained")
    grid = fig.subplots(
        2 * n_rows, n_columns, sharex=True, sharey="row", squeeze=False, gridspec_kw={"height_ratios": [1, 1] * n_rows}
    )
    for place, ax in enumerate(
        grid[i + j, k] for i in range(0, 2 * n_rows, 2) for k in range(n_columns) for j in (0, 1)
    ):
        if place >= 2 * len(panels):
            ax.remove()
    for place, (title, curves) in enumerate(panels):
        top, bottom = grid[2 * (place // n_columns) : 2 * (place // n_columns) + 2, place % n_columns]
        _draw_panel(top, bottom, curves, quantity)
        top.set_title(title)
        if place % n_columns == 0:
            top.set_ylabel("density of features")
            bottom.set_ylabel("share of features\nabove")
        handles = bottom.get_legend_handles_labels()[0]
        bottom.legend(
            handles=handles, title=_GROUP_TITLES.get(by), loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=0,
            bbox_transform=bottom.transAxes + ScaledTranslation(0, -42 / 72, fig.dpi_scale_trans),
        )  # fmt: skip
    for row in grid[::2]:
        row[0].set_ylim(0, 1.08 * max(_highest(ax) for ax in row if ax in fig.axes))
    fig.legend(handles=[_null_handle()], loc="outside lower center")
    return fig


def _of_table(name: str, kinds: dict[str, str], rows: pd.DataFrame) -> tuple[str, str, str, pd.DataFrame]:
    """Return label, colour, line style and rows of a curve; dots are for nulls."""
    kind = kinds[name]
    look = style.method_style(name, kind, [other for other in kinds if kinds[other] == kind])
    label = style.wrapped(f"{style.method_name(name, kind)} (n = {len(rows):,})", 40)
    return label, look.color, "-" if look.linestyle == ":" else look.linestyle, rows


def _of_groups(by: By, rows: pd.DataFrame) -> list[tuple[str, str, str, pd.DataFrame]]:
    groups = sorted(rows[by].unique(), key=lambda group: int(str(group).split("-")[0]))
    shades = [to_hex(shade) for shade in colormaps["viridis"](np.linspace(0, 0.85, len(groups)))]
    parts = [rows[rows[by] == group] for group in groups]
    return [(f"{group} (n = {len(p):,})", shade, "-", p) for group, shade, p in zip(groups, shades, parts, strict=True)]


def _draw_panel(top: Axes, bottom: Axes, curves: list[tuple[str, str, str, pd.DataFrame]], quantity: Quantity) -> None:
    grid = np.linspace(quantity.lowest, 1, 401)
    for label, color, linestyle, rows in curves:
        for column, dashes, width, name in (
            (quantity.column, linestyle, 1.3, label),
            (quantity.null_column, ":", 0.8, "_null"),
        ):
            values = np.sort(rows[column].dropna().to_numpy(dtype=float))
            if values.size >= MIN_FOR_DENSITY:
                top.plot(grid, _density(values, grid), color=color, linestyle=dashes, linewidth=width, label=name)
            if values.size:
                above = 1 - np.searchsorted(values, grid, side="right") / values.size
                bottom.plot(grid, above, color=color, linestyle=dashes, linewidth=width, label=name)
    bottom.set(xlim=(quantity.lowest, 1), ylim=(0, 1.02), xlabel=quantity.x_label)
    bottom.tick_params(labelbottom=True)


def _highest(ax: Axes) -> float:
    """Return the highest point of the densities of features, without nulls, which may leave the panel."""
    heights = [float(np.max(np.asarray(line.get_ydata()))) for line in ax.lines if line.get_label() != "_null"]
    return max(heights, default=1.0)


def _null_handle() -> Line2D:
    return Line2D([], [], color=style.GREY, linestyle=":", linewidth=0.8, label="galaxies permuted against labels")


def _density(values: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Gaussian kernel density on the grid, reflected at its ends, so that it integrates to 1 over it."""
    width = max(0.7 * float(np.std(values)) * len(values) ** -0.2, 0.02)
    density = np.zeros(grid.size)
    for mirrored in (values, 2 * grid[0] - values, 2 * grid[-1] - values):
        for start in range(0, len(mirrored), 4096):
            distance = (grid - mirrored[start : start + 4096, None]) / width
            density += np.exp(-0.5 * distance**2).sum(axis=0)
    return density / (len(values) * width * np.sqrt(2 * np.pi))
