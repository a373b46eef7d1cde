"""Nulls that keep what is trivially shared, on planted features."""

import numpy as np
import pytest
from scipy import sparse

from sfnetlab.metrics.nulls import curved_predictors, draws, residuals, share_alike

RNG = np.random.default_rng(0)


def test_pairs_are_chosen_on_fit_rows_and_counted_on_test_rows():
    fit = np.array([[0.9, 0.1], [0.2, -0.8], [0.3, 0.3]])
    assert share_alike(fit, np.array([[0.8, 0], [0, -0.9], [0, 0]])) == 1
    assert share_alike(fit, np.array([[0.8, 0.9], [0.9, 0.5], [0.9, 0.9]])) == 0.5
    assert share_alike(np.full((2, 2), np.nan), np.full((2, 2), np.nan)) == 0
    assert np.isnan(share_alike(np.zeros((0, 3)), np.zeros((0, 3))))


def test_draws_have_no_feature_twice_and_all_is_one_draw():
    chosen = list(draws(20, 6, 0))
    assert len(chosen) == 5
    assert all(len(set(each)) == 6 for each in chosen)
    assert len({tuple(each) for each in chosen}) == 5
    assert [each.tolist() for each in draws(3, 6, 0)] == [[0, 1, 2]]


@pytest.mark.parametrize("follows", [lambda z: z, lambda z: 3 - z, lambda z: np.maximum(z, 0), lambda z: z**2, np.exp])
def test_features_that_are_alike_for_a_label_are_alike_no_more(follows):
    z, rest = RNG.normal(size=(900, 1)), RNG.normal(size=900)
    noisy = [follows(z[:, 0]) + 0.25 * np.std(follows(z)) * RNG.normal(size=900) for _ in range(2)]
    X = np.column_stack([*noisy, rest])
    train, test = np.arange(600), np.arange(600, 900)
    assert np.corrcoef(X[test].T)[0, 1] > 0.85
    left = residuals((sparse.csr_array(X[train]), X[test]), curved_predictors(z[train], [z[test]]))
    for part, rows in zip(left, (train, test), strict=True):
        assert abs(np.corrcoef(part.T)[0, 1]) < 0.3
        assert abs(np.corrcoef(part[:, 2], rest[rows])[0, 1]) > 0.97


def test_a_feature_that_is_told_wholly_is_zero():
    ranks = RNG.permutation(200)[:, None].astype(float)
    predictors = curved_predictors(ranks, [ranks[:50]])
    left = residuals((ranks, ranks[:50]), predictors)
    assert not left[0].any()
    assert not left[1].any()


def test_labels_that_are_missing_are_known_as_such():
    z = RNG.normal(size=(300, 2))
    z[:, 1] = np.nan
    z[::3, 0] = np.nan
    fit, other = curved_predictors(z, [z[:60]])
    assert np.isfinite(fit).all()
    assert np.isfinite(other).all()
    assert fit.shape[1] == other.shape[1]
    X = np.isnan(z[:, :1]).astype(float)
    assert not residuals((X, X[:60]), (fit, other))[0].any()


def test_a_missing_value_stays_missing_and_the_column_is_fitted_on_the_others():
    rng = np.random.default_rng(0)
    known = rng.normal(size=(200, 1))
    column = 3 * known + 0.1 * rng.normal(size=(200, 1))
    holed = column.copy()
    holed[::3] = np.nan
    is_known = ~np.isnan(holed[:, 0])
    (left,) = residuals([np.hstack([holed, column])], [known])
    (alone,) = residuals([column[is_known]], [known[is_known]])
    assert np.isnan(left[~is_known, 0]).all()
    np.testing.assert_allclose(left[is_known, 0], alone[:, 0])
    assert np.isfinite(left[:, 1]).all()
