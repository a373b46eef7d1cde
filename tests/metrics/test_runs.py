"""Scores over galaxies and runs: what they cover, what they count, and when they say nothing."""

import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from sfnetlab.bench.coverage import Case, covered
from sfnetlab.jobs import Run
from sfnetlab.metrics import regression
from sfnetlab.metrics.bootstrap import bootstrap_intervals
from sfnetlab.metrics.runs import (
    crossed_draws,
    crossed_scores,
    encoders_of,
    from_intervals,
    mean_over_runs,
    nesting_of,
    over_pairs,
    scores_of,
)


def alone(truth, predictions, contrasts, metric, **how):
    """Scores of runs of which nothing is random but the galaxies."""
    n_runs = predictions.shape[1]
    nesting = nesting_of(["x"] * n_runs, [None] * n_runs)
    return scores_of(truth, predictions, contrasts, nesting, metric, **how)


def difference(truth, a, b, n_resamples, seed=0):
    """The RMSE of predictions a minus that of b."""
    predictions, contrast = np.column_stack([a, b]), np.array([[1.0], [-1.0]])
    (found,) = alone(np.ravel(truth), predictions, contrast, "rmse", n_resamples=n_resamples, seed=seed)
    return found


def galaxies(n, m=1, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(8.7, 0.2, (n, m))
    return truth, truth + noise * rng.normal(size=(n, m))


def classified(n, m=1, seed=0):
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.4).astype(int)
    return truth, truth[:, None] + rng.normal(size=(n, m))


def draws(n, n_resamples, seed):
    rng = np.random.default_rng(seed)
    return [rng.integers(n, size=n) for _ in range(n_resamples)]


def test_paired_difference_is_far_tighter_than_two_intervals():
    truth, prediction = galaxies(500)
    better, worse = (truth + share * (prediction - truth) for share in (1.0, 1.05))
    found = difference(truth, worse, better, n_resamples=500)
    interval = bootstrap_intervals(truth, better, n_resamples=500, seed=0)[0]
    assert interval.low < regression.rmse(truth[:, 0], worse[:, 0]) < interval.high
    assert 0 < found.low < found.value < found.high
    assert found.p == pytest.approx(2 / 501)


def test_equal_predictions_do_not_differ():
    truth, prediction = galaxies(50)
    assert difference(truth, prediction, prediction, n_resamples=100)[:4] == (0, 0, 0, 1)


def test_swapping_the_methods_turns_the_sign():
    truth, a = galaxies(100)
    b = galaxies(100, seed=1)[1]
    ab = difference(truth, a, b, n_resamples=200)
    ba = difference(truth, b, a, n_resamples=200)
    assert (ab.value, ab.low, ab.high, ab.p) == pytest.approx((-ba.value, -ba.high, -ba.low, ba.p))


def test_p_values_of_equally_good_methods_are_uniform():
    p = []
    for seed in range(200):
        a, b = np.random.default_rng([seed, 1]).normal(size=(2, 100))
        p.append(difference(np.zeros(100), a, b, n_resamples=200, seed=seed).p)
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.1
    assert 0.4 <= np.mean(p) <= 0.6


@pytest.mark.parametrize("metric", ["rmse", "auc"])
def test_intervals_of_paired_differences_cover_the_truth_as_often_as_they_say(metric):
    n_trials, n_covered, n = 300, 0, 200
    for seed in range(n_trials):
        rng = np.random.default_rng([seed, 7])
        if metric == "rmse":
            truth, shared = np.zeros(n), rng.normal(size=n)
            columns = np.stack([shared + rng.normal(0, sd, n) for sd in (0.5, 0.6)], axis=1)
            true_difference = np.hypot(1, 0.5) - np.hypot(1, 0.6)
        else:
            truth = (rng.random(n) < 0.4).astype(int)
            shared = truth + rng.normal(size=n)
            columns = np.stack([shared + rng.normal(0, sd, n) for sd in (0.5, 1.0)], axis=1)
            true_difference = ndtr(1 / np.sqrt(2 * 1.25)) - ndtr(1 / np.sqrt(2 * 2))
        contrast = np.array([[1.0], [-1.0]])
        (found,) = alone(truth, columns, contrast, metric, n_resamples=250, seed=seed)
        n_covered += found.low <= true_difference <= found.high
    assert 0.92 <= n_covered / n_trials <= 0.98


