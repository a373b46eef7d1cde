"""Disentanglement: perfect where factors are found, low where they are mixed, equal to slow loops and scikit-learn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group, spearmanr
from sklearn.linear_model import lasso_path

from sfnetlab.metrics.disentanglement import (
    DETECTION_AUC,
    HELD_OUT,
    N_PENALTIES,
    SMALLEST_PENALTY,
    dci,
    difference_of_shares,
    factor_absorption,
    lasso_importance,
    match_factors,
)


def factors_of(n: int = 600, m: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (n, m))


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
@settings(max_examples=20)
def test_factors_are_found_up_to_order_sign_and_scale(seed, m):
    rng = np.random.default_rng(seed)
    factors, order = factors_of(60, m, seed), rng.permutation(m)
    features = (factors * rng.choice([-1, 1], m) * rng.uniform(0.1, 9, m))[:, order]
    match = match_factors(features[:40], factors[:40], features[40:], factors[40:])
    np.testing.assert_array_equal(order[match.feature], np.arange(m))
    np.testing.assert_allclose(np.abs(match.correlation_test), 1)


def test_monotonic_change_costs_pearson_but_not_spearman():
    factors = factors_of()
    features = np.exp(6 * factors)
    pearson, rank = (
        np.abs(match_factors(features[:400], factors[:400], features[400:], factors[400:], method).correlation_test)
        for method in ("pearson", "spearman")
    )
    np.testing.assert_allclose(rank, 1)
    assert pearson.max() < 0.8


def test_random_rotation_of_many_factors_has_a_low_mcc_and_dci():
    factors = factors_of(1200, 20)
    rotated = factors @ ortho_group.rvs(20, random_state=0)
    fit, test = slice(0, 800), slice(800, 1200)
    match = match_factors(rotated[fit], factors[fit], rotated[test], factors[test])
    assert 0.3 < np.abs(match.correlation_test).mean() < 0.65
    scores = dci(lasso_importance(rotated[fit], factors[fit], rotated[test], 0).importance)
    assert scores.disentanglement < 0.3
    assert scores.completeness.max() < 0.5


def test_correlations_are_those_of_the_test_rows():
    rng = np.random.default_rng(1)
    factors, features = rng.standard_normal((80, 3)), rng.standard_normal((80, 7))
    match = match_factors(features[:50], factors[:50], sp.csr_array(features[50:]), factors[50:], "spearman")
    expected = [spearmanr(features[50:, f], factors[50:, i]).statistic for i, f in enumerate(match.feature)]
    np.testing.assert_allclose(match.correlation_test, expected)


def test_factors_without_a_feature_count_as_not_found():
    factors = factors_of(50, 3)
    match = match_factors(factors[:30, :1], factors[:30], factors[30:, :1], factors[30:])
    assert match.feature.tolist() == [0, -1, -1]
    np.testing.assert_allclose(match.correlation_test, [1, 0, 0])


def test_perfect_features_score_one_in_all_of_dci():
    factors = factors_of()
    features = factors[:, [2, 0, 1, 4, 3]] * [1, -2, 30, 0.4, 5]
    lasso = lasso_importance(features[:400], factors[:400], features[400:], 0)
    scores = dci(lasso.importance)
    assert scores.disentanglement > 0.99
    assert scores.completeness.min() > 0.99
    assert 1 - np.var(lasso.predictions - factors[400:]) / np.var(factors[400:]) > 0.999


def test_dci_equals_a_slow_loop():
    R = np.random.default_rng(2).exponential(size=(6, 4))
    R[1] = 0
    D = []
    for row in R:
        p = row / row.sum() if row.sum() else row
        D.append(1 + sum(x * np.log(x) / np.log(4) for x in p if x > 0))
    C = [1 + sum(x * np.log(x) / np.log(6) for x in column / column.sum() if x > 0) for column in R.T]
    scores = dci(R)
    np.testing.assert_allclose(scores.disentanglement, np.average(D, weights=R.sum(axis=1)))
    np.testing.assert_allclose(scores.completeness, C)


def test_evenly_spread_importance_scores_zero():
    scores = dci(np.ones((8, 3)))
    assert scores.disentanglement == pytest.approx(0)
    np.testing.assert_allclose(scores.completeness, 0, atol=1e-12)


@pytest.mark.parametrize("R", [np.ones((3, 1)), np.zeros((3, 3)), -np.ones((3, 3)), np.full((3, 3), np.nan)])
def test_importances_without_a_score_are_refused(R):
    with pytest.raises(ValueError, match="importance"):
        dci(R)


@pytest.mark.parametrize("as_table", [np.asarray, sp.csr_array])
def test_lasso_equals_sklearn(as_table):
    rng = np.random.default_rng(3)
    X = np.where(rng.random((300, 30)) < 0.4, rng.exponential(size=(300, 30)), 0)
    X[:, 3] = 0
    y = X[:, :5] @ rng.standard_normal(5) + 0.5 * rng.standard_normal(300)
    fit, test = slice(0, 200), slice(200, 300)
    ours = lasso_importance(as_table(X[fit]), y[fit, None], as_table(X[test]), 7)

    def path(rows):
        Z = (X[rows] - X[rows].mean(axis=0)) / np.where(X[rows].std(axis=0) > 0, X[rows].std(axis=0), 1)
        t = (y[rows] - y[rows].mean()) / y[rows].std()
        alphas = np.abs(Z.T @ t / len(t)).max() * np.geomspace(1, SMALLEST_PENALTY, N_PENALTIES)
        return lasso_path(Z, t, alphas=alphas, tol=1e-8)[1]

    is_out = np.random.default_rng(7).permutation(200) % HELD_OUT == 0
    rows, out = np.flatnonzero(~is_out), np.flatnonzero(is_out)
    sd = np.where(X[rows].std(axis=0) > 0, X[rows].std(axis=0), 1)
    predicted = y[rows].mean() + y[rows].std() * ((X[out] - X[rows].mean(axis=0)) / sd) @ path(rows)
    best = np.argmin(np.mean((predicted - y[out, None]) ** 2, axis=0))
    weights = path(np.arange(200))[:, best]
    np.testing.assert_allclose(ours.importance[:, 0], np.abs(weights), atol=1e-3)
    sd = np.where(X[fit].std(axis=0) > 0, X[fit].std(axis=0), 1)
    expected = y[fit].mean() + y[fit].std() * ((X[test] - X[fit].mean(axis=0)) / sd) @ weights
    np.testing.assert_allclose(ours.predictions[:, 0], expected, atol=5e-3)


def absorbing(n: int, seed: int, *, absorbs: bool) -> tuple[np.ndarray, np.ndarray]:
    """Feature 0 means the parent, feature 1 the child; it absorbs the parent on 9 in 10 of the child's rows."""
    rng = np.random.default_rng(seed)
    parent = rng.random(n) < 0.5
    child = parent & (rng.random(n) < 0.3)
    silent = child & (rng.random(n) < 0.9) & absorbs
    features = np.column_stack([parent & ~silent, child, rng.random((n, 2)) < 0.2]) * rng.uniform(0.5, 2, (n, 4))
    return features, np.column_stack([parent, child])


