"""A grid of cutouts with small labels: what the galaxies of a survey look like."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.surveys.catalog import labels_and_targets, unit_of

_GAP = 0.04
_N_COLUMNS = 8
_N_LABEL_CHARACTERS = 30


N_GALAXIES = 64


def draw(findings: Findings) -> Figures:
    """Draw some galaxies at random, the same ones of the same survey, with the first label of the first target."""
    if not findings.has_images:
        return
    catalog, target = findings.catalog, next(iter(findings.targets.values()))
    rows = np.sort(np.random.default_rng(0).permutation(len(catalog))[:N_GALAXIES])
    values = labels_and_targets(catalog, target.columns)[target.columns[0]].iloc[rows]
    column = style.with_unit(target.columns[0], unit_of(target.columns[0]))
    labels = [f"{value:.2f}" if np.isfinite(value) else "–" for value in values]
    cutouts = findings.cutouts(catalog["id_str"].iloc[rows])
    title = f"{len(rows)} of {len(catalog):,} galaxies at random, with {column}"
    yield "survey", plot_contact_sheet(cutouts, labels, findings.pixel_scale_arcsec, title)


@style.paper_figure
def plot_contact_sheet(
    images: NDArray[np.uint8], labels: Sequence[str] | None, pixel_scale_arcsec: float | None, title: str = ""
) -> Figure:
    """Draw cutouts in reading order, each with its label beneath, and scale bar and compass on the first.

    Parameters
    ----------
    images : ndarray of uint8, shape (n_galaxies, height, width, 3)
        Row 0 of an image is north, column 0 east.
    labels : sequence of str or None
        One for each cutout, such as "12+log(O/H)=8.9"; long ones are broken, and cutouts grow to make room.
    pixel_scale_arcsec : float or None
        Arcseconds a pixel of `images`; None draws no scale bar.
    title : str
        What stands above; "" for nothing.

    Raises
    ------
    ValueError
        If images are not uint8 RGB or the number of labels differs.
    """
    style.require_cutouts(images, n_dimensions=4)
    n_galaxies = len(images)
    if labels is not None and len(labels) != n_galaxies:
        raise ValueError(f"labels must have one entry for each of {n_galaxies} cutouts, got {len(labels)}")
    texts = [style.wrapped(label, _N_LABEL_CHARACTERS) for label in labels or ()]
    lines = [line for text in texts for line in text.splitlines()]
    label_in = max((style.text_width_pt(line) for line in lines), default=0.0) / 72
    pitch = 1 + _GAP
    n_columns = min(_N_COLUMNS, n_galaxies, max(1, int(style.PAGE_WIDTH_IN // (1.08 * label_in + 0.02))))
    side_in = min(1.6, style.PAGE_WIDTH_IN / (n_columns * pitch + _GAP))
    strip = max((text.count("\n") + 1 for text in texts), default=0) * style.SMALL_PT * 1.3 / 72 / side_in
    n_rows = -(-n_galaxies // n_columns)
    head = style.SMALL_PT * 2 / 72 / side_in if title else 0.0
    width, height = n_columns * pitch + _GAP, head + n_rows * (pitch + strip) + _GAP
    fig = Figure(figsize=(width * side_in, height * side_in))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    for i, image in enumerate(images):
        left, top = _GAP + (i % n_columns) * pitch, head + _GAP + (i // n_columns) * (pitch + strip)
        style.draw_cutout(ax, image, left, top)
        if texts:
            ax.text(left + 0.5, top + 1.02, texts[i], ha="center", va="top", fontsize=style.SMALL_PT)
    ax.text(_GAP, 0.5 * head, title, va="center")
    if pixel_scale_arcsec is not None:
        style.draw_scale_bar(ax, _GAP, head + _GAP, style.field_of(pixel_scale_arcsec, images[0]))
    style.draw_compass(ax, _GAP, head + _GAP)
    ax.set(xlim=(0, width), ylim=(height, 0))
    return fig


@style.paper_figure
def plot_levels(images: NDArray[np.uint8], counts: NDArray[np.int64], n_counted: int) -> Figure:
    """Draw some cutouts as they are stored, and beneath them the histogram of the levels of many cutouts.

    It is a picture to judge a stretch by: faint parts should be told from the sky, and little should be at level 0,
    where nothing fainter can be seen, or at 255, where bright centres look flat. The shares of both stand in it.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, side, side, 3)
        At most 32 of them.
    counts : ndarray of shape (3, 256)
        Pixels of each level in red, green and blue.
    n_counted : int
        The cutouts whose pixels were counted.
    """
    style.require_cutouts(images, n_dimensions=4)
    n_columns = 8
    n_rows = -(-len(images) // n_columns)
    sheet_in = style.PAGE_WIDTH_IN * n_rows / n_columns
    height_in = sheet_in + 2.4
    fig = Figure(figsize=(style.PAGE_WIDTH_IN, height_in))
    ax = fig.add_axes((0, 1 - sheet_in / height_in, 1, sheet_in / height_in))
    ax.set_axis_off()
    for i, image in enumerate(images):
        style.draw_cutout(ax, image, (i % n_columns) * (1 + _GAP), (i // n_columns) * (1 + _GAP))
    ax.set(xlim=(0, n_columns * (1 + _GAP) - _GAP), ylim=(n_rows * (1 + _GAP) - _GAP, 0))
    below = fig.add_axes((0.1, 0.48 / height_in, 0.88, 1.75 / height_in))
    shares = counts / counts.sum(axis=1, keepdims=True)
    for name, of_levels, look in zip(("red", "green", "blue"), shares, ("-", "--", ":"), strict=True):
        label = f"{name}: {of_levels[0]:.1%} at 0, {of_levels[-1]:.1%} at 255"
        below.step(np.arange(256), of_levels, look, where="mid", color=f"tab:{name}", label=label)
    below.set(xlim=(-1, 256), yscale="log", xlabel="level", ylabel=f"share of pixels\n({n_counted:,} cutouts)")
    below.legend(loc="upper right", fontsize=style.SMALL_PT)
    return fig
