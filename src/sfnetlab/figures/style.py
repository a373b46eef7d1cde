"""How figures look and are saved: widths, fonts, colours, markers, axes of feature budgets, marks on cutouts.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; widths are AASTeX's columns.
"""

import functools
import logging
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, ParamSpec

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from matplotlib.ticker import NullFormatter
from matplotlib.transforms import ScaledTranslation, Transform
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from sfnetlab.figures.kinds import NULL_DICTIONARIES
from sfnetlab.methods import TRAITS, contract
from sfnetlab.metrics.runs import encoders_of, from_intervals

log = logging.getLogger(__name__)

P = ParamSpec("P")

COLUMN_WIDTH_IN = 3.4
PAGE_WIDTH_IN = 7.1
SMALL_PT = 7.0
PNG_DPI = 200
"""For screens; print takes the PDF, in which what is rasterized has 300 dpi."""
_LEGEND_COLUMNS = 3
"""Columns of a legend beneath panels: on a wide page for labels of at most 24 characters."""

BLACK, GREY, SILVER = contract.BLACK, contract.GREY, contract.SILVER
ORANGE, SKY, GREEN = contract.ORANGE, contract.SKY, contract.GREEN
BLUE, VERMILION, PURPLE = contract.BLUE, contract.VERMILION, contract.PURPLE

