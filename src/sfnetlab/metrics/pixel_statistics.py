"""Numbers of a cutout that an astronomer computes by hand, without a network."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

BANDS = ("red", "green", "blue")
RINGS = ("core", "inner", "outer", "outskirts")
_EDGES = (0.0, 0.1, 0.25, 0.45, 0.75)
"""Edges of the rings, in halves of a cutout's side."""
_APERTURE = 0.9
"""Radius of what shapes and sizes are measured in, in halves of the side."""
_HALF_A_COUNT = 0.5
"""A mean flux below that is what rounding leaves: its logarithm stops here."""
_BATCH_PIXELS = 2**20
SMALLEST_SIDE = 16
"""Pixels a side below which rings and the border have too few of them."""

NAMES = (
    *(f"log_{band}_{ring}" for band in BANDS for ring in RINGS),
    *(f"log_{red}_over_{blue}_{part}" for red, blue in pairwise(BANDS) for part in ("core", "half", "whole")),
    *(f"log_half_light_radius_{band}" for band in BANDS),
    *(f"concentration_{band}" for band in BANDS),
    "ellipticity",
    "asymmetry",
    "smoothness",
    "gini",
    "m20",
    "log_peak",
)
"""What the columns of `pixel_statistics` are called."""


def pixel_statistics(images: NDArray[np.uint8]) -> Array:
    """Return thirty numbers of each cutout: fluxes in rings, colours, sizes, concentrations and shapes.

    Fluxes are the counts of the image as it is stored, which may be stretched, less the median of each band along the
    border. The galaxy is taken to be in the middle. Nothing changes if a cutout is turned by 90 degrees or mirrored.

    Parameters
    ----------
    images : (n, side, side, 3) uint8
        Cutouts, north up, in red, green and blue, of at least 16 pixels a side; they are read a few at a time.

    Returns
    -------
    (n, 30) float32
        In the order of `NAMES`, all finite: an empty image has the values of an image of even brightness, and
        logarithms of fluxes stop at half a count.

    References
    ----------
    Concentration 5 log10(r80 / r20), asymmetry under 180 degrees and smoothness: Conselice (2003, ApJS 147, 1),
    without the correction for the sky's own. Gini coefficient and M20: Lotz, Primack & Madau (2004, AJ 128, 163). All
    are measured in one circle for all galaxies, where these authors take Petrosian radii.
    """
    n, side = images.shape[:2]
    if images.ndim != 4 or images.shape[1:] != (side, side, 3) or side < SMALLEST_SIDE:
        raise ValueError(
            f"images must be (n, side, side, 3) with a side of at least {SMALLEST_SIDE}, got {images.shape}"
        )
    statistics = np.empty((n, len(NAMES)), np.float32)
    batch = max(1, _BATCH_PIXELS // side**2)
    radii = _radii(side)
    for start in range(0, n, batch):
        statistics[start : start + batch] = _of_batch(images[start : start + batch].astype(np.float32), radii)
    return statistics


def _radii(side: int) -> Array:
    """(side, side): distance of each pixel from the middle, in halves of the side."""
    offsets = (np.arange(side) - (side - 1) / 2) / (side / 2)
    return np.hypot(*np.meshgrid(offsets, offsets)).astype(np.float32)


def _of_batch(images: Array, radii: Array) -> Array:
    fluxes = images - _border_median(images)[:, None, None]
    inside = radii <= _APERTURE
    grey = np.where(inside, fluxes.mean(axis=3), 0)
    rings = [_mean_in(fluxes, (radii >= low) & (radii < high)) for low, high in pairwise(_EDGES)]
    discs = [_mean_in(fluxes, radii < edge) for edge in (_EDGES[1], _EDGES[3], _APERTURE)]
    log_discs = [_log(disc) for disc in discs]
    colours = [disc[:, band] - disc[:, band + 1] for band in range(2) for disc in log_discs]
    fractions = _light_radii(fluxes, radii)
    shapes = [
        _ellipticity(np.maximum(grey, 0), radii),
        _ratio(np.abs(grey - grey[:, ::-1, ::-1]), 2 * np.abs(grey)),
        _ratio(np.abs(np.where(inside, grey - _smoothed(grey), 0)), np.abs(grey)),
        *_gini_and_m20(np.maximum(grey, 0), radii),
        _log(grey.max(axis=(1, 2))),
    ]
    return np.column_stack(
        [
            _log(np.stack(rings, axis=2)).reshape(len(images), -1),
            np.column_stack(colours),
            np.log10(fractions[:, :, 1]),
            5 * np.log10(fractions[:, :, 2] / fractions[:, :, 0]),
            np.column_stack(shapes),
        ]
    )


def _border_median(images: Array) -> Array:
    """(n, 3): median of each band along the border, a sixteenth of the side wide."""
    width = images.shape[1] // 16
    is_border = np.ones(images.shape[1:3], dtype=bool)
    is_border[width:-width, width:-width] = False
    return np.median(images[:, is_border], axis=1)


def _mean_in(fluxes: Array, pixels: NDArray[np.bool_]) -> Array:
    return fluxes[:, pixels].mean(axis=1)


def _log(flux: Array) -> Array:
    return np.log10(np.maximum(flux, _HALF_A_COUNT))


def _ratio(above: Array, below: Array) -> Array:
    """Ratio of the sums over pixels; that of a count in each pixel where there is less than half a count."""
    least = _HALF_A_COUNT * below[0].size
    return above.sum(axis=(1, 2)) / np.maximum(below.sum(axis=(1, 2)), least)


def _light_radii(fluxes: Array, radii: Array) -> Array:
    """(n, 3 bands, 3): radii that hold 20, 50 and 80 % of the light, in halves of the side."""
    n_bins = fluxes.shape[1]
    bins = np.minimum((radii / _APERTURE * n_bins).astype(int), n_bins)
    order = np.argsort(bins, axis=None, kind="stable")
    counts = np.bincount(bins.ravel(), minlength=n_bins + 1)[:n_bins]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    light = np.maximum(fluxes, 0).reshape(len(fluxes), -1, 3)[:, order[: counts.sum()]]
    filled = counts > 0
    profile = np.add.reduceat(light, starts[filled], axis=1, dtype=np.float64) + 1e-4 * counts[filled][:, None]
    edges = np.arange(1, n_bins + 1)[filled] * (_APERTURE / n_bins)
    growth = np.cumsum(profile, axis=1)
    growth /= growth[:, -1:]
    wanted = (0.2, 0.5, 0.8)
    return np.array([[np.interp(wanted, one[:, band], edges) for band in range(3)] for one in growth], np.float32)


def _ellipticity(light: Array, radii: Array) -> Array:
    """(a^2 - b^2) / (a^2 + b^2) of the second moments; a small even background makes it 0 where there is no light."""
    side = light.shape[1]
    offsets = np.arange(side) - (side - 1) / 2
    weights = light + 1e-4 * (radii <= _APERTURE)
    xx = np.einsum("nyx,x->n", weights, offsets**2)
    yy = np.einsum("nyx,y->n", weights, offsets**2)
    xy = np.einsum("nyx,y,x->n", weights, offsets, offsets)
    return np.hypot(xx - yy, 2 * xy) / (xx + yy)


def _smoothed(grey: Array) -> Array:
    from scipy.ndimage import uniform_filter

    width = 2 * (grey.shape[1] // 32) + 1  # odd, so that the window is centred
    return uniform_filter(grey, (0, width, width), mode="constant")


def _gini_and_m20(light: Array, radii: Array) -> tuple[Array, Array]:
    """Gini coefficient of the pixels, and log10 of the second moment of the brightest that hold 20 % of the light."""
    inside = radii <= _APERTURE
    pixels = light[:, inside].astype(np.float64) + 1e-4
    moments = pixels * np.square(radii[inside])
    order = np.lexsort((moments, -pixels), axis=1)  # of pixels alike the inner one first, however the image is turned
    ranked = np.take_along_axis(pixels, order, axis=1)
    n = pixels.shape[1]
    ranks = np.arange(n, 0, -1)
    gini = ((2 * ranks - n - 1) * ranked).sum(axis=1) / (ranked.mean(axis=1) * n * (n - 1))
    is_bright = np.cumsum(ranked, axis=1) - ranked < 0.2 * ranked.sum(axis=1, keepdims=True)
    bright = np.where(is_bright, np.take_along_axis(moments, order, axis=1), 0).sum(axis=1)
    return gini, np.log10(bright / moments.sum(axis=1))
