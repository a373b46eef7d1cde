"""Images of mock galaxies, and masks of their components: gri on SDSS pixels, then PSF, sky noise and asinh colours.

Worker processes import this module, so of large packages it imports NumPy and SciPy only. `mock_population.py` draws
the factors.
"""

import math
import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.special import gammainc, gammaincinv, i0e, ndtr

from sfnetlab import runtime

if TYPE_CHECKING:
    import pandas as pd

Image = NDArray[np.floating]
Factors = dict[str, float]

TYPES = ("elliptical", "spiral", "irregular", "merger")
"""Meaning of the codes in `factor_type`."""
ELLIPTICAL, SPIRAL, IRREGULAR, MERGER = range(len(TYPES))

MASK_NAMES = ("bulge", "arms", "clumps", "companion")

RENDER_FACTORS = (
    "factor_type",
    "factor_r_mag",
    "factor_redshift",
    "factor_bulge_to_total",
    "factor_bulge_radius_arcsec",
    "factor_bulge_sersic_n",
    "factor_bulge_gr",
    "factor_disc_scale_arcsec",
    "factor_disc_gr",
    "factor_axis_ratio",
    "factor_position_angle_deg",
    "factor_n_arms",
    "factor_arm_strength",
    "factor_pitch_angle_deg",
    "factor_bar_strength",
    "factor_n_clumps",
    "factor_clump_strength",
    "factor_dust",
    "factor_disturbance",
    "factor_agn_fraction",
    "factor_companion_flux_ratio",
    "factor_companion_separation_arcsec",
    "factor_companion_angle_deg",
    "factor_companion_radius_arcsec",
    "factor_companion_gr",
    "factor_psf_fwhm_arcsec",
    "factor_sky_noise",
)
"""Catalogue columns, besides `id_str`, that an image depends on."""

PIXEL_ARCSEC = 0.396
"""SDSS camera pixel: every galaxy is observed on this grid and then resampled, whatever the size of the cutout."""
MARGIN_ARCSEC = 4.0
"""Width of the sky that is rendered beyond the cutout: the PSF scatters its light into the cutout."""
SKY_SIGMA_NMGY = np.array([0.017, 0.024, 0.040], dtype=np.float32)
"""Sky noise of one SDSS pixel in g, r, i."""
SOFTENING_ARCSEC = 0.2
"""The smallest scale that is drawn before the PSF, about half a pixel, so that no cusp falls between pixel centres."""
PSF_WING_SHARE, PSF_WING_SCALE = 0.12, 2.4

ARM_CONCENTRATION = 2.5
ARM_GR_OFFSET, CLUMP_GR, AGN_GR, TAIL_GR_OFFSET = -0.20, -0.02, 0.25, -0.08

RGB_WEIGHTS = np.array([0.84, 1.0, 1.30], dtype=np.float32)  # of i, r, g: the proportions of the SDSS SkyServer
RGB_SOFTENING_NMGY, RGB_WHITE_NMGY, RGB_SKY_LEVEL = 0.5, 3.2, 0.010

IN_PROCESS_LIMIT = 400
BLOCK = 64


@dataclass(frozen=True)
class _Frame:
    """Where the pixels of the camera lie relative to the galaxy, in arcseconds; row 0 is north, column 0 is east."""

    north: Image  # (n, 1)
    east: Image  # (1, n)
    edges: NDArray[np.float64]  # (image_size + 1,): pixel borders of the cutout along either axis
    centres: NDArray[np.floating]  # (n,): camera pixel centres along either axis


