"""Measures of reconstructed cutouts against scikit-image, laws and slow loops."""

import numpy as np
import pytest
from skimage import metrics as oracle

from sfnetlab.metrics.images import (
    latent_contributions,
    peak_signal_to_noise,
    reconstruction_quality,
    squared_error,
    structural_similarity,
)


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(12, 16, 16, 3)).astype(np.float32)
    return x, np.clip(x + rng.normal(0, 0.1, x.shape), 0, 1).astype(np.float32)


def scored(x, reconstructions, **settings):
    table = reconstruction_quality(
        x, reconstructions, x.mean(axis=0), **({"reference": "pca", "n_resamples": 200, "seed": 0} | settings)
    )
    return table.set_index(["method", "metric"])


def test_psnr_is_scikit_images(pair):
    expected = [oracle.peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(*pair, strict=True)]
    np.testing.assert_allclose(peak_signal_to_noise(*pair), expected, rtol=1e-5)


def test_psnr_of_an_equal_cutout_is_infinite(pair):
    assert np.isposinf(peak_signal_to_noise(pair[0], pair[0])).all()


def test_ssim_of_an_equal_cutout_is_1_and_falls_with_noise(pair):
    x, noisy = pair
    np.testing.assert_allclose(structural_similarity(x, x), 1)
    assert (structural_similarity(x, noisy) < 1).all()


def test_ssim_is_that_of_each_channel_with_the_gaussian_window_of_the_paper(pair):
    a, b = pair[0][0], pair[1][0]
    settings = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = np.mean([oracle.structural_similarity(a[..., c], b[..., c], **settings) for c in range(3)])
    assert structural_similarity(*pair)[0] == pytest.approx(expected, rel=1e-5)


def test_the_mean_cutout_leaves_all_variance_and_the_cutout_none(pair):
    x, noisy = pair
    means = np.broadcast_to(x.mean(axis=0), x.shape)
    table = scored(x, {"pca": noisy, "mean": means})
    assert table.loc[("mean", "fvu"), "value"] == pytest.approx(1)
    expected = ((x - noisy) ** 2).sum() / ((x - means) ** 2).sum()
    assert table.loc[("pca", "fvu"), "value"] == pytest.approx(expected, rel=1e-5)


def test_intervals_hold_their_values_and_differences_are_paired(pair):
    x, noisy = pair
    table = scored(x, {"pca": noisy, "vae": np.float32(0.5) * (x + noisy)})
    assert (table["low"] <= table["value"] + 1e-9).all()
    assert (table["value"] <= table["high"] + 1e-9).all()
    own, other = (table.loc[(name, "fvu"), "value"] for name in ("vae", "pca"))
    difference = table.loc[("vae", "fvu_difference")]
    assert difference["value"] == pytest.approx(own - other)
    assert difference["high"] < 0
    assert ("pca", "fvu_difference") not in table.index


def test_a_method_does_not_differ_from_itself(pair):
    table = scored(pair[0], {"pca": pair[1], "same": pair[1]})
    assert tuple(table.loc[("same", "fvu_difference"), ["value", "low", "high"]]) == (0, 0, 0)


def test_a_latent_that_draws_nothing_contributes_nothing():
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    latents = rng.normal(size=(50, 3)).astype(np.float32)

    def decode(codes):
        return np.einsum("nk,khwc->nhwc", codes[:, :2], patterns)

    x = decode(latents)
    table = latent_contributions(decode, latents, latents.mean(axis=0), x, x.mean(axis=0))
    assert table["fvu_gain"].iloc[2] == 0
    assert (table["fvu_gain"].iloc[:2] > 0.1).all()
    alone = ((latents[:, 0] - latents[:, 0].mean()) ** 2).sum() * (patterns[0] ** 2).sum()
    assert table["fvu_without"].iloc[0] == pytest.approx(alone / ((x - x.mean(axis=0)) ** 2).sum(), rel=1e-4)


def test_different_shapes_and_values_that_are_not_finite_are_refused(pair):
    x, noisy = pair
    with pytest.raises(ValueError, match="one shape"):
        squared_error(x, noisy[:3])
    with pytest.raises(ValueError, match="x_hat: values are not finite"):
        squared_error(x, np.full_like(x, np.nan))
    with pytest.raises(ValueError, match="no variance"):
        scored(np.zeros((3, 16, 16, 3)), {"pca": np.zeros((3, 16, 16, 3))})
