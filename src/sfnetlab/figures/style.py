"""How figures look and are saved: widths, fonts, colours, markers, axes of feature budgets, marks on cutouts.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; widths are AASTeX's columns.
"""

import functools
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

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
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

P = ParamSpec("P")

COLUMN_WIDTH_IN = 3.4
PAGE_WIDTH_IN = 7.1
SMALL_PT = 7.0

BLACK, GREY = "#000000", "#666666"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

_PAPER = {
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same figure on every machine
    "mathtext.fontset": "dejavusans",
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "xtick.labelsize": SMALL_PT,
    "ytick.labelsize": SMALL_PT,
    "legend.fontsize": SMALL_PT,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "axes.linewidth": 0.7,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class MethodStyle:
    """Colour, marker and line style of one method."""

    color: str
    marker: str
    linestyle: str


_COLORS: dict[str, tuple[str, ...]] = {
    "sfnet": (BLUE, SKY, BLACK),
    "sae": (VERMILION, ORANGE, PURPLE),
    "pca": (GREEN, GREY, SKY),
    "encoder": (GREY, BLACK, GREEN),
    "photometry": (PURPLE, BLACK, GREY),
    "mean": (BLACK, GREY, PURPLE),
}
_MARKERS: dict[str, tuple[str, ...]] = {
    "sfnet": ("o", "D", "h", "8"),
    "sae": ("^", "v", "<", ">"),
    "pca": ("s", "P", "X", "p"),
    "encoder": ("d", "*", "D", "8"),
    "photometry": ("X", "P", "*", "p"),
    "mean": ("*", "X", "d", "h"),
}
_LINESTYLES: dict[str, tuple[str, ...]] = {
    "sfnet": ("-", "--"),
    "sae": ("--", "-."),
    "pca": (":", "-."),
    "encoder": ("-.", ":"),
    "photometry": ("--", "-."),
    "mean": ("-", ":"),
}
_KIND_NAMES = {"sfnet": "SFNet", "sae": "SAE", "pca": "PCA"}


def method_style(name: str, kind: str, peers: Iterable[str] = ()) -> MethodStyle:
    """Look of the features `name` of this `kind`, unlike that of its `peers`: the same kind's names in the figure.

    The kind gives the family of colours; the rank of the name among its peers gives the member, so that figures of
    the same features agree. Twelve peers differ.
    """
    if kind not in _COLORS:
        raise ValueError(f"kind must be one of {sorted(_COLORS)}, got {kind!r}")
    rank = sorted({name, *peers}).index(name)
    colors, markers, linestyles = _COLORS[kind], _MARKERS[kind], _LINESTYLES[kind]
    return MethodStyle(
        colors[rank % len(colors)],
        markers[rank % len(markers)],
        linestyles[rank % len(linestyles)],
    )


def method_name(name: str, kind: str) -> str:
    """What a legend calls the features `name`: the field's spelling where the name is that of the kind."""
    return _KIND_NAMES.get(kind, name) if name == kind else name


def wrapped(text: str, n_characters: int) -> str:
    """Text broken into lines of at most `n_characters`, within a word when it must be."""
    return "\n".join(textwrap.wrap(text, n_characters)) or text


def with_unit(label: str, unit: str) -> str:
    """Axis label with its unit in parentheses; an empty unit is a pure number."""
    return f"{label} ({unit})" if unit else label


def paper_figure(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw `plot` in the lab's style on an Agg canvas, leaving matplotlib's global settings as they were."""

    @functools.wraps(plot)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(_PAPER):
            fig = plot(*args, **kwargs)
            FigureCanvasAgg(fig)
            fig.draw_without_rendering()  # ticks take their fonts when first drawn: do it inside the context
        return fig

    return styled


def save_figure(fig: Figure, directory: Path, name: str) -> None:
    """Write `<name>.pdf` and `<name>.png` (300 dpi); the same figure gives the same bytes."""
    with matplotlib.rc_context(_PAPER):
        fig.savefig(directory / f"{name}.pdf", metadata={"CreationDate": None})
        fig.savefig(directory / f"{name}.png", metadata={"Software": None})


def require_columns(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Raise ValueError when `table` lacks a column or has no row."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{what} lacks the columns {missing}; it has {list(table.columns)}")
    if table.empty:
        raise ValueError(f"{what} has no rows")


def draw_over_seeds(
    ax: Axes, rows: pd.DataFrame, x: str, y: str, label: str, style: MethodStyle, *, is_filled: bool = True
) -> Line2D:
    """Line through the means over seeds, each seed's value as a dot, and the mean `low` to `high` where given.

    Parameters
    ----------
    rows : DataFrame
        A row an `x` and seed, with columns `x`, `seed`, `y` and perhaps `low` and `high` (NaN: no interval).
    """
    shift = _next_shift(ax)
    by_x = rows.groupby(x, sort=True)
    mean = by_x[y].mean()
    at = mean.index.to_numpy(dtype=float)
    several = rows[rows.groupby(x)["seed"].transform("nunique") > 1]
    ax.plot(
        several[x], several[y], ".", color=style.color, alpha=0.45, markersize=3.5, markeredgewidth=0,
        transform=shift, zorder=2.1, label="_seeds",
    )  # fmt: skip
    if {"low", "high"} <= set(rows.columns):
        low, high = by_x["low"].mean().to_numpy(), by_x["high"].mean().to_numpy()
        ax.errorbar(
            at, (low + high) / 2, yerr=(high - low) / 2, fmt="none", ecolor=style.color, elinewidth=0.9, capsize=1.6,
            capthick=0.7, alpha=0.8, transform=shift, label="_interval",
        )  # fmt: skip
    (line,) = ax.plot(
        at, mean.to_numpy(), color=style.color, marker=style.marker, linestyle=style.linestyle, label=label,
        markerfacecolor=style.color if is_filled else "white", transform=shift, zorder=2.5,
    )  # fmt: skip
    return line


def _next_shift(ax: Axes) -> Any:
    """Data transform moved sideways by 0, +2, -2, +4 ... points, so that intervals at one x stand side by side."""
    fig = ax.get_figure(root=True)
    assert fig is not None
    n_before = sum(not str(line.get_label()).startswith("_") for line in ax.lines)
    points = 1.8 * ((n_before + 1) // 2) * (1 if n_before % 2 else -1)
    return ax.transData + ScaledTranslation(points / 72, 0, fig.dpi_scale_trans)


def set_budget_axis(ax: Axes, budgets: Iterable[float], label: str) -> None:
    """Logarithmic x axis with a tick at every budget; those that would collide go unlabelled, powers of two last."""
    values = sorted({float(value) for value in budgets})
    low, high = values[0] / 1.45, values[-1] * 1.45
    fig = ax.get_figure(root=True)
    assert fig is not None
    octave_pt = 0.85 * ax.bbox.width / fig.dpi * 72 / np.log2(high / low)
    labelled: list[float] = []
    for value in sorted(values, key=lambda v: (not float(np.log2(v)).is_integer(), v)):
        half = 0.34 * SMALL_PT * len(f"{value:g}") + 1.5
        if all(
            octave_pt * abs(np.log2(value / other)) > half + 0.34 * SMALL_PT * len(f"{other:g}") + 1.5
            for other in labelled
        ):
            labelled.append(value)
    labelled.sort()
    ax.set_xscale("log", base=2)
    ax.set_xlim(low, high)
    ax.set_xticks(labelled, labels=[f"{value:g}" for value in labelled])
    ax.set_xticks(values, minor=True)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(label)


def legend_below(ax: Axes, handles: Sequence[Artist], n_columns: int) -> None:
    """Legend under the axes, where it hides no data."""
    if handles:
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=n_columns, borderaxespad=0.2)


def label_levels(ax: Axes, levels: Mapping[str, tuple[float, str]]) -> None:
    """Name horizontal lines at the right of the axes, moved apart where they would overlap.

    Parameters
    ----------
    levels : mapping
        Label to (y in data units, colour of the text).
    """
    if not levels:
        return
    fig = ax.get_figure(root=True)
    assert fig is not None
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
            fontsize=SMALL_PT, color=levels[label][1], annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": levels[label][1], "shrinkA": 1, "shrinkB": 0},
        )  # fmt: skip


def text_width_pt(text: str) -> float:
    """Width of one line of small text, in points."""
    return float(TextPath((0, 0), text, size=SMALL_PT).get_extents().width) if text.strip() else 0.0


def outlined(width_pt: float = 1.6) -> list[withStroke]:
    """Path effects for white marks that must show on bright galaxies as well."""
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
    """North up and east left, in the lower right corner of the cutout at (left, top)."""
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
    """A bar of a round number of arcseconds, at most a third of the field, in the cutout's lower left corner."""
    rounds = np.array([m * 10.0**e for e in range(-2, 4) for m in (1, 2, 5)])
    length_arcsec = rounds[rounds <= field_arcsec / 3].max(initial=rounds[0])
    x, y = left + 0.08, top + 0.92
    ax.plot(
        [x, x + length_arcsec / field_arcsec], [y, y], color="white", linewidth=1.2, solid_capstyle="butt",
        path_effects=outlined(2.2),
    )  # fmt: skip
    ax.text(x, y - 0.04, f"{length_arcsec:g}″", color="white", fontsize=SMALL_PT, va="bottom", path_effects=outlined())


def field_of(pixel_scale_arcsec: float, image: NDArray[np.uint8]) -> float:
    """Width of a cutout on the sky, in arcseconds."""
    if not pixel_scale_arcsec > 0:
        raise ValueError(f"pixel_scale_arcsec must be positive, got {pixel_scale_arcsec}")
    return pixel_scale_arcsec * image.shape[1]
