"""Scores of a method over galaxies and runs: its estimate, interval and p-value, and both spreads.

A run is one training. Galaxies and runs are crossed (every run sees all test galaxies), runs are nested as they are
(dictionaries within the encoder whose embedding they decompose). `metrics.bootstrap` resamples the galaxies, this
module adds the runs.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.jobs import Run
from sfnetlab.metrics.bootstrap import LEAST_DEFINED, Score, resampled_scores

NOT_RANDOM = -1
"""Family of a run that nothing random made: there are no others of its kind to draw."""
NEEDS_RUNS = "[needs 2 runs]"
"""Stands for an interval of a method of which there is a single run."""
OF_VARIANCE = 2**31
"""Seed of the draws of variances, beside those of families."""
BLOCK = 64
"""Contrasts that are drawn at a time."""


class Nesting(NamedTuple):
    """What the runs stand on, an entry a run."""

    family: NDArray[np.intp]
    """Runs of one family stand on the same trainings: those of a network and of all that decomposes its embedding.
    Families are independent. `NOT_RANDOM` for a run that has no seed, such as photometry."""
    unit: NDArray[np.intp]
    """Which training of its family a run stands on. Several runs of a method on one are dictionaries within it."""


class CrossedScore(NamedTuple):
    """A score over galaxies and runs; interval and p are NaN where a single run stands for a method."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided, of the hypothesis that the score is 0."""
    run_sd: float
    """Standard deviation from one training to the next, on the same galaxies; NaN from one, 0 if nothing is random."""
    galaxy_sd: float
    """Standard deviation from one sample of as many galaxies to the next, of trainings that are the same."""
    n_runs: int
    """Trainings behind the score, of two methods the fewer; 0 where nothing is random."""


def nesting_of(families: Sequence[Hashable], units: Sequence[int | None]) -> Nesting:
    """Return the nesting of runs from the name of each one's family and the seed of its training, None without one."""
    numbers: dict[Hashable, int] = {}
    family = [
        NOT_RANDOM if unit is None else numbers.setdefault(name, len(numbers))
        for name, unit in zip(families, units, strict=True)
    ]
    seeds = [-1 if unit is None else unit for unit in units]
    return Nesting(np.array(family, dtype=np.intp), np.array(seeds, dtype=np.intp))


def encoders_of(seeds: Iterable[Any]) -> list[int | None]:
    """Return the training that each run stands on, by its number in the column `seed`: that of its encoder.

    It is None where there is no number.
    """
    return [None if pd.isna(seed) else Run.of(int(seed)).encoder for seed in seeds]


def dictionary_sd(values: NDArray[np.floating], nesting: Nesting) -> float:
    """Return the standard deviation of runs on the same training, pooled over trainings; NaN where each has one run."""
    of_trainings = [values[nesting.unit == unit] for unit in np.unique(nesting.unit)]
    freedom = len(values) - len(of_trainings)
    squares = sum(float(np.sum((of_one - of_one.mean()) ** 2)) for of_one in of_trainings)
    return float(np.sqrt(squares / freedom)) if freedom and nesting.family[0] != NOT_RANDOM else np.nan


def mean_over_runs(runs: Sequence[int], nesting: Nesting) -> NDArray[np.float64]:
    """Return the weights (n_runs,) of a method's score: its trainings count the same, dictionaries share theirs."""
    weights = np.zeros(len(nesting.family))
    units = nesting.unit[list(runs)]
    for run, unit in zip(runs, units, strict=True):
        weights[run] = 1 / (len(set(units)) * np.count_nonzero(units == unit))
    return weights


def scores_of(
    y_true: NDArray[np.floating],
    predictions: NDArray[np.floating],
    contrasts: NDArray[np.floating],
    nesting: Nesting,
    metric: Score,
    *,
    n_resamples: int,
    seed: int,
) -> list[CrossedScore]:
    """Return `crossed_scores` of a metric of predictions (n, n_runs), see `bootstrap.resampled_scores`."""
    values, resampled = resampled_scores(metric, y_true, predictions, n_resamples=n_resamples, seed=seed)
    return crossed_scores(values, resampled, contrasts, nesting, seed=seed)


