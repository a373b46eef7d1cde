"""Traversals and walks through a latent space."""

import numpy as np
import pytest

from sfnetlab.interpret.latents import TRAVERSED_SIGMAS, traversal, walk


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
