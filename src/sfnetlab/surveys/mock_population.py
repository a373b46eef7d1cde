"""A population of mock galaxies with SDSS columns, and the factors that made each of them.

Masses, sizes, star formation and lines follow published relations. The metallicity depends on colours in part only: at
fixed colour and magnitude it depends on the morphology, with interactions, so that methods that read images differently
score differently. `mock_render.py` makes the images. A number has its source beside it or in the docstring; numbers
without a source are chosen, such that the columns look like those of the SDSS and meet what `bench mock-survey` prints.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, ndtri

from sfnetlab.surveys.lines import LINES, NOT_MEASURED, STAR_FORMING, mpa_jhu_class, tremonti_2004
from sfnetlab.surveys.mock_render import (
    ELLIPTICAL,
    IRREGULAR,
    MERGER,
    PSF_WING_SCALE,
    PSF_WING_SHARE,
    SPIRAL,
    band_fluxes,
    sersic_gaussians,
)

Array = NDArray[np.float64]

HIDDEN_SCATTER_DEX = 0.05
"""Chosen: scatter of `oh_p50` on which nothing else depends, not even the image, the lines and their class."""
INTERACTIONS = (
    ("factor_clump_strength", "factor_bar_strength"),
    ("factor_pitch_angle_deg", "factor_bulge_to_total"),
)
"""Pairs of factors of which one decides what the other means for the metallicity, see `_metallicity`."""
MORPHOLOGY = (
    "factor_effective_radius_arcsec",
    "factor_bar_strength",
    "factor_disturbance",
    "factor_clump_strength",
    "factor_arm_strength",
    "factor_pitch_angle_deg",
    "factor_bulge_to_total",
)
"""Factors that change the metallicity at fixed mass and star formation."""
DISTRACTORS = (
    "factor_axis_ratio",
    "factor_position_angle_deg",
    "factor_n_arms",
    "factor_companion_flux_ratio",
    "factor_companion_angle_deg",
    "factor_psf_fwhm_arcsec",
)
"""Factors that show in the image and on which no label depends: not the metallicity, the mass, star formation, lines or
their class. (More or fewer arms, that is: whether a galaxy has arms at all goes with its star formation.)"""

N_DRAWS = 96
"""Random numbers a galaxy. Some are spare: a property that is added at the end leaves the population as it is."""
Z_MIN, Z_MAX, R_BRIGHT, R_FAINT = 0.02, 0.1, 14.0, 17.77
KEPT_RETIRED = 0.55
"""Share of the retired galaxies that stay in a sample which wants emission lines."""
LEVELLING = 0.65
"""Power of the survey volume by which masses are weighted; 1 is a flux-limited sample, in which dwarfs are rare."""
PAIR_SHARE = 0.06
ELLIPTICAL_SERSIC_N, BULGE_SERSIC_N = 4.0, 2.0
FIBRE_RADIUS_ARCSEC = 1.5
BARRED_SHARE, TYPICAL_PITCH_DEG, TYPICAL_ARM_STRENGTH, TYPICAL_LOG_CLUMPS = 0.3, 21.0, 0.6, -2.7
"""Chosen, but for the bars (Masters et al. 2011). The terms of the metallicity count from here."""
CARDELLI_K = np.array([2.52, 2.53, 3.47, 3.61])
"""A(line) / E(B-V) of `LINES` (Cardelli, Clayton & Mathis 1989, R_V = 3.1)."""
LINE_NOISE = np.array([1.9, 2.0, 1.7, 1.8])
"""Flux errors of `LINES`, 1e-17 erg/s/cm2, of a faint galaxy; they rise with the continuum in the fibre."""


class _Draws:
    """Random columns, one after the other. Row i is the same whatever the number of rows."""

    def __init__(self, n: int, seed: int) -> None:
        self._columns = iter(np.random.default_rng(seed).random((n, N_DRAWS)).T.copy())

    def uniform(self, low: ArrayLike = 0.0, high: ArrayLike = 1.0) -> Array:
        return low + (np.asarray(high) - low) * next(self._columns)

    def normal(self, sigma: float = 1.0) -> Array:
        return sigma * ndtri(np.clip(next(self._columns), 1e-9, 1 - 1e-9))

    def share(self, probability: ArrayLike) -> NDArray[np.bool_]:
        return next(self._columns) < probability


def make_population(n_galaxies: int, seed: int, field_arcsec: float) -> pd.DataFrame:
    """Draw a catalogue of mock galaxies, one row a galaxy; the first rows are the same whatever their number.

    The metallicity is the sum of `oh_p50_visible`, on which the image depends, and `oh_p50_hidden`, on which nothing
    else depends. About one galaxy in sixteen shares its cutout with another one of the catalogue, which is its
    companion there.

    Parameters
    ----------
    n_galaxies : int
    seed : int
    field_arcsec : float
        Side of a cutout: companions lie within it.

    Returns
    -------
    DataFrame of n_galaxies rows
        Columns as in the SDSS and MPA-JHU tables: `id_str`, `ra` and `dec` in degrees, `z`, line fluxes in 1e-17
        erg/s/cm2, magnitudes, Petrosian radii in arcsec, and so on. `oh_p50` is -9999 for galaxies that are not plainly
        star-forming. The columns `factor_*`, all numbers, are what made the image and the lines.

    Raises
    ------
    ValueError
        If `n_galaxies` or `field_arcsec` is not positive.

    References
    ----------
    Masses: Baldry et al. 2012 (double Schechter), in the volume in which r < 17.77 (Strauss et al. 2002).
    Star formation: Renzini & Peng 2015. Metallicity: Tremonti et al. 2004 and the terms of `_metallicity`. Sizes: Shen
    et al. 2003. Mass-to-light: Bell et al. 2003. Lines: see `_line_ratios`, `_line_fluxes`.
    """
    if n_galaxies < 1 or field_arcsec <= 0:
        raise ValueError(f"n_galaxies and field_arcsec must be positive, got {n_galaxies} and {field_arcsec}")
    n_drawn = n_galaxies + n_galaxies % 2  # whole pairs, so that the last row too does not depend on n_galaxies
    draws = _Draws(n_drawn, seed)
    galaxies = _physics(draws)
    galaxies |= _morphology(galaxies, draws)
    galaxies |= _metallicity(galaxies, draws)
    galaxies |= _observation(galaxies, draws)
    galaxies |= _sky_positions(galaxies, draws, field_arcsec)
    galaxies |= _photometry(galaxies, draws)
    galaxies |= _spectroscopy(galaxies, draws)
    index = np.arange(n_drawn, dtype=object)  # Python integers: the products pass 64 bits
    ids = [str(1237645879578460160 + (i * 2654435761 + seed * 40503) % 2**45) for i in index]
    public = {name: values for name, values in galaxies.items() if not name.startswith("_")}
    catalog = pd.DataFrame({"id_str": ids} | public).iloc[:n_galaxies].astype({"bptclass": int})
    return catalog.reset_index(drop=True)


def _physics(draws: _Draws) -> dict[str, Array]:
    """Stellar mass, star formation, metallicity."""
    log_mass = _log_masses(draws.uniform())
    retired = _retired(log_mass)
    quiescent = draws.share(KEPT_RETIRED * retired / (1 - retired + KEPT_RETIRED * retired))
    excess = np.where(quiescent, -1.6 + draws.normal(0.35), draws.normal(0.3))
    log_sfr = 0.76 * log_mass - 7.64 + excess
    return {
        "_log_mass": log_mass,
        "_excess": excess,
        "_log_sfr": log_sfr,
        "_quiescent": quiescent.astype(float),
        "lgm_tot_p50": log_mass + draws.normal(0.08),
        "sfr_tot_p50": log_sfr + draws.normal(0.15),
    }


def _log_masses(uniform: Array) -> Array:
    """Inverse cumulative of the mass function, weighted by the volume in which such a galaxy enters the survey."""
    grid = np.linspace(8.6, 11.6, 400)
    x = 10 ** (grid - 10.66)
    function = np.exp(-x) * (3.96 * x ** (-0.35 + 1) + 0.79 * x ** (-1.47 + 1))
    volume = _volume(_redshift_at(_absolute_r(grid, 0.25 + 0.12 * (grid - 8.5)), R_FAINT)) - _volume(np.array(Z_MIN))
    with_lines = 1 - _retired(grid) + KEPT_RETIRED * _retired(grid)
    cumulative = np.cumsum(function * np.maximum(volume, 0) ** LEVELLING * with_lines)
    return np.interp(uniform, cumulative / cumulative[-1], grid)


def _retired(log_mass: Array) -> Array:
    """Share of galaxies that have stopped forming stars."""
    return expit((log_mass - 10.45) / 0.3)


def _absolute_r(log_mass: Array, gr: Array) -> Array:
    """r-band absolute magnitude; Bell et al. 2003 table 7, less 0.15 dex for a Kroupa mass function."""
    return 4.65 - 2.5 * (log_mass - (-0.306 + 1.097 * gr - 0.15))


_REDSHIFTS = np.linspace(0, 0.4, 801)
_HUBBLE_DISTANCE_MPC, _OMEGA_M = 299792.458 / 70, 0.3


def luminosity_distance_mpc(z: Array) -> Array:
    """Luminosity distance in Mpc of redshifts below 0.4: flat LambdaCDM, H0 = 70 km/s/Mpc and Omega_m = 0.3."""
    slowness = 1 / np.sqrt(_OMEGA_M * (1 + _REDSHIFTS) ** 3 + 1 - _OMEGA_M)
    comoving = np.cumsum(np.diff(_REDSHIFTS, prepend=0) * (slowness + np.roll(slowness, 1)) / 2)
    return (1 + z) * _HUBBLE_DISTANCE_MPC * np.interp(z, _REDSHIFTS, comoving)


def _volume(z: Array) -> Array:
    """Comoving volume, but for a constant."""
    return (luminosity_distance_mpc(z) / (1 + z)) ** 3


def _redshift_at(absolute_r: Array, r_mag: float) -> Array:
    """Redshift, within the survey's, at which a galaxy has this magnitude, with a k-correction of z mag."""
    z = np.linspace(Z_MIN, Z_MAX, 200)  # np.interp holds its ends beyond them
    return np.interp(r_mag - absolute_r, 5 * np.log10(luminosity_distance_mpc(z) * 1e5) + z, z)


