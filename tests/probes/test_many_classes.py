"""Classifiers among many classes: scikit-learn's answers, on any storage, all classes weighing the same."""

import logging

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from sfnetlab.probes import common, knn, make_classifier, names_of
from sfnetlab.probes.common import named_classes

NAMES = names_of("many_classes")

CENTRES = np.array([[0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3]])
SHARES = np.array([0.7, 0.15, 0.1, 0.05])


def rows(n=400, seed=0, n_classes=4):
    """Blobs in units that differ by orders of magnitude, the first class by far the most frequent."""
    rng = np.random.default_rng(seed)
    shares = SHARES[:n_classes] / SHARES[:n_classes].sum()
    y = np.concatenate([np.arange(n_classes), rng.choice(n_classes, n - n_classes, p=shares)])
    X = np.maximum(CENTRES[y] + rng.normal(size=(n, 3)), 0) * [1, 100, 0.01]
    return X.astype(np.float32), y


def fitted(name, train, valid):
    return make_classifier(name, "many_classes").fit(*train, *valid)


def named(name, train, valid, X):
    return named_classes(fitted(name, train, valid).score(X))


def balanced(y, predicted):
    return balanced_accuracy_score(y, predicted)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("penalty", [1.0, 1e-2])
def test_logistic_labels_are_scikit_learns_at_the_penalty(penalty, n_classes, monkeypatch):
    monkeypatch.setattr(common, "CLASS_PENALTIES", np.array([penalty]))
    X, y = rows(n_classes=n_classes)
    scaler = StandardScaler().fit(X.astype(np.float64))
    oracle = LogisticRegression(class_weight="balanced", C=1 / (penalty * len(y)), max_iter=1000)
    expected = oracle.fit(scaler.transform(X), y).predict(scaler.transform(X))
    assert np.mean(named("logistic", (X, y), (X, y), X) == expected) > 0.995


@pytest.mark.parametrize("n_neighbours", [1, 7])
def test_neighbours_labels_are_scikit_learns_shares_over_the_shares_of_the_classes(n_neighbours, monkeypatch):
    monkeypatch.setattr(knn, "NEIGHBOURS", (n_neighbours,))
    (X, y), (X_test, _) = rows(), rows(seed=2)
    scaler = StandardScaler().fit(X.astype(np.float64))
    oracle = KNeighborsClassifier(n_neighbours, algorithm="brute").fit(scaler.transform(X), y)
    shares = oracle.predict_proba(scaler.transform(X_test)) / np.bincount(y)
    expected = np.argmax(shares, axis=1)
    assert np.mean(named("knn", (X, y), (X, y), X_test) == expected) > 0.99


@pytest.mark.parametrize("name", ["logistic", "knn"])
def test_rare_classes_are_found_too(name):
    train, valid, (X, y) = rows(800), rows(300, seed=1), rows(600, seed=2)
    assert balanced(y, named(name, train, valid, X)) > 0.75


def test_the_majority_is_named_throughout_and_scores_one_over_the_number_of_classes():
    (X, y), valid = rows(), rows(seed=1)
    predicted = named("majority", (X, y), valid, X)
    assert set(predicted) == {0}
    assert balanced(y, predicted) == pytest.approx(0.25)


@pytest.mark.parametrize("name", NAMES)
def test_dense_and_sparse_tables_give_the_same_labels(name):
    train, valid, (X, _) = rows(), rows(seed=1), rows(seed=2)
    dense = named(name, train, valid, X)
    sparse = named(name, (sp.csr_array(train[0]), train[1]), (sp.csr_array(valid[0]), valid[1]), sp.csr_array(X))
    assert np.mean(dense == sparse) > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_without_a_column_that_varies_the_majority_is_named(name):
    _, y = rows()
    X = np.ones((len(y), 2))
    assert set(named(name, (X, y), (X, y), X)) == {0}


def test_shuffled_classes_give_nothing():
    train, valid, (X, y) = rows(800), rows(300, seed=1), rows(600, seed=2)
    shuffled = np.random.default_rng(0).permutation(train[1])
    for name in ("logistic", "knn"):
        found = named(name, (train[0], shuffled), valid, X)
        assert balanced(y, found) < 0.45


def test_the_number_of_neighbours_is_chosen_on_valid_rows(monkeypatch):
    monkeypatch.setattr(knn, "NEIGHBOURS", (1, 5, 60))
    train, valid = rows(), rows(seed=1)
    chosen = fitted("knn", train, valid).n_neighbours_
    scores = {}
    for n in (1, 5, 60):
        monkeypatch.setattr(knn, "NEIGHBOURS", (n,))
        scores[n] = balanced(valid[1], named("knn", train, valid, valid[0]))
    assert scores[chosen] == max(scores.values())


def test_too_many_rows_are_drawn_from_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(knn, "MAX_ROWS", 100)
    train, valid = rows(), rows(seed=1)
    with caplog.at_level(logging.WARNING):
        classifier = fitted("knn", train, valid)
    assert "knn: fitted to 100 of 400 train rows" in caplog.text
    assert classifier.score(train[0]).shape == (400, 4)


@pytest.mark.parametrize(
    ("y", "message"),
    [(np.array([0, 2] * 5), "without a gap"), (np.zeros(10, int), "at least two"), (np.ones(10), "numbers")],
)
def test_classes_that_are_not_numbered_from_0_are_refused(y, message):
    X = np.random.default_rng(0).normal(size=(10, 2))
    with pytest.raises(ValueError, match=message):
        fitted("logistic", (X, y), (X, y))
