"""Codes with a learned dictionary, against scikit-learn's pursuit and NumPy's least squares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import orthogonal_mp_gram

from sfnetlab.models import codes
from sfnetlab.models.codes import orthogonal_matching_pursuit, refit


def unit_atoms(rng: np.random.Generator, n_latents: int, d_in: int) -> np.ndarray:
    atoms = rng.standard_normal((n_latents, d_in)).astype(np.float32)
    return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


def decoded(values: np.ndarray, indices: np.ndarray, W_dec: np.ndarray) -> np.ndarray:
    return np.einsum("nm,nmd->nd", values, W_dec[indices])


def dense(values: np.ndarray, indices: np.ndarray, n_latents: int) -> np.ndarray:
    codes = np.zeros((len(values), n_latents))
    np.add.at(codes, (np.arange(len(values))[:, None], indices), values)
    return codes


shapes = st.tuples(st.integers(1, 6), st.integers(1, 12), st.integers(1, 20), st.integers(0, 2**32 - 1))


@given(shapes, st.data())
@settings(deadline=None)  # kernels compile on first use
def test_refit_is_least_squares_on_the_support(shape, data):
    n, d_in, n_latents, seed = shape
    rng = np.random.default_rng(seed)
    m = data.draw(st.integers(1, min(n_latents, d_in)))
    W_dec, z = 2 * unit_atoms(rng, n_latents, d_in), rng.standard_normal((n, d_in))
    indices = np.array([rng.permutation(n_latents)[:m] for _ in range(n)])
    is_used = rng.random((n, m)) < 0.7
    values = refit(z, W_dec, is_used.astype(float), indices)
    assert (values[~is_used] == 0).all()
    for row in range(n):
        atoms = W_dec[indices[row, is_used[row]]].astype(float)
        best = np.linalg.lstsq(atoms.T, z[row], rcond=None)[0] @ atoms if len(atoms) else 0
        np.testing.assert_allclose(values[row] @ W_dec[indices[row]], best, atol=2e-3)


@pytest.mark.parametrize("path", ["gram", "residuals"])
@given(shapes, st.data())
@settings(deadline=None)
def test_pursuit_agrees_with_scikit_learn(path, shape, data):
    n, d_in, n_latents, seed = shape
    rng = np.random.default_rng(seed)
    k = data.draw(st.integers(1, min(n_latents, max(1, d_in // 2))))
    W_dec, z = unit_atoms(rng, n_latents, d_in), rng.standard_normal((n, d_in))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codes, "GRAM_LATENTS", n_latents if path == "gram" else 0)
        values, indices = orthogonal_matching_pursuit(z, W_dec, k)
    W = W_dec.astype(float)
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    expected = orthogonal_mp_gram(W @ W.T, W @ z.T, n_nonzero_coefs=k).reshape(n_latents, n).T
    np.testing.assert_allclose(dense(values, indices, n_latents), expected, atol=1e-4)


@pytest.mark.parametrize("path", ["gram", "residuals"])
def test_pursuit_finds_a_planted_code(path, monkeypatch):
    rng = np.random.default_rng(0)
    W_dec = unit_atoms(rng, 200, 128)
    planted = np.array([rng.permutation(200)[:5] for _ in range(50)])
    amounts = rng.uniform(1, 2, planted.shape)
    monkeypatch.setattr(codes, "GRAM_LATENTS", 200 if path == "gram" else 0)
    values, indices = orthogonal_matching_pursuit(decoded(amounts, planted, W_dec), W_dec, 8)
    np.testing.assert_allclose(dense(values, indices, 200), dense(amounts, planted, 200), atol=1e-5)
    assert (np.count_nonzero(values, axis=1) == 5).all()


@given(shapes)
@settings(deadline=None)
def test_residual_of_a_pursuit_never_grows_with_k(shape):
    n, d_in, n_latents, seed = shape
    rng = np.random.default_rng(seed)
    W_dec, z = unit_atoms(rng, n_latents, d_in), rng.standard_normal((n, d_in))
    residual = [
        np.linalg.norm(z - decoded(*orthogonal_matching_pursuit(z, W_dec, k), W_dec), axis=1)
        for k in range(1, n_latents + 1)
    ]
    assert (np.diff(residual, axis=0) < 1e-3).all()


def test_pursuit_is_unchanged_by_the_length_of_atoms():
    rng = np.random.default_rng(1)
    W_dec, z = unit_atoms(rng, 30, 16), rng.standard_normal((8, 16))
    length = rng.uniform(0.1, 10, 30)
    values, indices = orthogonal_matching_pursuit(z, W_dec, 4)
    scaled_values, scaled_indices = orthogonal_matching_pursuit(z, W_dec * length[:, None], 4)
    np.testing.assert_array_equal(scaled_indices, indices)
    np.testing.assert_allclose(scaled_values * length[indices], values, rtol=1e-4)


@pytest.mark.parametrize("path", ["gram", "residuals"])
def test_a_row_of_zeros_has_no_latents(path, monkeypatch):
    monkeypatch.setattr(codes, "GRAM_LATENTS", 4 if path == "gram" else 0)
    values, indices = orthogonal_matching_pursuit(np.zeros((2, 3)), np.eye(4, 3), 2)
    assert not values.any()
    assert not indices.any()


@pytest.mark.parametrize("path", ["gram", "residuals"])
def test_twin_atoms_are_chosen_once(path, monkeypatch):
    rng = np.random.default_rng(2)
    atoms = unit_atoms(rng, 6, 8)
    monkeypatch.setattr(codes, "GRAM_LATENTS", 12 if path == "gram" else 0)
    z = rng.standard_normal((20, 8))
    values, indices = orthogonal_matching_pursuit(z, np.concatenate([atoms, atoms]), 12)
    assert np.isfinite(values).all()
    assert (np.count_nonzero(values, axis=1) <= 6).all()
    for row in range(20):
        chosen = indices[row, values[row] != 0] % 6
        assert len(set(chosen)) == len(chosen)
    best = np.linalg.lstsq(atoms.T.astype(float), z.T, rcond=None)[0].T @ atoms
    np.testing.assert_allclose(decoded(values, indices, np.concatenate([atoms, atoms])), best, atol=1e-4)


def test_refit_of_dependent_atoms_reconstructs_as_well_as_least_squares():
    rng = np.random.default_rng(3)
    atoms, z = unit_atoms(rng, 9, 4), rng.standard_normal((5, 4))
    atoms[1], atoms[2] = atoms[0], 0
    indices = np.tile(np.arange(9), (5, 1))
    values = refit(z, atoms, np.ones((5, 9)), indices)
    assert not values[:, 1:3].any()
    np.testing.assert_allclose(decoded(values, indices, atoms), z, atol=1e-4)


def test_refit_takes_no_rows_and_read_only_float16():
    assert refit(np.zeros((0, 3)), np.eye(3), np.zeros((0, 2)), np.zeros((0, 2), int)).shape == (0, 2)
    z = np.arange(6, dtype=np.float16).reshape(2, 3)
    z.flags.writeable = False
    values = refit(z, np.eye(3, dtype=np.float32), np.ones((2, 3), np.float32), np.tile(np.arange(3), (2, 1)))
    np.testing.assert_allclose(values, z)


def test_an_index_of_padding_is_not_looked_at():
    values = refit(np.ones((1, 2)), np.eye(2), np.array([[1.0, 0.0]]), np.array([[0, -1]]))
    np.testing.assert_allclose(values, [[1, 0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: orthogonal_matching_pursuit(np.ones((2, 3)), np.eye(3), 4),
            r"k must lie in \[1, n_latents=3\], got 4",
        ),
        (lambda: orthogonal_matching_pursuit(np.ones((2, 4)), np.eye(3), 1), r"got \(2, 4\), \(3, 3\)"),
        (lambda: orthogonal_matching_pursuit(np.full((2, 3), np.nan), np.eye(3), 1), "z: 6 of 6 values are not finite"),
        (lambda: refit(np.ones((1, 3)), np.eye(3), np.ones((1, 1)), np.array([[3]])), r"in \[0, n_latents=3\), got 3"),
        (lambda: refit(np.ones((1, 3)), np.eye(3), np.ones((1, 2)), np.array([[0]])), "of one shape"),
    ],
)
def test_unusable_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