def render_images(
    catalog: "pd.DataFrame",
    image_size: int,
    field_arcsec: float,
    seed: int,
    out: NDArray[np.uint8],
    *,
    start: int = 0,
    stop: int | None = None,
    n_workers: int | None = None,
) -> None:
    """Fill `out[start:stop]` with the cutouts of these rows of a catalogue.

    A cutout depends on its own row and the arguments alone: blocks and workers do not change a pixel. Workers are
    spawned, not forked, which is safe beside torch. A script that calls this needs `if __name__ == "__main__":`.

    Parameters
    ----------
    catalog : DataFrame
        From `make_population`, with `id_str` and `RENDER_FACTORS`.
    out : ndarray of uint8, shape (len(catalog), image_size, image_size, 3)
        An array or a memory map for the colours. Row 0 of a cutout is north, column 0 is east.
    start, stop : int
        Rows to render; all by default.
    n_workers : int, optional
        Processes; by default as many as this process has cores. Fewer than 400 galaxies are rendered in this process.

    Raises
    ------
    ValueError
        If `out` has another shape or type, or start and stop are not a range of rows.
    """
    stop = len(catalog) if stop is None else stop
    shape = (len(catalog), image_size, image_size, 3)
    if out.shape != shape or out.dtype != np.uint8:
        raise ValueError(f"out must be uint8 of shape {shape}, got {out.dtype} of shape {out.shape}")
    if not 0 <= start <= stop <= len(catalog):
        raise ValueError(f"start and stop must lie in order within [0, {len(catalog)}], got {start} and {stop}")
    rows = catalog.iloc[start:stop]
    ids = [int(value) for value in rows["id_str"]]
    table = rows[list(RENDER_FACTORS)].to_numpy(dtype=float)
    blocks = [slice(first, min(first + BLOCK, len(ids))) for first in range(0, len(ids), BLOCK)]
    n_workers = min(_n_cores() if n_workers is None else n_workers, len(blocks))
    if len(ids) < IN_PROCESS_LIMIT or n_workers <= 1:
        for block in blocks:
            out[start + block.start : start + block.stop] = _render_block(
                table[block], ids[block], image_size, field_arcsec, seed
            )
        return
    with ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [
            pool.submit(_render_block, table[block], ids[block], image_size, field_arcsec, seed) for block in blocks
        ]
        for block, future in zip(blocks, futures, strict=True):
            out[start + block.start : start + block.stop] = future.result()


def _n_cores() -> int:
    # A daemon, such as a Dask worker may be, cannot start processes.
    return 1 if multiprocessing.current_process().daemon else runtime.n_threads()


def _render_block(
    table: NDArray[np.float64], ids: list[int], image_size: int, field_arcsec: float, seed: int
) -> NDArray[np.uint8]:
    images = np.empty((len(ids), image_size, image_size, 3), dtype=np.uint8)
    for image, values, id_number in zip(images, table, ids, strict=True):
        factors = dict(zip(RENDER_FACTORS, values.tolist(), strict=True))
        image[:] = _render(factors, id_number, image_size, field_arcsec, seed)
    return images


def render_galaxy(
    row: "Mapping[str, Any] | pd.Series", image_size: int, field_arcsec: float, seed: int
) -> NDArray[np.uint8]:
    """Return the cutout of one galaxy, (image_size, image_size, 3), with the pixels that `render_images` gives it."""
    return _render(_factors(row), int(row["id_str"]), image_size, field_arcsec, seed)


def component_masks(
    row: "Mapping[str, Any] | pd.Series", image_size: int, field_arcsec: float, seed: int
) -> dict[str, NDArray[np.bool_]]:
    """Return the pixels in which each component of a galaxy can be seen: masks, bool (image_size, image_size), by name.

    The names are "bulge", "arms", "clumps" and "companion". A pixel belongs to the bulge or the companion if more than
    half of its noiseless light in r is theirs, and to the arms or the clumps if more than a quarter is. In each case
    that light must also exceed the sky noise of a camera pixel. A component that the galaxy lacks has an empty mask.
    """
    factors = _factors(row)
    frame = _frame(image_size, field_arcsec)
    rng = np.random.default_rng(np.random.SeedSequence((seed, int(row["id_str"]))))
    red = {name: _observe(image[1:2], factors, frame)[0] for name, image in _components(factors, frame, rng)}
    total = sum(red.values(), np.zeros((image_size, image_size), dtype=np.float32))
    noise = SKY_SIGMA_NMGY[1] * factors["factor_sky_noise"]
    shares = {"bulge": 0.5, "arms": 0.25, "clumps": 0.25, "companion": 0.5}
    empty = np.zeros_like(total)
    return {name: (red.get(name, empty) > np.maximum(shares[name] * total, noise)) for name in MASK_NAMES}