def crossed_scores(
    values: NDArray[np.floating],
    resampled: NDArray[np.floating],
    contrasts: NDArray[np.floating],
    nesting: Nesting,
    *,
    seed: int,
    level: float = 0.95,
) -> list[CrossedScore]:
    """Return weighted sums of the scores of runs, with their intervals over galaxies and runs.

    The interval is that of a product-reweighted bootstrap: each draw weighs the galaxies (as `resampled` did) and the
    trainings. Weights of trainings are normal deviates over the root of a chi-square with one degree of freedom less
    than there are trainings, so that their part of the error follows Student's t (Ibragimov & Müller 2010), which
    the percentiles of few resampled trainings do not; of two independent families the degrees of freedom are those of
    Welch (1947). What a galaxy has with one run alone shows in both spreads and is counted once: the galaxies' part is
    scaled by the root of 1 - V_E / V_B, V_B being its variance and V_E the share of this interaction, as in the crossed
    analysis of variance (Searle, Casella & McCulloch 1992, Variance Components, chapter 4). The pigeonhole bootstrap
    counts it three times (Owen 2007).

    Where nothing is random this is the percentile interval over galaxies. Resamples in which a score is NaN do not
    count.

    Parameters
    ----------
    values : ndarray of shape (n_runs,)
        The score of each run on all galaxies: a mean, RMSE, R², AUC, correlation.
    resampled : ndarray of shape (n_resamples, n_runs)
        The same on resampled galaxies, the same ones for all runs.
    contrasts : ndarray of shape (n_runs, n_scores)
        Weights of the runs: for a method `mean_over_runs`, for a difference those of a minus those of b. Where both
        stand on the trainings of one family they must weigh the same of these.
    seed : int
        Seed of the weights of trainings.

    References
    ----------
    Owen 2007, Annals of Applied Statistics 1, 386. Owen & Eckles 2012, Annals of Applied Statistics 6, 895.
    Ibragimov & Müller 2010, Journal of Business & Economic Statistics 28, 453. Welch 1947, Biometrika 34, 28.
    Davison & Hinkley 1997, Bootstrap Methods and their Application, equation 4.11 (the plus one of p).
    """
    weights = np.asarray(contrasts, dtype=np.float64)
    sample = _Sample.of(values, resampled, nesting, seed)
    scores: list[CrossedScore] = []
    for start in range(0, weights.shape[1], BLOCK):
        block = weights[:, start : start + BLOCK]
        spread = sample.spread(block)
        drawn = spread.galaxies * spread.scale + spread.runs + sample.values @ block
        # a sum of weights that do not sum to 0 exactly is rounding, not a difference
        drawn[np.abs(drawn) <= 1e-12 * sample.size] = 0.0
        has_runs = np.isfinite(spread.run_sd)
        low, high = np.full((2, block.shape[1]), np.nan)
        if (known := has_runs & sample.is_enough).any():
            low[known], high[known] = np.quantile(drawn[:, known], [(1 - level) / 2, (1 + level) / 2], axis=0)
        n_one_side = np.minimum(np.count_nonzero(drawn <= 0, axis=0), np.count_nonzero(drawn >= 0, axis=0))
        p = np.where(has_runs, np.minimum(1.0, 2 * (n_one_side + 1) / (len(drawn) + 1)), np.nan)
        columns = (sample.values @ block, low, high, p, spread.run_sd, spread.galaxy_sd, spread.n_runs)
        for value, left, right, p_value, run_sd, galaxy_sd, n_runs in zip(*columns, strict=True):
            numbers = map(float, (value, left, right, p_value, run_sd, galaxy_sd))
            scores.append(CrossedScore(*numbers, n_runs=int(n_runs)))
    return scores


def crossed_draws(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    values: NDArray[np.floating],
    resampled: NDArray[np.floating],
    contrasts: NDArray[np.floating],
    nesting: Nesting,
    *,
    seed: int,
) -> NDArray[np.float64]:
    """Return a function of several methods' scores and its draws over galaxies and runs, (1 + n_resamples,).

    As `crossed_scores`, with the scale of the galaxies' part and the degrees of freedom from the function's gradient.
    All draws are NaN where a single run stands for one of the methods.

    Parameters
    ----------
    function
        From scores (n, n_methods) to numbers (n,): a ratio, the largest of several differences.
    contrasts : ndarray of shape (n_runs, n_methods)
        `mean_over_runs` of each method.
    """
    weights = np.asarray(contrasts, dtype=np.float64)
    sample = _Sample.of(values, resampled, nesting, seed)
    centre = sample.values @ weights
    steps = 1e-4 * (np.abs(centre) + 1e-12)
    ahead, behind = (function(centre + sign * np.diag(steps)) for sign in (1, -1))
    linear = sample.spread((weights @ ((ahead - behind) / (2 * steps)))[:, None])
    spread = sample.spread(weights, float(linear.freedom[0]))
    drawn = function(centre + spread.galaxies * linear.scale + spread.runs)
    if not (sample.is_enough and np.isfinite(spread.run_sd).all()):
        drawn = np.full(len(drawn), np.nan)
    return np.concatenate([function(centre[None]), drawn])


