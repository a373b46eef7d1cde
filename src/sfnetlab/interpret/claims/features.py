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
    runs_of,
)
from sfnetlab.methods.pca import PCA
from sfnetlab.methods.sae import SAE
from sfnetlab.methods.sfnet import SFNet
from sfnetlab.metrics.runs import from_intervals, over_pairs

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


def _finding_of_correlations(what: str, runs: pd.DataFrame, value: str, low: str, high: str, line: float) -> Finding:
    """The mean size of a correlation, whatever its sign, over runs, a row each."""
    ends = runs[[low, high]].abs().to_numpy()
    crosses = (runs[low] * runs[high] <= 0).to_numpy()
    lower = np.where(crosses, 0.0, ends.min(axis=1))
    found = from_intervals(runs[value].abs().to_numpy(), lower, ends.max(axis=1), _seeds(runs))
    return Finding(what, *found, line, "above")


def _seeds(runs: pd.DataFrame) -> list[int | None]:
    return [None if pd.isna(seed) else int(seed) for seed in runs["seed"]]


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
    components = runs_of(tables, tables.alignment, PCA.kind, "alignment with morphology")
    first = components[components["feature"] == 0]
    labels = ", ".join(dict.fromkeys(first["best_label"]))
    return _finding_of_correlations(f"|rho| of the first component with {labels}", first, "rho", "low", "high", 0.7)


def one_feature_follows(tables: ClaimTables) -> Finding:
    """Return how the most used feature of an SFNet goes with the target."""
    usage = runs_of(tables, tables.frequencies, SFNet.kind, "catalogue")
    most_used = usage.loc[usage.groupby("seed", dropna=False)["frequency"].idxmax(), ["seed", "feature"]]
    associations = runs_of(tables, tables.associations, SFNet.kind, "associations")
    rows = associations[associations["label"] == tables.column].merge(most_used, on=["seed", "feature"])
    if len(rows) == 0:
        raise CannotTestError(f"{tables.column} is not among the labels")
    features = ", ".join(map(str, rows["feature"]))
    what = f"|Pearson r| of the most used feature ({features}) with {tables.column}"
    return _finding_of_correlations(what, rows, "pearson", "pearson_low", "pearson_high", 0.7)


def library(tables: ClaimTables) -> Finding:
    """Return which share of the features that it may choose from an SFNet uses, of each run with Wilson's interval."""
    usage = runs_of(tables, tables.frequencies, SFNet.kind, "catalogue")
    n, z = tables.n_sfnet_features, 1.96
    share = (usage["frequency"] > COMMON).groupby(usage["seed"], dropna=False).sum() / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    what = f"share of {n} features active in more than {COMMON:.1%} of test galaxies"
    low, high = (centre - half).to_numpy(), (centre + half).to_numpy()
    return Finding(what, *from_intervals(share.to_numpy(), low, high, _seeds(share.reset_index())), 0.5, "above")


def features_recur(tables: ClaimTables) -> Finding:
    """Return which share of an SFNet's features another seed finds too, of the SFNet where it is least."""
    matching = tables.matching
    if len(matching) == 0:
        raise CannotTestError("no two feature tables were compared")
    same = matching[
        (matching["kind_a"] == SFNet.kind)
        & (matching["features_a"] == matching["features_b"])
        & (matching["k_a"] == matching["k_b"])
    ]
    if len(same) == 0:
        raise CannotTestError("fewer than two seeds of an SFNet")
    networks = [pairs for _, pairs in same.groupby(["features_a", "k_a"])]
    pairs = min(networks, key=lambda pairs: pairs["share_above_null"].mean())
    number = {name: i for i, name in enumerate(pd.unique(pairs[["table_a", "table_b"]].to_numpy().ravel()))}
    a, b = (pairs[table].map(number).tolist() for table in ("table_a", "table_b"))
    what = (
        f"least over {len(networks)} SFNets: share of matched features above the null's 95 %, over {len(pairs)} pairs "
        f"of {len(number)} seeds"
    )
    shares = pairs["share_above_null"].to_numpy(dtype=np.float64)
    return Finding(what, *over_pairs(shares, a, b), 0.5, "above")


def factors(tables: ClaimTables) -> Finding:
    """Return by how much closer SFNet features are to the factors behind the galaxies than SAE latents."""
    if len(tables.recovery) == 0:
        raise CannotTestError("the factors behind these galaxies are not known")
    scores = []
    for kind in (SFNet.kind, SAE.kind):
        recovery = runs_of(tables, tables.recovery, kind, "recovery of factors")
        runs = recovery[(recovery["factor"] == "all") & (recovery["metric"] == "correlation")]
        value, low, high = runs[["value", "low", "high"]].to_numpy(dtype=np.float64).T
        scores.append(from_intervals(value, low, high, _seeds(runs)))
    (ours, low, high), (theirs, their_low, their_high) = scores
    # Intervals of two scores on the same galaxies, taken as independent: too wide rather than too narrow.
    difference = ours - theirs
    left = difference - float(np.hypot(ours - low, their_high - theirs))
    right = difference + float(np.hypot(high - ours, theirs - their_low))
    what = "mean correlation of matched features and factors (MCC), SFNet minus SAE"
    return Finding(what, difference, left, right, 0.0, "above")
