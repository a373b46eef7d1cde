"""Where features look: their activation maps over cutouts, with the outline of the component they should see."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from sfnetlab.figures import style

_GAP = 0.05
_LABEL_IN = 1.25
_LEVELS = (0.5, 0.8)
"""Contours of a map, as shares of its maximum."""


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
    """A row a component: cutouts with contours of the feature's map and the component's outline.

    Beneath each cutout stands the share of the map's weight inside the outline, and the share of the cutout that the
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
    n_components, n_examples, height, width = images.shape[:4]
    if maps.shape != images.shape[:4] or masks.shape != maps.shape:
        raise ValueError(f"maps and masks must have shape {images.shape[:4]}, got {maps.shape} and {masks.shape}")
    if inside.shape != images.shape[:2] or area.shape != inside.shape or len(names) != n_components:
        raise ValueError(
            f"inside, area and names must have shapes {images.shape[:2]}, twice, and {n_components} entries, "
            f"got {inside.shape}, {area.shape} and {len(names)}"
        )
    drawn = np.isfinite(inside) & np.isfinite(area)
    if not drawn.any():
        raise ValueError("inside holds no finite value: there is no galaxy to draw")
    side_in = min(1.1, (style.PAGE_WIDTH_IN - _LABEL_IN) / (n_examples * (1 + _GAP)))
    line = style.SMALL_PT * 1.4 / 72 / side_in
    label_width, pitch = _LABEL_IN / side_in, 1 + line + 2 * _GAP
    full_width, full_height = label_width + n_examples * (1 + _GAP), n_components * pitch + 2 * line + _GAP
    fig = Figure(figsize=(full_width * side_in, full_height * side_in))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    for i, name in enumerate(names):
        top = _GAP + i * pitch
        title, *notes = name.splitlines()
        ax.text(0.06, top, style.wrapped(title, 17), va="top", fontsize=style.SMALL_PT, fontweight="bold")
        text = "\n".join(style.wrapped(note, 20) for note in notes)
        ax.text(0.06, top + line * (title.count("\n") + 1.1), text, va="top", fontsize=style.SMALL_PT)
        for j in np.flatnonzero(drawn[i]):
            left = label_width + j * (1 + _GAP)
            style.draw_cutout(ax, images[i, j], left, top)
            levels = np.array(_LEVELS) * maps[i, j].max()
            if maps[i, j].max() > maps[i, j].min():
                ax.contour(left + x, top + y, maps[i, j], levels=levels, colors=style.ORANGE, linewidths=(0.8, 1.4))
            # half a pixel of nothing all round closes outlines that meet the edge
            closed = np.pad(masks[i, j].astype(float), 1)
            ax.contour(
                left + (np.arange(-1, width + 1) + 0.5) / width, top + (np.arange(-1, height + 1) + 0.5) / height,
                closed, levels=[0.5], colors=style.SKY, linewidths=0.9,
            )  # fmt: skip
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
