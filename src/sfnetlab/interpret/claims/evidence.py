"""What claims are judged by: tables of one experiment, the rows of one method in them, numbers with their intervals."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.methods import TRAITS
from sfnetlab.methods.sfnet import SFNet
from sfnetlab.metrics.bootstrap import sample_and_resamples
from sfnetlab.metrics.method_scores import with_budget
from sfnetlab.metrics.runs import crossed_draws, mean_over_runs, nesting_of
from sfnetlab.metrics.selection import are_chosen, chosen_on_valid
from sfnetlab.metrics.tidy import HEAD

N_RESAMPLES = 1000
SEED = 0
"""Seed of the resamples of galaxies: the same for every method, so that differences are paired."""

Verdict = Literal["holds", "does not hold", "undecided", "needs 5 runs", "cannot be tested here"]
RUNS_WHY = "of so few runs there is no interval: set seeds = [0, 1, 2, 3, 4]"
"""Why a claim needs more runs: from 5 on 95 % intervals are known to cover (`sfnetlab bench coverage`)."""
Sample = NDArray[np.float64]
"""A number (first) and what resamples make of it, shape (1 + N_RESAMPLES,)."""


class CannotTestError(Exception):
    """This survey or configuration lacks what the claim is about; the message says what."""


@dataclass(frozen=True)
class Finding:
    """A number to hold against a line, with its 95 % interval."""

    what: str
    value: float
    low: float
    high: float
    line: float
    side: Literal["above", "below"]
    """On which side of the line the claim holds."""
    freedom: float = np.inf
    """Degrees of freedom behind the interval: runs less one."""
    p_of_draws: float | None = None
    """Two-sided p of the line by draws; None: by Student's t, from the interval."""
    is_bound: bool = False
    """Whether no draw lies beyond the line, so that more draws could only lower p."""

    @property
    def p(self) -> float:
        """Return the two-sided p-value of the number lying on the line; NaN without an interval."""
        if not np.isfinite([self.value, self.low, self.high]).all():
            return float("nan")
        if self.p_of_draws is not None:
            return self.p_of_draws
        from scipy.stats import t

        far, half = abs(self.value - self.line), abs(self.value - (self.low if self.value > self.line else self.high))
        if half == 0:
            return float(far == 0)
        return float(2 * t.sf(t.ppf(0.975, self.freedom) * far / half, self.freedom))

    @property
    def verdict(self) -> Verdict:
        """Return the verdict on this claim alone: undecided unless the whole interval lies on one side of the line."""
        if np.isfinite(self.value) and np.isnan([self.low, self.high]).all():
            return "needs 5 runs"
        if not np.isfinite([self.value, self.low, self.high]).all():
            return "undecided"
        is_above, is_below = self.low > self.line, self.high < self.line
        if not is_above and not is_below:
            return "undecided"
        return "holds" if is_above == (self.side == "above") else "does not hold"


@dataclass(frozen=True)
class ClaimTables:
    """Tidy tables of one experiment, as the stages wrote them; `features, kind, k, seed` say of which feature table."""

    predictions: pd.DataFrame
    """Predictions for test galaxies: `target, column, probe, n_features_used, id_str, y_true, y_pred`, `STANDS_ON`."""
    valid: pd.DataFrame
    """Scores on valid galaxies, by which it is chosen which method stands for its kind: `metrics.parquet` rows."""
    alignment: pd.DataFrame
    """What interpret/alignment.py found, a row a feature."""
    alignment_scores: pd.DataFrame
    """What interpret/alignment_nulls.py found, a row a number of features."""
    associations: pd.DataFrame
    """What interpret/catalog.py found, a row a feature and label."""
    recovery: pd.DataFrame
    """What interpret/recovery.py found; empty without known factors."""
    matching: pd.DataFrame
    """What interpret/matching.py found, a row every two tables, with `features, kind` and `k` of a and of b."""
    frequencies: pd.DataFrame
    """`feature, frequency` of test galaxies, for features that are active in any."""
    regression: str
    """The target on which the claims about a continuous property are tested."""
    column: str
    """Its first column."""
    classes: str | None
    """The pair of classes on which those about classification are tested."""
    held_fixed: pd.DataFrame
    """Mass, colours, size and inclination of test galaxies, a column each that the catalogue has; `id_str` is the
    index."""
    pretrained: frozenset[str]
    """Names of encoders whose weights were learned elsewhere, on something else than the target."""


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper that numbers can uphold."""

    name: str
    source: str
    statement: str
    their_number: str
    rule: str
    test: Callable[[ClaimTables], Finding]
    reason: str
    """Why its line lies where it lies."""
    version: int
    """Raised when the rule or its line changes."""
    date: str
    """Since when this version stands."""


# --- the rows of one method -------------------------------------------------------------------------------------------


def rows_of_kind(tables: ClaimTables, table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return the rows of methods of a kind; of networks that learn their features for a target, only for this one."""
    if len(table) == 0:
        return table
    of_kind = table[table["kind"] == kind]
    if TRAITS[kind].role != "network" or not TRAITS[kind].supervised:
        return of_kind
    every = tables.predictions
    heads = every[(every["kind"] == kind) & (every["probe"] == HEAD) & (every["target"] == tables.regression)]
    return of_kind[of_kind["features"].isin(heads["features"])]


