"""Where features look: their activation maps over cutouts, with the outline of the component they should see."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings, TableFindings
from sfnetlab.figures.network_features import name_prefix, networks
from sfnetlab.interpret.localisation import upsampled

N_EXAMPLES = 5
_GAP = 0.05
_LABEL_IN = 1.25
_LEVELS = (0.5, 0.8)
"""Contours of a map, as shares of its maximum."""


def draw(findings: Findings) -> Figures:
    """Draw a figure a network on a survey whose components are known."""
    for network in networks(findings):
        localised, maps = network.read("localised"), network.read_array("localised_maps")
        if localised is not None and maps is not None:
            yield f"localisation-{network.spec.features}", _of_network(findings, network, localised, maps)


def _of_network(
    findings: Findings, network: TableFindings, localised: pd.DataFrame, coarse: NDArray[np.float32]
) -> Figure:
    """Draw a few galaxies of each component, with the map of the feature that follows it.

    Parameters
    ----------
    localised : DataFrame
        A row a galaxy and component: `component, id_str, feature, inside, area`.
    coarse : ndarray of shape (n_rows, h, w)
        The feature's map of each row.
    """
    outlines, means = network.read_array("localised_masks"), network.need("localisation")
    assert outlines is not None
    localised = localised.reset_index(drop=True)
    rows = localised[localised["inside"].notna()].groupby("component", sort=False).head(N_EXAMPLES)
    size = outlines.shape[1]
    shape = (rows["component"].nunique(), N_EXAMPLES, size, size)
    images, maps, masks = np.zeros((*shape, 3), np.uint8), np.zeros(shape), np.zeros(shape, dtype=bool)
    inside, area = np.full(shape[:2], np.nan), np.full(shape[:2], np.nan)
    names: list[str] = []
    for i, (component, of_component) in enumerate(rows.groupby("component", sort=False)):
        n = len(of_component)
        images[i, :n] = findings.cutouts(of_component["id_str"])
        maps[i, :n] = upsampled(coarse[of_component.index], size, size)
        masks[i, :n] = outlines[of_component.index]
        inside[i, :n], area[i, :n] = of_component["inside"], of_component["area"]
        mean = means[means["component"] == component].set_index("metric")["value"]
        names.append(
            f"{component}\n{name_prefix(network)}{of_component['feature'].iloc[0]}\n{mean['inside']:.0%} inside,\n"
            f"{mean['area']:.0%} of the area"
        )
    return plot_localisation(images, maps, masks, inside, area, names, findings.pixel_scale_arcsec)


@style.paper_figure
def plot_localisation(
    images: NDArray[np.uint8],
    maps: NDArray[np.floating],
    masks: NDArray[np.bool_],
    inside: NDArray[np.floating],
    area: NDArray[np.floating],
    names: Sequence[str],
    pixel_scale_arcsec: float | None,
) -> Figure:
    """Draw cutouts with contours of a feature's map and the outline of the component it follows, a row a component.

    Beneath each cutout stand the share of the map's weight inside the outline, and the share of the cutout that the
    outline covers, which is what chance gives.

    Parameters
    ----------
    images : ndarray of uint8, shape (n_components, n_examples, height, width, 3)
        Row 0 of an image is north, column 0 east.
    maps : ndarray of shape (n_components, n_examples, height, width)
        Activation maps on the cutout's pixels (`interpret.localisation.upsampled`), 0 or more.
    masks : ndarray of bool, the shape of `maps`
        Where the component shows.
    inside, area : ndarray of shape (n_components, n_examples)
        `inside` and `area` of `interpret.localisation.localise`; NaN leaves the place empty.
    names : sequence of str, length n_components
        A few words or lines a row, such as "clumps\\nsfnet 61\\n34 % inside (9 %)".
    pixel_scale_arcsec : float or None
        Arcseconds a pixel of `images`; None draws no scale bar.

    Raises
    ------
    ValueError
        If shapes differ, images are not uint8 RGB, or every number is NaN.
    """
    style.require_cutouts(images, n_dimensions=5)
    n_components, n_examples = images.shape[:2]
    if maps.shape != images.shape[:4] or masks.shape != maps.shape:
        raise ValueError(f"maps and masks must have shape {images.shape[:4]}, got {maps.shape} and {masks.shape}")
    if inside.shape != images.shape[:2] or area.shape != inside.shape or len(names) != n_components:
        raise ValueError(
            f"inside, area and names must have shapes {images.shape[:2]}, twice, and {n_components} entries, "
            f"got {inside.shape}, {area.shape} and {len(names)}"
        )
    drawn = np.isfinite(inside) & np.isfinite(area)
    if not drawn.any():
        raise style.EmptyFigureError("inside holds no finite value: there is no galaxy to draw")
    side_in = min(1.1, (style.PAGE_WIDTH_IN - _LABEL_IN) / (n_examples * (1 + _GAP)))
    line = style.SMALL_PT * 1.4 / 72 / side_in
    label_width, pitch = _LABEL_IN / side_in, 1 + line + 2 * _GAP
    full_width, full_height = label_width + n_examples * (1 + _GAP), n_components * pitch + 2 * line + _GAP
    fig = Figure(figsize=(full_width * side_in, full_height * side_in))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    for i, name in enumerate(names):
        top = _GAP + i * pitch
        title, *notes = name.splitlines()
        ax.text(0.06, top, style.wrapped(title, 17), va="top", fontsize=style.SMALL_PT, fontweight="bold")
        text = "\n".join(style.wrapped(note, 20) for note in notes)
        ax.text(0.06, top + line * (title.count("\n") + 1.1), text, va="top", fontsize=style.SMALL_PT)
        for j in np.flatnonzero(drawn[i]):
            left = label_width + j * (1 + _GAP)
            style.draw_cutout(ax, images[i, j], left, top)
            _draw_contours(ax, maps[i, j], masks[i, j], left, top)
            ax.text(
                left + 0.5, top + 1.02, f"{100 * inside[i, j]:.0f} % in {100 * area[i, j]:.0f} %", ha="center",
                va="top", fontsize=style.SMALL_PT,
            )  # fmt: skip
    row, column = np.argwhere(drawn)[0]
    marked = (label_width + column * (1 + _GAP), _GAP + row * pitch)
    if pixel_scale_arcsec is not None:
        style.draw_scale_bar(ax, *marked, style.field_of(pixel_scale_arcsec, images[0, 0]))
    style.draw_compass(ax, *marked)
    ax.set(xlim=(0, full_width), ylim=(full_height, 0))
    levels_text = " and ".join(f"{100 * level:.0f}" for level in _LEVELS)
    handles = [
        Line2D([], [], color=style.ORANGE, label=f"activation map, {levels_text} % of its maximum"),
        Line2D([], [], color=style.SKY, label="component; numbers: map inside, area"),
    ]
    ax.legend(handles=handles, loc="lower center", ncols=2, borderaxespad=0.1)
    return fig


def _draw_contours(
    ax: Axes, activation_map: NDArray[np.floating], mask: NDArray[np.bool_], left: float, top: float
) -> None:
    """Draw levels of a map and the outline of a component over the cutout at (left, top)."""
    height, width = mask.shape
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    levels = np.array(_LEVELS) * activation_map.max()
    if activation_map.max() > activation_map.min():
        ax.contour(left + x, top + y, activation_map, levels=levels, colors=style.ORANGE, linewidths=(0.8, 1.4))
    # half a pixel of nothing all round closes outlines that meet the edge
    closed = np.pad(mask.astype(float), 1)
    ax.contour(
        left + (np.arange(-1, width + 1) + 0.5) / width, top + (np.arange(-1, height + 1) + 0.5) / height,
        closed, levels=[0.5], colors=style.SKY, linewidths=0.9,
    )  # fmt: skip
