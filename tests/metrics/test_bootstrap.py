import time

import numpy as np
import pytest
from scipy.special import ndtr
from sklearn import metrics as oracle

from sfnetlab.metrics import bootstrap, classification, regression
from sfnetlab.metrics.bootstrap import (
    CLASS_METRICS,
    bootstrap_intervals,
    class_intervals,
    holm,
)


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


def test_resamples_with_constant_labels_are_counted_and_left_out_of_the_interval_of_r2():
    truth = np.array([0.1, 0.1, 0.1, 0.4, 0.5])
    prediction = truth + np.array([0.1, -0.2, 0.1, 0.3, 0.0])
    found = {each.metric: each for each in bootstrap_intervals(truth, prediction, n_resamples=200, seed=0)}
    resampled = [(truth[rows], prediction[rows]) for rows in draws(5, 200, seed=0)]
    defined = [regression.r2(*both) for both in resampled if np.ptp(both[0]) > 0]
    assert found["r2"].n_undefined == 200 - len(defined) > 0
    assert [found["r2"].low, found["r2"].high] == pytest.approx(np.quantile(defined, [0.025, 0.975]).tolist())
    assert found["rmse"].n_undefined == 0


def test_an_interval_of_few_defined_resamples_is_nan():
    truth = np.array([0.1, 0.1, 0.1, 0.1, 0.4])
    (r2,) = (
        each for each in bootstrap_intervals(truth[3:], truth[3:] + 1, n_resamples=100, seed=3) if each.metric == "r2"
    )
    assert r2.n_undefined > 50
    assert np.isfinite(r2.value)
    assert np.isnan([r2.low, r2.high]).all()


def test_nan_prediction_is_refused():
    truth, prediction = galaxies(10, m=2)
    prediction[0, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_intervals(truth, prediction, n_resamples=10, seed=0)


def classified(n, n_columns=1, seed=0, shift=1.0):
    rng = np.random.default_rng([seed, 5])
    truth = (rng.random(n) < 0.4).astype(int)
    truth[:2] = 0, 1
    return truth, rng.normal(shift * truth[:, None] - 0.5, 1, (n, n_columns))


ORACLES = {
    "accuracy": oracle.accuracy_score,
    "balanced_accuracy": oracle.balanced_accuracy_score,
    "f1": oracle.f1_score,
}


@pytest.mark.parametrize("metric", [name for name in CLASS_METRICS if name != "auc"])
def test_class_interval_holds_percentiles_of_the_metric_on_resampled_rows(metric):
    truth, scores = classified(40, 2)
    scores = scores.round(1)  # of which some are equal

    def score(rows):
        if metric == "average_precision":
            return oracle.average_precision_score(truth[rows], scores[rows, 1])
        found = scores[rows, 1] > 0
        if metric in ORACLES:
            return ORACLES[metric](truth[rows], found)
        (tn, fp), (fn, tp) = oracle.confusion_matrix(truth[rows], found, labels=[0, 1])
        return {"true_positive": tp, "false_positive": fp, "true_negative": tn, "false_negative": fn}[metric]

    found = class_intervals(truth, scores, n_resamples=50, seed=3)
    interval = next(i for i in found if i.metric == metric and i.column == 1)
    slow = [score(rows) for rows in draws(40, 50, seed=3)]
    assert interval.value == pytest.approx(score(np.arange(40)))
    assert [interval.low, interval.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]).tolist(), rel=1e-9)


@pytest.mark.parametrize("n_levels", [1, 100])
def test_auc_of_resamples_is_the_exact_one_but_for_terms_of_order_one_over_n(n_levels):
    truth, scores = classified(400)
    scores = np.round(scores * n_levels) / n_levels
    interval = next(i for i in class_intervals(truth, scores, n_resamples=300, seed=3) if i.metric == "auc")
    slow = [classification.auc(truth[rows], scores[rows, 0]) for rows in draws(400, 300, seed=3)]
    assert interval.value == pytest.approx(classification.auc(truth, scores[:, 0]))
    assert [interval.low, interval.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]).tolist(), abs=0.5 / 400)


def test_resamples_without_a_class_are_left_out():
    truth, scores = np.array([0, 0, 0, 0, 1]), np.array([[-1.0], [0.5], [-1.0], [-2.0], [1.0]])
    assert all(np.isfinite(i[2:]).all() for i in class_intervals(truth, scores, n_resamples=100, seed=0))


def test_intervals_of_the_auc_keep_to_its_scale():
    truth = np.array([0, 0, 0, 0, 1, 1, 1])
    scores = np.array([[0.0, 1, 2, 5, 3, 6, 7]]).T
    interval = next(i for i in class_intervals(truth, scores, n_resamples=500, seed=0) if i.metric == "auc")
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_intervals_of_the_auc_cover_the_truth_as_often_as_they_say():
    n_trials, n_covered, true_auc = 300, 0, ndtr(1 / np.sqrt(2))
    for seed in range(n_trials):
        found = class_intervals(*classified(200, seed=seed), n_resamples=250, seed=seed)
        auc = next(i for i in found if i.metric == "auc")
        n_covered += auc.low <= true_auc <= auc.high
    assert 0.92 <= n_covered / n_trials <= 0.98


def test_holms_correction_is_its_definition():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).max() <= 1


def test_what_was_not_tested_is_not_corrected_for():
    np.testing.assert_allclose(holm(np.array([np.nan, 0.01, np.nan, 0.03])), [np.nan, 0.02, np.nan, 0.03])
    assert np.isnan(holm(np.array([np.nan]))).all()


@pytest.mark.parametrize(("limit", "value"), [("BLOCK_WEIGHTS", 1), ("BLOCK_WEIGHTS", 1000), ("LARGE_SAMPLE", 0)])
def test_intervals_do_not_depend_on_how_many_resamples_are_weighed_at_once(monkeypatch, limit, value):
    truth, prediction = galaxies(80, m=2)
    classes, scores = (truth[:, 0] > 8.7).astype(int), prediction - 8.7
    values = bootstrap_intervals(truth, prediction, n_resamples=50, seed=0)
    of_classes = class_intervals(classes, scores, n_resamples=50, seed=0)
    monkeypatch.setattr(bootstrap, limit, value)
    again = bootstrap_intervals(truth, prediction, n_resamples=50, seed=0)
    np.testing.assert_allclose([row[2:] for row in again], [row[2:] for row in values], rtol=1e-12)
    again = class_intervals(classes, scores, n_resamples=50, seed=0)
    np.testing.assert_allclose([row[2:] for row in again], [row[2:] for row in of_classes], rtol=1e-12)


def test_weights_of_a_large_sample_come_in_blocks_and_are_those_of_a_small_one(monkeypatch):
    whole = np.vstack(list(bootstrap.sample_and_resamples(40, 9, 3)))
    monkeypatch.setattr(bootstrap, "BLOCK_WEIGHTS", 100)
    blocks = list(bootstrap.sample_and_resamples(40, 9, 3))
    assert [len(block) for block in blocks] == [2, 2, 2, 2, 2]
    np.testing.assert_array_equal(np.vstack(blocks), whole)
    np.testing.assert_allclose(whole.sum(axis=1), 1)
