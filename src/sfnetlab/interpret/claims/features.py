"""Claims about features: with what they go, whether others find them too, how close they are to known factors."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.claims.evidence import (
    N_RESAMPLES,
    SEED,
    CannotTestError,
    ClaimTables,
    Finding,
    Sample,
    described_of,
    finding_of,
    resampled_shares,
)
from sfnetlab.methods.pca import PCA
from sfnetlab.methods.sae import SAE
from sfnetlab.methods.sfnet import SFNet

COMMON = 0.005
"""Share of galaxies in which a feature of the library must be active: 100 of the SFNet paper's 23,444."""
N_COMPARED = 64
"""Latents and components that are compared, as the Euclid paper has it."""


def _mean_over_features(values: NDArray[np.floating]) -> Sample:
    known = values[np.isfinite(values)]
    if len(known) < 2:
        raise CannotTestError("fewer than two features vary")
    return resampled_shares(len(known)) @ known


def _independent_mean(values: NDArray[np.floating]) -> Sample:
    """The same as `_mean_over_features`, but resampled apart from another table's."""
    known = values[np.isfinite(values)]
    if len(known) < 2:
        raise CannotTestError("fewer than two features vary")
    draws = np.random.default_rng(SEED + 1).integers(len(known), size=(N_RESAMPLES, len(known)))
    return np.concatenate([[known.mean()], known[draws].mean(axis=1)])


def _latents_and_components(tables: ClaimTables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The most frequent latents of an SAE and the first principal components."""
    latents, components = (
        described_of(tables, tables.alignment, kind, "alignment with morphology") for kind in (SAE.kind, PCA.kind)
    )
    return latents.nsmallest(N_COMPARED, "frequency_rank"), components.nsmallest(N_COMPARED, "feature")


def _finding_of_correlation(what: str, row: pd.Series, value: str, low: str, high: str, line: float) -> Finding:
    """The size of a correlation, whatever its sign."""
    ends = (abs(row[low]), abs(row[high]))
    crosses = row[low] * row[high] <= 0
    return Finding(what, abs(float(row[value])), 0.0 if crosses else min(ends), max(ends), line, "above")


def latents_align_better(tables: ClaimTables) -> Finding:
    """Return by how much more latents go with a morphology label than components do, each above its null."""
    above_null = [(table["max_rho"] - table["null_mean"]).to_numpy() for table in _latents_and_components(tables)]
    sample = _mean_over_features(above_null[0]) - _independent_mean(above_null[1])
    return finding_of("mean largest |rho| above its null, latents minus components", sample, 0.0, "above")


def latents_are_novel(tables: ClaimTables) -> Finding:
    """Return by how much less morphology labels explain of latents than of components."""
    latents, components = (table["novelty"].to_numpy() for table in _latents_and_components(tables))
    sample = _mean_over_features(latents) - _independent_mean(components)
    return finding_of("mean novelty (1 - R2), latents minus components", sample, 0.0, "above")


def first_component_is_a_label(tables: ClaimTables) -> Finding:
    """Return how the first component goes with the morphology label that fits it best on valid galaxies."""
    components = described_of(tables, tables.alignment, PCA.kind, "alignment with morphology")
    first = components[components["feature"] == 0].iloc[0]
    what = f"|rho| of the first component with {first['best_label']}"
    return _finding_of_correlation(what, first, "rho", "low", "high", 0.7)


def one_feature_follows(tables: ClaimTables) -> Finding:
    """Return how the most used feature of an SFNet goes with the target."""
    usage = described_of(tables, tables.frequencies, SFNet.kind, "catalogue")
    most_used = int(usage["feature"].to_numpy()[usage["frequency"].to_numpy().argmax()])
    associations = described_of(tables, tables.associations, SFNet.kind, "associations")
    row = associations[(associations["feature"] == most_used) & (associations["label"] == tables.column)]
    if len(row) == 0:
        raise CannotTestError(f"{tables.column} is not among the labels")
    what = f"|Pearson r| of the most used feature ({most_used}) with {tables.column}"
    return _finding_of_correlation(what, row.iloc[0], "pearson", "pearson_low", "pearson_high", 0.7)


def library(tables: ClaimTables) -> Finding:
    """Return which share of the features that it may choose from an SFNet uses, with Wilson's interval."""
    usage = described_of(tables, tables.frequencies, SFNet.kind, "catalogue")
    n_used = int((usage["frequency"] > COMMON).sum())
    n, z = tables.n_sfnet_features, 1.96
    share = n_used / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    what = f"share of {n} features active in more than {COMMON:.1%} of test galaxies"
    return Finding(what, share, centre - half, centre + half, 0.5, "above")


def features_recur(tables: ClaimTables) -> Finding:
    """Return which share of an SFNet's features another seed finds too, with the range over pairs of seeds."""
    matching = tables.matching
    if len(matching) == 0:
        raise CannotTestError("no two feature tables were compared")
    same = matching[(matching["kind_a"] == SFNet.kind) & (matching["features_a"] == matching["features_b"])]
    if len(same) == 0:
        raise CannotTestError("fewer than two seeds of an SFNet")
    share = same["share_above_null"].to_numpy(dtype=np.float64)
    return Finding(
        f"share of matched features above the null's 95 %, over {len(same)} pairs of seeds",
        float(share.mean()),
        float(share.min()),
        float(share.max()),
        0.5,
        "above",
    )


def factors(tables: ClaimTables) -> Finding:
    """Return by how much closer SFNet features are to the factors behind the galaxies than SAE latents."""
    if len(tables.recovery) == 0:
        raise CannotTestError("the factors behind these galaxies are not known")
    scores = []
    for kind in (SFNet.kind, SAE.kind):
        recovery = described_of(tables, tables.recovery, kind, "recovery of factors")
        scores.append(recovery[(recovery["factor"] == "all") & (recovery["metric"] == "correlation")].iloc[0])
    ours, theirs = scores
    difference = ours["value"] - theirs["value"]
    # Intervals of two scores on the same galaxies, taken as independent: too wide rather than too narrow.
    low = difference - np.hypot(ours["value"] - ours["low"], theirs["high"] - theirs["value"])
    high = difference + np.hypot(ours["high"] - ours["value"], theirs["value"] - theirs["low"])
    what = "mean correlation of matched features and factors (MCC), SFNet minus SAE"
    return Finding(what, float(difference), float(low), float(high), 0.0, "above")