def _morphology(g: dict[str, Array], draws: _Draws) -> dict[str, Array]:
    """What the galaxy looks like from nearby; colours are rest-frame g - r."""
    excess, quiescent, log_mass = g["_excess"], g["_quiescent"] > 0, g["_log_mass"]
    above = np.clip(log_mass - 10.0, -1.5, 1.2)  # dex
    elliptical = draws.share(np.where(quiescent, 0.7, 0.04))
    merger = draws.share(0.035) & ~elliptical
    irregular = draws.share(0.75 * expit((9.25 - log_mass) / 0.2)) & ~elliptical & ~merger
    kind = np.select([elliptical, merger, irregular], [ELLIPTICAL, MERGER, IRREGULAR], SPIRAL)
    disc = ~elliptical

    bulge_to_total = expit(-1.9 + 0.8 * above + 1.2 * quiescent + draws.normal(0.8))
    bulge_to_total = np.where(irregular, 0.2 * bulge_to_total, np.minimum(bulge_to_total, 0.85))
    bulge_to_total = np.where(elliptical, 1.0, bulge_to_total)
    disc_gr = 0.46 + 0.08 * above - 0.07 * np.clip(excess, -2, 1) + draws.normal(0.06) - 0.06 * irregular
    bulge_gr = 0.70 + 0.02 * above + 0.04 * quiescent + draws.normal(0.08)
    dust = np.where(quiescent, 0.3, 1.0) * np.exp(-0.75 + 0.5 * above + draws.normal(0.35))

    inclination_cosine = draws.uniform()
    thickness = np.where(irregular, 0.4, draws.uniform(0.12, 0.22))
    axis_ratio = np.sqrt(inclination_cosine**2 + (1 - inclination_cosine**2) * thickness**2)
    axis_ratio = np.where(elliptical, draws.uniform(0.55, 1.0), axis_ratio)

    late = 0.1 * 10 ** (0.14 * log_mass) * (1 + 10 ** (log_mass - np.log10(3.98e10))) ** (0.39 - 0.14)
    early = 2.88e-6 * 10 ** (0.56 * log_mass)
    log_size = draws.normal(0.13)
    radius_kpc = 1.6 * np.where(elliptical, early, late) * 10**log_size

    armed = (kind == SPIRAL) & draws.share(np.where(quiescent, 0.3, 0.85)) & (axis_ratio > 0.25)
    n_arms = np.select([draws.share(0.68), draws.share(0.6)], [2, 3], 4) * armed
    arm_strength = np.clip(TYPICAL_ARM_STRENGTH - 0.25 * quiescent + draws.normal(0.2), 0.15, 1.0) * armed
    pitch = np.clip(TYPICAL_PITCH_DEG - 3.0 * above + draws.normal(6.0), 7, 40) * armed
    bar = np.where(disc & ~irregular & draws.share(BARRED_SHARE), draws.uniform(0.08, 0.22), 0.0)
    clump_strength = np.exp(
        TYPICAL_LOG_CLUMPS - 0.4 * above + 0.3 * np.clip(excess, -1, 1) + draws.normal(0.6) + 0.5 * irregular
    )
    clump_strength = np.where(disc & ~quiescent, np.minimum(clump_strength, 0.4), 0.0)
    n_clumps = np.where(clump_strength > 0, np.floor(6 + 60 * clump_strength * draws.uniform(0.6, 1.4)), 0)
    disturbance = np.select([merger, irregular], [draws.uniform(0.5, 1.0), draws.uniform(0.2, 0.9)], 0.0)
    disturbance = np.where(kind == SPIRAL, np.clip(draws.normal(0.12), 0, 0.4), disturbance)
    active = draws.share(0.02 + 0.5 * expit((log_mass - 10.4) / 0.25) * np.where(quiescent, 1.2, 0.8))
    agn_mix = np.where(active, draws.uniform(0.05, 0.9), 0.0)
    return {
        "_radius_kpc": radius_kpc,
        "_log_size": log_size,
        "_agn_mix": agn_mix,
        "factor_type": kind.astype(float),
        "factor_bulge_to_total": bulge_to_total,
        "factor_bulge_sersic_n": np.where(elliptical, ELLIPTICAL_SERSIC_N, BULGE_SERSIC_N),
        "factor_bulge_gr": bulge_gr,
        "factor_disc_gr": np.where(elliptical, bulge_gr, disc_gr),
        "factor_axis_ratio": axis_ratio,
        "factor_position_angle_deg": draws.uniform(0, 180),
        "factor_n_arms": n_arms.astype(float),
        "factor_arm_strength": arm_strength,
        "factor_pitch_angle_deg": pitch,
        "factor_bar_strength": bar,
        "factor_n_clumps": n_clumps,
        "factor_clump_strength": clump_strength,
        "factor_dust": np.where(elliptical, 0.0, dust),
        "factor_disturbance": disturbance,
        "factor_agn_fraction": np.where(active & draws.share(0.5), 0.12 * agn_mix * draws.uniform(), 0.0),
    }


