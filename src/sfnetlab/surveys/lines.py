"""Formulas of emission lines and metallicity on arrays: BPT demarcations, MPA-JHU classes, mass-metallicity relation.

Line ratios are log10 of flux ratios; metallicity is 12 + log10(O/H).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

LINES = ("nii_6584", "h_alpha", "oiii_5007", "h_beta")
"""The four BPT lines by their SDSS column prefix; arrays of fluxes have their columns in this order."""

STAR_FORMING, LOW_SN_STAR_FORMING, COMPOSITE, AGN, LOW_SN_AGN, UNCLASSIFIABLE = 1, 2, 3, 4, 5, -1
"""MPA-JHU codes in the SDSS column `bptclass`."""

NOT_MEASURED = -9999.0
"""What the MPA-JHU tables hold where a quantity could not be measured."""

KAUFFMANN_POLE, KEWLEY_POLE = 0.05, 0.47
"""log([NII]/Ha) at which each demarcation goes to minus infinity; it means nothing beyond."""


def kauffmann_2003(log_nii_ha: ArrayLike) -> NDArray[np.float64]:
    """Return the log([OIII]/Hb) above which a galaxy is not purely star-forming; NaN at and beyond the pole.

    Parameters
    ----------
    log_nii_ha : array_like
        log([NII]/Ha).

    References
    ----------
    Kauffmann et al. 2003, MNRAS 346, 1055, eq. 1.
    """
    return _hyperbola(log_nii_ha, KAUFFMANN_POLE, 1.3)


def kewley_2001(log_nii_ha: ArrayLike) -> NDArray[np.float64]:
    """Return the log([OIII]/Hb) that no starburst model exceeds: galaxies above are AGN; NaN beyond the pole.

    Parameters
    ----------
    log_nii_ha : array_like
        log([NII]/Ha).

    References
    ----------
    Kewley et al. 2001, ApJ 556, 121, eq. 5.
    """
    return _hyperbola(log_nii_ha, KEWLEY_POLE, 1.19)


def _hyperbola(log_nii_ha: ArrayLike, pole: float, offset: float) -> NDArray[np.float64]:
    x = np.asarray(log_nii_ha, dtype=float)
    return 0.61 / np.where(x < pole, x - pole, np.nan) + offset


def bpt_class(log_nii_ha: ArrayLike, log_oiii_hb: ArrayLike) -> NDArray[np.int64]:
    """Return the class by the line ratios alone: 1 star-forming, 3 composite, 4 AGN, -1 where a ratio is not finite."""
    x, y = np.broadcast_arrays(np.asarray(log_nii_ha, dtype=float), np.asarray(log_oiii_hb, dtype=float))
    # Comparisons with NaN are false, so a ratio beyond a pole lies above that demarcation.
    below_kauffmann = y < kauffmann_2003(x)
    below_kewley = y < kewley_2001(x)
    kind = np.where(below_kauffmann, STAR_FORMING, np.where(below_kewley, COMPOSITE, AGN))
    return np.where(np.isfinite(x) & np.isfinite(y), kind, UNCLASSIFIABLE)


def mpa_jhu_class(fluxes: ArrayLike, errors: ArrayLike) -> NDArray[np.int64]:
    """Return the MPA-JHU class code by the four lines, with the classes of low signal-to-noise.

    Parameters
    ----------
    fluxes, errors : ndarray of shape (n_galaxies, 4)
        In the order of `LINES`, all in the same unit. A flux that is not positive has no ratio and no signal.

    Returns
    -------
    ndarray of shape (n_galaxies,)
        1, 3, 4 where all four lines have S/N > 3; else 5 where [NII] and Ha do and log([NII]/Ha) > -0.2;
        else 2 where Ha has S/N > 2; else -1.

    Raises
    ------
    ValueError
        If the shapes differ or are not (n_galaxies, 4).

    References
    ----------
    Brinchmann et al. 2004, MNRAS 351, 1151, section 3.
    """
    flux, error = np.asarray(fluxes, dtype=float), np.asarray(errors, dtype=float)
    if flux.shape != error.shape or flux.ndim != 2 or flux.shape[1] != len(LINES):
        raise ValueError(f"fluxes and errors must both be (n_galaxies, {len(LINES)}), got {flux.shape}, {error.shape}")
    signal = np.where(flux > 0, flux / error, 0.0)
    log_flux = np.log10(np.where(flux > 0, flux, np.nan))
    nii, h_alpha, oiii, h_beta = log_flux.T
    low_sn_agn = (signal[:, :2] > 3).all(axis=1) & (nii - h_alpha > -0.2)
    low_sn = np.where(low_sn_agn, LOW_SN_AGN, np.where(signal[:, 1] > 2, LOW_SN_STAR_FORMING, UNCLASSIFIABLE))
    return np.where((signal > 3).all(axis=1), bpt_class(nii - h_alpha, oiii - h_beta), low_sn)


def tremonti_2004(log_mass: ArrayLike) -> NDArray[np.float64]:
    """Return the 12 + log(O/H) of a star-forming galaxy of a log10 stellar mass (Msun); NaN outside 8.5 to 11.5.

    References
    ----------
    Tremonti et al. 2004, ApJ 613, 898, eq. 3.
    """
    m = np.asarray(log_mass, dtype=float)
    return np.where((m >= 8.5) & (m <= 11.5), -1.492 + 1.847 * m - 0.08026 * m**2, np.nan)
