"""What predicting more than once gains."""

import numpy as np
import pytest

from sfnetlab.metrics.gains import gains
from sfnetlab.metrics.regression import rmse


def noisy(n=400, n_seeds=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    return y, y[:, None] + rng.normal(size=(n, n_seeds))


def test_the_mean_of_independent_errors_is_half_of_them_for_four():
    y, single = noisy(n=4000)
    (ensemble,) = gains(y, single, None, n_resamples=200, seed=0)
    assert ensemble.gain == "ensemble"
    assert ensemble.rmse == pytest.approx(rmse(y, single.mean(axis=1)))
    assert ensemble.rmse_single == pytest.approx(np.mean([rmse(y, column) for column in single.T]))
    assert ensemble.rmse / ensemble.rmse_single == pytest.approx(0.5, rel=0.05)
    assert ensemble.low < ensemble.difference < ensemble.high < 0


def test_augmentation_is_compared_seed_by_seed():
    y, single = noisy()
    augmented = (single + y[:, None]) / 2
    found = {gain.gain: gain for gain in gains(y, single, augmented, n_resamples=100, seed=0)}
    assert set(found) == {"augmentation", "ensemble", "both"}
    expected = np.mean([rmse(y, column) for column in augmented.T])
    assert found["augmentation"].rmse == pytest.approx(expected)
    assert found["both"].rmse == pytest.approx(rmse(y, augmented.mean(axis=1)))


def test_predictions_that_do_not_change_gain_nothing():
    y, single = noisy(n_seeds=1)
    (augmentation,) = gains(y, single, single, n_resamples=100, seed=0)
    assert augmentation.difference == augmentation.low == augmentation.high == 0
    assert augmentation.p == 1


def test_one_network_alone_has_no_gains():
    y, single = noisy(n_seeds=1)
    assert gains(y, single, None, n_resamples=100, seed=0) == []
