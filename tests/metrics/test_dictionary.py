import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from sfnetlab.metrics.dictionary import (
    decoder_spectrum,
    describe_latents,
    fvu_of_blocks,
    l0_distribution,
    max_cosines,
)
from sfnetlab.metrics.reconstruction import fraction_of_variance_unexplained


def test_max_cosine_is_to_the_nearest_other_atom():
    W_dec = np.array([[2, 0], [0, 1], [3, 4], [0, 0]])
    np.testing.assert_allclose(max_cosines(W_dec), [0.6, 0.8, 0.8, np.nan])


def test_max_cosines_agree_with_all_pairs_in_any_block_size(monkeypatch):
    W_dec = np.random.default_rng(0).standard_normal((20, 5))
    unit = W_dec / np.linalg.norm(W_dec, axis=1, keepdims=True)
    monkeypatch.setattr("sfnetlab.metrics.dictionary.BLOCK_VALUES", 70)
    np.testing.assert_allclose(max_cosines(W_dec), (unit @ unit.T - 3 * np.eye(20)).max(axis=1))


def test_one_atom_has_no_other():
    assert np.isnan(max_cosines(np.ones((1, 3)))).all()


@given(st.integers(1, 12), st.integers(1, 12))
def test_effective_rank_of_orthogonal_directions_is_their_number(n_directions, n_copies):
    W_dec = np.repeat(np.eye(12)[:n_directions], n_copies, axis=0) * 5
    assert decoder_spectrum(W_dec).effective_rank == pytest.approx(n_directions)


def test_singular_values_are_of_directions():
    spectrum = decoder_spectrum(np.array([[2, 0, 0], [3, 0, 0], [0, 1, 0]]))
    np.testing.assert_allclose(spectrum.singular_values, [np.sqrt(2), 1, 0], atol=1e-12)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_latents_are_described_dense_or_sparse(form):
    codes = np.zeros((20, 4), dtype=np.float32)
    codes[:3, 0], codes[:1, 1], codes[5, 3] = [1, 2, 6], 4, -2
    table = describe_latents(form(codes), np.eye(4))
    np.testing.assert_allclose(table["frequency"], [0.15, 0.05, 0, 0.05])
    np.testing.assert_allclose(table["mean_active"], [3, 4, np.nan, -2])
    np.testing.assert_allclose(table["max_active"], [6, 4, np.nan, -2])
    assert table["is_dead"].tolist() == [False, False, True, False]
    assert table["is_dense"].tolist() == [True, False, False, False]
    assert (table["max_cosine"] == 0).all()


def test_stored_zeros_are_not_active():
    codes = sp.csr_array((np.array([0.0, 0.0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 2))
    assert describe_latents(codes, np.eye(2))["is_dead"].all()


def test_l0_distribution_counts_every_row():
    codes = sp.csr_array(np.array([[1, 1, 0], [0, 0, 0], [2, 3, 0]]))
    assert l0_distribution(codes).to_dict("list") == {"l0": [0, 1, 2], "n_rows": [1, 0, 2]}


@given(st.lists(st.integers(0, 7), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) >= 2), st.floats(-1e4, 1e4))
def test_fvu_of_blocks_is_that_of_all_rows(sizes, offset):
    rng = np.random.default_rng(sum(sizes))
    x = rng.standard_normal((sum(sizes), 3)) + offset
    x_hats = x[:, None] + 0.3 * rng.standard_normal((len(x), 2, 3))
    ends = np.cumsum(sizes)
    blocks = ((x[end - size : end], x_hats[end - size : end]) for size, end in zip(sizes, ends, strict=True))
    expected = [fraction_of_variance_unexplained(x, x_hats[:, i]) for i in range(2)]
    np.testing.assert_allclose(fvu_of_blocks(blocks), expected, rtol=1e-9)


def test_predicting_the_mean_leaves_everything_unexplained():
    x = np.random.default_rng(0).standard_normal((30, 4)) + np.array([0, 1, 10, 1000])
    assert fvu_of_blocks([(x, np.broadcast_to(x.mean(axis=0), x.shape)[:, None])]) == pytest.approx([1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fvu_of_blocks([]), "at least one row"),
        (lambda: fvu_of_blocks([(np.ones((2, 3)), np.ones((2, 3)))]), "expected x"),
        (lambda: fvu_of_blocks([(np.full((5, 3), 0.1), np.ones((5, 1, 3)))] * 2), "constant over its 10 rows"),
        (lambda: fvu_of_blocks([(np.full((2, 3), np.nan), np.ones((2, 1, 3)))]), "finite"),
        (lambda: describe_latents(np.ones((2, 3)), np.eye(2)), "3 latents and 2 atoms"),
        (lambda: decoder_spectrum(np.zeros((2, 3))), "no spectrum"),
    ],
)
def test_unusable_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
