"""Sparse autoencoders in the middle of their training, those of one shape side by side; what a step does to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sfnetlab.training.sae.settings import SAESettings

BETA_1, BETA_2, EPSILON = 0.9, 0.99, 6.25e-10
"""Of Adam; epsilon as in Gao et al. 2024."""


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
    first, second
        Adam's running means of the gradient and of its square, of the same names and shapes.
    last_active
        (n_saes, n_latents), int64: the step at which each latent was last active, -1 before the first time.
    silent_after
        A latent that was not active in so many steps counts as silent.
    """

    settings: tuple[SAESettings, ...]
    weights: dict[str, Tensor]
    first: dict[str, Tensor]
    second: dict[str, Tensor]
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


Step = Callable[[Tensor, Sequence[Rates], int], Tensor]
"""(rows z (n, d_in) centred and scaled, rates of each SAE of all stacks in order, number of the step from 0) -> sums.

What a step means, whoever does it (reference.py is the definition):

1. pre = z W_enc^T + b_enc; latents = ReLU(pre) where selected, else 0. "topk": the k largest of each row;
   batch-wide: the n k largest of all rows together. Of equal values the first columns are selected; batch-wide the
   first rows, then columns.
2. For each nested dictionary p: z_hat_p = b_dec + latents[:, :p] W_dec[:p]. loss = mean over p, rows and columns of
   (z_hat_p - z)^2.
3. Gradients; that of each atom loses its part along the atom.
4. Adam, but a latent's weights and moments change only in steps in which it is active on some row; its moments then
   first decay by beta^(step - last_active). b_dec changes in every step. Bias correction is by the step's number.
5. Atoms that changed get length 1 again. last_active = step where active.

Sums (n_saes, 3): loss times rows, squared error of the whole dictionary, number of active latents; on the device of the
weights, not finite if something went wrong.
"""


def new_stack(settings: Sequence[SAESettings], weights: dict[str, Tensor], silent_after: int) -> Stack:
    """A stack with moments of zero."""
    n_saes, n_latents = weights["b_enc"].shape
    return Stack(
        settings=tuple(settings),
        weights=weights,
        first={name: torch.zeros_like(tensor) for name, tensor in weights.items()},
        second={name: torch.zeros_like(tensor) for name, tensor in weights.items()},
        last_active=torch.full((n_saes, n_latents), -1, dtype=torch.int64, device=weights["b_enc"].device),
        silent_after=silent_after,
    )