def from_intervals(
    values: NDArray[np.floating],
    low: NDArray[np.floating],
    high: NDArray[np.floating],
    units: Sequence[int | None],
    *,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Return the score of a method and its interval where of each run the interval over galaxies alone is known.

    The half widths over galaxies (mean of the runs') and over trainings (Student's t) add in squares, apart on either
    side (Zou & Donner 2008). What a galaxy has with one run alone counts in both, so that the interval is rather too
    wide than too narrow; use `crossed_scores` where runs can be scored on the same resamples. NaN from one training.

    Parameters
    ----------
    values, low, high : ndarray of shape (n_runs,)
    units
        The training of each run, None where nothing is random: then there is one run.

    References
    ----------
    Zou & Donner 2008, Statistics in Medicine 27, 1693.
    """
    from scipy.stats import t

    nesting = nesting_of([0] * len(units), units)
    weights = mean_over_runs(range(len(units)), nesting)
    value, left, right = (float(weights @ numbers) for numbers in (values, low, high))
    if units[0] is None:
        return value, left, right
    trainings = np.unique(nesting.unit)
    means = np.array([np.mean(np.asarray(values)[nesting.unit == unit]) for unit in trainings])
    if len(trainings) < 2:
        return value, np.nan, np.nan
    half = t.ppf((1 + level) / 2, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    return value, value - float(np.hypot(half, value - left)), value + float(np.hypot(half, right - value))


def over_pairs(
    values: NDArray[np.floating], a: Sequence[int], b: Sequence[int], *, level: float = 0.95
) -> tuple[float, float, float]:
    """Return the mean of a number of every two runs and its interval over runs, by the jackknife of its U-statistic.

    Pairs that share a run go together, so there is a degree of freedom for each run but one. NaN for fewer than three
    runs. Galaxies are taken as they are.

    Parameters
    ----------
    values : ndarray of shape (n_pairs,)
        A number of each pair.
    a, b
        The runs of each pair.

    References
    ----------
    Arvesen 1969, Annals of Mathematical Statistics 40, 2076.
    """
    from scipy.stats import t

    numbers, runs = np.asarray(values, dtype=np.float64), np.array([a, b])
    mean = float(numbers.mean())
    every = np.unique(runs)
    n = len(every)
    if n < 3:
        return mean, np.nan, np.nan
    without = np.array([numbers[(runs != run).all(axis=0)].mean() for run in every])
    half = t.ppf((1 + level) / 2, n - 1) * np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2))
    return mean, mean - float(half), mean + float(half)


class _Spread(NamedTuple):
    """Deviations of weighted sums of scores, (n_draws, n_scores), and what describes them, (n_scores,)."""

    galaxies: NDArray[np.float64]
    runs: NDArray[np.float64]
    scale: NDArray[np.float64]
    """By which deviations over galaxies are multiplied, so that what they share with those over runs counts once."""
    freedom: NDArray[np.float64]
    """Degrees of freedom of the deviations over runs, by Welch and Satterthwaite; infinite where nothing is random."""
    run_sd: NDArray[np.float64]
    galaxy_sd: NDArray[np.float64]
    n_runs: NDArray[np.intp]


class _Sample(NamedTuple):
    """Scores of runs on the galaxies and on resamples of them."""

    values: NDArray[np.float64]
    deviations: NDArray[np.float64]
    """(n_resamples, n_runs), only those in which all scores are known."""
    covariance: NDArray[np.float64]
    """(n_runs, n_runs), over the resamples."""
    nesting: Nesting
    seed: int
    is_enough: bool
    """Whether the scores are known in enough of the resamples."""

    @classmethod
    def of(
        cls, values: NDArray[np.floating], resampled: NDArray[np.floating], nesting: Nesting, seed: int
    ) -> "_Sample":
        known = np.asarray(resampled, dtype=np.float64)[np.isfinite(resampled).all(axis=1)]
        is_enough = len(known) >= max(1, LEAST_DEFINED * len(resampled))
        covariance = np.atleast_2d(np.cov(known, rowvar=False, ddof=0)) if is_enough else np.zeros(2 * known.shape[1:])
        centre = np.asarray(values, dtype=np.float64)
        return cls(centre, known - centre, covariance, nesting, seed, is_enough)

    @property
    def size(self) -> float:
        """Of scores, to tell rounding from differences."""
        return float(np.abs(self.values).max(initial=0.0))

    def spread(self, weights: NDArray[np.float64], freedom: float | None = None) -> _Spread:
        """Return the deviations of weighted sums, weights being (n_runs, n_scores).

        Parameters
        ----------
        freedom
            Degrees of freedom of all of them; None: those that each has.
        """
        n_scores = weights.shape[1]
        runs = np.zeros((len(self.deviations), n_scores))
        shared, run_variance, of_mean, of_estimate = np.zeros((4, n_scores))
        n_runs = np.full(n_scores, np.iinfo(np.intp).max)
        for family in range(self.nesting.family.max(initial=NOT_RANDOM) + 1):
            of_units = [
                weights * ((self.nesting.family == family) & (self.nesting.unit == unit))[:, None]
                for unit in np.unique(self.nesting.unit[self.nesting.family == family])
            ]
            is_weighed = np.array([weight.any(axis=0) for weight in of_units])
            n_units = is_weighed.sum(axis=0)
            is_random = n_units > 0
            if not is_random.any():
                continue
            with np.errstate(invalid="ignore", divide="ignore"):
                # the score by each training, as if it alone were the method
                scores = n_units * np.array([self.values @ weight for weight in of_units])
                centred = np.where(is_weighed, scores - scores.sum(axis=0) / n_units, 0.0)
                variance = np.where(n_units > 1, np.sum(centred**2, axis=0) / (n_units - 1), np.nan)
                every = self._variance(np.sum(of_units, axis=0))
                apart = n_units * np.sum([self._variance(weight) for weight in of_units], axis=0) - every
                shared += np.where(is_random, apart / (n_units - 1), 0.0)
                run_variance += np.where(is_random, variance, 0.0)
                of_mean += np.where(is_random, variance / n_units, 0.0)
                of_estimate += np.where(is_random, (variance / n_units) ** 2 / (n_units - 1), 0.0)
            n_runs = np.where(is_random, np.minimum(n_runs, n_units), n_runs)
            runs += self._normal(family, centred, n_units)
        if freedom is None:  # rounded down, as tables of t are read
            ratio = np.divide(of_mean**2, of_estimate, out=np.full(n_scores, np.inf), where=of_estimate > 0)
            degrees = np.maximum(np.floor(ratio + 1e-6), 1)
        else:
            degrees = np.full(n_scores, freedom)
        total = self._variance(weights)
        shared = np.clip(np.nan_to_num(shared), 0.0, total)
        scale = np.sqrt(np.divide(total - shared, total, out=np.ones(n_scores), where=total > 0))
        return _Spread(
            self.deviations @ weights,
            self._student(runs, degrees),
            scale,
            degrees,
            np.sqrt(run_variance),
            np.sqrt(total),
            np.where(n_runs == np.iinfo(np.intp).max, 0, n_runs),
        )

    def _variance(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of weighted sums over resamples of the galaxies, (n_scores,)."""
        return np.maximum(np.sum(weights * (self.covariance @ weights), axis=0), 0.0)

    def _normal(self, family: int, centred: NDArray[np.float64], n_units: NDArray[np.intp]) -> NDArray[np.float64]:
        """Normal deviations (n_draws, n_scores) of means over the trainings of a family; 0 from one training.

        Draws are points of a scrambled Halton sequence, of which few give quantiles as many random ones do, in an order
        that has nothing to do with that of other families.
        """
        from scipy.special import ndtri
        from scipy.stats import qmc

        rng = np.random.default_rng((self.seed, family))
        uniform = qmc.Halton(len(centred), rng=rng).random(len(self.deviations))
        deviates = ndtri(np.clip(rng.permutation(uniform), 1e-12, 1 - 1e-12))
        return deviates @ centred / np.sqrt(np.maximum(n_units * (n_units - 1), 1))

    def _student(self, normal: NDArray[np.float64], freedom: NDArray[np.float64]) -> NDArray[np.float64]:
        """Normal deviations (n_draws, n_scores) as Student's t has them, with degrees of freedom (n_scores,)."""
        from scipy.special import chdtri
        from scipy.stats import qmc

        rng = np.random.default_rng((self.seed, OF_VARIANCE))
        uniform = np.clip(rng.permutation(qmc.Halton(1, rng=rng).random(len(normal))), 1e-12, 1 - 1e-12)
        for n in np.unique(freedom[np.isfinite(freedom)]):
            normal[:, freedom == n] /= np.sqrt(chdtri(n, uniform) / n)
        return normal
