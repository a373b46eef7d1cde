import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from sfnetlab.metrics import classification


def scored(n=200, seed=0, n_levels=None):
    rng = np.random.default_rng(seed)
    truth = np.concatenate([[0, 1], rng.random(n - 2) < 0.3]).astype(int)
    score = rng.normal(truth, 1.5)
    return truth, score if n_levels is None else np.round(score * n_levels) / n_levels


@given(st.integers(0, 1000), st.sampled_from([None, 1, 3]))
def test_auc_is_scikit_learns_with_and_without_ties(seed, n_levels):
    truth, score = scored(60, seed, n_levels)
    assert classification.auc(truth, score) == pytest.approx(oracle.roc_auc_score(truth, score), abs=1e-12)


@given(st.integers(0, 1000))
def test_outcomes_at_the_threshold_are_scikit_learns(seed):
    truth, score = scored(60, seed)
    found = score > 0
    (tn, fp), (fn, tp) = oracle.confusion_matrix(truth, found)
    expected = {"true_positive": tp, "false_positive": fp, "true_negative": tn, "false_negative": fn}
    outcomes = classification.outcomes(truth.astype(bool), score)
    assert {name: is_counted.sum() for name, is_counted in outcomes.items()} == expected


def test_finding_nothing_has_an_auc_of_a_half():
    truth = np.array([0, 1, 0, 1])
    assert classification.auc(truth, np.full(4, -1.0)) == 0.5


def test_auc_of_hard_labels_is_not_that_of_scores():
    truth, score = scored(500)
    hard = np.where(score > 0, 1.0, -1.0)
    assert classification.auc(truth, hard) == pytest.approx(oracle.balanced_accuracy_score(truth, score > 0))
    assert classification.auc(truth, score) > classification.auc(truth, hard) + 0.02


@pytest.mark.parametrize(
    ("truth", "score", "message"),
    [
        ([1, 1], [0.0, 1.0], "both classes"),
        ([0, 2], [0.0, 1.0], "expected 0 and 1"),
        ([0, 1], [0.0, np.nan], "1 of 2 values are not finite"),
        ([0, 1, 1], [0.0, 1.0], "as many rows"),
        ([], [], "both classes"),
    ],
)
def test_what_cannot_be_scored_is_refused(truth, score, message):
    with pytest.raises(ValueError, match=message):
        classification.auc(np.array(truth), np.array(score))


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 200)
    return y, np.stack([np.where(rng.uniform(size=200) < p, y, rng.integers(0, 4, 200)) for p in (0.3, 0.8)], axis=1)


def test_scores_among_many_classes_are_scikit_learns(many):
    y, found = many
    scores = classification.label_scores(y, found, np.ones((1, 200)))
    for i in range(2):
        assert scores["accuracy"][0, i] == pytest.approx(oracle.accuracy_score(y, found[:, i]))
        assert scores["balanced_accuracy"][0, i] == pytest.approx(oracle.balanced_accuracy_score(y, found[:, i]))


def test_a_weight_counts_a_galaxy_as_often(many):
    y, found = many
    counts = np.random.default_rng(1).integers(0, 4, 200)
    drawn = np.repeat(np.arange(200), counts)
    scores = classification.label_scores(y, found, counts[None].astype(float))
    assert scores["balanced_accuracy"][0, 1] == pytest.approx(oracle.balanced_accuracy_score(y[drawn], found[drawn, 1]))


def test_a_weighting_without_a_class_has_no_balanced_accuracy(many):
    y, found = many
    assert np.isnan(classification.label_scores(y, found, (y != 2)[None].astype(float))["balanced_accuracy"]).all()


def test_the_confusion_matrix_is_scikit_learns(many):
    y, found = many
    np.testing.assert_array_equal(
        classification.confusion_matrix(y, found[:, 0], 4), oracle.confusion_matrix(y, found[:, 0])
    )


def test_a_class_that_nobody_has_keeps_its_place(many):
    y, found = many
    assert classification.confusion_matrix(y, found[:, 0], 6).shape == (6, 6)
    with pytest.raises(ValueError, match=r"in \[0, 3\)"):
        classification.confusion_matrix(y, found[:, 0], 3)


@given(st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=2, max_size=30))
def test_no_other_threshold_has_a_larger_f1(galaxies):
    y, score = (np.array(column) for column in zip(*galaxies, strict=True))
    assume(0 < y.sum() < len(y))
    best = classification.best_threshold(y, score.astype(float))
    every = [oracle.f1_score(y, score > threshold) for threshold in np.arange(-5, 5) + 0.5]
    assert oracle.f1_score(y, score > best) == pytest.approx(max(every))
    assert not (score == best).any()
