"""The mass-metallicity relation of what networks predict: its median, its scatter, and what its residuals know of.

log10 of masses in Msun, of star-formation rates in Msun/yr; metallicity is 12 + log10(O/H). All arrays are (n,).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import resample_counts
from sfnetlab.metrics.regression import NMAD_SCALE
from sfnetlab.surveys.lines import tremonti_2004

BIN_DEX = 0.2
N_LEAST = 10
"""Galaxies in a bin of mass that is reported."""
TREMONTI_MASSES = (8.5, 11.5)
TREMONTI_SCATTER_DEX = 0.10
"""Standard deviation of galaxies about the relation of Tremonti et al. 2004, section 5."""


class MedianRelation(NamedTuple):
    """Medians of the metallicity in bins of mass, joined by straight lines and constant beyond the outer ones."""

    log_mass: NDArray[np.float64]
    """(n_bins,), the median of each bin."""
    metallicity: NDArray[np.float64]

    def __call__(self, log_mass: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.interp(log_mass, self.log_mass, self.metallicity)


def median_relation(log_mass: NDArray[np.floating], metallicity: NDArray[np.floating]) -> MedianRelation:
    """The relation that galaxies follow, in bins of at least `N_LEAST` of them and at least `BIN_DEX` wide or so.

    Raises
    ------
    ValueError
        If lengths differ, a value is not finite, or there are fewer than `N_LEAST` galaxies.
    """
    _require(log_mass, metallicity)
    n_bins = int(np.clip(np.ptp(log_mass) / BIN_DEX, 1, len(log_mass) // N_LEAST))
    bins = np.array_split(np.argsort(log_mass, kind="stable"), n_bins)
    return MedianRelation(
        np.array([np.median(log_mass[rows]) for rows in bins], dtype=np.float64),
        np.array([np.median(metallicity[rows]) for rows in bins], dtype=np.float64),
    )


def tremonti_metallicity(log_mass: NDArray[np.floating]) -> NDArray[np.float64]:
    """`tremonti_2004`, masses beyond its range taken at its ends, so that every galaxy has a prediction."""
    return tremonti_2004(np.clip(log_mass, *TREMONTI_MASSES))


def relation_bins(
    log_mass: NDArray[np.floating], metallicity: NDArray[np.floating], *, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Metallicity in bins of mass `BIN_DEX` wide, those with at least `N_LEAST` galaxies; empty where there is none.

    Returns
    -------
    DataFrame
        `log_mass` (middle), `n`, `median`, `p16`, `p84`, and `sd` and `nmad` about the bin's own mean and median, each
        with a 95 % bootstrap interval, `<name>_low` and `<name>_high`. All dex. A bin's slope adds to its scatter.
    """
    _require(log_mass, metallicity)
    bins = np.floor(log_mass / BIN_DEX).astype(int)
    rows = []
    for place in np.unique(bins):
        values = np.sort(np.asarray(metallicity[bins == place], dtype=np.float64))
        if len(values) < N_LEAST:
            continue
        row = {"log_mass": (place + 0.5) * BIN_DEX, "n": len(values)} | _scatter(values)
        row |= dict(zip(("p16", "p84"), np.quantile(values, (0.16, 0.84)), strict=True))
        drawn = pd.DataFrame(
            [_scatter(np.repeat(values, counts)) for counts in resample_counts(len(values), n_resamples, seed)]
        )
        for name, (low, high) in drawn.quantile([0.025, 0.975]).items():
            row |= {f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _scatter(values: NDArray[np.float64]) -> dict[str, float]:
    median = float(np.median(values))
    nmad = NMAD_SCALE * float(np.median(np.abs(values - median)))
    return {"median": median, "sd": float(values.std()), "nmad": nmad}


def residual_trends(
    residual: NDArray[np.floating],
    quantities: Mapping[str, NDArray[np.floating]],
    *,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Spearman's rank correlation of residuals from the relation with each quantity, and its bootstrap interval.

    Galaxies whose quantity is not finite are left out of it.

    Returns
    -------
    DataFrame
        `quantity, rho, low, high, n`.
    """
    from scipy.stats import rankdata

    rows = []
    for name, values in quantities.items():
        known = np.isfinite(values)
        ranks = np.stack([rankdata(residual[known]), rankdata(values[known])], axis=1)
        n = len(ranks)
        drawn = []
        for counts in resample_counts(n, n_resamples, seed):
            # ranks of the whole sample stand for those of the resample, whose order they share
            drawn.append(_correlation(ranks, counts / n))
        low, high = np.nanquantile(drawn, (0.025, 0.975))
        rho = _correlation(ranks, np.full(n, 1 / n))
        rows.append({"quantity": name, "rho": rho, "low": float(low), "high": float(high), "n": n})
    return pd.DataFrame(rows)


def _correlation(columns: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    centred = columns - weights @ columns
    covariance = (centred * weights[:, None]).T @ centred
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


def _require(log_mass: NDArray[np.floating], metallicity: NDArray[np.floating]) -> None:
    if log_mass.shape != metallicity.shape or log_mass.ndim != 1 or len(log_mass) < N_LEAST:
        raise ValueError(
            f"expected {N_LEAST} or more masses and as many metallicities, got {log_mass.shape}, {metallicity.shape}"
        )
    if not (np.isfinite(log_mass).all() and np.isfinite(metallicity).all()):
        raise ValueError("a mass or a metallicity is not finite")
