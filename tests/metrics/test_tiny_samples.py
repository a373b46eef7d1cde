"""Statistics of samples so small, or so equal, that some are not defined: NaN and counted, without error or warning."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from sfnetlab.metrics.association import (
    closest_feature,
    correlation_interval,
    correlation_matrix,
    held_out_r2,
    labels_as_predictors,
    partial_correlation,
    pearson,
    single_feature_auc,
    spearman,
)
from sfnetlab.metrics.bootstrap import bootstrap_intervals, class_intervals
from sfnetlab.metrics.predictions import Prediction, many_class_scores, value_scores
from sfnetlab.metrics.runs import nesting_of, scores_of

FEW = st.sampled_from([0.0, 0.25, 1.0, -1.0, 1e6])
"""Few values, so that ties and columns of one value are common."""


def tables(n_rows, n_columns):
    return st.lists(FEW, min_size=n_rows * n_columns, max_size=n_rows * n_columns).map(
        lambda values: np.array(values).reshape(n_rows, n_columns)
    )


def pairs_of(n_rows, n_columns=2):
    return st.tuples(tables(n_rows, n_columns), tables(n_rows, n_columns))


SMALL = st.sampled_from([1, 2, 3, 4])


@given(SMALL.flatmap(pairs_of))
def test_errors_of_few_galaxies_have_a_value_and_an_interval_or_nan(pair):
    truth, prediction = pair
    for each in bootstrap_intervals(truth, prediction, n_resamples=20, seed=0):
        is_constant = each.metric == "r2" and np.ptp(truth[:, each.column]) == 0
        assert np.isnan(each.value) == is_constant
        assert 0 <= each.n_undefined <= 20
        assert np.isnan([each.low, each.high]).all() == (each.n_undefined > 10)
        assert not each.low > each.high


@given(
    st.lists(FEW, min_size=2, max_size=5).flatmap(
        lambda scores: st.tuples(st.just(scores), st.integers(1, len(scores) - 1))
    )
)
def test_scores_of_few_galaxies_have_a_value_and_an_interval_or_nan(drawn):
    scores, n_positive = drawn
    truth = (np.arange(len(scores)) < n_positive).astype(int)
    for each in class_intervals(truth, np.array(scores)[:, None], n_resamples=20, seed=0):
        assert np.isfinite(each.value)
        assert np.isnan([each.low, each.high]).all() == (each.n_undefined > 10)


@pytest.mark.parametrize("metric", ["rmse", "auc"])
def test_a_difference_between_methods_on_two_galaxies_is_a_number_and_its_p_is_one(metric):
    truth, predictions = np.array([0, 1]), np.array([[0.1, 0.3], [0.2, 0.2]])
    nesting = nesting_of(["a", "b"], [None, None])
    (found,) = scores_of(truth, predictions, np.array([[1], [-1]]), nesting, metric, n_resamples=3, seed=1)
    assert np.isfinite(found.value)
    assert 0 < found.p <= 1


@given(st.sampled_from([0, 1, 2, 3]).flatmap(pairs_of), st.booleans())
def test_correlations_of_few_galaxies_lie_within_one_or_are_nan(pair, is_sparse):
    dense, labels = pair
    features = sparse.csr_array(dense) if is_sparse else dense
    constant = np.ptp(dense, axis=0)[:, None] * np.ptp(labels, axis=0) == 0 if len(dense) else np.ones((2, 2), bool)
    for correlate in (spearman, pearson):
        r = correlate(features, labels)
        np.testing.assert_array_equal(np.isnan(r), constant)
        assert (np.abs(r[~constant]) <= 1).all()
        low, high = correlation_interval(r, len(dense), "spearman")
        assert np.isnan(low).all()
        assert np.isnan(high).all()
    if len(dense) == 0:  # means of no galaxy are refused
        return
    assert partial_correlation(features, labels[:, 0], labels[:, 1:]).shape == (2,)
    assert correlation_matrix(features).shape == (2, 2)
    assert closest_feature(features)[1].shape == (2,)
    assert single_feature_auc(features, (labels > 0).astype(float)).shape == (2, 2)


@given(st.sampled_from([1, 2, 3]).flatmap(pairs_of))
def test_r2_of_few_galaxies_is_at_most_one_or_nan(pair):
    features, labels = pair
    predictors, _ = labels_as_predictors(labels, labels)
    r2 = held_out_r2(features, predictors, features, predictors)
    assert np.array_equal(np.isnan(r2), np.ptp(features, axis=0) == 0)
    assert not (r2 > 1 + 1e-9).any()


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_labels_are_refused(value):
    labels = np.array([[0.0], [value], [1.0]])
    for correlate in (spearman, pearson):
        with pytest.raises(ValueError, match="infinite"):
            correlate(np.zeros((3, 1)), labels)
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_intervals(labels, np.zeros((3, 1)), n_resamples=10, seed=0)


def test_undefined_resamples_are_told_once_whatever_the_number_of_probes(caplog):
    truth = np.array([[8.1]] * 9 + [[8.2]])
    split = np.full(10, "test")
    with caplog.at_level(logging.INFO):
        for probe in ("linear", "ridge"):
            prediction = Prediction(probe, 1, truth + 0.1)
            scores = value_scores(["told_once"], truth, prediction, split, n_resamples=100, seed=0, parts=("test",))
    assert scores.set_index("metric")["value"].notna().all()
    assert caplog.text.count("R² of 'told_once' is undefined in") == 1


def test_a_class_that_most_resamples_lack_leaves_the_interval_of_the_balanced_accuracy_empty():
    y = np.repeat([0, 1, 2], 3)
    scores = many_class_scores(
        "type", y, [Prediction("knn", 1, y[:, None])], np.resize(["train", "valid", "test"], 9), n_resamples=50, seed=0
    )
    balanced = scores[scores["metric"] == "balanced_accuracy"].iloc[0]
    assert balanced["value"] == 1
    assert np.isnan(balanced["low"])
