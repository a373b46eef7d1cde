"""What autoencoders draw: reconstructions, one latent after the other, a walk from galaxy to galaxy, samples."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.table import NOTHING, SEED, Answer, Autoencoder, DescribedTable

TRAVERSED_SIGMAS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
N_GALAXIES = 8
"""Test galaxies that are reconstructed."""
N_TRAVERSED = 8
"""Latents that are traversed, those of the largest variance."""
N_WAYPOINTS = 6
"""Test galaxies that the walk goes through, the first of those that are reconstructed."""
N_STEPS = 22
"""Frames from one of them to the next."""
N_SAMPLES = 64
"""Draws from the prior."""


def ask(table: DescribedTable) -> Answer:
    """Return cutouts that an autoencoder draws, uint8; nothing where there is no way from features back to cutouts.

    Arrays: `reconstructions` (n, side, side, 3) of a few test galaxies and `pca_reconstructions` by as many principal
    components of the pixels, whose ids are the table `reconstructed`; `traversal` (n_latents, n_steps, side, side, 3)
    of the latents in the table `traversed`, at `TRAVERSED_SIGMAS`; `walk` (n_frames, side, side, 3) through the
    galaxies of the table `waypoints`; `prior_samples` (n, side, side, 3), where there is a prior.
    """
    if table.autoencoder is None or table.cutouts_of is None:
        return NOTHING
    autoencoder, test = table.autoencoder, table.test.rows["id_str"]
    ids = test.iloc[np.random.default_rng(SEED).permutation(len(test))[:N_GALAXIES]]
    codes = np.asarray(table.values_of(ids))
    shown = autoencoder.latents.sort_values("variance", ascending=False).head(N_TRAVERSED)
    arrays = {
        "reconstructions": autoencoder.decode(codes),
        "pca_reconstructions": autoencoder.reconstruct_by_pca(table.cutouts_of(ids)),
        "traversal": _traversed(autoencoder, shown["latent"].to_numpy()),
        "walk": autoencoder.decode(walk(codes[:N_WAYPOINTS], N_STEPS)),
    }
    if autoencoder.has_prior:
        drawn = np.random.default_rng(SEED).standard_normal((N_SAMPLES, codes.shape[1]))
        arrays["prior_samples"] = autoencoder.decode(drawn)
    tables = {
        "reconstructed": pd.DataFrame({"id_str": ids.to_numpy()}),
        "traversed": shown.reset_index(drop=True),
        "waypoints": pd.DataFrame({"id_str": ids.to_numpy()[:N_WAYPOINTS]}),
    }
    return Answer(tables=tables, arrays=arrays)


def _traversed(autoencoder: Autoencoder, latents: NDArray[np.integer]) -> NDArray[np.uint8]:
    mean, variance = (autoencoder.latents[name].to_numpy() for name in ("mean", "variance"))
    codes = traversal(mean, np.sqrt(variance), latents)
    images = autoencoder.decode(codes.reshape(-1, codes.shape[2]))
    return images.reshape(*codes.shape[:2], *images.shape[1:])


def traversal(
    mean: NDArray[np.floating], sd: NDArray[np.floating], latents: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Return codes (n_shown, n_steps, n_latents): some latents at `TRAVERSED_SIGMAS`, all others at their means.

    Parameters
    ----------
    mean, sd : ndarray of shape (n_latents,)
        Mean and standard deviation of each latent over train galaxies.
    latents : ndarray of int, shape (n_shown,)
        Which latents to show, a row each.
    """
    codes = np.tile(mean, (len(latents), len(TRAVERSED_SIGMAS), 1))
    for row, latent in zip(codes, latents, strict=True):
        row[:, latent] += np.array(TRAVERSED_SIGMAS) * sd[latent]
    return codes.astype(np.float32)


def walk(waypoints: NDArray[np.floating], n_steps: int) -> NDArray[np.float32]:
    """Return codes of a closed walk through some waypoints, (n_waypoints * n_steps, n_latents), the first one first.

    The walk goes straight from one to the next and slows down near them, so that each is seen.

    Raises
    ------
    ValueError
        If there are fewer than two waypoints, or no step.
    """
    if len(waypoints) < 2 or n_steps < 1:
        raise ValueError(f"a walk needs two waypoints and a step, got {len(waypoints)} and {n_steps}")
    done = (1 - np.cos(np.pi * np.arange(n_steps) / n_steps)) / 2
    legs = [a + done[:, None] * (b - a) for a, b in zip(waypoints, np.roll(waypoints, -1, axis=0), strict=True)]
    return np.concatenate(legs).astype(np.float32)