def _metallicity(g: dict[str, Array], draws: _Draws) -> dict[str, Array]:
    """Metallicity that depends on the mass, on star formation and on what the galaxy looks like; and a hidden part.

    At fixed colour and magnitude more than half of the visible scatter is morphology, with two `INTERACTIONS`: clumps
    lower the metallicity, but hardly that of barred galaxies; open arms lower it beside a strong bulge, and hardly
    matter beside a weak one. On the `DISTRACTORS` it does not depend. Each term counts from a typical galaxy, and the
    mean of all terms is taken off, so that the median of the mass-metallicity relation stays within 0.04 dex.

    References
    ----------
    Mannucci et al. 2010, MNRAS 408, 2115. Ellison et al. 2008a, ApJ 672, L107 (sizes); 2008b, AJ 135, 1877 (pairs);
    2011, MNRAS 416, 2182, and Masters et al. 2011, MNRAS 411, 2026 (bars). Sanchez Almeida et al. 2013, ApJ 767, 74
    (clumps).
    """
    log_mass = g["_log_mass"]
    armed = g["factor_n_arms"] > 0
    clumpy = g["factor_clump_strength"] > 0
    clumps = np.where(clumpy, np.log(np.where(clumpy, g["factor_clump_strength"], 1.0)) - TYPICAL_LOG_CLUMPS, 0.0)
    clumps = np.clip(clumps, -1.5, 1.5)  # chosen
    barred = (g["factor_bar_strength"] > 0) - BARRED_SHARE
    openness = np.where(armed, g["factor_pitch_angle_deg"] - TYPICAL_PITCH_DEG, 0.0)
    strong_arms = np.where(armed, g["factor_arm_strength"] - TYPICAL_ARM_STRENGTH, 0.0)
    bulge = np.where(g["factor_type"] == ELLIPTICAL, 0.0, g["factor_bulge_to_total"] - 0.2)  # chosen
    # Irregulars are all disturbed alike here: their own disturbance tells nothing.
    disturbance = np.where(g["factor_type"] == IRREGULAR, 0.3, g["factor_disturbance"])  # chosen
    visible = (
        tremonti_2004(np.clip(log_mass, 8.5, 11.2))
        - 0.16 * np.clip(g["_excess"], -0.9, 0.9)  # sign: Mannucci et al. 2010; value chosen
        - 0.20 * g["_log_size"]  # sign: Ellison et al. 2008a; value chosen
        + 0.05 * barred  # Ellison et al. 2011 find 0.06
        - 0.12 * disturbance  # sign: Ellison et al. 2008b; value chosen
        - 0.045 * clumps  # sign: Sanchez Almeida et al. 2013; value chosen
        + 0.05 * barred * clumps  # chosen
        + 0.14 * strong_arms  # chosen
        - 0.0045 * openness  # chosen
        - 0.0055 * openness * np.where(bulge > 0, 1.0, -1.0)  # chosen
        + 0.04 * bulge  # chosen
        + 0.012 - 0.02 * (log_mass - 10)  # chosen: the mean of the terms, and 40 % of its slope with mass, taken off
    )  # fmt: skip
    return {"oh_p50_visible": visible, "oh_p50_hidden": draws.normal(HIDDEN_SCATTER_DEX)}


