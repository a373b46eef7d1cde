"""Cutouts above what each method reconstructs of them: rows to compare by eye."""

from collections.abc import Mapping
from itertools import groupby

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.reconstruction_quality import PIXEL_PCA, autoencoders

OBJECTIVES = {"elbo": "ELBO", "mmd": "MMD", "none": "no prior"}
"""What figures call that which holds latents to a prior."""
_GAP = 0.05
_LABEL_IN = 1.1


def draw(findings: Findings) -> Figures:
    """Draw a figure for each number of latents: test galaxies, and what autoencoders and a PCA make of them."""
    for n_latents, group in groupby(autoencoders(findings), key=lambda autoencoder: autoencoder.n_latents):
        shown = list(group)
        control = shown[0].table.read_array("pca_reconstructions")
        if control is None:
            continue
        rows = {"input": findings.cutouts(shown[0].table.need("reconstructed")["id_str"])}
        for table, objective, _ in shown:
            images = table.read_array("reconstructions")
            if images is not None:
                rows[f"{table.spec.features}\n{OBJECTIVES[objective]}, d = {n_latents}"] = images
        rows[f"{PIXEL_PCA}\nd = {n_latents}"] = control
        yield f"reconstructions-d{n_latents}", plot_image_rows(rows, findings.pixel_scale_arcsec)


@style.paper_figure
def plot_image_rows(
    rows: Mapping[str, NDArray[np.uint8]],
    pixel_scale_arcsec: float | None,
    column_labels: tuple[str, ...] = (),
) -> Figure:
    """Draw a row of cutouts for each label, the first cutout with scale bar and compass.

    Parameters
    ----------
    rows : mapping of label to ndarray of uint8, shape (n_columns, height, width, 3)
        Row 0 of a cutout is north, column 0 east. Labels may have several lines.
    pixel_scale_arcsec : float or None
        Arcseconds a pixel; None draws no scale bar.
    column_labels : tuple of str
        What stands above the columns; empty for nothing.

    Raises
    ------
    ValueError
        If there is no row, cutouts are not uint8 RGB, or rows differ in shape.
    """
    if not rows:
        raise ValueError("there is no row of cutouts to draw")
    first = next(iter(rows.values()))
    for label, images in rows.items():
        style.require_cutouts(images, n_dimensions=4)
        if images.shape != first.shape:
            raise ValueError(f"row {label!r}: expected cutouts of shape {first.shape}, got {images.shape}")
    if column_labels and len(column_labels) != len(first):
        raise ValueError(f"expected {len(first)} column labels, got {len(column_labels)}")
    pitch = 1 + _GAP
    side_in = min(1.1, (style.PAGE_WIDTH_IN - _LABEL_IN) / (len(first) * pitch))
    left, top = _LABEL_IN / side_in, (0.2 / side_in if column_labels else _GAP)
    width, height = left + len(first) * pitch, top + len(rows) * pitch
    fig = Figure(figsize=(width * side_in, height * side_in))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    for column, label in enumerate(column_labels):
        ax.text(left + column * pitch + 0.5, 0.6 * top, label, ha="center", va="center", fontsize=style.SMALL_PT)
    for row, (label, images) in enumerate(rows.items()):
        y = top + row * pitch
        wrapped = "\n".join(style.wrapped(line, 19) for line in label.splitlines())
        ax.text(0.06, y + 0.5, wrapped, va="center", fontsize=style.SMALL_PT)
        for column, image in enumerate(images):
            style.draw_cutout(ax, image, left + column * pitch, y)
    if pixel_scale_arcsec is not None:
        style.draw_scale_bar(ax, left, top, style.field_of(pixel_scale_arcsec, first[0]))
    style.draw_compass(ax, left, top)
    ax.set(xlim=(0, width), ylim=(height, 0))
    return fig