def absorption_of(fit: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """The row of features and labels (a parent and its child) of fit and of test rows."""
    (X_fit, labels_fit), (X_test, labels_test) = fit, test
    table = factor_absorption(sp.csr_array(X_fit), labels_fit, sp.csr_array(X_test), labels_test, np.array([-1, 0]))
    (row,) = table.to_dict("records")
    return row


@pytest.mark.parametrize(("absorbs", "expected"), [(True, 0.9), (False, 0.0)])
def test_planted_absorption_is_measured(absorbs, expected):
    test = absorbing(4000, 1, absorbs=absorbs)
    row = absorption_of(absorbing(4000, 0, absorbs=absorbs), test)
    assert (row["feature_parent"], row["feature_child"], row["n_rows"]) == (0, 1, test[1][:, 1].sum())
    assert row["absorption"] == pytest.approx(expected, abs=0.05)
    assert row["silent_without_child"] == 0
    assert row["detected"] == pytest.approx(1 - 0.3 * expected, abs=0.03)
    assert min(row["auc_parent"], row["auc_child"]) > DETECTION_AUC


def fires(row: dict[str, Any]) -> bool:
    return row["low"] > 0 or row["high"] < 0


def false_positives(draw: Callable[[int, int], tuple[np.ndarray, np.ndarray]], n_runs: int) -> float:
    """Share of simulations whose interval excludes 0; `draw` makes n rows from a seed."""
    return float(np.mean([fires(absorption_of(draw(160, 2 * i), draw(1000, 2 * i + 1))) for i in range(n_runs)]))


def test_codes_that_know_nothing_of_the_labels_are_said_to_absorb_nothing():
    def competing(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Two of eight codes speak in each row, so that one is silent more often where another speaks."""
        _, labels = absorbing(n, seed, absorbs=False)
        codes = np.random.default_rng(seed + 10_000).random((n, 8))
        return codes * (codes >= np.sort(codes)[:, -2:-1]), labels

    assert false_positives(competing, 200) <= 0.05


def test_detectors_that_miss_faint_galaxies_are_said_to_absorb_as_often_as_chance():
    """Both features are silent of the faint, whatever the label: nothing takes the parent's place."""

    def faint(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        features, labels = absorbing(n, seed, absorbs=False)
        rng = np.random.default_rng(seed + 10_000)
        return features * (rng.random((n, 1)) > 0.2) + (rng.random((n, 4)) < 0.02), labels

    rate = false_positives(faint, 400)
    assert 0.02 < rate < 0.08


def test_a_feature_that_does_not_detect_its_label_absorbs_nothing_and_says_how_badly_it_detects():
    def blind(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        features, labels = absorbing(n, seed, absorbs=False)
        return features * (np.random.default_rng(seed + 10_000).random((n, 4)) < [0.4, 1, 1, 1]), labels

    row = absorption_of(blind(2000, 0), blind(2000, 1))
    assert row["auc_parent"] == pytest.approx(0.7, abs=0.03)
    assert row["auc_child"] > 0.95
    assert np.isnan([row[name] for name in ("absorption", "low", "high", "silent_with_child", "null_q95")]).all()


def test_the_null_of_absorption_is_what_the_childs_label_gives_when_permuted_among_the_parents_rows():
    fit, (features, labels) = absorbing(1000, 0, absorbs=True), absorbing(300, 1, absorbs=True)
    rng, having = np.random.default_rng(0), np.flatnonzero(labels[:, 0])
    silent = features[:, 0][having] == 0
    child = labels[having, 1]
    drawn = [
        silent[shuffled].mean() - silent[~shuffled].mean() for shuffled in (rng.permutation(child) for _ in range(4000))
    ]
    row = absorption_of(fit, (features, labels))
    assert row["null_q95"] == pytest.approx(np.quantile(drawn, 0.95), abs=0.02)
    assert row["absorption"] > row["null_q95"] > 0


def test_interval_of_a_difference_of_shares_is_that_of_newcombes_tables():
    cases = {
        ((56, 70), (48, 80)): (0.0524, 0.3339),
        ((9, 10), (3, 10)): (0.1705, 0.8090),
        ((10, 10), (0, 10)): (0.6075, 1),
    }
    for samples, expected in cases.items():
        _, (_, *interval) = difference_of_shares(*(np.arange(n) < true for true, n in samples))
        assert interval == pytest.approx(expected, abs=1e-4)


def test_intervals_of_differences_of_shares_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    shares = (0.9, 0.4)
    drawn = [[rng.random(n) < p for n, p in zip((30, 80), shares, strict=True)] for _ in range(1000)]
    holds = [low <= 0.5 <= high for _, (_, low, high) in (difference_of_shares(*pair) for pair in drawn)]
    assert 0.92 < np.mean(holds) < 0.98


def test_shares_of_nothing_are_unknown():
    assert np.isnan(np.hstack(difference_of_shares(np.zeros(0, bool), np.ones(3, bool)))).all()


def test_child_that_is_not_its_parent_is_refused():
    features, labels = absorbing(50, 0, absorbs=False)
    labels[:, 1] = True
    with pytest.raises(ValueError, match="its parent is not"):
        factor_absorption(features, labels, features, labels, np.array([-1, 0]))


def test_constant_factor_is_refused():
    factors = factors_of(20, 2)
    factors[:, 1] = 3
    with pytest.raises(ValueError, match=r"\[1\] are constant"):
        match_factors(factors, factors, factors, factors)