def _observation(g: dict[str, Array], draws: _Draws) -> dict[str, Array]:
    """Distance, apparent size and brightness, seeing and sky."""
    gr = g["factor_bulge_to_total"] * g["factor_bulge_gr"] + (1 - g["factor_bulge_to_total"]) * g["factor_disc_gr"]
    absolute_r = _absolute_r(g["_log_mass"], gr) + draws.normal(0.12)
    nearest, furthest = (_volume(_redshift_at(absolute_r, limit)) for limit in (R_BRIGHT, R_FAINT))
    volume = nearest + (furthest - nearest) * draws.uniform()
    grid_volume = _volume(_REDSHIFTS)
    z = np.interp(volume, grid_volume, _REDSHIFTS)
    distance = luminosity_distance_mpc(z)
    # A dwarf too faint even at Z_MIN stands there, as bright as the limit.
    r_mag = np.clip(absolute_r + 5 * np.log10(distance * 1e5) + z, R_BRIGHT, R_FAINT - 0.01)
    arcsec_per_kpc = 206.265 * (1 + z) ** 2 / distance
    radius = np.clip(g["_radius_kpc"] * arcsec_per_kpc, 0.8, 14)
    elliptical = g["factor_type"] == ELLIPTICAL
    bulge_radius = np.where(elliptical, radius, radius * np.exp(-1.3 + draws.normal(0.2)))
    return {
        "_distance_mpc": distance,
        "z": z,
        "factor_r_mag": r_mag,
        "factor_redshift": z,
        "factor_effective_radius_arcsec": radius,
        "factor_bulge_radius_arcsec": np.maximum(bulge_radius, 0.25),
        "factor_disc_scale_arcsec": radius / 1.678,
        "factor_psf_fwhm_arcsec": np.clip(1.3 * np.exp(draws.normal(0.12)), 0.9, 2.2),
        "factor_sky_noise": np.exp(draws.normal(0.2)),
    }


