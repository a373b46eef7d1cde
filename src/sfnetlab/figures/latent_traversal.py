"""What each latent of an autoencoder draws: decoded cutouts from minus to plus three standard deviations."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.figures import style
from sfnetlab.figures.findings import Figures, Findings
from sfnetlab.figures.reconstructions import plot_image_rows
from sfnetlab.interpret.latents import TRAVERSED_SIGMAS


def draw(findings: Findings) -> Figures:
    """Draw a figure an autoencoder."""
    for table in findings.typical():
        images = table.read_array("traversal")
        if images is not None:
            figure = plot_latent_traversal(
                images, TRAVERSED_SIGMAS, table.need("traversed"), findings.pixel_scale_arcsec
            )
            yield f"latent_traversal-{table.spec.features}", figure


def plot_latent_traversal(
    images: NDArray[np.uint8], sigmas: Sequence[float], latents: pd.DataFrame, pixel_scale_arcsec: float | None
) -> Figure:
    """Draw decoded cutouts, a row a latent and a column a value of it; the other latents are at their means.

    Parameters
    ----------
    images : ndarray of uint8, shape (n_latents, n_values, height, width, 3)
        Decoded cutouts.
    sigmas : sequence of float, length n_values
        The values, in standard deviations from the latent's mean.
    latents : DataFrame
        A row a row of the figure: `latent`, `variance` (of posterior means over galaxies), `fvu_gain` (what the
        reconstruction's FVU gains by it).
    pixel_scale_arcsec : float or None
        Arcseconds a pixel; None draws no scale bar.

    Raises
    ------
    ValueError
        If columns are missing, or there are not as many cutouts as latents and values.
    """
    style.require_columns(latents, ("latent", "variance", "fvu_gain"), "the table of latents")
    style.require_cutouts(images, n_dimensions=5)
    if images.shape[:2] != (len(latents), len(sigmas)):
        raise ValueError(f"expected {len(latents)} x {len(sigmas)} cutouts, got {images.shape[:2]}")
    labels = [
        f"latent {row['latent']}\nvariance {style.three_digits(row['variance'])}\nFVU −{row['fvu_gain']:.3f}"
        for row in latents.to_dict("records")
    ]
    columns = tuple("mean" if sigma == 0 else f"{sigma:+g} σ".replace("-", "−") for sigma in sigmas)
    return plot_image_rows(dict(zip(labels, images, strict=True)), pixel_scale_arcsec, columns)