def test_many_differences_at_once_are_those_one_by_one():
    truth, columns = galaxies(100, m=3)
    truth = truth[:, 0]
    predictions = truth[:, None] + columns - columns.mean()
    contrasts = np.array([[1, 0], [-1, 1], [0, -1]])
    found = alone(truth, predictions, contrasts, "rmse", n_resamples=300, seed=2)
    for (a, b), each in zip([(0, 1), (1, 2)], found, strict=True):
        assert each == pytest.approx(difference(truth, predictions[:, a], predictions[:, b], n_resamples=300, seed=2))


def test_a_difference_between_means_over_seeds_resamples_all_seeds_together():
    truth, predictions = galaxies(60, m=4)
    truth = truth[:, 0]
    contrasts = np.array([[0.5], [0.5], [-0.5], [-0.5]])
    (found,) = alone(truth, predictions, contrasts, "rmse", n_resamples=200, seed=1)
    slow = []
    for rows in draws(60, 200, seed=1):
        errors = [regression.rmse(truth[rows], column[rows]) for column in predictions.T]
        slow.append(np.mean(errors[:2]) - np.mean(errors[2:]))
    assert [found.low, found.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]).tolist())


@pytest.mark.parametrize("metric", ["rmse", "auc"])
def test_the_same_predictions_in_other_seeds_do_not_differ(metric):
    truth, scores = classified(80)
    contrasts = np.array([[1 / 3]] * 3 + [[-1 / 3]] * 3)
    (found,) = alone(truth, np.repeat(scores, 6, axis=1), contrasts, metric, n_resamples=100, seed=0)
    assert found[:4] == pytest.approx((0, 0, 0, 1), abs=1e-12)


def test_p_values_of_equally_good_scores_are_uniform():
    p = []
    for seed in range(200):
        truth, scores = classified(100, 2, seed)
        contrast = np.array([[1.0], [-1.0]])
        p.append(alone(truth, scores, contrast, "auc", n_resamples=200, seed=seed)[0].p)
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.1
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


def test_a_thousand_differences_of_a_thousand_galaxies_take_seconds():
    rng = np.random.default_rng(0)
    truth, predictions = rng.normal(size=1000), rng.normal(size=(1000, 100))
    contrasts = np.zeros((100, 1000))
    contrasts[rng.integers(50, size=1000), np.arange(1000)] += 1
    contrasts[rng.integers(50, 100, size=1000), np.arange(1000)] -= 1
    start = time.process_time()
    alone(truth, predictions, contrasts, "rmse", n_resamples=2000, seed=0)
    assert time.process_time() - start < 5


CASES = [
    Case(of="mean", ratio=3.0),
    Case(of="mean", ratio=1.0, is_nested=True),
    Case(of="rmse", ratio=1.0),
    Case(of="rmse", ratio=1 / 3, is_nested=True),
    Case(of="auc", ratio=1.0),
    Case(of="paired difference", ratio=1.0),
    Case(of="paired difference", ratio=0.0),
    Case(of="difference", ratio=3.0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_intervals_over_five_runs_and_300_galaxies_cover_the_truth(case):
    n_trials = 200
    crossed, naive = covered(case, n_trials, seed=1, n_resamples=200)
    binomial_sd = np.sqrt(0.95 * 0.05 / n_trials)  # 0.015: that of the share of so few trials
    assert 0.92 - binomial_sd <= crossed <= 0.98 + binomial_sd
    if case.ratio >= 1:
        assert naive < 0.9


def test_of_few_runs_the_interval_is_that_of_student():
    values = np.array([0.1, 0.12, 0.15])
    nesting = nesting_of(["a"] * 3, [0, 1, 2])
    weights = mean_over_runs([0, 1, 2], nesting)[:, None]
    (found,) = crossed_scores(values, np.tile(values, (20000, 1)), weights, nesting, seed=0)
    expected = scipy.stats.t.interval(0.95, 2, values.mean(), values.std(ddof=1) / np.sqrt(3))
    assert (found.low, found.high) == pytest.approx(expected, rel=0.1)
    assert (found.value, found.run_sd, found.n_runs) == pytest.approx((values.mean(), values.std(ddof=1), 3))
    assert found.galaxy_sd == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("units", [[0], [0, 0, 0]])
def test_one_training_gives_a_value_and_no_interval(units):
    truth, predictions = galaxies(40, m=len(units))
    nesting = nesting_of(["a"] * len(units), units)
    weights = mean_over_runs(range(len(units)), nesting)[:, None]
    (found,) = scores_of(truth[:, 0], predictions, weights, nesting, "rmse", n_resamples=100, seed=0)
    assert np.isfinite([found.value, found.galaxy_sd]).all()
    assert np.isnan([found.low, found.high, found.p, found.run_sd]).all()
    assert found.n_runs == 1


def test_a_single_training_against_what_is_not_random_gives_no_verdict():
    truth, predictions = galaxies(40, m=2)
    nesting = nesting_of(["a", "photometry"], [0, None])
    (found,) = scores_of(truth[:, 0], predictions, np.array([[1], [-1]]), nesting, "rmse", n_resamples=100, seed=0)
    assert np.isnan([found.low, found.high, found.p]).all()


def test_where_nothing_is_random_the_interval_is_over_galaxies_and_runs_count_0():
    truth, predictions = galaxies(60)
    truth = truth[:, 0]
    (found,) = alone(truth, predictions, np.ones((1, 1)), "rmse", n_resamples=200, seed=1)
    slow = [regression.rmse(truth[rows], predictions[rows, 0]) for rows in draws(60, 200, seed=1)]
    assert [found.low, found.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]).tolist())
    assert (found.run_sd, found.n_runs) == (0, 0)
    assert found.galaxy_sd == pytest.approx(np.std(slow))


