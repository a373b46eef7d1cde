"""Readers: what encodes, decodes and reads agree with each other and with what they read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn import decomposition

from sfnetlab.methods.readers import AffineReader, IdentityReader, SAEReader, affine_reader
from sfnetlab.models.sae import SparseAutoencoder


def embeddings(n: int = 60, d: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + rng.standard_normal(d)


def components(x: np.ndarray, n: int) -> AffineReader:
    pca = decomposition.PCA(n).fit(x)
    return affine_reader({"components": pca.components_, "mean": pca.mean_})


@pytest.fixture(scope="module", params=[1.7, (0.1, 0.5, 1, 2, 5, 20)], ids=["one scale", "columns"])
def sae(request) -> SAEReader:
    import torch

    torch.manual_seed(0)
    model = SparseAutoencoder(6, 12, 3, (4, 8), by_column=request.param != 1.7)
    with torch.no_grad():
        model.W_enc.normal_()
        model.W_dec.normal_()
        model.b_enc.normal_(std=0.1)
        model.b_dec.normal_(std=0.1)
        model.mean.normal_()
        model.scale.copy_(torch.tensor(request.param))
    return SAEReader(model)


def test_pca_encodes_as_scikit_learn_does():
    x = embeddings()
    expected = decomposition.PCA(3).fit(x).transform(x)
    np.testing.assert_allclose(components(x, 3).encode(x), expected, atol=1e-12)


@given(st.integers(0, 1000))
def test_all_components_make_the_embedding_again(seed):
    x = embeddings(seed=seed)
    reader = components(x, 6)
    np.testing.assert_allclose(reader.decode(reader.encode(x)), x, atol=1e-8)


def test_rotations_without_components_make_nothing_again():
    reader = affine_reader({"rotations": np.eye(6)[:, :2], "mean": np.ones(6)})
    assert reader.decode(np.ones((3, 2))) is None
    assert reader.writing is None
    assert reader.directions is None
    np.testing.assert_allclose(reader.encode(np.full((1, 6), 3.0)), [[2, 2]])


@pytest.mark.parametrize("n", [1, 4])
def test_components_are_read_as_they_are_encoded(n):
    x = embeddings()
    reader = components(x, n)
    directions, offsets = reader.reading
    np.testing.assert_allclose(x @ directions.T + offsets, reader.encode(x), atol=1e-10)


def test_the_identity_reads_its_own_dimensions():
    reader, x = IdentityReader(6), embeddings()
    directions, offsets = reader.reading
    np.testing.assert_allclose(x @ directions.T + offsets, reader.encode(x))
    assert reader.prefixes == (6,)
    assert reader.decode(x) is None


def test_an_autoencoder_reads_what_it_selects_from(sae):
    x = embeddings().astype(np.float32)
    directions, offsets = sae.reading
    before = x @ directions.T + offsets
    latents = sae.encode(x).toarray()
    active = latents != 0
    np.testing.assert_allclose(before[active], latents[active], rtol=1e-4, atol=1e-5)


def test_an_autoencoder_writes_what_it_decodes(sae):
    latents = sae.encode(embeddings().astype(np.float32))
    W, b = sae.writing
    np.testing.assert_allclose(latents @ W + b, sae.decode(latents), rtol=1e-4, atol=1e-4)


def test_the_directions_of_an_autoencoder_are_those_that_it_writes(sae):
    W, _ = sae.writing
    unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (W, sae.directions)]
    np.testing.assert_allclose(*unit, atol=1e-6)


def test_an_autoencoder_says_how_its_dictionaries_are_nested(sae):
    assert sae.prefixes == (4, 12)
    assert sae.directions.shape == (12, 6)
    assert sparse.issparse(sae.encode(embeddings().astype(np.float32)))