def _sky_positions(g: dict[str, Array], draws: _Draws, field_arcsec: float) -> dict[str, Array]:
    """Footprint, pairs within one cutout, and the companion of each galaxy (flux ratio 0: none)."""
    n = g["z"].size
    ra = draws.uniform(112, 258)
    dec = np.degrees(np.arcsin(draws.uniform(np.sin(np.radians(-3)), np.sin(np.radians(64)))))
    merger = g["factor_type"] == MERGER
    has_companion = draws.share(0.12) | merger
    flux_ratio = 10 ** draws.uniform(-1.3, 0.0)
    separation = np.where(
        merger, g["factor_effective_radius_arcsec"] * draws.uniform(0.6, 1.8), field_arcsec * draws.uniform(0.12, 0.45)
    )
    angle = draws.uniform(0, 360)
    radius = np.clip(g["factor_effective_radius_arcsec"] * flux_ratio**0.3 * np.exp(draws.normal(0.2)), 0.5, 8)
    gr = np.where(merger, g["factor_disc_gr"] + 0.1, 0.62) + draws.normal(0.12)

    first = np.arange(0, n, 2)
    first = first[draws.share(PAIR_SHARE)[::2]]
    second = first + 1
    apart = field_arcsec * (0.15 + 0.3 * draws.uniform())[first]
    towards = 360 * draws.uniform()[first]
    dec[second] = dec[first] + apart * np.cos(np.radians(towards)) / 3600
    ra[second] = ra[first] + apart * np.sin(np.radians(towards)) / 3600 / np.cos(np.radians(dec[first]))
    mag_g, mag_r, _ = _magnitudes(g)
    for here, there, bearing in ((first, second, towards), (second, first, (towards + 180) % 360)):
        has_companion[here] = True
        flux_ratio[here] = 10 ** (0.4 * (g["factor_r_mag"][here] - g["factor_r_mag"][there]))
        separation[here], angle[here] = apart, bearing
        radius[here] = g["factor_effective_radius_arcsec"][there]
        gr[here] = (mag_g - mag_r)[there]
    companion = {
        "flux_ratio": flux_ratio,
        "separation_arcsec": separation,
        "angle_deg": angle,
        "radius_arcsec": radius,
        "gr": gr,
    }
    return {"ra": ra, "dec": dec} | {
        f"factor_companion_{name}": np.where(has_companion, values, 0.0) for name, values in companion.items()
    }