def predictions_of(
    tables: ClaimTables,
    kind: str,
    probe: str,
    *,
    k: int | None = None,
    budget: int | None = None,
    features: Collection[str] | None = None,
    of_classes: bool = False,
) -> pd.DataFrame:
    """Return the predictions of one method of a kind by a probe, a row a galaxy and seed.

    Of several methods and several k it is the one that is best on valid galaxies.

    Parameters
    ----------
    k, features
        Only methods with this k, or of one of these names.
    budget
        Only probes on so many features; None: on all that the method has.
    of_classes
        Whether classes are predicted, and not the continuous property.

    Raises
    ------
    CannotTestError
        If there are none, or of several none has a score on valid galaxies.
    ValueError
        If they are not of all galaxies of the target, which could not be compared with others.
    """
    target = tables.classes if of_classes else tables.regression
    if target is None:
        raise CannotTestError("no [classes] are configured")
    of_target = tables.predictions[tables.predictions["target"] == target]
    if not of_classes:
        of_target = of_target[of_target["column"] == tables.column]
    chosen = rows_of_kind(tables, of_target[of_target["probe"] == probe], kind)
    if features is not None:
        chosen = chosen[chosen["features"].isin(list(features))]
    if k is not None:
        chosen = chosen[chosen["k"] == k]
    if budget is not None:
        chosen = chosen[chosen["n_features_used"] == budget]
    if len(chosen) == 0:
        at = "".join([f", k = {k}" if k is not None else "", f", {budget} features in all" if budget else ""])
        raise CannotTestError(f"no {probe} of features of kind {kind!r}{at}")
    chosen = _best_on_valid(tables, chosen, target, probe, budget)
    by_seed = chosen.groupby("seed", dropna=False)
    chosen = chosen[chosen["n_features_used"] == by_seed["n_features_used"].transform("max")]
    n_galaxies, n_runs = of_target["id_str"].nunique(), by_seed.ngroups
    if len(chosen) != n_galaxies * n_runs:
        raise ValueError(
            f"{probe} of {chosen['features'].iloc[0]}: expected predictions of the {n_galaxies} galaxies of {target} "
            f"by each of {n_runs} runs, found {len(chosen)}: methods of different galaxies cannot be compared"
        )
    return chosen


def _best_on_valid(
    tables: ClaimTables, predictions: pd.DataFrame, target: str, probe: str, budget: int | None
) -> pd.DataFrame:
    """The predictions of one method, by the lab's one rule of choices, where these are of several."""
    variants = predictions[["features", "k"]].drop_duplicates()
    if len(variants) == 1:
        return predictions
    valid = tables.valid[(tables.valid["target"] == target)] if len(tables.valid) else tables.valid
    if len(valid):
        valid = with_budget(valid[valid["split"] == "valid"])
        is_budget = valid["budget"].isna() if budget is None else valid["n_features_used"] == budget
        valid = valid[(valid["probe"] == probe) & is_budget & are_chosen(valid, variants)]
    if len(valid) == 0:
        names = ", ".join(sorted(set(predictions["features"])))
        raise CannotTestError(f"no scores on valid galaxies by which to choose among {names} by {probe}")
    choice = chosen_on_valid(valid, ("target",), ("features", "k")).drop(columns="target")
    return predictions[are_chosen(predictions, choice)]


