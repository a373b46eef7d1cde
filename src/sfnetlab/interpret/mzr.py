"""The mass-metallicity relation of what networks predict: its median, its scatter, and what its residuals know of.

log10 of masses in Msun, of star-formation rates in Msun/yr; metallicity is 12 + log10(O/H). All arrays are (n,).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import percentile_interval, resample_counts
from sfnetlab.metrics.predictions import Prediction, prediction_rows, typed_identity, value_scores
from sfnetlab.metrics.regression import NMAD_SCALE
from sfnetlab.metrics.tidy import HEAD, IDENTITY, STANDS_ON
from sfnetlab.surveys.lines import tremonti_2004

MASS, METALLICITY, SFR = "lgm_tot_p50", "oh_p50", "sfr_tot_p50"
"""Columns of the catalogue; of tables of predictions too."""
RELATION_LEAST = 50
"""Test galaxies, fewer make no relation."""
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
    """Return the relation that galaxies follow, in bins of at least `N_LEAST` of them, about `BIN_DEX` wide or wider.

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
    """Return `tremonti_2004`, masses beyond its range taken at its ends, so that every galaxy has a prediction."""
    return tremonti_2004(np.clip(log_mass, *TREMONTI_MASSES))


def relation_bins(
    log_mass: NDArray[np.floating], metallicity: NDArray[np.floating], *, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Return the metallicity in bins of mass `BIN_DEX` wide that have at least `N_LEAST` galaxies; empty without one.

    Returns
    -------
    DataFrame
        `log_mass` (middle), `n`, `median`, `p16`, `p84`, and `sd` and `nmad` about the bin's mean and median, each with
        a 95 % bootstrap interval, `<name>_low` and `<name>_high`. All dex. A bin's slope adds to its scatter.
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
    """Return Spearman's rank correlation of residuals from the relation with each quantity, with its interval.

    Galaxies whose quantity is not finite are left out of it. NaN where residuals or quantity do not vary.

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
        for counts in resample_counts(n, n_resamples if n else 0, seed):
            # ranks of the whole sample stand for those of the resample, whose order they share
            drawn.append(_correlation(ranks, counts / n))
        (low,), (high,), _ = percentile_interval(np.array(drawn)[:, None])
        rho = _correlation(ranks, np.full(n, 1 / n)) if n else np.nan
        rows.append({"quantity": name, "rho": rho, "low": float(low), "high": float(high), "n": n})
    return pd.DataFrame(rows)


def metallicity_from_mass(
    known: pd.DataFrame, predictions: pd.DataFrame, *, n_resamples: int, seed: int
) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """Return scores of the metallicity that follows from the masses that heads predict, by two relations, and itself.

    Parameters
    ----------
    known : DataFrame
        Galaxies with `id_str`, `split` and the three measured columns; the fitted relation is of the train ones.
    predictions : DataFrame
        Test predictions of every run: `metrics.predictions.prediction_rows` with `IDENTITY` and `STANDS_ON`.

    Returns
    -------
    scores : list of DataFrame
        `value_scores` of `METALLICITY` with `IDENTITY`, for each head and relation; empty for fewer than `N_LEAST`
        train galaxies.
    predicted : list of DataFrame
        `prediction_rows` with `IDENTITY` and `STANDS_ON`, as many.
    """
    train, test = (known[known["split"] == part].set_index("id_str") for part in ("train", "test"))
    if len(train) < N_LEAST:
        return [], []
    relations = {
        "tremonti_2004": tremonti_metallicity,
        "fitted_relation": median_relation(train[MASS].to_numpy(), train[METALLICITY].to_numpy()),
    }
    by = [*IDENTITY, *STANDS_ON, "n_features_used"]
    scores: list[pd.DataFrame] = []
    predicted: list[pd.DataFrame] = []
    masses = _of_heads(predictions, test, MASS)
    for (*identity, n_used), rows in masses.groupby(by, dropna=False, sort=False):
        truth = test.loc[rows["id_str"], METALLICITY].to_numpy()[:, None]
        split = np.full(len(truth), "test")
        for name, relation in relations.items():
            prediction = Prediction(f"{HEAD}_mass_{name}", n_used, relation(rows["y_pred"].to_numpy())[:, None])
            table = value_scores(
                (METALLICITY,), truth, prediction, split, n_resamples=n_resamples, seed=seed, parts=("test",)
            )
            told = prediction_rows((METALLICITY,), rows["id_str"], truth, prediction, split)
            about = dict(zip(by, identity, strict=False))
            scores.append(typed_identity(table.assign(**about)))
            predicted.append(typed_identity(told.assign(**about)))
    return scores, predicted


def predicted_relations(
    known: pd.DataFrame, predictions: pd.DataFrame, *, n_resamples: int, seed: int
) -> dict[str, pd.DataFrame]:
    """Return how the true metallicity and that of each head follow catalogue masses; empty for too few galaxies.

    Parameters
    ----------
    known, predictions
        As for `metallicity_from_mass`.

    Returns
    -------
    dict of DataFrame
        `mass_metallicity_bins` (`relation_bins`) and `mass_metallicity_residuals` (`residual_trends` with log SFR and
        log sSFR), both with `features, k, seed`: `features` is "true" for the catalogue's metallicity.
    """
    test = known[known["split"] == "test"].set_index("id_str")
    drawn = {("true", None, None): test[METALLICITY]}
    heads = _of_heads(predictions, test, METALLICITY)
    for identity, rows in heads.groupby(["features", "k", "seed"], dropna=False, sort=False):
        drawn[identity] = rows.set_index("id_str")["y_pred"]
    bins: list[pd.DataFrame] = []
    trends: list[pd.DataFrame] = []
    for (features, k, run), values in drawn.items():
        rows = test.loc[values.index]
        mass, metallicity = rows[MASS].to_numpy(), values.to_numpy()
        if len(rows) < RELATION_LEAST:
            return {}
        of_run = relation_bins(mass, metallicity, n_resamples=n_resamples, seed=seed)
        if of_run.empty:
            return {}
        about = {"features": features, "k": k, "seed": run}
        bins.append(of_run.assign(**about))
        residual = metallicity - median_relation(mass, metallicity)(mass)
        quantities = {"log SFR": rows[SFR].to_numpy(), "log sSFR": (rows[SFR] - rows[MASS]).to_numpy()}
        trends.append(residual_trends(residual, quantities, n_resamples=n_resamples, seed=seed).assign(**about))
    tables = {"mass_metallicity_bins": bins, "mass_metallicity_residuals": trends}
    return {name: typed_identity(pd.concat(parts, ignore_index=True)) for name, parts in tables.items()}


def _of_heads(predictions: pd.DataFrame, test: pd.DataFrame, column: str) -> pd.DataFrame:
    """What heads predict of a column for these galaxies."""
    chosen = (predictions["probe"] == HEAD) & predictions["id_str"].isin(test.index)
    return predictions[chosen & (predictions["column"] == column)]


def _correlation(columns: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    centred = columns - weights @ columns
    covariance = (centred * weights[:, None]).T @ centred
    size = np.sqrt(covariance[0, 0] * covariance[1, 1])
    return float(covariance[0, 1] / size) if size > 0 else np.nan


def _require(log_mass: NDArray[np.floating], metallicity: NDArray[np.floating]) -> None:
    if log_mass.shape != metallicity.shape or log_mass.ndim != 1 or len(log_mass) < N_LEAST:
        raise ValueError(
            f"expected {N_LEAST} or more masses and as many metallicities, got {log_mass.shape}, {metallicity.shape}"
        )
    if not (np.isfinite(log_mass).all() and np.isfinite(metallicity).all()):
        raise ValueError("a mass or a metallicity is not finite")