def band_fluxes(factors: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.float64]]:
    """Return the flux in g, r, i (nanomaggies), shape (..., 3), of a galaxy's bulge, disc, arms, clumps and agn.

    In r the fluxes sum to the magnitude `factor_r_mag`. Rest-frame colours are reddened by redshift (a linear
    k-correction of 1.1 z mag in g - r), and those of the disc also by dust, the more the disc is inclined.
    """
    f = {name: np.asarray(value, dtype=float) for name, value in factors.items()}
    total = 10 ** (0.4 * (22.5 - f["factor_r_mag"]))
    agn = total * f["factor_agn_fraction"]
    bulge = (total - agn) * f["factor_bulge_to_total"]
    disc = total - agn - bulge
    clumps = disc * f["factor_clump_strength"]
    arms = (disc - clumps) * 0.6 * f["factor_arm_strength"] * (f["factor_n_arms"] > 0)
    redshifting = 1.1 * f["factor_redshift"]
    reddening = 0.16 * f["factor_dust"] * -np.log10(f["factor_axis_ratio"])
    disc_gr = f["factor_disc_gr"] + reddening
    parts = {
        "bulge": (bulge, f["factor_bulge_gr"]),
        "disc": (disc - clumps - arms, disc_gr),
        "arms": (arms, disc_gr + ARM_GR_OFFSET),
        "clumps": (clumps, CLUMP_GR + reddening),
        "agn": (agn, np.full_like(total, AGN_GR)),
    }
    return {name: flux[..., None] * _colour(gr + redshifting) for name, (flux, gr) in parts.items()}


def _colour(gr: ArrayLike) -> NDArray[np.float64]:
    """The flux in g, r, i over that in r, by g - r in mag. Stars and galaxies share one relation of g - r and r - i."""
    gr = np.asarray(gr, dtype=float)
    return np.stack([10 ** (-0.4 * gr), np.ones_like(gr), 10 ** (0.4 * (0.06 + 0.48 * gr))], axis=-1)