_PAPER = {
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same figure on every machine
    "mathtext.fontset": "dejavusans",
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "xtick.labelsize": SMALL_PT,
    "ytick.labelsize": SMALL_PT,
    "legend.fontsize": SMALL_PT,
    "legend.title_fontsize": SMALL_PT,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "axes.linewidth": 0.7,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.2,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class MethodStyle:
    """Colour, marker and line style of one method."""

    color: str
    marker: str
    linestyle: str


def method_style(name: str, kind: str, peers: Iterable[str] = ()) -> MethodStyle:
    """Return the look of the features `name`, unlike that of its `peers`: the names of the same kind in the figure.

    The kind gives the family of colours (`methods.TRAITS`); the rank of the name among its peers gives the member, so
    that figures of the same features agree. Twelve peers differ.

    Raises
    ------
    ValueError
        If there is no such kind of features.
    """
    if kind not in TRAITS:
        raise ValueError(f"kind must be one of {sorted(TRAITS)}, got {kind!r}")
    return member_style(TRAITS[kind].look, sorted({name, *peers}).index(name))


def member_style(look: contract.Look, rank: int) -> MethodStyle:
    """Return the look of the method of this rank in a family of looks."""
    return MethodStyle(
        look.colors[rank % len(look.colors)],
        look.markers[rank % len(look.markers)],
        look.linestyles[rank % len(look.linestyles)],
    )


def method_name(name: str, kind: str) -> str:
    """Return what a legend calls the features `name`: the field's spelling where the name is that of the kind.

    Null dictionaries keep their own name, for it says which part of them stays random.
    """
    return TRAITS[kind].label if name == kind and kind in TRAITS and kind not in NULL_DICTIONARIES else name


_LINES_OF_K = ("-", "--", "-.", ":")
"""Line styles of the runs of one method with several k, the smallest first."""


def named_with_k(table: pd.DataFrame) -> pd.DataFrame:
    """Return a tidy table whose `features` are as legends write them, with k: what has several k has several names.

    The names themselves stand in the new column `method`, for `looks_of`.

    Parameters
    ----------
    table : DataFrame
        Columns `features`, `kind` and `k`.
    """
    rows = zip(table["features"], table["kind"], table["k"], strict=True)
    names = [method_name(name, kind) + ("" if pd.isna(k) else f", k = {k:g}") for name, kind, k in rows]
    return table.assign(features=names, method=table["features"])


def looks_of(table: pd.DataFrame) -> dict[str, MethodStyle]:
    """Return the look of each name in `features`: that of its method everywhere, and a line style for each k.

    They are in the order of kinds, methods and k.

    Parameters
    ----------
    table : DataFrame
        Columns `features` and `kind`, or a table `named_with_k`.
    """
    if "method" not in table:
        table = table.assign(method=table["features"], k=None)
    named = table.groupby("features")[["method", "kind", "k"]].first().sort_values(["kind", "method", "k"])
    looks: dict[str, MethodStyle] = {}
    for name, (method, kind, _) in zip(named.index, named.itertuples(index=False, name=None), strict=True):
        look = method_style(method, kind, named.loc[named["kind"] == kind, "method"])
        same = named.index[named["method"] == method]
        line = _LINES_OF_K[same.get_loc(name) % len(_LINES_OF_K)] if len(same) > 1 else look.linestyle
        looks[str(name)] = MethodStyle(look.color, look.marker, line)
    return looks


def wrapped(text: str, n_characters: int) -> str:
    """Return text broken into lines of at most `n_characters`, within a word when it must be."""
    return "\n".join(textwrap.wrap(text, n_characters)) or text


def with_unit(label: str, unit: str) -> str:
    """Return an axis label with its unit in parentheses; an empty unit is a pure number."""
    return f"{label} ({unit})" if unit else label


def paper_figure(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """Return `plot` made to draw in the lab's style on an Agg canvas, with matplotlib's global settings untouched."""

    @functools.wraps(plot)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(_PAPER):
            fig = plot(*args, **kwargs)
            FigureCanvasAgg(fig)
            fig.draw_without_rendering()  # ticks take their fonts when first drawn: do it inside the context
            fig.set_layout_engine("none")  # everything has its place: do not seek it again for each file
        return fig

    return styled


class EmptyFigureError(ValueError):
    """A table holds nothing of what a figure shows."""


def drawn(name: str, plot: Callable[P, Figure], *args: P.args, **kwargs: P.kwargs) -> Iterator[tuple[str, Figure]]:
    """Yield the figure of this name; where there is nothing to draw, a line of the log says so and nothing is yielded.

    Parameters
    ----------
    name
        Name of the figure's files.
    plot
        Plot function, which raises `EmptyFigureError` where its tables hold nothing of what it shows.
    """
    try:
        figure = plot(*args, **kwargs)
    except EmptyFigureError as error:
        log.info("figure %s left out: %s", name, error)
        return
    yield name, figure


def save_figure(fig: Figure, directory: Path, name: str) -> None:
    """Write `<name>.pdf` and `<name>.png` (`PNG_DPI`); the same figure gives the same bytes."""
    with matplotlib.rc_context(_PAPER):
        fig.savefig(directory / f"{name}.pdf", metadata={"CreationDate": None})
        fig.savefig(directory / f"{name}.png", metadata={"Software": None}, dpi=PNG_DPI)


def over_runs(runs: pd.DataFrame) -> tuple[float, float, float]:
    """Return value, low and high of a method from those of its runs, over galaxies alone; see `runs.from_intervals`.

    Parameters
    ----------
    runs : DataFrame
        `seed, value, low, high`, a row a run.
    """
    value, low, high = runs[["value", "low", "high"]].to_numpy(dtype=float).T
    return from_intervals(value, low, high, encoders_of(runs["seed"]))


def require_columns(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Raise ValueError when `table` lacks a column or has no row."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{what} lacks the columns {missing}; it has {list(table.columns)}")
    if table.empty:
        raise EmptyFigureError(f"{what} has no rows")


class Curve(NamedTuple):
    """One line of a budget panel."""

    label: str
    look: MethodStyle
    rows: pd.DataFrame
    """A row a budget and seed, columns `x`, `y`, `seed` and perhaps `low` and `high` (NaN: no interval)."""
    is_filled: bool = True


def draw_budget_panel(ax: Axes, curves: Sequence[Curve], x_label: str) -> None:
    """Draw curves over a logarithmic axis of feature budgets, with a legend beneath, where it hides no data.

    Lines join means over seeds, small dots are the seeds, bars reach from the mean `low` to the mean `high`. Curves are
    drawn a few points apart, so that bars at one budget stand side by side; the data in the axes are not moved.
    """
    budgets = sorted({float(x) for curve in curves for x in curve.rows["x"]})
    low, high = budgets[0] / 1.45, budgets[-1] * 1.45
    fig = figure_of(ax)
    octave_pt = 0.85 * ax.bbox.width / fig.dpi * 72 / float(np.log2(high / low))
    labelled = labelled_budgets(budgets, octave_pt)
    ax.set_xscale("log", base=2)
    ax.set_xlim(low, high)
    ax.set_xticks(labelled, labels=[f"{budget:g}" for budget in labelled])
    ax.set_xticks(budgets, minor=True)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(x_label)
    gap_pt = octave_pt * float(np.diff(np.log2(budgets)).min(initial=1.0))
    step_pt = min(3.0, 0.6 * gap_pt / len(curves))
    handles = []
    for i, curve in enumerate(curves):
        shift_in = step_pt * (i - (len(curves) - 1) / 2) / 72
        handles.append(_draw_curve(ax, curve, ax.transData + ScaledTranslation(shift_in, 0, fig.dpi_scale_trans)))
        for column in {"y", "low", "high"} & set(curve.rows.columns):  # axes do not scale to what is shifted
            ax.update_datalim(curve.rows[["x", column]].dropna().to_numpy(dtype=float), updatex=False)
    ax.autoscale_view(scalex=False)
    ax.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=0,
        bbox_transform=ax.transAxes + ScaledTranslation(0, -31 / 72, fig.dpi_scale_trans),
    )  # fmt: skip


def panel_grid(n_panels: int, y_label: str, legend_labels: Iterable[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels, three a row, that share their y axis, with room beneath for `share_legend`."""
    n_columns, n_rows = min(n_panels, 3), -(-n_panels // 3)
    height_in = 2.5 * n_rows + legend_height_in(legend_labels) / _LEGEND_COLUMNS + 0.3
    width_in = PAGE_WIDTH_IN if n_panels > 1 else 0.75 * PAGE_WIDTH_IN
    fig = Figure(figsize=(width_in, height_in), layout="constrained")
    near = {"left": 0.08, "right": 0.99}  # near to what the layout will give: budgets are labelled by it
    axes: list[Axes] = list(fig.subplots(n_rows, n_columns, sharey=True, squeeze=False, gridspec_kw=near).flat)
    for ax in axes[n_panels:]:
        ax.remove()
    for ax in axes[:n_panels:n_columns]:
        ax.set_ylabel(y_label)
    return fig, axes[:n_panels]


def share_legend(fig: Figure, axes: Sequence[Axes], title: str | None = None) -> None:
    """Put one legend beneath the figure, in place of those of its panels."""
    handles: dict[str, Artist] = {}
    for ax in axes:
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        if legend := ax.get_legend():
            legend.remove()
    fig.legend(
        handles=list(handles.values()), loc="outside lower center", ncols=_LEGEND_COLUMNS, columnspacing=1, title=title,
    )  # fmt: skip


def legend_height_in(labels: Iterable[str]) -> float:
    """Return the height in inches that a legend of one column of these labels needs."""
    return sum(0.135 * (label.count("\n") + 1) + 0.02 for label in labels)


def _draw_curve(ax: Axes, curve: Curve, transform: Transform) -> Line2D:
    rows, color = curve.rows, curve.look.color
    mean = rows.groupby("x", sort=True)[["y", *({"low", "high"} & set(rows.columns))]].mean()
    x = mean.index.to_numpy(dtype=float)
    if "low" in mean and "high" in mean:
        center, half = (mean["low"] + mean["high"]) / 2, (mean["high"] - mean["low"]) / 2
        ax.errorbar(
            x, center, yerr=half, fmt="none", ecolor=color, elinewidth=0.9, capsize=1.6, capthick=0.7,
            transform=transform, label="_intervals",
        )  # fmt: skip
    (line,) = ax.plot(
        x, mean["y"], color=color, marker=curve.look.marker, linestyle=curve.look.linestyle, label=curve.label,
        markerfacecolor=color if curve.is_filled else "white", transform=transform, zorder=2.5,
    )  # fmt: skip
    several = rows[rows.groupby("x")["seed"].transform("nunique") > 1]
    ax.plot(
        several["x"], several["y"], linestyle="none", marker="o", markersize=2.2, markeredgewidth=0, color=color,
        transform=transform, zorder=2.4, label="_seeds",
    )  # fmt: skip
    return line


def labelled_budgets(budgets: Sequence[float], octave_pt: float) -> list[float]:
    """Return the budgets whose tick labels fit beside each other; powers of two are kept before others."""

    def half_width_pt(budget: float) -> float:
        return 0.34 * SMALL_PT * len(f"{budget:g}") + 1.5

    kept: list[float] = []
    for budget in sorted(budgets, key=lambda b: (not float(np.log2(b)).is_integer(), b)):
        if all(
            octave_pt * abs(np.log2(budget / other)) > half_width_pt(budget) + half_width_pt(other) for other in kept
        ):
            kept.append(budget)
    return sorted(kept)


def figure_of(ax: Axes) -> Figure:
    """Return the figure that the axes belong to."""
    fig = ax.get_figure(root=True)
    assert fig is not None
    return fig


def three_digits(value: float) -> str:
    """Return a number with three significant digits, without an exponent where it is large."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def label_levels(ax: Axes, levels: Mapping[str, tuple[float, str]]) -> None:
    """Write the names of horizontal lines at the right of the axes, moved apart where they would overlap.

    Parameters
    ----------
    levels : mapping
        Label to (y in data units, colour of its line).
    """
    if not levels:
        return
    fig = figure_of(ax)
    bottom, top = ax.get_ylim()
    fig.draw_without_rendering()
    height_pt = ax.bbox.height / fig.dpi * 72
    labels = sorted(levels, key=lambda label: levels[label][0])
    wanted = np.array([(levels[label][0] - bottom) / (top - bottom) for label in labels])
    size = np.array([1.25 * SMALL_PT * (label.count("\n") + 1) + 2 for label in labels]) / height_pt
    stack = np.cumsum(size) - size / 2
    placed = np.asarray(isotonic_regression(wanted - stack).x) + stack
    for label, y, y_text in zip(labels, wanted, placed, strict=True):
        ax.annotate(
            label, (1, y), (1.05, y_text), xycoords="axes fraction", textcoords="axes fraction", va="center",
            fontsize=SMALL_PT, annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "linewidth": 0.6, "color": levels[label][1], "shrinkA": 1, "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )  # fmt: skip


def text_width_pt(text: str) -> float:
    """Return the width of one line of small text, in points."""
    return float(TextPath((0, 0), text, size=SMALL_PT).get_extents().width) if text.strip() else 0.0


def outlined(width_pt: float = 1.6) -> list[withStroke]:
    """Return path effects for white marks that must show on bright galaxies as well."""
    return [withStroke(linewidth=width_pt, foreground="black")]


def require_cutouts(images: NDArray[np.uint8], n_dimensions: int) -> None:
    """Raise ValueError unless `images` is a non-empty uint8 array of RGB cutouts with `n_dimensions` axes."""
    if images.dtype != np.uint8 or images.ndim != n_dimensions or images.shape[-1] != 3 or images.size == 0:
        raise ValueError(
            f"images must be non-empty uint8 RGB cutouts with {n_dimensions} axes, the last of 3, "
            f"got {images.dtype} of shape {images.shape}"
        )


def draw_cutout(ax: Axes, image: NDArray[np.uint8], left: float, top: float) -> None:
    """Draw a cutout as the unit square at (left, top) of axes whose y grows downwards; row 0 is north."""
    ax.imshow(image, origin="upper", extent=(left, left + 1, top + 1, top), interpolation="none")


def draw_compass(ax: Axes, left: float, top: float) -> None:
    """Draw a compass, north up and east left, in the lower right corner of the cutout at (left, top)."""
    corner, length = (left + 0.9, top + 0.9), 0.24
    for name, dx, dy in (("N", 0.0, -length), ("E", -length, 0.0)):
        ax.annotate(
            "", (corner[0] + dx, corner[1] + dy), corner,
            arrowprops={
                "arrowstyle": "-|>,head_width=0.13,head_length=0.26", "color": "white", "linewidth": 0.8,
                "shrinkA": 0, "shrinkB": 0, "path_effects": outlined(),
            },
        )  # fmt: skip
        ax.text(
            corner[0] + 1.12 * dx, corner[1] + 1.12 * dy, name, color="white", fontsize=SMALL_PT,
            ha="center" if name == "N" else "right", va="bottom" if name == "N" else "center", path_effects=outlined(),
        )  # fmt: skip


def draw_scale_bar(ax: Axes, left: float, top: float, field_arcsec: float) -> None:
    """Draw a bar of a round number of arcseconds, at most a third of the field, in the cutout's lower left corner."""
    rounds = np.array([m * 10.0**e for e in range(-2, 4) for m in (1, 2, 5)])
    length_arcsec = rounds[rounds <= field_arcsec / 3].max(initial=rounds[0])
    x, y = left + 0.08, top + 0.92
    ax.plot(
        [x, x + length_arcsec / field_arcsec], [y, y], color="white", linewidth=1.2, solid_capstyle="butt",
        path_effects=outlined(2.2),
    )  # fmt: skip
    ax.text(x, y - 0.04, f"{length_arcsec:g}″", color="white", fontsize=SMALL_PT, va="bottom", path_effects=outlined())


def field_of(pixel_scale_arcsec: float, image: NDArray[np.uint8]) -> float:
    """Return the width of a cutout on the sky, in arcseconds.

    Raises
    ------
    ValueError
        If the scale is not positive.
    """
    if not pixel_scale_arcsec > 0:
        raise ValueError(f"pixel_scale_arcsec must be positive, got {pixel_scale_arcsec}")
    return pixel_scale_arcsec * image.shape[1]
