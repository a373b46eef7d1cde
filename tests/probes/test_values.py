"""Probes of values: what each does, what all of them keep to, and scikit-learn's answers."""

import logging

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.preprocessing import StandardScaler

from sfnetlab.metrics.regression import r2
from sfnetlab.probes import make_probe, names_of
from sfnetlab.probes.linear import LinearProbe
from sfnetlab.probes.ridge import PENALTIES, RidgeProbe, ridge_path

NAMES = names_of("values")


def rows(n=300, d=8, seed=0, noise=0.1):
    """Sparse-ish features of unequal scales and two labels that are linear in them."""
    rng = np.random.default_rng(seed)
    X = np.maximum(rng.normal(size=(n, d)), 0) * 10.0 ** np.linspace(-2, 2, d)
    weights = np.random.default_rng(99).normal(size=(d, 2)) / 10.0 ** np.linspace(-2, 2, d)[:, None]
    return X.astype(np.float32), 8.7 + X @ weights + noise * rng.normal(size=(n, 2))


def fit(name, train, valid, seed=0):
    return make_probe(name, seed=seed).fit(*train, *valid)


@pytest.mark.parametrize("storage", [np.asarray, sp.csr_array, sp.csr_matrix])
def test_linear_probe_is_sklearns_linear_regression(storage):
    X, Y = rows()
    probe = LinearProbe().fit(storage(X), Y, storage(X), Y)
    oracle = LinearRegression().fit(X.astype(np.float64), Y)
    np.testing.assert_allclose(probe.predict(storage(X)), oracle.predict(X), rtol=1e-8)
    np.testing.assert_allclose(probe.coef_, oracle.coef_.T, rtol=1e-6)


@pytest.mark.parametrize("storage", [np.asarray, sp.csr_array])
@pytest.mark.parametrize(("n", "d"), [(300, 8), (30, 50), (300, 1)])
def test_ridge_path_is_sklearns_ridge_at_every_penalty(storage, n, d, monkeypatch):
    X, Y = rows(n, d)
    X[:, 0] = np.where(X[:, 0] == 0, 0, 1)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    for penalty in PENALTIES:
        monkeypatch.setattr("sfnetlab.probes.ridge.PENALTIES", np.array([penalty]))
        probe = RidgeProbe().fit(storage(X), Y, storage(X), Y)
        oracle = Ridge(alpha=penalty * n, solver="svd").fit(Z, Y)
        np.testing.assert_allclose(probe.predict(storage(X)), oracle.predict(Z), rtol=1e-6)
        np.testing.assert_allclose(probe.alpha_, penalty * n)


def test_each_label_gets_the_penalty_that_is_best_on_the_valid_rows():
    noise = np.array([0.01, 5])
    (X, Y), (X_valid, Y_valid) = rows(40, 30, noise=noise), rows(200, 30, seed=1, noise=noise)
    probe = RidgeProbe().fit(X, Y, X_valid, Y_valid)
    scaler = StandardScaler().fit(X.astype(np.float64))
    errors = [
        np.mean((Ridge(alpha=40 * p).fit(scaler.transform(X), Y).predict(scaler.transform(X_valid)) - Y_valid) ** 2, 0)
        for p in PENALTIES
    ]
    np.testing.assert_allclose(probe.alpha_, 40 * PENALTIES[np.argmin(errors, axis=0)])
    assert probe.alpha_[1] > probe.alpha_[0]


def test_penalty_at_the_edge_is_recorded_and_logged(caplog, monkeypatch):
    X, Y = rows()
    monkeypatch.setattr("sfnetlab.probes.ridge.PENALTIES", np.array([0.1, 1, 10]))
    with caplog.at_level(logging.DEBUG, "sfnetlab.probes.ridge"):
        probe = RidgeProbe().fit(X, Y, X, Y)
    assert probe.is_at_edge_.all()
    assert "2 of 2 label columns" in caplog.text