def sampled(scores, noise=0.0, n_resamples=4000):
    """Resamples of scores that have an error of their own each."""
    rng = np.random.default_rng(0)
    return scores + noise * rng.normal(size=(n_resamples, len(scores)))


def test_what_two_methods_share_of_their_encoder_leaves_their_difference():
    encoder = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    values = np.concatenate([encoder, encoder + 0.1 + 0.001 * np.array([1, -1, 0, 1, -1])])
    seeds = [0, 1, 2, 3, 4] * 2
    contrast = np.repeat([-0.2, 0.2], 5)[:, None]
    together, apart = nesting_of(["dense"] * 10, seeds), nesting_of(["a"] * 5 + ["b"] * 5, seeds)
    (paired,) = crossed_scores(values, sampled(values), contrast, together, seed=0)
    (unpaired,) = crossed_scores(values, sampled(values), contrast, apart, seed=0)
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.low > 0.09
    assert unpaired.low < -1
    assert paired.p < 0.01 < unpaired.p


def test_dictionaries_within_an_encoder_are_no_encoders():
    values = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    nested = nesting_of(["dense"] * 6, [0, 0, 0, 1, 1, 1])
    flat = nesting_of(["sfnet"] * 6, range(6))
    of_nested, of_flat = (
        crossed_scores(values, sampled(values), mean_over_runs(range(6), each)[:, None], each, seed=0)[0]
        for each in (nested, flat)
    )
    assert (of_nested.n_runs, of_flat.n_runs) == (2, 6)
    assert of_nested.high - of_nested.low > 5 * (of_flat.high - of_flat.low)