@lru_cache
def sersic_gaussians(sersic_n: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights (summing to 1) and sigmas (in half-light radii) of round Gaussians that sum to a Sersic profile.

    The profile ends at 8 half-light radii. The Gaussians are fitted to its light in rings by expectation maximisation,
    in the manner of Hogg & Lang 2013 (PASP 125, 719): the light of Gaussians within a radius has a closed form, even
    after a Gaussian PSF.
    """
    edges = np.geomspace(0.02, 8.0, 200)
    sigma = np.geomspace(0.04, 4.5, 9)
    light = np.diff(gammainc(2 * sersic_n, gammaincinv(2 * sersic_n, 0.5) * edges ** (1 / sersic_n)), prepend=0)
    rings = np.diff(-np.expm1(-0.5 * (edges[:, None] / sigma) ** 2), axis=0, prepend=0)
    weights = np.full(sigma.size, 1 / sigma.size)
    for _ in range(500):
        weights *= rings.T @ (light / (rings @ weights))
        weights /= weights.sum()
    kept = weights > 1e-4
    return weights[kept] / weights[kept].sum(), sigma[kept]


def _factors(row: "Mapping[str, Any] | pd.Series") -> Factors:
    return {name: float(row[name]) for name in RENDER_FACTORS}


@lru_cache(maxsize=8)
def _frame(image_size: int, field_arcsec: float) -> _Frame:
    n = math.ceil((field_arcsec + 2 * MARGIN_ARCSEC) / PIXEL_ARCSEC)
    centres = (np.arange(n) - (n - 1) / 2) * PIXEL_ARCSEC
    falling = -centres.astype(np.float32)
    edges = (np.arange(image_size + 1) / image_size - 0.5) * field_arcsec
    return _Frame(north=falling[:, None], east=falling[None, :], edges=edges, centres=centres)


@lru_cache(maxsize=8)
def _resampling(image_size: int, field_arcsec: float) -> csr_array:
    """(image_size, n): linear interpolation between camera pixels, averaged over each pixel of the cutout."""
    frame = _frame(image_size, field_arcsec)
    reach = np.clip((frame.edges[:, None] - frame.centres) / PIXEL_ARCSEC, -1, 1)
    integral = np.where(reach < 0, 0.5 * (1 + reach) ** 2, 1 - 0.5 * (1 - reach) ** 2)
    return csr_array((np.diff(integral, axis=0) * _pixels_each(frame)).astype(np.float32))


def _pixels_each(frame: _Frame) -> float:
    """Pixels of the cutout along one camera pixel."""
    return PIXEL_ARCSEC / float(frame.edges[1] - frame.edges[0])


def _render(factors: Factors, id_number: int, image_size: int, field_arcsec: float, seed: int) -> NDArray[np.uint8]:
    frame = _frame(image_size, field_arcsec)
    rng = np.random.default_rng(np.random.SeedSequence((seed, id_number)))
    sky = np.zeros((3, frame.centres.size, frame.centres.size), dtype=np.float32)
    for _, image in _components(factors, frame, rng):
        sky += image
    noise = rng.standard_normal(sky.shape, dtype=np.float32)
    noise *= (SKY_SIGMA_NMGY * np.float32(factors["factor_sky_noise"]))[:, None, None]
    observed = _observe(sky, factors, frame) + _apply(_resampling(image_size, field_arcsec), noise)
    return _as_rgb(observed)


def _observe(image: Image, factors: Factors, frame: _Frame) -> Image:
    """Bands of nanomaggies a camera pixel, (b, n, n), through the PSF onto the cutout, (b, image_size, image_size)."""
    sigma = factors["factor_psf_fwhm_arcsec"] / 2.3548
    core, wing = (_apply(_gaussian_operator(scale * sigma, frame), image) for scale in (1, PSF_WING_SCALE))
    return (1 - PSF_WING_SHARE) * core + PSF_WING_SHARE * wing


def _gaussian_operator(sigma: float, frame: _Frame) -> csr_array:
    """(image_size, n): the share of each camera pixel's light, spread by a Gaussian, in each pixel of the cutout."""
    below = ndtr((frame.edges[:, None] - frame.centres) / sigma)
    share = np.diff(below, axis=0) * _pixels_each(frame)
    share[share < 2e-4] = 0  # sparse: a camera pixel reaches some ten others
    return csr_array(share.astype(np.float32))


def _apply(operator: csr_array, image: Image) -> Image:
    """The same operator along rows and columns of each band; SciPy's sparse product does not depend on threads."""
    return np.stack([(operator @ (operator @ band).T).T for band in image])


def _as_rgb(gri: Image) -> NDArray[np.uint8]:
    """Colour-preserving asinh stretch to 8 bits, (H, W, 3) (Lupton et al. 2004, PASP 116, 133, section 2)."""
    weighted = np.maximum(gri[::-1] * RGB_WEIGHTS[:, None, None] + RGB_SKY_LEVEL, 0)
    intensity = weighted.mean(axis=0) + np.float32(1e-9)
    stretch = np.arcsinh(intensity / RGB_SOFTENING_NMGY) / math.asinh(RGB_WHITE_NMGY / RGB_SOFTENING_NMGY)
    rgb = weighted * (stretch / intensity)
    rgb /= np.maximum(rgb.max(axis=0), 1)
    return np.rint(255 * rgb).astype(np.uint8).transpose(1, 2, 0)


def _components(factors: Factors, frame: _Frame, rng: np.random.Generator) -> Iterator[tuple[str, Image]]:
    """Name and image before the PSF, (3, n, n) in nanomaggies a camera pixel, of all that stands in the field.

    The random draws come in one order, so masks and cutouts show the same arms and clumps.
    """
    fluxes = {name: flux.astype(np.float32) for name, flux in band_fluxes(factors).items()}
    position_angle = math.radians(factors["factor_position_angle_deg"])
    major = frame.north * np.float32(math.cos(position_angle)) + frame.east * np.float32(math.sin(position_angle))
    minor = frame.east * np.float32(math.cos(position_angle)) - frame.north * np.float32(math.sin(position_angle))
    lane = _dust_lane(factors, major, minor)

    bulge_ratio = _bulge_axis_ratio(factors)
    bulge = _sersic(major, minor, factors["factor_bulge_radius_arcsec"], bulge_ratio, factors["factor_bulge_sersic_n"])
    yield "bulge", _painted(bulge, fluxes["bulge"]) * lane
    if factors["factor_bulge_to_total"] < 1:
        for name, image in _disc_components(factors, fluxes, frame, major, minor, rng):
            yield name, image * lane
    if factors["factor_agn_fraction"] > 0:
        yield "agn", _points(frame, np.zeros((1, 2)), fluxes["agn"][None])
    if factors["factor_companion_flux_ratio"] > 0:
        yield "companion", _companion(factors, frame, rng)
    yield "field", _field(frame, rng)


def _disc_components(
    factors: Factors,
    fluxes: dict[str, Image],
    frame: _Frame,
    major: Image,
    minor: Image,
    rng: np.random.Generator,
) -> Iterator[tuple[str, Image]]:
    """Disc with bar, arms, clumps and tidal tail."""
    axis_ratio, scale = factors["factor_axis_ratio"], factors["factor_disc_scale_arcsec"]
    handedness = float(rng.choice((-1.0, 1.0)))
    phase, lopsided_angle, wobble = rng.uniform(0, 2 * math.pi, size=3).tolist()  # NumPy scalars widen float32
    radius = np.sqrt(major**2 + (minor / axis_ratio) ** 2 + SOFTENING_ARCSEC**2) / scale
    angle = np.arctan2(minor / axis_ratio, major) * handedness
    disc = np.exp(-radius) * (PIXEL_ARCSEC**2 / (2 * math.pi * scale**2 * axis_ratio))
    disturbance = factors["factor_disturbance"]
    if disturbance > 0:
        disc *= 1 + disturbance * np.tanh(0.7 * radius) * np.cos(angle - lopsided_angle)
    n_arms = factors["factor_n_arms"]
    arms = None
    if n_arms > 0:
        winding = np.log(radius) / math.tan(math.radians(factors["factor_pitch_angle_deg"]))
        ragged = 0.5 * np.sin(2 * angle + 1.7 * radius + wobble)
        crest = np.cos(n_arms * (angle - winding) + phase + ragged)
        arms = disc * np.exp(ARM_CONCENTRATION * (crest - 1)) / float(i0e(ARM_CONCENTRATION))
        arms *= 1.25 / (1 + np.exp(-(radius - 1.0) / 0.2))
    if factors["factor_bar_strength"] > 0:
        disc = (1 - factors["factor_bar_strength"]) * disc + factors["factor_bar_strength"] * _bar(
            major, minor / axis_ratio, 1.3 * scale, rng.uniform(0, math.pi), axis_ratio
        )
    yield "disc", _painted(disc, fluxes["disc"])
    if arms is not None:
        yield "arms", _painted(arms, fluxes["arms"])
    if factors["factor_n_clumps"] > 0:
        yield "clumps", _clumps(factors, fluxes["clumps"], frame, handedness, phase, rng)
    if factors["factor_type"] == MERGER:
        tail = np.exp(-radius / 2.2 + 3.0 * (np.cos(angle - 0.5 * np.log(radius) + lopsided_angle) - 1))
        tail *= np.where(radius > 1, 1 - np.exp(-(((radius - 1) / 0.8) ** 2)), 0)
        flux = 0.22 * disturbance * fluxes["disc"] * _colour(TAIL_GR_OFFSET).astype(np.float32)
        yield "tail", _painted(tail * (1 / max(float(tail.sum()), 1e-6)), flux)


def _painted(image: Image, flux: Image) -> Image:
    return image.astype(np.float32, copy=False)[None] * flux.astype(np.float32, copy=False)[:, None, None]


def _bulge_axis_ratio(factors: Factors) -> float:
    """An elliptical shows its own axis ratio; a bulge in a disc is an oblate spheroid, rounder than the disc."""
    ratio = factors["factor_axis_ratio"]
    return ratio if factors["factor_type"] == ELLIPTICAL else math.sqrt(0.4 + 0.6 * ratio**2)


def _sersic(major: Image, minor: Image, radius_arcsec: float, axis_ratio: float, sersic_n: float) -> Image:
    """Unit flux, elliptical, half of it within `radius_arcsec` along the major axis."""
    squared = major**2 + (minor / np.float32(axis_ratio)) ** 2
    image = np.zeros_like(squared)
    for weight, sigma in zip(*sersic_gaussians(sersic_n), strict=True):
        variance = (sigma * radius_arcsec) ** 2 + SOFTENING_ARCSEC**2
        amplitude = weight * PIXEL_ARCSEC**2 / (2 * math.pi * variance * axis_ratio)
        image += np.float32(amplitude) * np.exp(squared * np.float32(-0.5 / variance))
    return image


def _bar(along: Image, across: Image, length: float, angle: float, axis_ratio: float) -> Image:
    """Unit flux, a Gaussian with a flat top along `angle` in the plane of the disc."""
    x = (along * math.cos(angle) + across * math.sin(angle)) / length
    y = (across * math.cos(angle) - along * math.sin(angle)) / (0.28 * length)
    image = np.exp(-0.5 * ((x * x) ** 2 + y * y))
    # The integral of exp(-x^4 / 2) is 2^(1/4) Gamma(1/4) / 2 = 2.156.
    return image * (PIXEL_ARCSEC**2 / (2.156 * math.sqrt(2 * math.pi) * 0.28 * length**2 * axis_ratio))


def _clumps(
    factors: Factors, flux: Image, frame: _Frame, handedness: float, phase: float, rng: np.random.Generator
) -> Image:
    """Star-forming knots: on the crests of the arms where there are arms, else anywhere in the disc."""
    n_clumps, n_arms = round(factors["factor_n_clumps"]), round(factors["factor_n_arms"])
    scale = factors["factor_disc_scale_arcsec"]
    radius = rng.gamma(3.0, 0.55, size=n_clumps)
    angle = rng.uniform(0, 2 * math.pi, size=n_clumps)
    share = rng.lognormal(0, 0.7, size=n_clumps)
    if n_arms > 0:
        tangent = math.tan(math.radians(factors["factor_pitch_angle_deg"]))
        crest = np.log(radius) / tangent + (2 * math.pi * rng.integers(0, n_arms, size=n_clumps) - phase) / n_arms
        angle = crest + rng.normal(0, 0.25, size=n_clumps)
    angle = angle * handedness
    along = scale * radius * np.cos(angle)
    across = scale * radius * np.sin(angle) * factors["factor_axis_ratio"]
    position_angle = math.radians(factors["factor_position_angle_deg"])
    north = along * math.cos(position_angle) - across * math.sin(position_angle)
    east = along * math.sin(position_angle) + across * math.cos(position_angle)
    return _points(frame, np.column_stack([north, east]), (share / share.sum())[:, None] * flux)


def _points(frame: _Frame, positions: NDArray[np.float64], fluxes: NDArray[np.floating]) -> Image:
    """Point sources (k, 2) north and east in arcsec, (k, 3) fluxes, each shared among four camera pixels."""
    n = frame.centres.size
    image = np.zeros((3, n, n), dtype=np.float32)
    place = (n - 1) / 2 - positions / PIXEL_ARCSEC
    inside = ((place >= 0) & (place < n - 1)).all(axis=1)
    place, fluxes = place[inside], fluxes[inside]
    corner = np.floor(place).astype(int)
    rest = place - corner
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - down - rest[:, 0]) * np.abs(1 - right - rest[:, 1])
            place_flat = (corner[:, 0] + down) * n + corner[:, 1] + right
            for band, flux in zip(image, fluxes.T, strict=True):
                band += np.bincount(place_flat, weight * flux, minlength=n * n).reshape(n, n).astype(np.float32)
    return image


