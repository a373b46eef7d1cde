"""Alignment asks features of any sparsity alike: planted detectors, and features that know nothing."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from sfnetlab.metrics.alignment import align, mean_score
from sfnetlab.metrics.association import STRONGEST, contrasts, strongest

N = 1000
RNG = np.random.default_rng(0)
LABELS = RNG.normal(size=(2 * N, 3))


def of_all(values, labels=LABELS):
    return align(values[:N], labels[:N], values[N:], labels[N:])


@pytest.mark.parametrize("is_graded", [True, False])
@pytest.mark.parametrize("share", [0.005, 0.02, 0.1, 0.5])
def test_a_perfect_detector_of_the_top_galaxies_scores_1_however_few_they_are(share, is_graded):
    above = LABELS[:, 1] - np.quantile(LABELS[:, 1], 1 - share)
    values = np.maximum(above, 0) if is_graded else (above > 0).astype(float)
    found = of_all(sp.csr_array(values[:, None]))
    assert found.label.tolist() == [1]
    np.testing.assert_allclose(found.score, 1)


def test_the_rank_correlation_of_such_a_detector_is_small_because_it_is_rare():
    values = LABELS[:, 1] > np.quantile(LABELS[:, 1], 0.98)
    assert spearmanr(values, LABELS[:, 1]).statistic < 0.25


def test_a_noisy_feature_scores_the_same_when_it_is_made_sparse():
    rng = np.random.default_rng(1)
    dense = LABELS[:, [0]] + np.sqrt(3) * rng.normal(size=(2 * N, 200))
    means = []
    for share in (1, 0.5, 0.1, STRONGEST):
        floor = np.quantile(dense, 1 - share, axis=0) - 1e-9
        means.append(of_all(sp.csr_array(np.where(dense > floor, dense - floor, 0))).score.mean())
    assert np.ptp(means) < 0.03
    assert 0.5 < means[0] < 0.7


@pytest.mark.parametrize("sign", [1, -1])
def test_either_end_of_a_component_may_be_the_one_that_goes_with_a_label(sign):
    values = sign * np.exp(LABELS[:, [2]]) * (LABELS[:, [2]] > 0) - sign * (LABELS[:, [2]] <= 0) * RNG.random(
        (2 * N, 1)
    )
    found = of_all(values)
    assert (found.label.tolist(), found.score.tolist()) == ([2], [1.0])


def test_permuted_features_score_0_on_average_and_their_mean_is_told_from_0_as_often_as_chance():
    labels = LABELS[:400]
    n_fires, means = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(400, 8)) * (rng.random((400, 8)) < 0.2)
        found = align(values[:200], labels[:200], values[200:], labels[200:])
        value, low, high = mean_score(found, labels[200:], n_resamples=200, seed=seed)
        n_fires += not low <= 0 <= high
        means.append(value)
    assert abs(np.mean(means)) < 3 * np.std(means) / np.sqrt(60)
    assert n_fires / 60 <= 0.1


def test_permuted_features_score_0_on_average_on_labels_that_few_galaxies_have():
    """None of the few galaxies of such a feature has them, which is as low as can be, and is chance."""
    means = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = (rng.random((800, 6)) < 0.05) * rng.random((800, 6))
        values = rng.normal(size=(800, 8)) * (rng.random((800, 8)) < 0.3)
        means.append(np.nan_to_num(align(values[:400], labels[:400], values[400:], labels[400:]).score).mean())
    assert abs(np.mean(means)) < 3 * np.std(means) / np.sqrt(60)


def test_the_interval_knows_that_features_share_galaxies():
    """Copies of one feature are one feature: the interval of the mean of eight is that of one."""
    values = LABELS[:, [0]] + RNG.normal(size=(2 * N, 1))
    one, eight = (mean_score(of_all(np.tile(values, times)), LABELS[N:], n_resamples=200, seed=0) for times in (1, 8))
    np.testing.assert_allclose(one, eight)
    assert one[1] < one[0] < one[2]


@pytest.mark.parametrize("share", [0.005, 0.1, 0.7])
def test_a_perfect_detector_of_a_class_scores_1_however_common_the_class_is(share):
    labels = (np.quantile(LABELS, 1 - share) < LABELS).astype(float)
    found = of_all(labels[:, [0]] * RNG.uniform(1, 2, (2 * N, 1)), labels)
    assert (found.label.tolist(), found.score.tolist()) == ([0], [pytest.approx(1)])


def test_contrasts_are_twice_the_auc_less_1_of_the_rows_that_have_the_label():
    labels = LABELS.copy()
    labels[RNG.random(labels.shape) < 0.3] = np.nan
    members = sp.csr_array((RNG.random((2 * N, 4)) < [0.01, 0.1, 0.5, 0]).astype(float))
    found = contrasts(members, labels)
    for i in range(3):
        for j in range(3):
            known = ~np.isnan(labels[:, j])
            auc = roc_auc_score(members.toarray()[known, i], labels[known, j])
            assert found[i, j] == pytest.approx(2 * auc - 1)
    assert np.isnan(found[3]).all()


def test_the_strongest_galaxies_are_the_largest_values_with_all_of_a_tie_and_never_the_zeros():
    values = np.zeros((100, 4))
    values[:5, 0] = [5, 4, 3, 2, 1]
    values[:5, 1] = 1
    values[0, 2] = 1
    for table in (values, sp.csr_array(values)):
        np.testing.assert_array_equal(strongest(table).toarray().sum(axis=0), [2, 5, 1, 0])


def test_features_that_do_not_vary_have_no_score_and_count_0():
    found = of_all(np.ones((2 * N, 2)))
    assert found.label.tolist() == [-1, -1]
    assert np.isnan(found.score).all()
    assert mean_score(found, LABELS[N:], n_resamples=10, seed=0) == (0, 0, 0)
