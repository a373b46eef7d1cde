"""Pinball loss, coverage, and the calibration that makes intervals hold what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import mean_pinball_loss

from sfnetlab.metrics.quantiles import (
    calibrated,
    conformal_offsets,
    intervals_of,
    nominal_coverage,
    pinball_losses,
    quantile_scores,
)

LEVELS = (0.025, 0.16, 0.5, 0.84, 0.975)


def gaussian(n, width=1.0, seed=0):
    """Truths with unit scatter about a centre, and the quantiles of a model that thinks the scatter is `width`."""
    rng = np.random.default_rng(seed)
    center = rng.normal(size=n)
    return center + rng.normal(size=n), center[:, None] + width * norm.ppf(LEVELS)


def coverage(y, quantiles, name="68"):
    low, high = intervals_of(LEVELS)[name]
    return np.mean((quantiles[:, low] <= y) & (y <= quantiles[:, high]))


@pytest.mark.parametrize("place", range(5))
def test_pinball_loss_is_that_of_scikit_learn(place):
    y, quantiles = gaussian(50)
    found = pinball_losses(y, quantiles, LEVELS)[:, place].mean()
    assert found == pytest.approx(mean_pinball_loss(y, quantiles[:, place], alpha=LEVELS[place]))


def test_pinball_loss_is_least_at_the_quantile():
    y = np.random.default_rng(0).exponential(size=4001)
    candidates = np.quantile(y, np.linspace(0.6, 0.95, 36))
    losses = [pinball_losses(y, np.full((len(y), 1), q), (0.84,)).mean() for q in candidates]
    assert candidates[np.argmin(losses)] == pytest.approx(np.quantile(y, 0.84), rel=0.02)


def test_intervals_are_named_after_what_they_should_hold():
    assert intervals_of(LEVELS) == {"95": (0, 4), "68": (1, 3)}
    assert nominal_coverage(LEVELS, "68") == pytest.approx(0.68)


def test_a_level_without_its_partner_is_refused():
    with pytest.raises(ValueError, match=r"0\.1 has no partner 0\.9"):
        intervals_of((0.1, 0.5, 0.8))


def test_coverage_of_true_quantiles_is_nominal_within_its_interval():
    y, quantiles = gaussian(4000)
    scores = {score.metric: score for score in quantile_scores(y, quantiles, LEVELS, n_resamples=200, seed=0)}
    for name in ("68", "95"):
        score = scores[f"coverage_{name}"]
        assert score.low <= nominal_coverage(LEVELS, name) <= score.high
        assert score.value == pytest.approx(coverage(y, quantiles, name))
    assert scores["width_68"].value == pytest.approx(2 * norm.ppf(0.84), rel=1e-9)


@pytest.mark.parametrize("width", [0.3, 1.0, 2.5])
def test_calibrated_intervals_of_other_galaxies_hold_what_they_say(width):
    y, quantiles = gaussian(4000, width, seed=1)
    y_new, quantiles_new = gaussian(4000, width, seed=2)
    adjusted = calibrated(quantiles_new, conformal_offsets(y, quantiles, LEVELS), LEVELS)
    for name in ("68", "95"):
        assert coverage(y_new, adjusted, name) == pytest.approx(nominal_coverage(LEVELS, name), abs=0.02)


def test_over_many_splits_coverage_is_at_least_nominal_on_average_even_of_few_galaxies():
    held = []
    for seed in range(400):
        y, quantiles = gaussian(40, 0.3, seed=seed)
        y_new, quantiles_new = gaussian(40, 0.3, seed=10_000 + seed)
        held.append(coverage(y_new, calibrated(quantiles_new, conformal_offsets(y, quantiles, LEVELS), LEVELS), "95"))
    assert 0.945 < np.mean(held) < 0.985  # the theorem: between 0.95 and 0.95 + 1 / 41, and then noise


def test_means_of_published_percentiles_are_no_intervals_until_they_are_calibrated():
    """Fault G8: percentiles of each label's own error, learnt as five labels, know nothing of the image's."""
    rng = np.random.default_rng(0)
    label_error, image_error = 0.03, 0.09
    center = rng.normal(size=6000)
    y = center + image_error * rng.normal(size=6000)
    predicted = center[:, None] + label_error * norm.ppf(LEVELS)  # what the root mean square of each is least for
    assert coverage(y[3000:], predicted[3000:]) < 0.3
    offsets = conformal_offsets(y[:3000], predicted[:3000], LEVELS)
    assert coverage(y[3000:], calibrated(predicted[3000:], offsets, LEVELS)) == pytest.approx(0.68, abs=0.03)


def test_too_few_galaxies_to_calibrate_are_refused_with_the_number_needed():
    y, quantiles = gaussian(18)
    with pytest.raises(ValueError, match="95 % needs at least 19 galaxies to calibrate, got 18"):
        conformal_offsets(y, quantiles, LEVELS)
    conformal_offsets(*gaussian(19), LEVELS)


@given(st.lists(st.floats(-3, 3), min_size=5, max_size=5))
def test_calibrated_quantiles_never_cross_and_keep_the_median(offsets):
    _, quantiles = gaussian(20)
    moved = calibrated(quantiles, np.array(offsets) * [1, 1, 0, 1, 1], LEVELS)
    assert (np.diff(moved, axis=1) >= 0).all()
    np.testing.assert_array_equal(moved[:, 2], quantiles[:, 2])


@pytest.mark.parametrize(
    ("y", "quantiles", "levels", "message"),
    [
        (np.zeros(3), np.zeros((3, 2)), (0.2, 0.5, 0.8), r"expected y_true \(n,\) and quantiles \(n, 3\)"),
        (np.array([np.nan]), np.zeros((1, 3)), (0.2, 0.5, 0.8), "not finite"),
        (np.zeros(1), np.zeros((1, 3)), (0.5, 0.2, 0.8), "must rise"),
    ],
)
def test_unusable_quantiles_are_refused(y, quantiles, levels, message):
    with pytest.raises(ValueError, match=message):
        pinball_losses(y, quantiles, levels)
