"""The training step of every variant in plain PyTorch, with dense latents and autograd.

It is slow and readable, and it defines what a step is: the kernels must give the same. It runs for the variants without
kernels, and for all variants on a GPU.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sfnetlab.training.sae.settings import SAESettings
from sfnetlab.training.sae.state import (
    DECODER_SPEED,
    ENCODER,
    EPSILON,
    MEAN_ROWS,
    SQUARE_ROWS,
    Rates,
    SAEState,
    Step,
)

Weights = dict[str, Tensor]

RELAXATION = 1.0
"""How far an archetypal atom may lie from the convex hull, in units of the embedding's scale (delta of 2502.12892)."""
BANDWIDTH = 1.0
"""Width of the rectangle through which JumpReLU's thresholds get their gradient, in units of the embedding's scale."""
L0_PENALTY = 1.0
"""Weight of JumpReLU's penalty (L0 / k - 1)^2."""
MIXTURE_SPEED = 3.0
"""How many times as fast as other weights the logits of archetypal mixtures move."""


class Forward(NamedTuple):
    """What a variant computes from a batch of n rows."""

    latents: Tensor
    """(n, n_latents)"""
    pre: Tensor
    """(n, n_latents): the latents before the activation."""
    atoms: Tensor
    """(n_latents, d_in)"""
    penalty: Tensor | float
    """What the loss contains beside the mean squared error."""


def make_step(states: Sequence[SAEState]) -> Step:
    """A step of these SAEs, one after another."""

    def step(z: Tensor, rates: Sequence[Rates], number: int) -> Tensor:
        return torch.stack([_step_one(state, z, rate, number) for state, rate in zip(states, rates, strict=True)])

    return step


def _step_one(state: SAEState, z: Tensor, rates: Rates, number: int) -> Tensor:
    settings = state.settings
    trained = trained_weights(state)
    weights = {name: tensor.detach().requires_grad_(name in trained) for name, tensor in state.weights.items()}
    forward = _FORWARD[settings.variant](weights, z, rates, settings)
    errors = nested_reconstructions(forward.latents, forward.atoms, weights["b_dec"], settings.prefixes) - z
    squared_errors = errors.square().sum(dim=(1, 2))
    loss = squared_errors.mean() / z.numel() + forward.penalty
    if settings.auxk:
        is_silent = number - state.last_active > state.silent_after
        loss = loss + settings.auxk * _auxiliary_loss(forward, -errors[-1].detach(), is_silent)
    loss.backward()

    with torch.no_grad():
        is_active = forward.latents.amax(dim=0) > 0
        gap = torch.ones_like(state.last_active)
        if settings.has_kernels:
            gap = torch.where(is_active, number - state.last_active, 0)
        for name in trained:
            gradient = cast("Tensor", weights[name].grad)
            if name == "W_dec":
                gradient -= (gradient * weights[name]).sum(dim=1, keepdim=True) * weights[name]
            if name == "W_enc":
                gradient *= state.column_speeds
            gap_of_weight = torch.ones(1, device=z.device) if name == "b_dec" else gap
            _move(state, name, gradient, gap_of_weight, rates.learning_rate, len(z))
        W_dec = state.weights["W_dec"]
        if settings.variant == "archetypal":
            W_dec.copy_(archetypes(state.weights))
        elif state.trains_decoder:
            W_dec.copy_(torch.where(gap[:, None] > 0, normalize(W_dec), W_dec))
        state.last_active.copy_(torch.where(is_active, number, state.last_active))
        return torch.stack([loss.detach() * len(z), squared_errors[-1].detach(), forward.latents.count_nonzero()])


def trained_weights(state: SAEState) -> tuple[str, ...]:
    """Names of the weights that a step moves by their gradients."""
    encoder = ("W_enc", "b_enc") if state.trains_encoder else ()
    match state.settings.variant:
        case "archetypal":
            decoder: tuple[str, ...] = ("mixture", "relaxation")
        case "jumprelu":
            decoder = ("W_dec", "log_threshold")
        case _:
            decoder = ("W_dec",) if state.trains_decoder else ()
    return (*encoder, *decoder, "b_dec")


def nested_reconstructions(latents: Tensor, atoms: Tensor, b_dec: Tensor, prefixes: Sequence[int]) -> Tensor:
    """Reconstructions z_hat by each nested dictionary, (len(prefixes), n, d_in); each adds to the one before it."""
    z_hats = [b_dec]
    for start, end in pairwise((0, *prefixes)):
        z_hats.append(torch.addmm(z_hats[-1], latents[:, start:end], atoms[start:end]))
    return torch.stack(z_hats[1:])


def _move(state: SAEState, name: str, gradient: Tensor, gap: Tensor, learning_rate: float, n_rows: int) -> None:
    """Do item 4 of `Step`. A latent whose `gap` is 0 was active on no row: its gradient is 0, and nothing changes."""
    mean_square = state.mean_squares[name]
    weight, gradient = (tensor.view(len(mean_square), -1) for tensor in (state.weights[name], gradient))
    is_first, square = (mean_square == 0) & (gap > 0), gradient.square().mean(dim=1)
    mean_square.copy_(torch.where(is_first, square, _running(mean_square, square, gap, n_rows / SQUARE_ROWS)))
    if name in state.means:
        mean = state.means[name].view_as(weight)
        running = _running(mean, gradient, gap[:, None], n_rows / MEAN_ROWS)
        gradient = mean.copy_(torch.where(is_first[:, None], gradient, running)) * (gap > 0)[:, None]
    if name not in ENCODER:
        learning_rate *= DECODER_SPEED
    weight.sub_(learning_rate * gradient / (mean_square.sqrt() + EPSILON)[:, None])


