"""How often 95 % intervals over galaxies and runs cover the truth, where the variance components are known."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfnetlab import runtime
from sfnetlab.bench.compare import Row
from sfnetlab.metrics.bootstrap import resample_counts, resampled_scores
from sfnetlab.metrics.runs import CrossedScore, Nesting, crossed_scores, mean_over_runs, nesting_of

N_TRIALS, N_RESAMPLES = 500, 400
N_RUNS = (3, 5, 10)
N_DICTIONARIES = 3
"""Dictionaries within an encoder, in the cases with nested runs."""
COMMON = 0.7
"""Share of an error's variance over galaxies that all runs have in common; the rest is of a galaxy and run alone."""
RATIOS = {"runs dominate": 3.0, "equal spreads": 1.0, "galaxies dominate": 1 / 3, "no spread of runs": 0.0}
"""Standard error of a score from the draw of runs, over that from the draw of galaxies."""
TRUE_AUC_SHIFT = 1.0
BETTER = 0.9
"""Spread of the errors of the better of two methods, that of the other being 1."""

Of = Literal["mean", "rmse", "auc", "paired difference", "difference"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A simulated comparison whose truth is known.

    Errors are normal. The RMSE of run r is 1 + a_r (of the better of two methods 0.9 + a_r + c_r), a and c being normal
    too; "paired difference" is of two methods on the same encoders, whose a is the same.
    """

    of: Of
    ratio: float
    n_runs: int = 5
    is_nested: bool = False
    n_galaxies: int = 300


def covered(case: Case, n_trials: int, seed: int, n_resamples: int = N_RESAMPLES) -> tuple[float, float]:
    """Return which share of the intervals cover the truth: over galaxies and runs, and over galaxies alone."""
    hits = np.zeros(2)
    for trial in range(n_trials):
        truth, found, naive = trial_of(case, np.random.default_rng([seed, trial]), n_resamples)
        hits += [score.low <= truth <= score.high for score in (found, naive)]
    return float(hits[0] / n_trials), float(hits[1] / n_trials)


def trial_of(case: Case, rng: np.random.Generator, n_resamples: int) -> tuple[float, CrossedScore, CrossedScore]:
    """Return the truth of a case and the scores of one sample of it: crossed, and with the runs taken as given."""
    n, n_methods = case.n_galaxies, 2 if "difference" in case.of else 1
    families, units = _nesting(case, n_methods)
    nesting = nesting_of(families, units)
    n_runs = len(units)
    of_method = np.arange(n_runs) * n_methods // n_runs
    weights = sum(
        sign * mean_over_runs(np.flatnonzero(of_method == method).tolist(), nesting)
        for method, sign in zip(range(n_methods), (1, -1), strict=False)
    )
    spread = case.ratio * _galaxy_error(case) * np.sqrt(case.n_runs)
    size = 1 + _effects(case, nesting, spread, rng) * (0.7 if n_methods == 2 else 1)
    if n_methods == 2:
        own = rng.normal(0, spread * 0.7, n_runs)
        size = np.where(of_method == 0, BETTER, 1.0) + size - 1 + own
    common, alone = rng.normal(size=n), rng.normal(size=(n, n_runs))
    error = np.sqrt(COMMON) * common[:, None] + np.sqrt(1 - COMMON) * alone
    seed = int(rng.integers(2**31))
    if case.of == "mean":
        columns = error + size
        counts = np.stack(list(resample_counts(n, n_resamples, seed)))
        values, resampled, truth = columns.mean(axis=0), counts @ columns / n, 1.0
    elif case.of == "auc":
        from scipy.special import ndtr

        labels = np.arange(n) % 2.0
        columns = labels[:, None] * (TRUE_AUC_SHIFT * size) + error
        values, resampled = resampled_scores("auc", labels, columns, n_resamples=n_resamples, seed=seed)
        truth = float(ndtr(TRUE_AUC_SHIFT / np.sqrt(2 + (TRUE_AUC_SHIFT * spread) ** 2)))
    else:
        values, resampled = resampled_scores("rmse", np.zeros(n), error * size, n_resamples=n_resamples, seed=seed)
        truth = BETTER - 1 if n_methods == 2 else 1.0
    fixed = nesting_of(families, [None] * n_runs)
    contrast = np.asarray(weights)[:, None]
    crossed, naive = (crossed_scores(values, resampled, contrast, each, seed=seed)[0] for each in (nesting, fixed))
    return truth, crossed, naive


def coverage(device: str) -> Iterator[Row]:
    """Yield a row a case: the share of intervals that cover the truth, against that of those over galaxies alone."""
    kinds: tuple[tuple[Of, bool], ...] = (
        ("mean", False), ("mean", True), ("rmse", False), ("rmse", True), ("auc", False),
        ("paired difference", False), ("difference", False),
    )  # fmt: skip
    cases = product(N_RUNS, kinds, RATIOS.items())
    for seed, (n_runs, (of, is_nested), (name, ratio)) in enumerate(cases):
        case = Case(of=of, ratio=ratio, n_runs=n_runs, is_nested=is_nested)
        ours, naive = covered(case, N_TRIALS, seed)
        nested = f" x {N_DICTIONARIES} within" if is_nested else ""
        yield Row(
            name="coverage",
            case=f"{of}, {n_runs} runs{nested}, {case.n_galaxies} galaxies, {name}; reference: galaxies alone",
            ours=ours,
            reference=naive,
            unit="covered",
            ratio=None,
            threads=runtime.n_threads(),
            device=device,
        )


def _nesting(case: Case, n_methods: int) -> tuple[list[str], list[int]]:
    n_each = N_DICTIONARIES if case.is_nested else 1
    units = list(np.repeat(np.arange(case.n_runs), n_each)) * n_methods
    n = case.n_runs * n_each
    names = ["encoder"] * n_methods if case.of == "paired difference" else [str(i) for i in range(n_methods)]
    return [name for name in names for _ in range(n)], [int(unit) for unit in units]


def _galaxy_error(case: Case) -> float:
    """Standard error of the score from the draw of galaxies, roughly."""
    if case.of == "auc":
        return 1.2 / np.sqrt(case.n_galaxies)
    return 1 / np.sqrt(case.n_galaxies * (1 if case.of == "mean" else 2))


def _effects(case: Case, nesting: Nesting, spread: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """What each run's score is off: by its encoder, and where runs are nested by its dictionary, half of each."""
    of_encoder: dict[tuple[int, int], float] = {}
    keys = list(zip(nesting.family.tolist(), nesting.unit.tolist(), strict=True))
    for key in keys:
        of_encoder.setdefault(key, rng.normal())
    effects = np.array([of_encoder[key] for key in keys])
    if case.is_nested:
        effects = np.sqrt(0.5) * (effects + rng.normal(size=len(keys)))
    return effects * spread
