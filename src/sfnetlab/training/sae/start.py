"""Where the training of a sparse autoencoder starts: its first weights, and how fast each column is learnt."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from sfnetlab.errors import DataError
from sfnetlab.training.loop import START, generator
from sfnetlab.training.sae import recipe, reference
from sfnetlab.training.sae.settings import SAESettings

Gather = Callable[[NDArray[np.intp]], Tensor]
"""Takes positions of train rows and returns these rows z (n, d_in), centred and scaled, on the device."""

FIRST_THRESHOLD = 0.1
"""Smallest threshold with which a JumpReLU latent starts, in units of the embedding's scale."""
_SPEED_ROWS = 8192
"""Number of rows from which column speeds are estimated, at most."""
_SMALLEST_COLUMN = 1e-3
"""Columns whose spread is less than this share of the largest one's count as if they had so much."""
_OWN_SHARE = 0.9
"""Share of its own centroid in an archetypal atom at the start; the other centroids have equal parts of the rest."""


def column_speeds(gather: Gather, n_rows: int) -> Tensor:
    """Factor for the gradient of W_enc in each column of the rows z, (d_in,).

    The factor is 1 / the root mean square of a column, so that columns of little spread are learnt as fast as others,
    as Adam would do; times the share of rows that make the column, mean(|z|)^2 / mean(z^2) (Treves & Rolls 1991), over
    the share 2 / pi of a normal column. Without that share a column that is 0 in most rows would be small too, and the
    few other rows would be learnt by heart. At most `_SPEED_ROWS` rows are looked at; the share is at least one row's.

    Parameters
    ----------
    n_rows
        Number of train rows.
    """
    z = gather(generator(0, START).choice(n_rows, min(n_rows, _SPEED_ROWS), replace=False))
    mean_squares = z.square().mean(dim=0)
    shares = z.abs().mean(dim=0).square() / mean_squares.clamp_min(torch.finfo().tiny)
    sizes = mean_squares.sqrt()
    sizes = sizes.clamp_min(_SMALLEST_COLUMN * (float(sizes.max()) or 1 / _SMALLEST_COLUMN))
    return torch.pi / 2 * shares.clamp_min(1 / len(z)) / sizes


def start_weights(settings: SAESettings, gather: Gather, n_rows: int) -> dict[str, Tensor]:
    """Weights before the first step, by the names of `SAEState.weights`, on the CPU.

    Encoder and decoder are tied and atoms have length 1 (Gao et al. 2024), but for a start at centroids, whose encoder
    is a matched filter, and for a frozen part, whose counterpart starts at random: tied weights would give it away.

    Raises
    ------
    DataError
        If there are fewer rows than centroids.
    """
    n_latents, rng = settings.n_latents, generator(settings.seed, START)
    d_in = gather(np.zeros(1, dtype=np.intp)).shape[1]
    points = torch.zeros(0)
    if settings.start == "centroids":
        z, points = _centroids(gather, n_rows, n_latents)
        atoms = normalize(points)
        encoder = _fitting_encoder(atoms, z, recipe.k_at(settings, 0, 1))
    else:
        atoms = normalize(torch.from_numpy(rng.standard_normal((n_latents, d_in), dtype=np.float32)))
        encoder = atoms
    if settings.frozen in ("decoder", "encoder"):
        encoder = normalize(torch.from_numpy(rng.standard_normal((n_latents, d_in), dtype=np.float32)))
    weights = {
        "W_enc": encoder.clone(),
        "b_enc": torch.zeros(n_latents),
        "W_dec": atoms.clone(),
        "b_dec": torch.zeros(d_in),
    }
    match settings.variant:
        case "jumprelu":
            # Pre-activations of random atoms are standard normal: this lets the first, larger k pass.
            share = min(0.25, recipe.K_START * settings.k / n_latents)
            weights["log_threshold"] = torch.full(
                (n_latents,), math.log(max(FIRST_THRESHOLD, NormalDist().inv_cdf(1 - share)))
            )
        case "archetypal":
            shares = torch.full((n_latents, n_latents), (1 - _OWN_SHARE) / n_latents).fill_diagonal_(_OWN_SHARE)
            logits = shares.log() / reference.MIXTURE_SPEED
            weights |= {"points": points, "mixture": logits, "relaxation": torch.zeros(n_latents, d_in)}
            weights["W_dec"] = reference.archetypes(weights)
        case _:
            pass
    return weights


def matched_filters(atoms: Tensor, z: Tensor) -> Tensor:
    """Encoder rows (n_atoms, d_in), each of which answers 1 to its atom and as little as possible to the rows z.

    These are C^-1 a / (a^T C^-1 a) with the rows' covariance C and a ridge on it. The atom itself as an encoder would
    answer to what other latents explain of a row, wherever rows vary most.
    """
    covariance = z.T @ z / len(z)
    ridge = recipe.FILTER_RIDGE * covariance.diagonal().mean().clamp_min(1e-6)
    filters = torch.linalg.solve(covariance + ridge * torch.eye(len(covariance), device=z.device), atoms.T).T
    return filters / (filters * atoms).sum(dim=1, keepdim=True)


def _fitting_encoder(atoms: Tensor, z: Tensor, k: int) -> Tensor:
    """Matched filters of atoms, times the factor with which k latents a row fit the rows z best.

    Atoms that are alike would all answer at once as their own encoder: the first reconstructions were 100 times too
    long.
    """
    encoder = matched_filters(atoms, z)
    z_hat = reference.select(z @ encoder.T, k, is_batch_wide=False) @ atoms
    return encoder * ((z * z_hat).sum() / z_hat.square().sum().clamp_min(1e-12))


def _centroids(gather: Gather, n_rows: int, n_clusters: int) -> tuple[Tensor, Tensor]:
    """Some rows (n_sampled, d_in), and their k-means centroids (n_clusters, d_in), on the CPU.

    Both are the same for every seed of an SAE: that makes archetypal SAEs stable (2606.02061).
    """
    from sklearn.cluster import MiniBatchKMeans

    if n_rows < n_clusters:
        raise DataError(f"a start at centroids needs at least n_latents={n_clusters} train rows, got {n_rows}")
    rng = generator(0, START)
    z = gather(rng.choice(n_rows, min(n_rows, 8 * n_clusters), replace=False)).cpu().numpy()
    kmeans = MiniBatchKMeans(n_clusters, init="random", batch_size=4096, max_iter=10, n_init=1, random_state=0).fit(z)
    return torch.from_numpy(z), torch.from_numpy(kmeans.cluster_centers_.astype(np.float32))
