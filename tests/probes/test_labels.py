"""Classifiers among many classes: scikit-learn's answers, on any storage, all classes weighing the same."""

import logging

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from sfnetlab.metrics.classification import confusion_matrix, label_scores
from sfnetlab.probes import common, labels
from sfnetlab.probes.labels import LABEL_CLASSIFIERS, make_label_classifier

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
    return make_label_classifier(name, seed=0).fit(*train, *valid)


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
    assert np.mean(fitted("logistic", (X, y), (X, y)).predict(X) == expected) > 0.995


@pytest.mark.parametrize("n_neighbours", [1, 7])
def test_neighbours_labels_are_scikit_learns_shares_over_the_shares_of_the_classes(n_neighbours, monkeypatch):
    monkeypatch.setattr(labels, "NEIGHBOURS", (n_neighbours,))
    (X, y), (X_test, _) = rows(), rows(seed=2)
    scaler = StandardScaler().fit(X.astype(np.float64))
    oracle = KNeighborsClassifier(n_neighbours, algorithm="brute").fit(scaler.transform(X), y)
    shares = oracle.predict_proba(scaler.transform(X_test)) / np.bincount(y)
    expected = np.argmax(shares, axis=1)
    assert np.mean(fitted("knn", (X, y), (X, y)).predict(X_test) == expected) > 0.99


@pytest.mark.parametrize("name", ["logistic", "knn"])
def test_rare_classes_are_found_too(name):
    train, valid, (X, y) = rows(800), rows(300, seed=1), rows(600, seed=2)
    assert balanced(y, fitted(name, train, valid).predict(X)) > 0.75


def test_the_majority_is_named_throughout_and_scores_one_over_the_number_of_classes():
    (X, y), valid = rows(), rows(seed=1)
    predicted = fitted("majority", (X, y), valid).predict(X)
    assert set(predicted) == {0}
    assert balanced(y, predicted) == pytest.approx(0.25)


@pytest.mark.parametrize("name", LABEL_CLASSIFIERS)
def test_dense_and_sparse_tables_give_the_same_labels(name):
    train, valid, (X, _) = rows(), rows(seed=1), rows(seed=2)
    dense = fitted(name, train, valid).predict(X)
    sparse = fitted(name, (sp.csr_array(train[0]), train[1]), (sp.csr_array(valid[0]), valid[1])).predict(
        sp.csr_array(X)
    )
    assert np.mean(dense == sparse) > 0.99


@pytest.mark.parametrize("name", LABEL_CLASSIFIERS)
def test_without_a_column_that_varies_the_majority_is_named(name):
    _, y = rows()
    X = np.ones((len(y), 2))
    assert set(fitted(name, (X, y), (X, y)).predict(X)) == {0}


def test_shuffled_classes_give_nothing():
    train, valid, (X, y) = rows(800), rows(300, seed=1), rows(600, seed=2)
    shuffled = np.random.default_rng(0).permutation(train[1])
    for name in ("logistic", "knn"):
        found = fitted(name, (train[0], shuffled), valid).predict(X)
        assert balanced(y, found) < 0.45


def test_the_number_of_neighbours_is_chosen_on_valid_rows(monkeypatch):
    monkeypatch.setattr(labels, "NEIGHBOURS", (1, 5, 60))
    train, valid = rows(), rows(seed=1)
    chosen = fitted("knn", train, valid).n_neighbours_
    scores = {}
    for n in (1, 5, 60):
        monkeypatch.setattr(labels, "NEIGHBOURS", (n,))
        scores[n] = balanced(valid[1], fitted("knn", train, valid).predict(valid[0]))
    assert scores[chosen] == max(scores.values())


def test_too_many_rows_are_drawn_from_with_a_warning(monkeypatch, caplog):
    monkeypatch.setitem(common.MAX_ROWS, "knn", 100)
    train, valid = rows(), rows(seed=1)
    with caplog.at_level(logging.WARNING):
        classifier = fitted("knn", train, valid)
    assert "knn: fitted to 100 of 400 train rows" in caplog.text
    assert classifier.predict(train[0]).shape == (400,)


@pytest.mark.parametrize(
    ("y", "message"),
    [(np.array([0, 2] * 5), "without a gap"), (np.zeros(10, int), "at least two"), (np.ones(10), "numbers")],
)
def test_classes_that_are_not_numbered_from_0_are_refused(y, message):
    X = np.random.default_rng(0).normal(size=(10, 2))
    with pytest.raises(ValueError, match=message):
        fitted("logistic", (X, y), (X, y))


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 200)
    return y, np.stack([np.where(rng.uniform(size=200) < p, y, rng.integers(0, 4, 200)) for p in (0.3, 0.8)], axis=1)


def test_scores_are_scikit_learns(predictions):
    y, found = predictions
    scores = label_scores(y, found, np.ones((1, 200)))
    for i in range(2):
        assert scores["accuracy"][0, i] == pytest.approx(accuracy_score(y, found[:, i]))
        assert scores["balanced_accuracy"][0, i] == pytest.approx(balanced_accuracy_score(y, found[:, i]))


def test_a_weight_counts_a_galaxy_as_often(predictions):
    y, found = predictions
    counts = np.random.default_rng(1).integers(0, 4, 200)
    drawn = np.repeat(np.arange(200), counts)
    scores = label_scores(y, found, counts[None].astype(float))
    assert scores["balanced_accuracy"][0, 1] == pytest.approx(balanced_accuracy_score(y[drawn], found[drawn, 1]))


def test_a_weighting_without_a_class_has_no_balanced_accuracy(predictions):
    y, found = predictions
    assert np.isnan(label_scores(y, found, (y != 2)[None].astype(float))["balanced_accuracy"]).all()


def test_the_confusion_matrix_is_scikit_learns(predictions):
    y, found = predictions
    np.testing.assert_array_equal(confusion_matrix(y, found[:, 0], 4), sklearn_confusion(y, found[:, 0]))


def test_a_class_that_nobody_has_keeps_its_place(predictions):
    y, found = predictions
    assert confusion_matrix(y, found[:, 0], 6).shape == (6, 6)
    with pytest.raises(ValueError, match=r"in \[0, 3\)"):
        confusion_matrix(y, found[:, 0], 3)
