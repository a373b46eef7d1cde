"""Classifiers of two classes: scikit-learn's scores, on any storage, with the penalty chosen on valid rows."""

import logging

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from sfnetlab.metrics.classification import auc
from sfnetlab.probes import common, make_classifier, names_of, rbf_svm

NAMES = names_of("two_classes")


def rows(n=300, d=6, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    X = np.maximum(rng.normal(size=(n, d)), 0) * 10.0 ** np.linspace(-2, 2, d)
    score = (X / 10.0 ** np.linspace(-2, 2, d)) @ np.random.default_rng(9).normal(size=d)
    return X.astype(np.float32), (score + noise * rng.normal(size=n) > 0.8).astype(int)


def fitted(name, train, valid):
    return make_classifier(name, "two_classes").fit(*train, *valid)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("logistic", lambda C: LogisticRegression(class_weight="balanced", C=C, max_iter=1000)),
        ("linear_svm", lambda C: LinearSVC(class_weight="balanced", C=C, dual=False, intercept_scaling=10.0)),
    ],
)
@pytest.mark.parametrize("penalty", [1.0, 1e-2])
def test_scores_are_scikit_learns_at_the_penalty(name, oracle, penalty, monkeypatch):
    monkeypatch.setattr(common, "CLASS_PENALTIES", np.array([penalty]))
    X, y = rows()
    scaler = StandardScaler().fit(X.astype(np.float64))
    expected = oracle(1 / (penalty * 300)).fit(scaler.transform(X), y).decision_function(scaler.transform(X))
    np.testing.assert_allclose(fitted(name, (X, y), (X, y)).score(X), expected, atol=1e-6)


def test_rbf_scores_are_scikit_learns():
    (X, y), valid = rows(), rows(seed=1)
    classifier = fitted("rbf_svm", (X, y), valid)
    X = X.astype(np.float64)
    scaler = StandardScaler().fit(X)
    oracle = SVC(class_weight="balanced", C=classifier.cost_, gamma=1 / 6).fit(scaler.transform(X), y)
    np.testing.assert_allclose(classifier.score(X), oracle.decision_function(scaler.transform(X)), atol=1e-6)


@pytest.mark.parametrize("name", NAMES[1:])
def test_classifier_finds_what_is_there(name):
    train, valid, (X, y) = rows(600), rows(200, seed=1), rows(300, seed=2)
    assert auc(y, fitted(name, train, valid).score(X)) > 0.8


def test_only_the_rbf_machine_finds_a_ring():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 2))
    y = (np.hypot(*X.T) > 1.2).astype(int)
    parts = (X[:500], y[:500]), (X[500:700], y[500:700])
    found = {name: auc(y[700:], fitted(name, *parts).score(X[700:])) for name in NAMES[1:]}
    assert found["rbf_svm"] > 0.95
    assert max(found["logistic"], found["linear_svm"]) < 0.65


@pytest.mark.parametrize("name", NAMES)
def test_how_a_table_is_stored_changes_next_to_nothing(name):
    (X, y), (X_valid, y_valid) = rows(), rows(seed=1)
    dense = fitted(name, (X, y), (X_valid, y_valid)).score(X)
    sparse = fitted(name, (sp.csr_array(X), y), (sp.csr_array(X_valid), y_valid)).score(sp.csr_array(X))
    np.testing.assert_allclose(sparse, dense, atol=0.02 * dense.std() + 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_sparse_tables_may_have_64_bit_indices(name):
    X, y = rows()
    table = sp.csr_array(X)
    wide = sp.csr_array((table.data, table.indices.astype(np.int64), table.indptr.astype(np.int64)), shape=X.shape)
    np.testing.assert_allclose(fitted(name, (wide, y), (wide, y)).score(wide), fitted(name, (X, y), (X, y)).score(X),
                               atol=0.05)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_without_varying_columns_the_score_is_the_log_odds(name):
    y = rows()[1]
    for X in (np.zeros((300, 0)), np.full((300, 2), 0.1)):
        np.testing.assert_allclose(fitted(name, (X, y), (X, y)).score(X), np.log(y.sum() / (300 - y.sum())))


def test_noise_takes_a_stronger_penalty_than_signal():
    penalties = []
    for noise in (0.01, 20):
        train, valid = rows(60, 30, noise=noise), rows(300, 30, seed=1, noise=noise)
        penalties.append(fitted("logistic", train, valid).weights_.penalty)
    assert penalties[1] > penalties[0]


def test_support_vector_machines_say_that_they_see_a_part_of_the_rows(monkeypatch, caplog):
    monkeypatch.setattr(rbf_svm, "MAX_ROWS", 100)
    with caplog.at_level(logging.WARNING):
        capped = fitted("rbf_svm", rows(), rows(seed=1))
        fitted("logistic", rows(), rows(seed=1))
    assert [record.getMessage() for record in caplog.records] == [
        "rbf_svm: fitted to 100 of 300 train rows, drawn at random, for its time grows too fast"
    ]
    assert capped.n_train_rows_ == 100


@pytest.mark.parametrize("name", NAMES)
def test_one_class_or_other_labels_are_refused(name):
    X, y = rows()
    with pytest.raises(ValueError, match=r"y: expected classes 0, 1, ... without a gap, at least two, got \[0\]"):
        fitted(name, (X, np.zeros(300, int)), (X, y))
    with pytest.raises(ValueError, match=r"y_valid: classes \[2\] have no train row"):
        fitted(name, (X, y), (X, y + 1))


@pytest.mark.parametrize("name", ["linear_svm", "rbf_svm"])
def test_three_classes_are_too_many_for_a_support_vector_machine(name):
    X, y = rows()
    with pytest.raises(ValueError, match="expected 2 classes, which this classifier tells apart, got 3"):
        fitted(name, (X, np.arange(300) % 3), (X, y))


def test_a_classifier_of_another_task_is_refused():
    with pytest.raises(ValueError, match="expected one of 'majority', 'logistic', 'linear_svm', 'rbf_svm', got 'knn'"):
        make_classifier("knn", "two_classes")


@pytest.mark.parametrize("name", ["logistic", "linear_svm", "rbf_svm"])
def test_a_class_of_few_is_looked_for_as_much_as_the_other(name):
    def sample(seed):
        rng = np.random.default_rng(seed)
        y = (rng.random(600) < 0.06).astype(int)
        return rng.standard_normal((600, 3)) + y[:, None] * 1.2, y

    (X, y), valid = sample(0), sample(1)
    found = fitted(name, (X, y), valid).score(X) > 0
    assert np.mean(found[y == 1]) > 0.6
