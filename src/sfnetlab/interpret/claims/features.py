"""Claims about features: with what they go, whether others find them too, how close they are to known factors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sfnetlab.interpret.claims.evidence import (
    CannotTestError,
    ClaimTables,
    Finding,
    main_k,
    predictions_of,
    resampled_shares,
    runs_of,
)
from sfnetlab.methods.pca import PCA
from sfnetlab.methods.sae import SAE
from sfnetlab.methods.sfnet import SFNet
from sfnetlab.metrics.nulls import ALIKE
from sfnetlab.metrics.runs import encoders_of, from_intervals, over_pairs
from sfnetlab.metrics.tidy import EFFECTIVE, HEAD

COMMON = 0.005
"""Share of galaxies in which a feature of the library must be active: 100 of the SFNet paper's 23,444."""
MOST = 0.5
"""Share of the features above which most recur."""
N_COMPARED = 64
"""Latents and components that are compared, as the Euclid paper has it."""


class Estimate(NamedTuple):
    """A score with its 95 % interval."""

    value: float
    low: float
    high: float
    freedom: float
    """Degrees of freedom behind the interval."""


def _compared(tables: ClaimTables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The most frequent latents of an SAE and the first principal components, of every run."""
    latents, components = (
        runs_of(tables, tables.alignment, kind, "alignment with morphology")
        .sort_values(rank)
        .groupby("seed", dropna=False)
        .head(N_COMPARED)
        for kind, rank in ((SAE.kind, "frequency_rank"), (PCA.kind, "feature"))
    )
    return latents, components


def _mean_over_features(table: pd.DataFrame, values: "pd.Series[float]") -> Estimate:
    """The mean of features' values and its interval over features and runs."""
    found: list[tuple[float, float, float]] = []
    seeds: list[Any] = []
    for seed, of_run in values.groupby(table["seed"], dropna=False):
        known = of_run[np.isfinite(of_run)].to_numpy(dtype=np.float64)
        if len(known) < 2:
            raise CannotTestError("fewer than two features vary and are found by another seed too")
        sample = resampled_shares(len(known)) @ known
        low, high = np.quantile(sample[1:], (0.025, 0.975))
        found.append((float(sample[0]), float(low), float(high)))
        seeds.append(seed)
    value, lows, highs = np.array(found).T
    return _over_runs(pd.DataFrame({"seed": seeds, "value": value, "low": lows, "high": highs}))


def _over_runs(runs: pd.DataFrame) -> Estimate:
    """The mean over runs of a score, a row each with `seed`, `value`, `low` and `high` over galaxies."""
    seeds = encoders_of(runs["seed"])
    value, low, high = runs[["value", "low", "high"]].to_numpy(dtype=np.float64).T
    return Estimate(*from_intervals(value, low, high, seeds), np.inf if seeds[0] is None else len(set(seeds)) - 1)


def _counted(runs: pd.DataFrame, numbers: "pd.Series[float]") -> Estimate:
    """The mean over runs of a number that is known of each."""
    return _over_runs(runs.assign(value=numbers, low=numbers, high=numbers))


def _minus(what: str, ours: Estimate, theirs: Estimate) -> Finding:
    """The difference of two scores, taken as independent (Zou & Donner 2008): rather too wide than too narrow."""
    difference = ours.value - theirs.value
    low = difference - float(np.hypot(ours.value - ours.low, theirs.high - theirs.value))
    high = difference + float(np.hypot(ours.high - ours.value, theirs.value - theirs.low))
    return Finding(what, difference, low, high, 0.0, "above", min(ours.freedom, theirs.freedom))


def _finding_of_correlations(what: str, runs: pd.DataFrame, value: str, low: str, high: str, line: float) -> Finding:
    """The mean size of a correlation, whatever its sign, over runs, a row each."""
    ends = runs[[low, high]].abs().to_numpy()
    crosses = (runs[low] * runs[high] <= 0).to_numpy()
    lower = np.where(crosses, 0.0, ends.min(axis=1))
    found = _over_runs(runs.assign(value=runs[value].abs(), low=lower, high=ends.max(axis=1)))
    return Finding(what, *found[:3], line, "above", found.freedom)


def latents_align_better(tables: ClaimTables) -> Finding:
    """Return by how much better latents go with morphology labels than as many components do."""
    n, scores = _at_equal_numbers(
        [
            runs_of(tables, tables.alignment_scores, kind, "alignment with morphology").rename(
                columns={"score": "value"}
            )
            for kind in (SAE.kind, PCA.kind)
        ],
        "n_features",
    )
    return _minus(f"mean alignment of the {n} most frequent latents minus that of the first {n} components", *scores)


def latents_are_novel(tables: ClaimTables) -> Finding:
    """Return by how much less morphology labels explain of latents than of components, of those that recur."""
    novelty = [_mean_over_features(table, table["novelty"]) for table in _compared(tables)]
    return _minus("mean novelty (1 - R2), latents minus components", *novelty)


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
    """Return how many features an SFNet uses for more than a few galaxies."""
    usage = runs_of(tables, tables.frequencies, SFNet.kind, "catalogue")
    n_used = (usage["frequency"] > COMMON).groupby(usage["seed"], dropna=False).sum().astype(float)
    found, k = _counted(n_used.reset_index(), n_used.reset_index()["frequency"]), int(usage["k"].iloc[0])
    what = f"features active in more than {COMMON:.1%} of test galaxies, k = {k}"
    return Finding(what, *found[:3], float(k), "above", found.freedom)


def effective_features(tables: ClaimTables) -> Finding:
    """Return how many directions the features of an SFNet effectively span: their participation ratio."""
    k = main_k(tables)
    runs = predictions_of(tables, SFNet.kind, HEAD, k=k).drop_duplicates("seed")
    participation = EFFECTIVE[1]
    if participation not in runs or runs[participation].isna().any():
        raise CannotTestError("the effective number of features is not known")
    found = _counted(runs, runs[participation])
    what = f"participation ratio of all features of the SFNet with k = {k}"
    return Finding(what, *found[:3], float(k), "above", found.freedom)


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
    if same["untrained_alike"].isna().any():
        raise CannotTestError(
            "no untrained network to hold it against: add [[features]] with kind = 'encoder', weights = 'random'"
        )
    same = same.assign(beyond=np.minimum(same["share_alike"] - MOST, same["excess_alike"]))
    networks = [pairs for _, pairs in same.groupby(["features_a", "k_a"])]
    pairs = min(networks, key=lambda pairs: pairs["beyond"].mean())
    number = {name: i for i, name in enumerate(pd.unique(pairs[["table_a", "table_b"]].to_numpy().ravel()))}
    a, b = (pairs[table].map(number).tolist() for table in ("table_a", "table_b"))
    alike, untrained = pairs["share_alike"].mean(), pairs["untrained_alike"].mean()
    what = (
        f"least over {len(networks)} SFNets: share of matched features with |r| above {ALIKE} ({alike:.2f}) less "
        f"{MOST} or what an untrained network reaches ({untrained:.2f}), over {len(pairs)} pairs of {len(number)} seeds"
    )
    found = over_pairs(pairs["beyond"].to_numpy(dtype=np.float64), a, b)
    return Finding(what, *found, 0.0, "above", len(number) - 1)


def factors(tables: ClaimTables) -> Finding:
    """Return by how much closer SFNet features are to the factors behind the galaxies than SAE latents."""
    if len(tables.recovery) == 0:
        raise CannotTestError("the factors behind these galaxies are not known")
    compared = [
        recovery[(recovery["factor"] == "all") & (recovery["metric"] == "correlation") & recovery["n_drawn"].notna()]
        for recovery in (
            runs_of(tables, tables.recovery, kind, "recovery of factors") for kind in (SFNet.kind, SAE.kind)
        )
    ]
    n, scores = _at_equal_numbers(compared, "n_drawn")
    what = f"mean correlation of matched features and factors (MCC) of {n} features each, SFNet minus SAE"
    return _minus(what, *scores)


def _at_equal_numbers(compared: Sequence[pd.DataFrame], number: str) -> tuple[int, list[Estimate]]:
    """The largest number of features that every run of all methods has, and each one's score with so many.

    A method is a table of its runs, with the number of features in the column `number`, and `value`, `low`, `high` over
    galaxies.
    """
    numbers = set.intersection(*(_of_all_runs(runs, number) for runs in compared))
    if not numbers:
        raise CannotTestError("not enough features of every run of both to be compared at equal numbers")
    n = max(numbers)
    return n, [_over_runs(runs[runs[number] == n]) for runs in compared]


def _of_all_runs(runs: pd.DataFrame, number: str) -> set[int]:
    """The numbers of features that every run has."""
    n_runs = runs["seed"].nunique(dropna=False)
    counts = runs.groupby(number)["seed"].nunique(dropna=False)
    return {int(n) for n in counts.index[counts == n_runs]}