def test_sparse_tables_of_many_columns_take_the_sparse_gram():
    rng = np.random.default_rng(0)
    X = sp.random_array((400, 200), density=0.03, rng=rng, format="csr")
    Y = X[:, :3].toarray() @ rng.normal(size=(3, 1)) + 8
    np.testing.assert_allclose(
        fit("ridge", (X, Y), (X, Y)).predict(X), fit("ridge", (X.toarray(), Y), (X, Y)).predict(X)
    )


def test_wider_than_long_interpolates_with_the_least_norm_and_says_so(caplog):
    X, Y = rows(20, 50)
    with caplog.at_level(logging.WARNING):
        probe = LinearProbe().fit(X, Y, X, Y)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    least_norm = np.linalg.lstsq(Z, Y - Y.mean(axis=0))[0]
    np.testing.assert_allclose(probe.coef_ * X.std(axis=0)[:, None], least_norm, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(probe.predict(X), Y, rtol=1e-6)
    assert "50 columns but rank 19" in caplog.text


def test_repeated_column_shares_its_weight():
    X, Y = rows()
    doubled = np.hstack([X, X[:, :1]])
    alone, probe = LinearProbe().fit(X, Y, X, Y), LinearProbe().fit(doubled, Y, doubled, Y)
    np.testing.assert_allclose(probe.coef_[[0, -1]], np.vstack([alone.coef_[:1] / 2] * 2), rtol=1e-5)
    np.testing.assert_allclose(probe.predict(doubled), alone.predict(X), rtol=1e-8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from(["linear", "ridge"]))
def test_units_of_features_do_not_matter(seed, name):
    train, valid = rows(seed=seed), rows(seed=seed + 1)
    units = 10.0 ** np.random.default_rng(seed).uniform(-6, 6, 8)
    expected = fit(name, train, valid).predict(valid[0])
    scaled = fit(name, (train[0] * units, train[1]), (valid[0] * units, valid[1])).predict(valid[0] * units)
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_probe_finds_a_linear_label(name):
    train, valid, test = rows(1000, seed=0), rows(300, seed=1), rows(300, seed=2)
    probe = fit(name, train, valid)
    for column in range(2):
        assert r2(test[1][:, column], probe.predict(test[0])[:, column]) > (0.9 if name == "xgboost" else 0.98)


def test_xgboost_finds_what_linear_probes_miss():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 3))
    Y = np.sign(X[:, :1] * X[:, 1:2])
    parts = [(X[:800], Y[:800]), (X[800:1100], Y[800:1100])]
    scores = {name: r2(Y[1100:, 0], fit(name, *parts).predict(X[1100:])[:, 0]) for name in NAMES}
    assert scores["xgboost"] > 0.8
    assert max(scores["linear"], scores["ridge"]) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_shuffled_labels_give_nothing(name):
    train, valid, test = rows(1000, seed=0), rows(300, seed=1), rows(300, seed=2)
    rng = np.random.default_rng(0)
    shuffled = [(X, rng.permutation(Y)) for X, Y in (train, valid)]
    assert r2(test[1][:, 0], fit(name, *shuffled).predict(test[0])[:, 0]) < 0.02


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("storage", [np.asarray, sp.csr_array])
def test_without_varying_columns_every_probe_predicts_the_train_mean(name, storage):
    Y = rows()[1]
    for X in (np.zeros((300, 0)), np.zeros((300, 2)), np.full((300, 1), 0.1)):
        found = fit(name, (storage(X), Y), (storage(X), Y)).predict(storage(X[:5]))
        np.testing.assert_allclose(found, DummyRegressor().fit(X, Y).predict(X[:5]), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_how_a_table_is_stored_does_not_matter(name):
    (X, Y), valid = rows(), rows(seed=1)
    dense = fit(name, (X, Y), valid).predict(X)
    sparse = fit(name, (sp.csr_array(X), Y), (sp.csr_matrix(valid[0]), valid[1])).predict(sp.csr_array(X))
    np.testing.assert_allclose(sparse, dense, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_column_that_is_constant_on_train_rows_has_no_say(name):
    train, valid = rows(), rows(seed=1)
    widened = [(np.hstack([X, np.full((len(X), 1), 0.3)]), Y) for X, Y in (train, valid)]
    expected = fit(name, train, valid).predict(valid[0])
    awake = np.hstack([valid[0], np.full((300, 1), 1e6)])
    np.testing.assert_allclose(fit(name, *widened).predict(awake), expected, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_prediction_is_row_independent(name):
    train, valid = rows(), rows(seed=1)
    probe = fit(name, train, valid)
    np.testing.assert_allclose(probe.predict(valid[0])[3:4], probe.predict(valid[0][3:4]), rtol=1e-12)


def test_same_seed_gives_the_same_trees():
    train, valid = rows(), rows(seed=1)
    first, again, other = (fit("xgboost", train, valid, seed=seed).predict(valid[0]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_xgboost_stops_where_the_valid_rows_no_longer_gain():
    train, valid = rows(noise=3), rows(seed=1, noise=3)
    probe = make_probe("xgboost").fit(*train, *valid)
    assert all(1 <= n_rounds < 200 for n_rounds in probe.n_rounds_)


@pytest.mark.parametrize("name", NAMES)
def test_unit_of_the_labels_scales_the_predictions(name):
    (X, Y), (X_valid, Y_valid) = rows(), rows(seed=1)
    expected = fit(name, (X, Y), (X_valid, Y_valid)).predict(X_valid)
    tiny = fit(name, (X, 1e-17 * Y), (X_valid, 1e-17 * Y_valid)).predict(X_valid)
    np.testing.assert_allclose(tiny, 1e-17 * expected, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_constant_label_is_predicted(name):
    X = rows()[0]
    Y = np.full((300, 1), 8.7)
    np.testing.assert_allclose(fit(name, (X, Y), (X, Y)).predict(X), Y, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", range(4))
def test_values_that_are_not_finite_are_counted(name, part):
    tables = [*rows(), *rows(seed=1)]
    tables[part] = tables[part].copy()
    tables[part][[0, 5], 1] = np.nan, np.inf
    message = f"{('X', 'Y', 'X_valid', 'Y_valid')[part]}: 2 of {tables[part].size} values are not finite"
    with pytest.raises(ValueError, match=message):
        make_probe(name).fit(*tables)


@pytest.mark.parametrize("name", NAMES)
def test_tables_that_do_not_fit_are_refused(name):
    (X, Y), valid = rows(), rows(seed=1)
    with pytest.raises(ValueError, match="Y: expected a dense array of 300 rows"):
        fit(name, (X, Y[1:]), valid)
    with pytest.raises(ValueError, match="expected Y"):
        fit(name, (X, Y), (valid[0], valid[1][:, :1]))
    with pytest.raises(ValueError, match="expected 8 feature columns"):
        fit(name, (X, Y), (valid[0][:, 1:], valid[1]))
    with pytest.raises(ValueError, match="expected 8 feature columns"):
        fit(name, (X, Y), valid).predict(X[:, 1:])


def test_unknown_probe_is_refused():
    with pytest.raises(ValueError, match="expected one of 'linear', 'ridge', 'xgboost', got 'svm'"):
        make_probe("svm")


def test_the_errors_of_a_path_are_those_of_each_ridge_on_the_valid_rows():
    (X, Y), (X_valid, Y_valid) = rows(), rows(50, seed=1)
    alphas = np.logspace(-3, 3, 7)
    coefs, errors = ridge_path(X, Y, sp.csr_array(X_valid), Y_valid, alphas)
    X, X_valid = X.astype(np.float64), X_valid.astype(np.float64)
    scaler = StandardScaler().fit(X)
    for alpha, coef, error in zip(alphas, coefs, errors, strict=True):
        oracle = Ridge(alpha=alpha).fit(scaler.transform(X), Y)
        np.testing.assert_allclose(coef, oracle.coef_.T / scaler.scale_[:, None], rtol=1e-6)
        expected = np.mean((oracle.predict(scaler.transform(X_valid)) - Y_valid) ** 2, axis=0)
        np.testing.assert_allclose(error, expected, rtol=1e-6)