def runs_of(tables: ClaimTables, table: pd.DataFrame, kind: str, what: str) -> pd.DataFrame:
    """Return what is described of every run of one method of a kind: the first by name, its smallest k of 4 or more.

    Where no k is 4 or more it is the largest.

    Raises
    ------
    CannotTestError
        If there is none; `what` says of what.
    """
    chosen = rows_of_kind(tables, table, kind)
    if len(chosen) == 0:
        raise CannotTestError(f"no {what} of features of kind {kind!r}")
    chosen = chosen[chosen["features"] == chosen["features"].min()]
    if chosen["k"].notna().any():
        ks = sorted(chosen["k"].unique())
        chosen = chosen[chosen["k"] == next((k for k in ks if k >= 4), ks[-1])]
    return chosen


def ks_of(tables: ClaimTables, kind: str) -> list[int]:
    """Return the numbers of active features k that methods of a kind have, rising."""
    return sorted(int(k) for k in rows_of_kind(tables, tables.predictions, kind)["k"].dropna().unique())


def shared_ks(tables: ClaimTables, kind: str) -> list[int]:
    """Return the k that SFNets and methods of a kind have, rising.

    Raises
    ------
    CannotTestError
        If they share none.
    """
    shared = sorted(set(ks_of(tables, SFNet.kind)) & set(ks_of(tables, kind)))
    if not shared:
        raise CannotTestError(f"no k that features of kind {SFNet.kind!r} and {kind!r} share")
    return shared


def main_k(tables: ClaimTables) -> int:
    """Return the k of the SFNet that claims are about: the paper's 4, else the largest.

    Raises
    ------
    CannotTestError
        If there is no SFNet for the target.
    """
    ks = ks_of(tables, SFNet.kind)
    if not ks:
        raise CannotTestError(f"no features of kind {SFNet.kind!r} for this target")
    return 4 if 4 in ks else ks[-1]


# --- intervals --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """A metric of every run of a method, on the test galaxies and on resamples of them that all methods share."""

    values: NDArray[np.float64]
    """(n_runs,)."""
    resampled: NDArray[np.float64]
    """(N_RESAMPLES, n_runs)."""
    families: tuple[str, ...]
    trainings: tuple[int | None, ...]
    """On which training each run stands: see `metrics.tidy.STANDS_ON`."""


def finding_over(
    what: str,
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    methods: Sequence[Scored],
    line: float,
    side: Literal["above", "below"],
) -> Finding:
    """Return a function of methods' scores with its 95 % interval over galaxies and runs, to hold against a line.

    Parameters
    ----------
    function
        From scores (n, n_methods) to numbers (n,).
    """
    families = [family for method in methods for family in method.families]
    trainings = [training for method in methods for training in method.trainings]
    nesting = nesting_of(families, trainings)
    ends = np.cumsum([len(method.values) for method in methods])
    contrasts = [
        mean_over_runs(range(end - len(method.values), end), nesting)
        for method, end in zip(methods, ends.tolist(), strict=True)
    ]
    values, resampled = (
        np.concatenate([getattr(method, name) for method in methods], axis=-1) for name in ("values", "resampled")
    )
    drawn = crossed_draws(function, values, resampled, np.stack(contrasts, axis=1), nesting, seed=SEED)
    return finding_of(what, drawn, line, side)


def finding_of(what: str, sample: Sample, line: float, side: Literal["above", "below"]) -> Finding:
    """Return a number with its 95 % percentile interval, to hold against a line."""
    drawn = sample[1:]
    low, high = np.quantile(drawn, (0.025, 0.975))
    beyond = min(np.count_nonzero(drawn <= line), np.count_nonzero(drawn >= line))
    p = min(1.0, 2 * (beyond + 1) / (len(drawn) + 1))  # Davison & Hinkley 1997, equation 4.11
    return Finding(what, float(sample[0]), float(low), float(high), line, side, p_of_draws=p, is_bound=beyond == 0)


def resampled_shares(n: int) -> NDArray[np.float64]:
    """Return what galaxies or features count, (1 + N_RESAMPLES, n): as they are, then in resamples, as shares."""
    return np.vstack(list(sample_and_resamples(n, N_RESAMPLES, SEED)))
