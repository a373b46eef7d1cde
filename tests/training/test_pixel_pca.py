"""PCA of pixels in passes over the store, against scikit-learn's on everything at once."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from sfnetlab.errors import DataError
from sfnetlab.surveys.images import dihedral
from sfnetlab.training.pixel_pca import fit_pixel_pca, load_pixel_pca, save_pixel_pca


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(6, 10, 10, 3)) * np.array([6, 5, 4, 3, 2, 1])[:, None, None, None]
    pixels = 128 + 5 * np.einsum("nk,khwc->nhwc", rng.normal(size=(300, 6)), patterns)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def test_it_is_pca_of_the_rows_in_all_orientations(images):
    rows = np.arange(0, 300, 2)
    ours = fit_pixel_pca(images, rows, 4, seed=0)
    x = np.concatenate([dihedral(images[rows], np.full(len(rows), op)) for op in range(8)]).reshape(-1, 300) / 255
    reference = PCA(4, svd_solver="full").fit(x)
    held_out = images[1::2].astype(np.float64) / 255
    expected = reference.inverse_transform(reference.transform(held_out.reshape(-1, 300))).clip(0, 1)
    np.testing.assert_allclose(ours.mean.ravel(), reference.mean_, atol=1e-5)
    np.testing.assert_allclose(ours.reconstruct(held_out).reshape(-1, 300), expected, atol=2e-3)


def test_components_are_orthonormal(images):
    components = fit_pixel_pca(images, np.arange(300), 5, seed=0).components
    np.testing.assert_allclose(components @ components.T, np.eye(5), atol=1e-5)


def test_what_is_read_is_what_was_written(images, tmp_path):
    pca = fit_pixel_pca(images, np.arange(50), 2, seed=0)
    save_pixel_pca(tmp_path, pca)
    loaded = load_pixel_pca(tmp_path)
    np.testing.assert_array_equal(loaded.components, pca.components)
    np.testing.assert_array_equal(loaded.mean, pca.mean)


def test_more_components_than_rows_are_an_error(images):
    with pytest.raises(DataError, match="at most 3"):
        fit_pixel_pca(images, np.arange(3), 4, seed=0)
