"""Places in the latent space of an autoencoder worth a picture: along one latent, and from galaxy to galaxy."""

import numpy as np
from numpy.typing import NDArray

TRAVERSED_SIGMAS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


def traversal(
    mean: NDArray[np.floating], sd: NDArray[np.floating], latents: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Codes (n_shown, n_steps, n_latents): each of some latents at `TRAVERSED_SIGMAS`, the others at their means.

    Parameters
    ----------
    mean, sd : ndarray of shape (n_latents,)
        Of the features over train galaxies.
    latents : ndarray of int
        Which to show.
    """
    codes = np.tile(mean, (len(latents), len(TRAVERSED_SIGMAS), 1))
    for row, latent in zip(codes, latents, strict=True):
        row[:, latent] += np.array(TRAVERSED_SIGMAS) * sd[latent]
    return codes.astype(np.float32)


def walk(waypoints: NDArray[np.floating], n_steps: int) -> NDArray[np.float32]:
    """Codes of a closed walk through some waypoints, (n_waypoints * n_steps, n_latents), the first waypoint first.

    Straight from one to the next, slowing down near them, so that each is seen.
    """
    if len(waypoints) < 2 or n_steps < 1:
        raise ValueError(f"a walk needs two waypoints and a step, got {len(waypoints)} and {n_steps}")
    done = (1 - np.cos(np.pi * np.arange(n_steps) / n_steps)) / 2
    legs = [a + done[:, None] * (b - a) for a, b in zip(waypoints, np.roll(waypoints, -1, axis=0), strict=True)]
    return np.concatenate(legs).astype(np.float32)