def _magnitudes(g: dict[str, Array]) -> Array:
    """True magnitudes in g, r, i, (3, n)."""
    return 22.5 - 2.5 * np.log10(np.sum(list(band_fluxes(g).values()), axis=0).T)


def _photometry(g: dict[str, Array], draws: _Draws) -> dict[str, Array]:
    """Measured magnitudes and Petrosian radii."""
    mag_g, mag_r, mag_i = _magnitudes(g)
    gr = mag_g - mag_r
    true = {
        "u": mag_g + 1.0 + 1.1 * (gr - 0.4) - 0.06 * np.clip(g["_excess"], -1, 1) + draws.normal(0.1),
        "g": mag_g,
        "r": mag_r,
        "i": mag_i,
        "z": mag_i + 0.14 + 0.3 * (gr - 0.4) + draws.normal(0.03),
    }
    floor = {"u": 0.07, "g": 0.03, "r": 0.03, "i": 0.03, "z": 0.05}
    common = draws.normal(0.04)  # the model's aperture is that of r in all bands
    measured = {f"modelMag_{band}": mag + common + draws.normal(floor[band]) for band, mag in true.items()}

    radius = np.geomspace(0.2, 40, 120)
    within = _light_within(g, radius)
    r50, r90 = (np.array([np.interp(share, row, radius) for row in within]) for share in (0.5, 0.9))
    return measured | {
        "petroMag_r": np.minimum(mag_r + 0.03 + draws.normal(0.03), R_FAINT),
        "petroR50_r": r50 * np.exp(draws.normal(0.04)),
        # The Petrosian aperture misses faint outskirts: even de Vaucouleurs profiles measure R90 / R50 < 3.5.
        "petroR90_r": np.minimum(0.92 * r90, 3.4 * r50) * np.exp(draws.normal(0.07)),
        "_fibre_share": np.array([np.interp(FIBRE_RADIUS_ARCSEC, radius, row) for row in within]),
    }


def _light_within(g: dict[str, Array], radius: Array) -> Array:
    """Share of the light in r within circular apertures (arcsec), after the PSF, (n, radius.size).

    Each Gaussian of the profile counts as round, with the mean of its two widths.
    """
    psf = g["factor_psf_fwhm_arcsec"] / 2.3548
    bulge_to_total = g["factor_bulge_to_total"]
    within = np.zeros((psf.size, radius.size))
    profiles = [
        (np.where(g["factor_bulge_sersic_n"] == n, bulge_to_total, 0), g["factor_bulge_radius_arcsec"], n)
        for n in (ELLIPTICAL_SERSIC_N, BULGE_SERSIC_N)
    ]
    profiles.append((1 - bulge_to_total, g["factor_effective_radius_arcsec"], 1.0))
    for share, half_light, sersic_n in profiles:
        for weight, sigma in zip(*sersic_gaussians(sersic_n), strict=True):
            for psf_share, psf_scale in ((1 - PSF_WING_SHARE, 1.0), (PSF_WING_SHARE, PSF_WING_SCALE)):
                roundness = (1 + g["factor_axis_ratio"] ** 2) / 2
                variance = (sigma * half_light) ** 2 * roundness + (psf_scale * psf) ** 2
                part = -np.expm1(-0.5 * radius**2 / variance[:, None])
                within += (share * weight * psf_share)[:, None] * part
    return within


