import time

import numpy as np
import pytest

from sfnetlab.metrics import regression
from sfnetlab.metrics.bootstrap import bootstrap_intervals, paired_difference


def galaxies(n, m=1, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(8.7, 0.2, (n, m))
    return truth, truth + noise * rng.normal(size=(n, m))


def draws(n, n_resamples, seed):
    rng = np.random.default_rng(seed)
    return [rng.integers(n, size=n) for _ in range(n_resamples)]


@pytest.mark.parametrize("metric", ["rmse", "nmad", "r2", "bias"])
@pytest.mark.parametrize("n", [20, 21])
def test_interval_holds_percentiles_of_the_metric_on_resampled_rows(metric, n):
    truth, prediction = (y[:, 0] for y in galaxies(n))
    function = getattr(regression, metric)
    interval = next(i for i in bootstrap_intervals(truth, prediction, n_resamples=50, seed=3) if i.metric == metric)
    slow = [function(truth[rows], prediction[rows]) for rows in draws(n, 50, seed=3)]
    assert interval.value == function(truth, prediction)
    assert [interval.low, interval.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]).tolist(), rel=1e-9)


def test_pooled_rmse_has_an_interval_over_galaxies_that_keep_their_columns_together():
    truth, prediction = galaxies(30, m=3)
    pooled = bootstrap_intervals(truth, prediction, n_resamples=50, seed=3)[-1]
    slow = [regression.pooled_rmse(truth[rows], prediction[rows]) for rows in draws(30, 50, seed=3)]
    assert (pooled.metric, pooled.column) == ("pooled_rmse", None)
    assert [pooled.low, pooled.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]).tolist(), rel=1e-9)


def test_columns_together_give_the_intervals_of_each_alone():
    truth, prediction = galaxies(30, m=3)
    together = bootstrap_intervals(truth, prediction, n_resamples=50, seed=3)
    for column in range(3):
        alone = bootstrap_intervals(truth[:, column], prediction[:, column], n_resamples=50, seed=3)
        of_column = [i for i in together if i.column == column]
        assert [i[1] for i in of_column] == [i[1] for i in alone]
        np.testing.assert_allclose([i[2:] for i in of_column], [i[2:] for i in alone], rtol=1e-12)


def test_intervals_cover_the_truth_as_often_as_they_say():
    n_trials, n = 300, 200
    covered = {"rmse": 0, "bias": 0}
    for seed in range(n_trials):
        residuals = np.random.default_rng([seed, 1]).normal(0.05, 0.1, n)
        truth = np.linspace(8, 9, n)
        for i in bootstrap_intervals(truth, truth + residuals, n_resamples=250, seed=seed):
            if i.metric in covered:
                true_value = {"rmse": np.hypot(0.05, 0.1), "bias": 0.05}[i.metric]
                covered[i.metric] += i.low <= true_value <= i.high
    assert all(0.92 <= n_covered / n_trials <= 0.98 for n_covered in covered.values()), covered


def test_a_thousand_resamples_of_five_thousand_galaxies_take_less_than_a_second():
    truth, prediction = galaxies(5000)
    start = time.process_time()
    bootstrap_intervals(truth, prediction, n_resamples=1000, seed=0)
    assert time.process_time() - start < 1


def test_constant_labels_within_a_resample_are_refused():
    truth = np.array([0.1, 0.1, 0.1, 0.4])
    with pytest.raises(ValueError, match=r"R² is undefined in \d+ of 100 resamples"):
        bootstrap_intervals(truth, truth + 1, n_resamples=100, seed=0)


def test_nan_prediction_is_refused():
    truth, prediction = galaxies(10, m=2)
    prediction[0, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_intervals(truth, prediction, n_resamples=10, seed=0)


def test_paired_difference_is_far_tighter_than_two_intervals():
    truth, prediction = galaxies(500)
    better, worse = (truth + share * (prediction - truth) for share in (1.0, 1.05))
    difference = paired_difference(truth, worse, better, "rmse", n_resamples=500, seed=0)
    interval = bootstrap_intervals(truth, better, n_resamples=500, seed=0)[0]
    assert interval.low < regression.rmse(truth[:, 0], worse[:, 0]) < interval.high
    assert 0 < difference.low < difference.difference < difference.high
    assert difference.p == pytest.approx(2 / 501)


@pytest.mark.parametrize("metric", ["rmse", "nmad", "r2", "bias", "pooled_rmse"])
def test_equal_predictions_do_not_differ(metric):
    truth, prediction = galaxies(50, m=2 if metric == "pooled_rmse" else 1)
    assert paired_difference(truth, prediction, prediction, metric, n_resamples=100, seed=0) == (0, 0, 0, 1)


def test_swapping_the_methods_turns_the_sign():
    truth, a = galaxies(100)
    b = galaxies(100, seed=1)[1]
    ab = paired_difference(truth, a, b, "nmad", n_resamples=200, seed=0)
    ba = paired_difference(truth, b, a, "nmad", n_resamples=200, seed=0)
    assert (ab.difference, ab.low, ab.high, ab.p) == pytest.approx((-ba.difference, -ba.high, -ba.low, ba.p))


def test_p_values_of_equally_good_methods_are_uniform():
    p = []
    for seed in range(200):
        rng = np.random.default_rng([seed, 1])
        truth = np.zeros(100)
        a, b = rng.normal(size=(2, 100))
        p.append(paired_difference(truth, a, b, "rmse", n_resamples=200, seed=seed).p)
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.1
    assert 0.4 <= np.mean(p) <= 0.6


def test_paired_difference_of_several_columns_asks_for_one():
    truth, prediction = galaxies(10, m=2)
    with pytest.raises(ValueError, match="one column at a time"):
        paired_difference(truth, prediction, prediction, "rmse", n_resamples=10, seed=0)
