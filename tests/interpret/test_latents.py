"""Traversals and walks through a latent space, and what an autoencoder draws there."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.interpret.latents import (
    N_SAMPLES,
    N_STEPS,
    N_TRAVERSED,
    N_WAYPOINTS,
    TRAVERSED_SIGMAS,
    ask,
    traversal,
    walk,
)
from sfnetlab.interpret.table import Autoencoder


def test_a_traversal_moves_one_latent_and_keeps_the_others_at_their_means():
    mean, sd = np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.3])
    codes = traversal(mean, sd, np.array([2, 0]))
    assert codes.shape == (2, len(TRAVERSED_SIGMAS), 3)
    np.testing.assert_allclose(codes[0, :, 2], 3 + 0.3 * np.array(TRAVERSED_SIGMAS), rtol=1e-6)
    np.testing.assert_allclose(codes[0, :, :2], np.tile(mean[:2], (7, 1)), rtol=1e-6)
    np.testing.assert_allclose(codes[1, 3], mean, rtol=1e-6)


def test_a_walk_passes_every_waypoint_and_closes():
    waypoints = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    codes = walk(waypoints, 10)
    assert codes.shape == (30, 2)
    np.testing.assert_allclose(codes[::10], waypoints)
    last_step = np.linalg.norm(codes[0] - codes[-1])
    assert 0 < last_step < 0.1


def test_a_walk_needs_two_waypoints():
    with pytest.raises(ValueError, match="two waypoints"):
        walk(np.zeros((1, 2)), 3)


# --- what an autoencoder draws ----------------------------------------------------------------------------------------

N, N_LATENTS = 60, 10
CODES = np.random.default_rng(0).normal(size=(N, N_LATENTS)).astype(np.float32)
LATENTS = pd.DataFrame(
    {"latent": range(N_LATENTS), "mean": 0.5, "variance": [*range(5), *range(20, 25)], "fvu_gain": 0.1}
)


def decode(codes):
    """Cutouts of two pixels a side whose red says the first latent, green the last, blue how many are decoded."""
    colour = np.stack([codes[:, 0], codes[:, -1], np.zeros(len(codes))], axis=1)
    return np.broadcast_to((100 + 10 * colour).round().astype(np.uint8)[:, None, None], (len(codes), 2, 2, 3))


@pytest.fixture
def drawn(described):
    def draw(has_prior=True):
        autoencoder = Autoencoder(LATENTS, has_prior, decode, lambda images: images + 1)
        table = described(
            pd.DataFrame({"size": np.arange(float(N))}),
            CODES,
            "vae",
            autoencoder=autoencoder,
            cutouts_of=lambda ids: decode(CODES[ids.astype(int)]),
        )
        return table, ask(table)

    return draw


def test_reconstructions_are_of_the_test_galaxies_that_are_named(drawn):
    table, answer = drawn()
    ids = answer.tables["reconstructed"]["id_str"]
    assert set(ids) <= set(table.test.rows["id_str"])
    np.testing.assert_array_equal(answer.arrays["reconstructions"], decode(CODES[ids.astype(int)]))
    np.testing.assert_array_equal(answer.arrays["pca_reconstructions"], answer.arrays["reconstructions"] + 1)


def test_the_latents_of_the_largest_variance_are_traversed(drawn):
    _, answer = drawn()
    assert answer.tables["traversed"]["latent"].tolist() == [9, 8, 7, 6, 5, 4, 3, 2][:N_TRAVERSED]
    assert {"mean", "variance", "fvu_gain"} <= set(answer.tables["traversed"])
    images = answer.arrays["traversal"]
    assert images.shape == (N_TRAVERSED, len(TRAVERSED_SIGMAS), 2, 2, 3)
    np.testing.assert_array_equal(images[0], decode(traversal(LATENTS["mean"], LATENTS["variance"] ** 0.5, [9])[0]))


def test_the_walk_passes_the_galaxies_that_are_named(drawn):
    _, answer = drawn()
    ids = answer.tables["waypoints"]["id_str"]
    assert ids.tolist() == answer.tables["reconstructed"]["id_str"].tolist()[:N_WAYPOINTS]
    assert answer.arrays["walk"].shape == (N_WAYPOINTS * N_STEPS, 2, 2, 3)
    np.testing.assert_array_equal(answer.arrays["walk"][::N_STEPS], decode(CODES[ids.astype(int)]))


def test_samples_are_drawn_where_there_is_a_prior(drawn):
    assert drawn()[1].arrays["prior_samples"].shape == (N_SAMPLES, 2, 2, 3)
    assert "prior_samples" not in drawn(has_prior=False)[1].arrays


def test_features_without_a_way_back_to_cutouts_draw_nothing(described):
    answer = ask(described(pd.DataFrame({"size": np.arange(float(N))}), CODES))
    assert not answer.arrays
    assert not answer.tables
