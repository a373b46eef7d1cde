import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import r2_score, root_mean_squared_error

from sfnetlab.metrics.regression import bias, nmad, pooled_rmse, r2, rmse

finite = st.floats(-1e3, 1e3, width=32)
pairs = st.integers(2, 40).flatmap(
    lambda n: st.tuples(arrays(np.float64, n, elements=finite), arrays(np.float64, n, elements=finite))
)


@given(pairs)
def test_mean_squared_error_is_squared_bias_plus_variance(pair):
    truth, prediction = pair
    assert rmse(truth, prediction) ** 2 == pytest.approx(
        bias(truth, prediction) ** 2 + np.var(prediction - truth), rel=1e-9, abs=1e-9
    )


@given(pairs, st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(pair, random):
    truth, prediction = pair
    order = np.array(random.sample(range(truth.size), truth.size))
    for metric in (rmse, nmad, bias):
        assert metric(truth[order], prediction[order]) == pytest.approx(metric(truth, prediction), rel=1e-9, abs=1e-9)


@given(pairs, finite)
def test_nmad_ignores_a_constant_bias(pair, offset):
    truth, prediction = pair
    assert nmad(truth, prediction + offset) == pytest.approx(nmad(truth, prediction), abs=1e-9)


def test_rmse_and_r2_agree_with_sklearn():
    truth, prediction = np.random.default_rng(0).normal(8.7, 0.2, (2, 500))
    assert rmse(truth, prediction) == pytest.approx(root_mean_squared_error(truth, prediction))
    assert r2(truth, prediction) == pytest.approx(r2_score(truth, prediction))


def test_r2_of_the_mean_is_zero():
    truth = np.random.default_rng(0).normal(8.7, 0.2, 500)
    assert r2(truth, np.full(500, truth.mean())) == pytest.approx(0, abs=1e-12)


def test_nmad_of_a_gaussian_is_its_standard_deviation():
    residuals = np.random.default_rng(0).normal(0.3, 0.1, 100_000)
    assert nmad(np.zeros(residuals.size), residuals) == pytest.approx(0.1, rel=0.01)


def test_bias_is_positive_for_predictions_that_are_too_large():
    assert bias(np.zeros(3), np.ones(3)) == 1


def test_pooled_rmse_is_the_root_of_the_mean_squared_error_of_all_columns():
    truth, prediction = np.random.default_rng(0).normal(size=(2, 50, 3))
    columns = [rmse(truth[:, j], prediction[:, j]) for j in range(3)]
    assert pooled_rmse(truth, prediction) == pytest.approx(np.sqrt(np.mean(np.square(columns))))


@pytest.mark.parametrize("metric", [rmse, nmad, r2, bias])
@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros(0), np.zeros(0), "empty"),
        (np.zeros(3), np.zeros(4), "one shape"),
        (np.zeros((3, 1)), np.zeros((3, 1)), "one shape"),
        (np.arange(3.0), np.array([0, np.nan, np.inf]), "y_pred: 2 of 3 values"),
    ],
)
def test_bad_arrays_are_refused(metric, truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        metric(truth, prediction)


def test_r2_of_constant_labels_is_not_defined():
    assert np.isnan(r2(np.full(3, 8.7), np.array([8.6, 8.7, 8.8])))
