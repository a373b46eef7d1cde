"""How many features a table has, near copies counted once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from sfnetlab.metrics.effective import effective_number, merged_features


def near_copies(n_clusters, n_copies, noise=0.3, n=120, seed=0):
    """Columns (n, n_clusters * n_copies), those of one cluster beside each other."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(rng.normal(size=(n, n_clusters)), n_copies, axis=1)
    return clusters + noise * rng.normal(size=clusters.shape)


def test_eight_columns_that_are_two_clusters_of_four_near_copies_are_two():
    X = near_copies(2, 4)
    assert merged_features(X).tolist() == [0] * 4 + [1] * 4
    found = effective_number(X)
    assert found.n_effective == 2
    assert found.participation == pytest.approx(2, abs=0.5)


def test_copies_of_the_opposite_sign_are_copies():
    X = near_copies(2, 4) * np.tile([1, -1], 4)
    assert effective_number(X).n_effective == 2


def test_features_that_are_unrelated_stay_apart():
    found = effective_number(np.random.default_rng(0).normal(size=(2000, 6)))
    assert found.n_effective == 6
    assert found.participation == pytest.approx(6, rel=0.02)


def test_a_chain_of_likenesses_is_not_one_feature():
    steps = np.random.default_rng(0).normal(size=(4000, 12))
    X = np.cumsum(steps, axis=1)[:, 3:]  # neighbours are alike, first and last are not
    r = np.abs(np.corrcoef(X.T))
    assert (np.diag(r, 1) > 0.8).all()
    assert r[0, -1] < 0.7
    assert 1 < effective_number(X).n_effective < 9


def test_features_that_never_vary_do_not_count():
    X = np.hstack([near_copies(2, 2), np.zeros((120, 3)), np.full((120, 1), 5.0)])
    assert effective_number(X).n_effective == 2
    assert merged_features(X)[4:].tolist() == [-1] * 4


def test_of_nothing_that_varies_there_is_no_feature():
    found = effective_number(np.ones((20, 3)))
    assert found.n_effective == 0
    assert np.isnan(found.participation)
    assert effective_number(np.zeros((20, 0))).n_effective == 0


def test_weak_features_count_little_in_the_participation_ratio_and_wholly_as_merged():
    X = np.random.default_rng(0).normal(size=(2000, 4)) * [1, 1, 1e-3, 1e-3]
    found = effective_number(X)
    assert found.n_effective == 4
    assert found.participation == pytest.approx(2, rel=0.02)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 50))
def test_a_sparse_table_and_any_order_of_columns_give_the_same(n_clusters, n_copies, seed):
    X = np.maximum(near_copies(n_clusters, n_copies, seed=seed), 0)
    order = np.random.default_rng(seed).permutation(X.shape[1])
    dense, csr = effective_number(X), effective_number(sparse.csr_array(X[:, order]))
    assert dense.n_effective == csr.n_effective <= X.shape[1]
    assert dense.participation == pytest.approx(csr.participation)


@given(st.integers(1, 4), st.integers(1, 4))
def test_repeating_each_feature_changes_neither_number(n_clusters, n_repeats):
    X = near_copies(n_clusters, 1)
    once, often = effective_number(X), effective_number(np.tile(X, n_repeats))
    assert often.n_effective == once.n_effective
    assert often.participation == pytest.approx(once.participation)