def _line_ratios(oh: Array, ionisation: Array) -> tuple[Array, Array]:
    """log([NII]/Ha) and log([OIII]/Hb) of star formation at this metallicity on the Tremonti et al. 2004 scale.

    The metallicity goes to the O3N2 scale (Kewley & Ellison 2008, table 3, rms 0.046 dex), whose index
    log([OIII]/Hb) - log([NII]/Ha) = (8.73 - oh) / 0.32 (Pettini & Pagel 2004, eq. 3) meets the local star-forming
    sequence log([OIII]/Hb) = 0.61 / (log([NII]/Ha) + 0.08) + 1.1 (Kewley et al. 2013) in one point. `ionisation`
    (dex) shifts the galaxy off that sequence at constant O3N2.
    """
    oh = np.clip(oh, 8.05, 9.2)
    o3n2 = (8.73 - np.polyval([-0.3162894, 8.526986, -75.79752, 230.7820], oh)) / 0.32
    nii = np.linspace(-0.3, -2.0, 400)
    sequence = 0.61 / (nii + 0.08) + 1.1
    log_nii_ha = np.interp(o3n2, sequence - nii, nii) + ionisation
    return log_nii_ha, log_nii_ha + o3n2


def _line_fluxes(g: dict[str, Array], draws: _Draws) -> Array:
    """Fluxes of `LINES` in the 3 arcsec fibre, 1e-17 erg/s/cm2, (n, 4).

    Star formation gives log L(Ha) = log SFR + 41.27 (Kennicutt & Evans 2012) and old stars a weak LINER-like
    spectrum. Active nuclei add lines at the tip of the AGN branch, so that mixtures pass through the composites.
    """
    log_nii_ha, log_oiii_hb = _line_ratios(g["oh_p50_visible"], draws.normal(0.035))
    seyfert = draws.share(0.4)
    agn_nii_ha = 0.08 + draws.normal(0.1)
    agn_oiii_hb = np.where(seyfert, 0.85, 0.35) + draws.normal(0.12)
    log_young = g["_log_sfr"] + 41.27 + np.log10(g["_fibre_share"])
    log_old = g["_log_mass"] + 28.45 + np.log10(g["_fibre_share"]) + draws.normal(0.2)
    # An active nucleus gives the share `_agn_mix` of the Balmer light.
    young = 10**log_young
    hard = 10**log_old + young * g["_agn_mix"] / (1 - g["_agn_mix"])
    h_alpha = young + hard
    h_beta = young / 2.86 + hard / 3.1
    nii = young * 10**log_nii_ha + hard * 10**agn_nii_ha
    oiii = young / 2.86 * 10**log_oiii_hb + hard / 3.1 * 10**agn_oiii_hb
    luminosity = np.column_stack([nii, h_alpha, oiii, h_beta])
    reddening = 0.28 * g["factor_dust"] * np.exp(draws.normal(0.25))
    distance_cm = g["_distance_mpc"] * 3.0857e24
    flux = luminosity / (4 * np.pi * distance_cm**2)[:, None] * 1e17
    return flux * 10 ** (-0.4 * CARDELLI_K * reddening[:, None])


def _spectroscopy(g: dict[str, Array], draws: _Draws) -> dict[str, Array]:
    """Measured lines with errors, class, and the metallicity of what is classified as star-forming."""
    flux = _line_fluxes(g, draws)
    continuum = 10 ** (0.4 * (17.5 - g["factor_r_mag"])) * g["_fibre_share"]
    error = LINE_NOISE * (0.6 + continuum)[:, None] ** 0.5 * np.exp(draws.normal(0.15))[:, None]
    error = np.hypot(error, 0.01 * flux)
    noise = np.column_stack([draws.normal() for _ in LINES])
    measured = flux + noise * error
    columns = {f"{line}_flux": measured[:, i] for i, line in enumerate(LINES)}
    columns |= {f"{line}_flux_err": error[:, i] for i, line in enumerate(LINES)}
    kind = mpa_jhu_class(measured, error)
    oh = np.where(kind == STAR_FORMING, g["oh_p50_visible"] + g["oh_p50_hidden"], NOT_MEASURED)
    return columns | {"bptclass": kind.astype(float), "oh_p50": oh}