def test_encoders_count_the_same_however_many_dictionaries_they_have():
    nesting = nesting_of(["dense"] * 4, [0, 0, 0, 1])
    np.testing.assert_allclose(mean_over_runs(range(4), nesting), [1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_what_galaxies_have_with_single_runs_is_counted_once():
    # nothing is common to the runs: their spread over galaxies is all there is, and runs differ as much by it
    values = 0.1 * np.random.default_rng(3).normal(size=200)
    nesting = nesting_of(["a"] * 200, range(200))
    weights = mean_over_runs(range(200), nesting)[:, None]
    (found,) = crossed_scores(values, sampled(values, noise=0.1), weights, nesting, seed=0)
    assert (found.high - found.low) / 2 == pytest.approx(1.97 * 0.1 / np.sqrt(200), rel=0.15)


def test_draws_of_a_linear_function_have_the_interval_of_the_contrast():
    truth, predictions = galaxies(80, m=6)
    nesting = nesting_of(["a"] * 3 + ["b"] * 3, [0, 1, 2] * 2)
    methods = np.stack([mean_over_runs([0, 1, 2], nesting), mean_over_runs([3, 4, 5], nesting)], axis=1)
    values = np.array([regression.rmse(truth[:, 0], column) for column in predictions.T])
    resampled = sampled(values, noise=0.01)
    (found,) = crossed_scores(values, resampled, methods @ [[1], [-1]], nesting, seed=0)
    drawn = crossed_draws(lambda s: s[:, 0] - s[:, 1], values, resampled, methods, nesting, seed=0)
    assert drawn[0] == pytest.approx(found.value)
    assert np.quantile(drawn[1:], [0.025, 0.975]) == pytest.approx([found.low, found.high], rel=1e-6)


def test_draws_of_a_method_with_one_training_are_nan():
    nesting = nesting_of(["a", "b", "b"], [0, 0, 1])
    methods = np.array([[1, 0], [0, 0.5], [0, 0.5]])
    values = np.array([1.0, 2.0, 3.0])
    drawn = crossed_draws(lambda s: s[:, 0] / s[:, 1], values, sampled(values), methods, nesting, seed=0)
    assert drawn[0] == pytest.approx(0.4)
    assert np.isnan(drawn[1:]).all()


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8), st.floats(0.1, 100), st.floats(-100, 100))
def test_intervals_keep_to_the_unit_and_the_origin_of_a_score(values, unit, origin):
    values = np.array(values)
    nesting = nesting_of(["a"] * len(values), range(len(values)))
    weights = mean_over_runs(range(len(values)), nesting)[:, None]
    resampled = sampled(values, noise=0.5, n_resamples=50)
    (found,) = crossed_scores(values, resampled, weights, nesting, seed=0)
    (moved,) = crossed_scores(unit * values + origin, unit * resampled + origin, weights, nesting, seed=0)
    expected = [unit * found.low + origin, unit * found.high + origin, unit * found.run_sd, unit * found.galaxy_sd]
    assert [moved.low, moved.high, moved.run_sd, moved.galaxy_sd] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_intervals_of_runs_add_in_squares_to_that_between_runs():
    values, half = np.array([0.5, 0.6, 0.7]), 0.1
    value, low, high = from_intervals(values, values - half, values + 2 * half, [0, 1, 2])
    between = scipy.stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert (value, value - low, high - value) == pytest.approx((0.6, np.hypot(between, 0.1), np.hypot(between, 0.2)))


def test_the_interval_of_what_is_not_random_is_its_own_and_of_one_training_there_is_none():
    one = np.array([0.5])
    assert from_intervals(one, one - 0.1, one + 0.2, [None]) == pytest.approx((0.5, 0.4, 0.7))
    assert np.isnan(from_intervals(one, one - 0.1, one + 0.2, [3])[1:]).all()
    two = np.array([0.5, 0.6])
    assert np.isnan(from_intervals(two, two - 0.1, two + 0.2, [3, 3])[1:]).all()


def test_intervals_over_pairs_of_five_runs_cover_the_truth():
    a, b = np.triu_indices(5, 1)
    n_trials, n_covered = 1000, 0
    for trial in range(n_trials):
        rng = np.random.default_rng([trial, 11])
        runs = rng.normal(size=5)
        _, low, high = over_pairs(runs[a] + runs[b] + 0.5 * rng.normal(size=len(a)), a.tolist(), b.tolist())
        n_covered += low <= 0 <= high
    assert 0.92 <= n_covered / n_trials <= 0.98


def test_two_runs_are_one_pair_without_interval():
    assert np.isnan(over_pairs(np.array([0.5]), [0], [1])[1:]).all()


@given(st.integers(0, 999_999), st.integers(0, 1000))
def test_the_number_of_a_run_says_its_encoder_and_its_dictionary(encoder, dictionary):
    run = Run(encoder, dictionary)
    assert Run.of(run.seed) == run


def test_the_first_dictionary_has_its_encoders_number_and_name():
    assert (Run(3).seed, Run(3).name, Run(3, 2).name) == (3, "seed3", "seed3-dictionary2")


def test_runs_of_one_encoder_stand_on_one_training():
    assert encoders_of([0, Run(0, 1).seed, 4, None, float("nan")]) == [0, 0, 4, None, None]


def test_intervals_of_dictionaries_widen_with_encoders_alone():
    values, ends = np.array([1.0, 1.2, 2.0, 2.2]), np.zeros(4)
    nested = from_intervals(values, values - ends, values + ends, encoders_of([0, Run(0, 1).seed, 1, Run(1, 1).seed]))
    means = from_intervals(np.array([1.1, 2.1]), np.array([1.1, 2.1]), np.array([1.1, 2.1]), [0, 1])
    np.testing.assert_allclose(nested, means)
