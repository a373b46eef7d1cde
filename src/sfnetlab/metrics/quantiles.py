"""Predicted quantiles: their pinball loss, how often intervals hold the truth, and what makes them hold it as said.

Quantiles are (n, n_levels) in label units, levels rising; an interval is the pair of levels q and 1 - q.

Why not learn the published percentiles of every label as so many labels: those say how well the *spectrum* determined
it. What is least in mean square for the 16th percentiles is their mean at an image, which knows nothing of how far the
label itself may lie from what the image tells, so that "68 %" of that kind hold what they happen to hold. The pinball
loss of the label asks for the quantiles of the label given the image; calibration on other galaxies makes them hold.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfnetlab.metrics.bootstrap import sample_and_resamples


class QuantileScore(NamedTuple):
    """A number about predicted quantiles and its bootstrap interval over galaxies."""

    metric: str
    """"pinball" (label units), or "coverage_68" (a share) and "width_68" (label units) of the central 68 %."""
    value: float
    low: float
    high: float


def pinball_losses(
    y_true: NDArray[np.floating], quantiles: NDArray[np.floating], levels: Sequence[float]
) -> NDArray[np.float64]:
    """Return the pinball loss of each predicted quantile, (n, n_levels), in label units.

    The loss is the level times what truth lies above the quantile, and 1 - level times what it lies below. Its mean is
    least for the true quantile, as that of squares is for the mean.

    References
    ----------
    Koenker & Bassett 1978, Econometrica 46, 33.
    """
    truth, predicted = _checked(y_true, quantiles, levels)
    above = truth[:, None] - predicted
    q = np.asarray(levels)
    return np.maximum(q * above, (q - 1) * above)


def intervals_of(levels: Sequence[float]) -> dict[str, tuple[int, int]]:
    """Return the name of each central interval, its nominal coverage in per cent, and the places of its two levels.

    Raises
    ------
    ValueError
        If a level below 0.5 has no partner above.
    """
    places: dict[str, tuple[int, int]] = {}
    for low, q in enumerate(levels):
        if q >= 0.5:
            break
        partners = [high for high, other in enumerate(levels) if abs(other - (1 - q)) < 1e-9]
        if not partners:
            raise ValueError(f"levels {list(levels)}: {q:g} has no partner {1 - q:g}")
        places[f"{100 * (1 - 2 * q):.3g}"] = (low, partners[0])
    return places


def nominal_coverage(levels: Sequence[float], name: str) -> float:
    """Return the share of galaxies that an interval of `intervals_of` says it holds."""
    low, high = intervals_of(levels)[name]
    return levels[high] - levels[low]


def quantile_scores(
    y_true: NDArray[np.floating],
    quantiles: NDArray[np.floating],
    levels: Sequence[float],
    *,
    n_resamples: int,
    seed: int,
    confidence: float = 0.95,
) -> list[QuantileScore]:
    """Return pinball loss over all levels, and coverage and mean width of every interval, with percentile intervals.

    An interval holds a truth that equals one of its ends.

    Raises
    ------
    ValueError
        If shapes do not fit, there is no galaxy, a value is not finite, levels do not rise, or one has no partner.
    """
    losses = pinball_losses(y_true, quantiles, levels)
    columns = {"pinball": losses.mean(axis=1)}
    for name, (low, high) in intervals_of(levels).items():
        lower, upper = quantiles[:, low], quantiles[:, high]
        columns[f"coverage_{name}"] = ((lower <= y_true) & (y_true <= upper)).astype(np.float64)
        columns[f"width_{name}"] = np.asarray(upper - lower, dtype=np.float64)
    stacked = np.stack(list(columns.values()), axis=1)
    means = np.vstack([weights @ stacked for weights in sample_and_resamples(len(losses), n_resamples, seed)])
    lows, highs = np.quantile(means[1:], [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return [
        QuantileScore(name, float(value), float(low), float(high))
        for name, value, low, high in zip(columns, means[0], lows, highs, strict=True)
    ]


def n_to_calibrate(levels: Sequence[float]) -> int:
    """Return how many galaxies `conformal_offsets` needs for the widest interval, 19 for 95 %."""
    nominal = max(nominal_coverage(levels, name) for name in intervals_of(levels))
    return int(np.ceil(nominal / (1 - nominal) - 1e-9))


def conformal_offsets(
    y_true: NDArray[np.floating], quantiles: NDArray[np.floating], levels: Sequence[float]
) -> NDArray[np.float64]:
    """Return what to add to each quantile, (n_levels,), so that intervals hold as many *other* galaxies as they say.

    Conformalised quantile regression: by how much the truth of a galaxy that was not trained on lies outside of its
    interval (inside: less than 0) is a score; the ceil((n + 1) c)-th smallest of n scores, taken from the lower end and
    added to the upper, makes an interval that holds a new galaxy with a probability of at least the nominal c,
    whatever the network has learnt, if new galaxies are drawn as these were. Intervals may shrink. The median stays.

    Parameters
    ----------
    y_true, quantiles
        Labels and predictions of galaxies on which nothing was fitted: valid rows.

    Raises
    ------
    ValueError
        As `pinball_losses`, and if there are too few galaxies for the widest interval: 19 for 95 %.

    References
    ----------
    Romano, Patterson & Candès 2019, NeurIPS 32 (arXiv:1905.03222), theorem 1.
    """
    truth, predicted = _checked(y_true, quantiles, levels)
    offsets = np.zeros(len(levels))
    for name, (low, high) in intervals_of(levels).items():
        nominal = nominal_coverage(levels, name)
        rank = int(np.ceil((len(truth) + 1) * nominal - 1e-9))
        if rank > len(truth):
            needed = int(np.ceil(nominal / (1 - nominal) - 1e-9))
            raise ValueError(f"an interval of {name} % needs at least {needed} galaxies to calibrate, got {len(truth)}")
        scores = np.maximum(predicted[:, low] - truth, truth - predicted[:, high])
        widening = np.partition(scores, rank - 1)[rank - 1]
        offsets[low], offsets[high] = -widening, widening
    return offsets


def calibrated(
    quantiles: NDArray[np.floating], offsets: NDArray[np.float64], levels: Sequence[float]
) -> NDArray[np.float64]:
    """Return quantiles moved by `conformal_offsets`; where they would cross, the outer gives way to the inner.

    Ends are kept on their side of the median: an interval cannot hold less than that one value.
    """
    moved = np.asarray(quantiles, dtype=np.float64) + offsets
    middle = list(levels).index(0.5)
    moved[:, : middle + 1] = np.minimum.accumulate(moved[:, middle::-1], axis=1)[:, ::-1]
    moved[:, middle:] = np.maximum.accumulate(moved[:, middle:], axis=1)
    return moved


def _checked(
    y_true: NDArray[np.floating], quantiles: NDArray[np.floating], levels: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    truth, predicted = np.asarray(y_true, dtype=np.float64), np.asarray(quantiles, dtype=np.float64)
    if truth.ndim != 1 or predicted.shape != (truth.size, len(levels)) or truth.size == 0:
        raise ValueError(
            f"expected y_true (n,) and quantiles (n, {len(levels)}), got {truth.shape} and {predicted.shape}"
        )
    if not (np.isfinite(truth).all() and np.isfinite(predicted).all()):
        raise ValueError("y_true or a quantile is not finite")
    if any(b <= a for a, b in pairwise(levels)) or not 0 < levels[0] <= levels[-1] < 1:
        raise ValueError(f"levels must rise within 0 and 1, got {list(levels)}")
    return truth, predicted