def _running(mean: Tensor, new: Tensor, gap: Tensor, share: float) -> Tensor:
    share = min(1.0, share)
    return torch.pow(1 - share, gap) * mean + share * new


# --- the variants -----------------------------------------------------------------------------------------------------


def select(pre: Tensor, k: int, *, is_batch_wide: bool) -> Tensor:
    """ReLU of the k largest values of each row, or of the n k largest of all rows together, and 0 elsewhere.

    `pre` and what is returned have the shape (n, n_latents).
    """
    positive = torch.relu(pre)
    if is_batch_wide:
        kept = positive.flatten().topk(min(k * len(pre), pre.numel()))
        return torch.zeros_like(positive).flatten().scatter(0, kept.indices, kept.values).view_as(pre)
    kept = positive.topk(k, dim=1)
    return torch.zeros_like(positive).scatter(1, kept.indices, kept.values)


def _selected(weights: Weights, z: Tensor, rates: Rates, settings: SAESettings) -> Forward:
    """Latents of top-k (Gao et al. 2024), BatchTopK (Bussmann et al. 2024) and Matryoshka (Bussmann et al. 2025)."""
    pre = _pre_activations(weights, z)
    return Forward(select(pre, rates.k, is_batch_wide=settings.is_batch_wide), pre, weights["W_dec"], 0.0)


def _relu(weights: Weights, z: Tensor, rates: Rates, _: SAESettings) -> Forward:
    """Latents of a ReLU with an L1 penalty (Bricken et al. 2023).

    The penalty counts in full where 2 k latents a row are active on average, or more, and not at all below k.
    """
    pre = _pre_activations(weights, z)
    latents = torch.relu(pre)
    excess = (latents > 0).sum() / (rates.k * len(z)) - 1
    return Forward(latents, pre, weights["W_dec"], rates.l1 * excess.clamp(0, 1) * latents.sum() / z.numel())


def _jumprelu(weights: Weights, z: Tensor, rates: Rates, _: SAESettings) -> Forward:
    """Latents of JumpReLU, with a penalty on L0's distance from k (Rajamanoharan et al. 2024, arXiv:2407.14435)."""
    pre = _pre_activations(weights, z)
    threshold = weights["log_threshold"].exp()
    latents, is_active = cast("tuple[Tensor, Tensor]", _Jump.apply(torch.relu(pre), threshold))
    mean_l0 = is_active.sum() / len(z)
    return Forward(latents, pre, weights["W_dec"], L0_PENALTY * (mean_l0 / rates.k - 1).square())


def _archetypal(weights: Weights, z: Tensor, rates: Rates, _: SAESettings) -> Forward:
    """Latents of top-k, with atoms near the convex hull of data points (RA-SAE; Fel et al. 2025, arXiv:2502.12892)."""
    atoms = archetypes(weights)
    pre = _pre_activations(weights, z)
    return Forward(select(pre, rates.k, is_batch_wide=False), pre, atoms, 0.0)


def archetypes(weights: Weights) -> Tensor:
    """Atoms (n_latents, d_in): directions of convex combinations of points, each shifted by at most `RELAXATION`.

    The shares of the combinations are a softmax. Shares that are clipped at 0, as in the paper, get no gradient there.
    """
    mixture = torch.softmax(MIXTURE_SPEED * weights["mixture"], dim=1)
    relaxation = weights["relaxation"]
    relaxation = relaxation * (RELAXATION / relaxation.norm(dim=1, keepdim=True).clamp_min(RELAXATION))
    return normalize(mixture @ weights["points"] + relaxation)


def _pre_activations(weights: Weights, z: Tensor) -> Tensor:
    return torch.addmm(weights["b_enc"], z, weights["W_enc"].T)


class _Jump(torch.autograd.Function):
    """(x where x > threshold, else 0; 1 where x > threshold, else 0).

    The step has no useful gradient; thresholds get that of a rectangle of the width `BANDWIDTH` instead.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:  # pyrefly: ignore
        is_active = (x > threshold).to(x.dtype)
        ctx.save_for_backward(x, threshold, is_active)
        return x * is_active, is_active

    @staticmethod
    def backward(ctx: Any, d_latents: Tensor, d_active: Tensor) -> tuple[Tensor, Tensor]:  # pyrefly: ignore
        x, threshold, is_active = ctx.saved_tensors
        is_near = ((x - threshold).abs() < BANDWIDTH / 2).to(x.dtype) / BANDWIDTH
        return d_latents * is_active, -(is_near * (threshold * d_latents + d_active)).sum(dim=0)


def _auxiliary_loss(forward: Forward, residual: Tensor, is_silent: Tensor) -> Tensor:
    """Mean squared error of the residual's reconstruction by silent latents alone, at most d_in / 2 of them a row.

    Source: Gao et al. 2024, appendix A.2.
    """
    n_aux = min(residual.shape[1] // 2, len(is_silent))
    silent = torch.where(is_silent, forward.pre, 0.0)
    latents = select(silent, n_aux, is_batch_wide=False)
    return (latents @ forward.atoms - residual).square().sum() / residual.numel()


_FORWARD: dict[str, Callable[[Weights, Tensor, Rates, SAESettings], Forward]] = {
    "topk": _selected,
    "batch_topk": _selected,
    "matryoshka": _selected,
    "relu": _relu,
    "jumprelu": _jumprelu,
    "archetypal": _archetypal,
}
