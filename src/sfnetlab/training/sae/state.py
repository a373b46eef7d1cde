"""A sparse autoencoder in the middle of its training, and what a training step does to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sfnetlab.models.sae import SparseAutoencoder
from sfnetlab.training.sae.settings import SAESettings

MEAN_ROWS, SQUARE_ROWS = 2_000, 6_000
"""Number of rows over which the running means of gradients go, and those of squared gradients."""
DECODER_SPEED = 0.7
"""Learning rate of the atoms and of b_dec, as a multiple of the encoder's."""
EPSILON = 6.25e-10
"""Added to the root of a mean square, as by Gao et al. 2024."""
ENCODER = ("W_enc", "b_enc", "log_threshold")
"""Names of the encoder's weights."""


@dataclass(frozen=True)
class SAEState:
    """One SAE in training. Steps change its tensors in place.

    Attributes
    ----------
    settings
    weights
        `W_enc` (n_latents, d_in): row j is what latent j answers to; `b_enc` (n_latents,); `W_dec` (n_latents, d_in):
        the atoms, of length 1; `b_dec` (d_in,). Some variants have more (reference.py).
    means
        Running means of the gradients of the weights that have momentum, by the same names, of the same shapes.
    mean_squares
        Running means of the squared gradients of all weights, by name: (n_latents,), one for each latent's part of a
        weight; (1,) for `b_dec`. They are 0 before the first gradient.
    column_speeds
        (d_in,): factor of the gradient of W_enc in each column.
    last_active
        (n_latents,), int64: the step at which each latent was last active; -1 if it never was.
    silent_after
        A latent that was not active in the last `silent_after` steps counts as silent.
    """

    settings: SAESettings
    weights: dict[str, Tensor]
    means: dict[str, Tensor]
    mean_squares: dict[str, Tensor]
    column_speeds: Tensor
    last_active: Tensor
    silent_after: int

    @property
    def trains_encoder(self) -> bool:
        return self.settings.frozen not in ("encoder", "both")

    @property
    def trains_decoder(self) -> bool:
        return self.settings.frozen not in ("decoder", "both")


class Rates(NamedTuple):
    """What the schedules of one SAE say at one step."""

    k: int
    learning_rate: float
    l1: float = 0.0
    """Weight of the L1 penalty of "relu"."""


Steps = Callable[[Sequence[Tensor], Sequence[Sequence[Rates]], int], Tensor]
"""Takes several steps, one after another: (batches, the SAEs' rates for each batch, number of the first step) -> sums
(n_batches, n_saes, 3)."""

Step = Callable[[Tensor, Sequence[Rates], int], Tensor]
"""Takes one step of several SAEs: (rows z (n, d_in), centred and scaled; rates of each SAE; number of the step,
counted from 0) -> sums.

This is what a step means, whoever takes it. The code of the definition is reference.py.

1. pre = z W_enc^T + b_enc; latents = ReLU(pre) where selected, else 0. "topk" selects the k largest values of each row;
   batch-wide variants select the n k largest of all rows together. Of equal values the first columns are selected; in
   batch-wide selection the first rows, then the first columns.
2. Each nested dictionary p reconstructs z_hat_p = b_dec + latents[:, :p] W_dec[:p]. The loss is the mean over
   dictionaries, rows and columns of (z_hat_p - z)^2.
3. Gradients are taken. That of W_enc is multiplied by `column_speeds`, because it is as large as the rows' columns are.
   That of each atom loses its part along the atom.
4. Weights move by RMSprop (Tieleman & Hinton 2012, lecture 6e) with one mean square for all entries of a latent's part
   of a weight, and one for b_dec. The encoder has momentum; where the step has no kernels all weights have, because
   momentum in the decoder costs speed in kernels only. With n rows, 1 - beta = n / SQUARE_ROWS and
   1 - beta_1 = n / MEAN_ROWS, at most 1: so means go over the same number of rows whatever the size of a batch
   (Malladi et al. 2022, arXiv:2205.10287).
     mean_square <- beta^gap mean_square + (1 - beta) mean(gradient^2)
     mean        <- beta_1^gap mean + (1 - beta_1) gradient           (without momentum, the gradient)
     weight      <- weight - rate mean / (sqrt(mean_square) + EPSILON)
   A latent that is active on no row stays as it is. gap = step - last_active; 1 for b_dec. Where a mean square is 0,
   both means become those of this gradient alone. The decoder's rate is `DECODER_SPEED` times the encoder's.
   Means decay over steps without activity too: with a clock of its own a rare latent would move faster, and die more
   often. Without momentum, encoders swing where rows are alike.
5. Atoms that changed get length 1 again. last_active = step where a latent was active.

The sums (n_saes, 3) are the loss times the number of rows, the squared error of the whole dictionary, and the number of
active latents. They are on the device of the weights, and not finite if something went wrong.
"""


def one_by_one(step: Step) -> Steps:
    """`Steps` that calls a `Step` for one batch after another."""
    return lambda batches, rates, first: torch.stack(
        [step(z, of_step, first + i) for i, (z, of_step) in enumerate(zip(batches, rates, strict=True))]
    )


def new_state(
    settings: SAESettings, weights: dict[str, Tensor], silent_after: int, column_speeds: Tensor | None = None
) -> SAEState:
    """State before the first step, which holds these weights themselves; without `column_speeds` all are 1."""
    n_latents, d_in = weights["W_dec"].shape
    device = weights["W_dec"].device
    with_momentum = ENCODER if settings.has_kernels else tuple(weights)
    return SAEState(
        settings=settings,
        weights=weights,
        means={name: torch.zeros_like(tensor) for name, tensor in weights.items() if name in with_momentum},
        mean_squares={name: torch.zeros(1 if name == "b_dec" else n_latents, device=device) for name in weights},
        column_speeds=torch.ones(d_in, device=device) if column_speeds is None else column_speeds.to(device),
        last_active=torch.full((n_latents,), -1, dtype=torch.int64, device=device),
        silent_after=silent_after,
    )


@torch.no_grad()
def as_model(state: SAEState, k: int, *, is_final: bool) -> SparseAutoencoder:
    """The SAE as it stands, on the device, for rows that are centred and scaled.

    Parameters
    ----------
    k
        Active latents a row where the model selects the k largest.
    is_final
        Whether the thresholds of batch-wide variants and of "relu" are going to be set: these variants then compare
        with thresholds, which are all 1. In the middle of training batch-wide variants select the k largest values of
        each row instead, and "relu" all positive ones.
    """
    settings, weights = state.settings, state.weights
    has_thresholds = settings.variant in ("relu", "jumprelu") or (settings.is_batch_wide and is_final)
    rule: Literal["topk", "threshold"] = "threshold" if has_thresholds else "topk"
    sae = SparseAutoencoder(len(weights["b_dec"]), settings.n_latents, k, settings.group_sizes, rule)
    sae = sae.to(weights["b_dec"].device)
    sae.requires_grad_(False)
    sae.W_enc.copy_(weights["W_enc"].T)
    for name in ("b_enc", "W_dec", "b_dec"):
        getattr(sae, name).copy_(weights[name])
    if settings.variant == "jumprelu":
        sae.thresholds.copy_(weights["log_threshold"].exp())
    elif settings.is_calibrated and is_final:
        sae.thresholds.fill_(1.0)
    return sae
