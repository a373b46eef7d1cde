import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sfnetlab.metrics.sparsity import activation_frequency, dead_fraction, l0, n_alive, usage_entropy

tables = arrays(np.float32, array_shapes(min_dims=2, max_dims=2), elements=st.sampled_from([0, 0, 0, 1.5, -2]))


@given(tables)
def test_sparse_and_dense_tables_agree(features):
    np.testing.assert_array_equal(activation_frequency(sp.csr_array(features)), activation_frequency(features))
    np.testing.assert_array_equal(l0(sp.csr_array(features)), l0(features))


@given(tables)
def test_mean_l0_is_the_sum_of_frequencies(features):
    assert l0(features).mean() == pytest.approx(activation_frequency(features).sum())


def test_stored_zeros_are_not_active():
    features = sp.csr_array((np.array([1.0, 0.0, 2.0]), np.array([0, 1, 0]), np.array([0, 2, 3])), shape=(2, 3))
    assert activation_frequency(features).tolist() == [1, 0, 0]
    assert l0(features).tolist() == [1, 1]


def test_dead_features_are_active_on_no_row():
    frequency = activation_frequency(np.array([[0, 1, 0, 2], [0, 0, 0, 3.0]]))
    assert n_alive(frequency) == 2
    assert dead_fraction(frequency) == 0.5


@given(st.integers(1, 50), st.floats(0.01, 1))
def test_equally_used_features_have_the_entropy_of_their_number(n_features, frequency):
    used = np.append(np.full(n_features, frequency), 0.0)
    assert np.exp(usage_entropy(used)) == pytest.approx(n_features)


def test_entropy_is_in_nats():
    assert usage_entropy(np.array([0.75, 0.25])) == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))


def test_features_that_are_all_dead_have_no_entropy():
    with pytest.raises(ValueError, match="none of the 3 features"):
        usage_entropy(np.zeros(3))


def test_dead_fraction_of_no_features_is_refused():
    with pytest.raises(ValueError, match="without features"):
        dead_fraction(np.zeros(0))


def test_frequency_of_no_rows_is_refused():
    with pytest.raises(ValueError, match="at least one row"):
        activation_frequency(np.zeros((0, 3)))


def test_nan_activation_is_refused():
    with pytest.raises(ValueError, match="1 of 4 values"):
        l0(np.array([[0, np.nan], [1, 2]]))
