"""What predicting more than once gains."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.metrics.gains import combine_predictions, gains
from sfnetlab.metrics.regression import rmse
from sfnetlab.metrics.tidy import AUGMENTED, ENSEMBLE


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


def test_augmentation_of_one_network_has_no_interval():
    y, single = noisy(n_seeds=1)
    (augmentation,) = gains(y, single, (single + y[:, None]) / 2, n_resamples=100, seed=0)
    assert augmentation.difference < 0
    assert np.isnan([augmentation.low, augmentation.high, augmentation.p]).all()


def test_predictions_that_do_not_change_gain_nothing():
    y, single = noisy(n_seeds=2)
    augmentation = gains(y, single, single, n_resamples=100, seed=0)[0]
    assert augmentation.difference == augmentation.low == augmentation.high == 0
    assert augmentation.p == 1


def test_one_network_alone_has_no_gains():
    y, single = noisy(n_seeds=1)
    assert gains(y, single, None, n_resamples=100, seed=0) == []


def two_seeds(n=80):
    """Test predictions of two seeds whose heads err by +0.1 and -0.1, augmented by half of that, galaxies shuffled."""
    truth = pd.DataFrame({"id_str": [f"g{i:03d}" for i in range(n)], "y_true": np.linspace(8, 9, n)})
    about = {"features": "net", "kind": "sfnet", "k": 4, "column": "y", "target": "t", "n_features_used": 9}
    rows = [
        truth.assign(y_pred=truth["y_true"] + share * error, probe=probe, seed=seed, training=seed, **about).sample(
            frac=1, random_state=1
        )
        for seed, error in ((0, 0.1), (1, -0.1))
        for probe, share in (("head", 1), (f"head{AUGMENTED}", 0.5))
    ]
    return pd.concat(rows, ignore_index=True).astype({"k": "Int64", "seed": "Int64", "training": "Int64"})


def test_errors_of_opposite_seeds_cancel_in_their_ensemble():
    scores, gained = combine_predictions(two_seeds(), {"t": ("y",)}, n_resamples=100, seed=0)
    rows = pd.concat(scores)
    errors = rows[rows["metric"] == "rmse"]
    assert errors["probe"].tolist() == [f"head{ENSEMBLE}"]
    assert errors["value"].iloc[0] == pytest.approx(0, abs=1e-12)
    assert errors["seed"].isna().all()
    found = pd.concat(gained).set_index("gain")
    assert found.loc["augmentation", "rmse"] == pytest.approx(0.05)
    assert found.loc["ensemble", "difference"] == pytest.approx(-0.1)
    assert (found["n_seeds"] == 2).all()


def test_one_seed_without_augmentation_gains_nothing():
    predictions = two_seeds()
    alone = predictions[(predictions["seed"] == 0) & (predictions["probe"] == "head")]
    assert combine_predictions(alone, {"t": ("y",)}, n_resamples=100, seed=0) == ([], [])
