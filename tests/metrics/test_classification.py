import numpy as np
import pytest
from hypothesis import given
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
def test_scores_at_the_threshold_are_scikit_learns(seed):
    truth, score = scored(60, seed)
    found = score > 0
    assert classification.accuracy(truth, score) == pytest.approx(oracle.accuracy_score(truth, found))
    assert classification.f1(truth, score) == pytest.approx(oracle.f1_score(truth, found))
    assert classification.balanced_accuracy(truth, score) == pytest.approx(oracle.balanced_accuracy_score(truth, found))
    (tn, fp), (fn, tp) = oracle.confusion_matrix(truth, found)
    expected = {"true_positive": tp, "false_positive": fp, "true_negative": tn, "false_negative": fn}
    assert classification.confusion_counts(truth, score) == expected


def test_finding_nothing_has_an_f1_of_zero_and_an_auc_of_a_half():
    truth = np.array([0, 1, 0, 1])
    assert classification.f1(truth, np.full(4, -1.0)) == 0
    assert classification.auc(truth, np.full(4, -1.0)) == 0.5


def test_auc_of_hard_labels_is_not_that_of_scores():
    truth, score = scored(500)
    hard = np.where(score > 0, 1.0, -1.0)
    assert classification.auc(truth, hard) == pytest.approx(classification.balanced_accuracy(truth, score))
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