def _dust_lane(factors: Factors, major: Image, minor: Image) -> Image | np.float32:
    """Transmission in g, r, i of the lane across a disc seen nearly edge-on."""
    axis_ratio = factors["factor_axis_ratio"]
    visible = min(max((0.42 - axis_ratio) / 0.12, 0.0), 1.0)
    if factors["factor_type"] != SPIRAL or visible == 0 or factors["factor_dust"] == 0:
        return np.float32(1)
    scale = factors["factor_disc_scale_arcsec"]
    thickness = max(0.35 * axis_ratio * scale, 0.3)
    depth = np.exp(-0.5 * ((minor - 0.35 * thickness) / thickness) ** 2 - 0.5 * (major / (1.4 * scale)) ** 2)
    extinction = np.array([1.25, 0.9, 0.68], dtype=np.float32) * np.float32(1.3 * visible * factors["factor_dust"])
    return np.exp(-extinction[:, None, None] * depth)


def _companion(factors: Factors, frame: _Frame, rng: np.random.Generator) -> Image:
    magnitude = factors["factor_r_mag"] - 2.5 * math.log10(factors["factor_companion_flux_ratio"])
    flux = 10 ** (0.4 * (22.5 - magnitude)) * _colour(factors["factor_companion_gr"])
    angle = math.radians(factors["factor_companion_angle_deg"])
    separation = factors["factor_companion_separation_arcsec"]
    centre = (separation * math.cos(angle), separation * math.sin(angle))
    return _painted(_blob(frame, centre, factors["factor_companion_radius_arcsec"], 2.0, rng), flux)


