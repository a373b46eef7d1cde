import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from sfnetlab.metrics import association
from sfnetlab.metrics.association import spearman

few_values = st.sampled_from([-1.5, 0, 0, 0, 1, 2])


def oracle(features, labels):
    rho = np.full((features.shape[1], labels.shape[1]), np.nan)
    for i, feature in enumerate(features.T):
        for j, label in enumerate(labels.T):
            known = ~np.isnan(label)
            if len(set(feature[known])) > 1 and len(set(label[known])) > 1:
                rho[i, j] = spearmanr(feature[known], label[known]).statistic
    return rho


@pytest.fixture
def tied():
    """Sparse features with ties, negative values and a constant column; labels with ties and missing values."""
    rng = np.random.default_rng(0)
    features = np.where(rng.random((80, 7)) < 0.3, rng.integers(-3, 6, (80, 7)), 0).astype(np.float32)
    features[:, 4], features[:, 5], features[:, 6] = 0, 0.1, rng.normal(size=80)
    labels = np.round(rng.normal(size=(80, 5)) + features[:, :5], 1)
    labels[:30, 1] = labels[5:9, 3] = labels[5:9, 4] = np.nan
    return features, labels


@pytest.mark.parametrize("storage", [np.asarray, sp.csr_array, sp.csr_matrix])
def test_rho_agrees_with_scipy_pair_by_pair(tied, storage):
    features, labels = tied
    np.testing.assert_allclose(spearman(storage(features), labels), oracle(features, labels), atol=1e-12)


def test_rho_does_not_depend_on_the_block_width(tied, monkeypatch):
    features, labels = tied
    whole = spearman(features, labels)
    monkeypatch.setattr(association, "BLOCK_VALUES", 170)
    np.testing.assert_array_equal(spearman(features, labels), whole)


@given(arrays(np.float64, (12, 3), elements=few_values))
def test_sparse_ranks_give_the_rho_of_dense_ones(features):
    labels = np.arange(24.0).reshape(12, 2) % 7
    np.testing.assert_allclose(spearman(sp.csr_array(features), labels), spearman(features, labels), atol=1e-12)


@given(arrays(np.float64, (12, 3), elements=few_values))
def test_rho_is_invariant_under_monotone_maps(features):
    labels = np.arange(24.0).reshape(12, 2) % 7
    np.testing.assert_allclose(spearman(np.exp(features), labels**3), spearman(features, labels), atol=1e-12)


def test_constant_feature_is_nan(tied):
    features, labels = tied
    for table in (features, sp.csr_array(features)):
        assert np.isnan(spearman(table, labels)[4:6]).all()


def test_label_without_values_is_nan(tied):
    features, labels = tied
    labels[:, 2] = np.nan
    rho = spearman(features, labels)
    assert np.isnan(rho[:, 2]).all()
    assert np.isfinite(rho[0, 0])


def test_the_callers_table_is_left_alone(tied):
    features = sp.csr_array(tied[0])
    features.data[3] = 0
    before = features.copy()
    spearman(features, tied[1])
    np.testing.assert_array_equal(features.data, before.data)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((3, 1)), np.zeros((4, 1)), "a row a row of features"),
        (np.zeros((3, 1)), np.zeros(3), "a row a row of features"),
        (np.full((3, 1), np.nan), np.zeros((3, 1)), "features: 3 of 3"),
        (np.zeros((3, 1)), np.full((3, 1), np.inf), "infinite"),
        (sp.csc_array((3, 1)), np.zeros((3, 1)), "tocsr"),
    ],
)
def test_bad_arrays_are_refused(features, labels, message):
    with pytest.raises(ValueError, match=message):
        spearman(features, labels)
