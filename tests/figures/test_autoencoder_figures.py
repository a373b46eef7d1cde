"""Figures of autoencoders: what stands where, on data that say so."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sfnetlab.figures.autoencoder_training import PANELS as TRAINING
from sfnetlab.figures.autoencoder_training import plot_autoencoder_training
from sfnetlab.figures.latent_traversal import plot_latent_traversal
from sfnetlab.figures.latent_walk import FRAME_MS, plot_latent_walk, walk_gif
from sfnetlab.figures.reconstruction_quality import PANELS, plot_latent_variances, plot_reconstruction_quality
from sfnetlab.figures.reconstructions import plot_image_rows


def shades(*shape):
    """Cutouts, each of one shade of its own."""
    n = int(np.prod(shape))
    values = np.arange(n, dtype=np.uint8).reshape(*shape, 1, 1, 1)
    return np.broadcast_to(values, (*shape, 6, 6, 3)).copy()


def drawn_images(fig):
    return [np.asarray(image.get_array()) for image in fig.axes[0].get_images()]


def texts(fig):
    return [text.get_text() for text in fig.axes[0].texts]


def test_rows_of_cutouts_are_drawn_in_order_with_their_labels():
    images = shades(2, 3)
    fig = plot_image_rows({"input": images[0], "mmd\nMMD, d = 20": images[1]}, 0.5, ("a", "b", "c"))
    np.testing.assert_array_equal([image[0, 0, 0] for image in drawn_images(fig)], np.arange(6))
    assert {"input", "mmd\nMMD, d = 20", "a", "b", "c", "N", "E"} <= set(texts(fig))
    assert any("″" in text for text in texts(fig))
    assert not any("″" in text for text in texts(plot_image_rows({"input": images[0]}, None)))


def test_rows_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="row 'b'"):
        plot_image_rows({"a": shades(3), "b": shades(2)}, None)
    with pytest.raises(ValueError, match="no row"):
        plot_image_rows({}, None)


def test_a_traversal_names_latents_their_variance_and_the_steps():
    latents = pd.DataFrame({"latent": [7, 3], "variance": [1.25, 0.5], "fvu_gain": [0.2, 0.01]})
    fig = plot_latent_traversal(shades(2, 3), (-3.0, 0.0, 3.0), latents, 0.5)
    assert {"latent 7\nvariance 1.25\nFVU −0.200", "−3 σ", "mean", "+3 σ"} <= set(texts(fig))
    with pytest.raises(ValueError, match="2 x 7"):
        plot_latent_traversal(shades(2, 3), tuple(range(7)), latents, 0.5)


def test_each_row_of_a_walk_ends_where_the_next_begins_and_the_last_closes_it():
    fig = plot_latent_walk(shades(20), 2)
    shown = np.array([image[0, 0, 0] for image in drawn_images(fig)]).reshape(2, -1)
    assert list(shown[:, 0]) == [0, 10]
    assert list(shown[:, -1]) == [10, 0]
    with pytest.raises(ValueError, match="each of 3 legs"):
        plot_latent_walk(shades(20), 3)


def test_the_gif_has_every_frame_for_its_time_and_goes_on_for_ever():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(walk_gif(frames, 16))) as gif:
        assert gif.n_frames == 5
        assert gif.size == (16, 16)
        assert gif.info["loop"] == 0
        for frame in range(5):
            gif.seek(frame)
            assert gif.info["duration"] == FRAME_MS


def test_the_gif_shows_the_frames():
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    frames[1, :, :, 0] = 200
    frames[2, :, :, 2] = 90
    with Image.open(io.BytesIO(walk_gif(frames, 8))) as gif:
        for i, frame in enumerate(frames):
            gif.seek(i)
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - frame).max() < 12


@pytest.fixture
def quality():
    rows = [
        {
            "features": features, "kind": kind, "n_latents": 20, "seed": seed, "metric": metric,
            "value": value, "low": value - 0.1, "high": value + 0.1,
        }
        for metric, _ in PANELS
        for features, kind, seed, value in (
            ("elbo", "vae", 0, 0.3), ("elbo", "vae", 1, 0.5), ("PCA of pixels", "pca", pd.NA, 0.9)
        )
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"seed": "Int64"})


def test_quality_is_the_mean_over_seeds_with_its_interval(quality):
    fig = plot_reconstruction_quality(quality)
    assert [ax.get_xlabel() for ax in fig.axes] == [label for _, label in PANELS]
    names = [label.get_text().replace("\n", " ") for label in fig.axes[0].get_yticklabels()]
    assert names == ["PCA of pixels, d = 20", "elbo, d = 20"]
    points = {line.get_label(): float(np.ravel(line.get_xdata())[0]) for line in fig.axes[0].lines}
    assert points["elbo"] == pytest.approx(0.4)
    assert points["PCA of pixels"] == pytest.approx(0.9)
    (seeds,) = [line for line in fig.axes[0].lines if line.get_label() == "_seeds"]
    np.testing.assert_allclose(seeds.get_xdata(), [0.3, 0.5])


def test_a_measure_that_is_missing_is_named(quality):
    with pytest.raises(ValueError, match="'ssim'"):
        plot_reconstruction_quality(quality[quality["metric"] != "ssim"])


def test_latents_stand_in_order_of_their_variance():
    latents = pd.DataFrame(
        {
            "features": "mmd",
            "kind": "vae",
            "latent": [0, 1, 2],
            "variance": [0.1, 2.0, 0.001],
            "fvu_gain": [0.01, 0.2, 0.0],
        }
    )
    fig = plot_latent_variances(latents, 0.01)
    np.testing.assert_allclose(fig.axes[0].lines[0].get_ydata(), [2.0, 0.1, 0.001])
    np.testing.assert_allclose(fig.axes[1].lines[0].get_ydata()[:2], [0.2, 0.01])
    assert 0.01 in [line.get_ydata()[0] for line in fig.axes[0].lines]


def test_training_draws_both_parts_of_every_quantity_and_no_zeros():
    history = pd.DataFrame({"features": "ae", "kind": "vae", "epoch": [2, 1]})
    for name, _ in TRAINING:
        for part, value in (("train", 1.0), ("valid", 2.0)):
            history[f"{part}_{name}"] = [value, value + 2] if name != "kl_per_image" else 0.0
    fig = plot_autoencoder_training(history)
    valid, train = fig.axes[0].lines
    np.testing.assert_allclose(valid.get_xydata(), [[1, 4], [2, 2]])
    np.testing.assert_allclose(train.get_ydata(), [3, 1])
    assert np.isnan(fig.axes[1].lines[0].get_ydata()).all()