def _blob(
    frame: _Frame, centre: tuple[float, float], radius_arcsec: float, sersic_n: float, rng: np.random.Generator
) -> Image:
    """Unit flux, a galaxy of random axis ratio and position angle at `centre` (north, east), drawn near it only."""
    axis_ratio, angle = rng.uniform(0.35, 1.0), rng.uniform(0, math.pi)
    n = frame.centres.size
    image = np.zeros((n, n), dtype=np.float32)
    reach = 6 * radius_arcsec + 1
    rows, columns = (
        slice(*np.clip(np.rint((n - 1) / 2 + np.array([-reach - at, reach - at]) / PIXEL_ARCSEC).astype(int), 0, n))
        for at in centre
    )
    north, east = frame.north[rows] - np.float32(centre[0]), frame.east[:, columns] - np.float32(centre[1])
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    image[rows, columns] = _sersic(
        north * cos + east * sin, east * cos - north * sin, radius_arcsec, axis_ratio, sersic_n
    )
    return image


def _field(frame: _Frame, rng: np.random.Generator) -> Image:
    """Unrelated stars and faint galaxies: numbers for a high-latitude SDSS field, uniform over the frame."""
    half = float(frame.centres[-1])
    area_arcmin2 = (2 * half / 60) ** 2
    n_stars, n_galaxies = rng.poisson(2.0 * area_arcmin2), rng.poisson(6.0 * area_arcmin2)
    # Counts rise with magnitude m as 10^(0.2 m) for stars and 10^(0.4 m) for galaxies.
    star_mags = 21.5 + np.log10(rng.uniform(10 ** (0.2 * -6.5), 1, size=n_stars)) / 0.2
    galaxy_mags = 21.8 + np.log10(rng.uniform(10 ** (0.4 * -4.3), 1, size=n_galaxies)) / 0.4
    star_colours = rng.choice([0.35, 0.6, 1.1, 1.4], p=[0.35, 0.25, 0.15, 0.25], size=n_stars)
    star_colours = star_colours + rng.normal(0, 0.1, size=n_stars)
    star_fluxes = 10 ** (0.4 * (22.5 - star_mags))[:, None] * _colour(star_colours)
    image = _points(frame, rng.uniform(-half, half, size=(n_stars, 2)), star_fluxes)
    for magnitude in galaxy_mags:
        north, east = rng.uniform(-half, half, size=2)
        flux = 10 ** (0.4 * (22.5 - magnitude)) * _colour(rng.normal(0.85, 0.3))
        radius = max(0.35, 0.9 * 10 ** (-0.12 * (magnitude - 20)) * rng.lognormal(0, 0.25))
        image += _painted(_blob(frame, (north, east), radius, 1.0, rng), flux)
    return image
