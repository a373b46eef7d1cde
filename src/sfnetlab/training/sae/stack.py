"""Sparse autoencoders in the middle of their training, those of one shape side by side; what a step does to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sfnetlab.training.sae.settings import SAESettings

MEAN_ROWS, SQUARE_ROWS = 2_000, 6_000
"""Rows over which running means go: of gradients, and of their squares."""
DECODER_SPEED = 0.7
"""Learning rate of atoms and b_dec, in terms of the encoder's."""
EPSILON = 6.25e-10
"""Added to the root of a mean square; as in Gao et al. 2024."""
ENCODER = ("W_enc", "b_enc", "log_threshold")
"""Weights of the encoder."""


@dataclass(frozen=True)
class Stack:
    """SAEs of one shape, variant and frozen part; every tensor's first dimension runs over them. Steps change it.

    Attributes
    ----------
    settings
        One for each SAE; they differ in k, seed and learning rate at most.
    weights
        `W_enc` (n_saes, n_latents, d_in): row j is what latent j answers to; `b_enc` (n_saes, n_latents); `W_dec`
        (n_saes, n_latents, d_in), rows of length 1; `b_dec` (n_saes, d_in). Some variants have more (reference.py).
    means
        Running means of the gradients of the weights that have momentum, of the same names and shapes.
    mean_squares
        Running means of the squared gradients of all weights, by name: (n_saes, n_latents), of each latent's part of a
        weight; (n_saes, 1) of `b_dec`. 0 before the first gradient.
    column_speeds
        (d_in,): what the gradient of W_enc is multiplied by in each column.
    last_active
        (n_saes, n_latents), int64: the step at which each latent was last active, -1 before the first time.
    silent_after
        A latent that was not active in so many steps counts as silent.
    """

    settings: tuple[SAESettings, ...]
    weights: dict[str, Tensor]
    means: dict[str, Tensor]
    mean_squares: dict[str, Tensor]
    column_speeds: Tensor
    last_active: Tensor
    silent_after: int

    @property
    def n_saes(self) -> int:
        return len(self.settings)

    @property
    def shape(self) -> SAESettings:
        """Settings of the first: what all of them share."""
        return self.settings[0]

    @property
    def trains_encoder(self) -> bool:
        return self.shape.frozen not in ("encoder", "both")

    @property
    def trains_decoder(self) -> bool:
        return self.shape.frozen not in ("decoder", "both")


class Rates(NamedTuple):
    """Where the schedules of one SAE are."""

    k: int
    learning_rate: float
    l1: float = 0.0
    """Weight of the L1 penalty of "relu"."""


Steps = Callable[[Sequence[Tensor], Sequence[Sequence[Rates]], int], Tensor]
"""Several steps, one after another: (batches, rates of each, number of the first) -> sums (n_batches, n_saes, 3)."""

Step = Callable[[Tensor, Sequence[Rates], int], Tensor]
"""(rows z (n, d_in) centred and scaled, rates of each SAE of all stacks in order, number of the step from 0) -> sums.

What a step means, whoever does it (reference.py is the definition):

1. pre = z W_enc^T + b_enc; latents = ReLU(pre) where selected, else 0. "topk": the k largest of each row;
   batch-wide: the n k largest of all rows together. Of equal values the first columns are selected; batch-wide the
   first rows, then columns.
2. For each nested dictionary p: z_hat_p = b_dec + latents[:, :p] W_dec[:p]. loss = mean over p, rows and columns of
   (z_hat_p - z)^2.
3. Gradients; that of W_enc, which is as large as the rows' columns are, is multiplied by `column_speeds`; that of each
   atom loses its part along the atom.
4. RMSprop (Tieleman & Hinton 2012, lecture 6e) with one mean square for all entries of a latent's part of a weight, and
   one for b_dec, and with momentum: in the encoder; in all weights where the step has no kernels, to whose speed that
   matters. With n rows, 1 - beta = n / SQUARE_ROWS and 1 - beta_1 = n / MEAN_ROWS, at most 1 (so that means go over
   rows, whatever the batch; Malladi et al. 2022, arXiv:2205.10287):
     mean_square <- beta^gap mean_square + (1 - beta) mean(gradient^2)
     mean        <- beta_1^gap mean + (1 - beta_1) gradient           (without momentum, the gradient)
     weight      <- weight - rate mean / (sqrt(mean_square) + EPSILON)
   A latent that is active on no row stays as it is; gap = step - last_active, 1 for b_dec. Where a mean square is 0,
   both means are those of this gradient alone. The rate of the decoder is `DECODER_SPEED` times the encoder's.
   Means decay over steps without activity too: with a clock of its own a rare latent moves faster, and dies more often.
   Without momentum, encoders swing where rows are alike.
5. Atoms that changed get length 1 again. last_active = step where active.

Sums (n_saes, 3): loss times rows, squared error of the whole dictionary, number of active latents; on the device of the
weights, not finite if something went wrong.
"""


def one_by_one(step: Step) -> Steps:
    """Steps that are taken by this one."""
    return lambda batches, rates, first: torch.stack(
        [step(z, own, first + i) for i, (z, own) in enumerate(zip(batches, rates, strict=True))]
    )


def new_stack(
    settings: Sequence[SAESettings],
    weights: dict[str, Tensor],
    silent_after: int,
    column_speeds: Tensor | None = None,
) -> Stack:
    """A stack before its first step; without `column_speeds` all are 1."""
    n_saes, n_latents = weights["b_enc"].shape
    device = weights["b_enc"].device
    with_momentum = ENCODER if settings[0].has_kernels else tuple(weights)
    return Stack(
        settings=tuple(settings),
        weights=weights,
        means={name: torch.zeros_like(tensor) for name, tensor in weights.items() if name in with_momentum},
        mean_squares={
            name: torch.zeros(n_saes, 1 if name == "b_dec" else n_latents, device=device) for name in weights
        },
        column_speeds=torch.ones(weights["b_dec"].shape[1], device=device)
        if column_speeds is None
        else column_speeds.to(device),
        last_active=torch.full((n_saes, n_latents), -1, dtype=torch.int64, device=device),
        silent_after=silent_after,
    )
