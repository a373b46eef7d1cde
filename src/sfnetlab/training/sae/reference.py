"""The step of every variant in plain PyTorch: dense latents, autograd. Slow and readable; the kernels must equal it."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sfnetlab.training.sae.stack import DECODER_SPEED, ENCODER, EPSILON, MEAN_ROWS, SQUARE_ROWS, Rates, Stack, Step

Weights = dict[str, Tensor]

RELAXATION = 1.0
"""How far an archetypal atom may lie from the convex hull, in units of the embedding's scale (delta of 2502.12892)."""
BANDWIDTH = 1.0
"""Of the kernel through which JumpReLU's thresholds get their gradient, in units of the embedding's scale."""
L0_PENALTY = 1.0
"""Weight of JumpReLU's (L0 / k - 1)^2."""
MIXTURE_SPEED = 3.0
"""How many times as fast as other weights the logits of archetypal mixtures move."""


class Forward(NamedTuple):
    """What a variant makes of a batch."""

    latents: Tensor
    """(n, n_latents)"""
    pre: Tensor
    """(n, n_latents), before the activation."""
    atoms: Tensor
    """(n_latents, d_in)"""
    penalty: Tensor | float
    """What the loss has beside the mean squared error."""


def make_step(stacks: Sequence[Stack]) -> Step:
    """A step that takes each SAE of each stack in turn."""
    places = [(stack, s) for stack in stacks for s in range(stack.n_saes)]

    def step(z: Tensor, rates: Sequence[Rates], number: int) -> Tensor:
        return torch.stack(
            [_step_one(stack, s, z, rate, number) for (stack, s), rate in zip(places, rates, strict=True)]
        )

    return step


def _step_one(stack: Stack, s: int, z: Tensor, rates: Rates, number: int) -> Tensor:
    shape = stack.shape
    trained = trained_weights(stack)
    weights = {name: tensor[s].detach().requires_grad_(name in trained) for name, tensor in stack.weights.items()}
    forward = _FORWARD[shape.variant](weights, z, rates, stack)
    errors = nested_reconstructions(forward.latents, forward.atoms, weights["b_dec"], shape.prefixes) - z
    squared_errors = errors.square().sum(dim=(1, 2))
    loss = squared_errors.mean() / z.numel() + forward.penalty
    if shape.auxk:
        is_silent = number - stack.last_active[s] > stack.silent_after
        loss = loss + shape.auxk * _auxiliary_loss(forward, -errors[-1].detach(), is_silent)
    loss.backward()

    with torch.no_grad():
        is_active = forward.latents.amax(dim=0) > 0
        gap = torch.ones_like(stack.last_active[s])
        if shape.has_kernels:
            gap = torch.where(is_active, number - stack.last_active[s], 0)
        for name in trained:
            gradient = cast("Tensor", weights[name].grad)
            if name == "W_dec":
                gradient -= (gradient * weights[name]).sum(dim=1, keepdim=True) * weights[name]
            if name == "W_enc":
                gradient *= stack.column_speeds
            own_gap = torch.ones(1, device=z.device) if name == "b_dec" else gap
            _move(stack, s, name, gradient, own_gap, rates.learning_rate, len(z))
        if shape.variant == "archetypal":
            stack.weights["W_dec"][s] = archetypes(_slice(stack.weights, s))
        elif stack.trains_decoder:
            W_dec = stack.weights["W_dec"][s]
            W_dec.copy_(torch.where(gap[:, None] > 0, normalize(W_dec), W_dec))
        stack.last_active[s] = torch.where(is_active, number, stack.last_active[s])
        return torch.stack([loss.detach() * len(z), squared_errors[-1].detach(), forward.latents.count_nonzero()])


def trained_weights(stack: Stack) -> tuple[str, ...]:
    """Names of the weights that a step changes."""
    encoder = ("W_enc", "b_enc") if stack.trains_encoder else ()
    match stack.shape.variant:
        case "archetypal":
            decoder: tuple[str, ...] = ("mixture", "relaxation")
        case "jumprelu":
            decoder = ("W_dec", "log_threshold")
        case _:
            decoder = ("W_dec",) if stack.trains_decoder else ()
    return (*encoder, *decoder, "b_dec")


def nested_reconstructions(latents: Tensor, atoms: Tensor, b_dec: Tensor, prefixes: Sequence[int]) -> Tensor:
    """What each nested dictionary makes of the latents, (len(prefixes), n, d_in): each adds to the one before."""
    z_hats = [b_dec]
    for start, end in pairwise((0, *prefixes)):
        z_hats.append(torch.addmm(z_hats[-1], latents[:, start:end], atoms[start:end]))
    return torch.stack(z_hats[1:])


def _move(stack: Stack, s: int, name: str, gradient: Tensor, gap: Tensor, learning_rate: float, n_rows: int) -> None:
    """Step 4 of stack.py. Where `gap` is 0 a latent is not touched, its gradient is 0, and nothing changes."""
    mean_square = stack.mean_squares[name][s]
    weight, gradient = (tensor.view(len(mean_square), -1) for tensor in (stack.weights[name][s], gradient))
    is_first, square = (mean_square == 0) & (gap > 0), gradient.square().mean(dim=1)
    mean_square.copy_(torch.where(is_first, square, _running(mean_square, square, gap, n_rows / SQUARE_ROWS)))
    if name in stack.means:
        mean = stack.means[name][s].view_as(weight)
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
    """ReLU of the k largest values of each row, or of the n k largest of all rows; the others are 0."""
    positive = torch.relu(pre)
    if is_batch_wide:
        kept = positive.flatten().topk(min(k * len(pre), pre.numel()))
        return torch.zeros_like(positive).flatten().scatter(0, kept.indices, kept.values).view_as(pre)
    kept = positive.topk(k, dim=1)
    return torch.zeros_like(positive).scatter(1, kept.indices, kept.values)


def _selected(weights: Weights, z: Tensor, rates: Rates, stack: Stack) -> Forward:
    """Top-k (Gao et al. 2024), BatchTopK (Bussmann et al. 2024), Matryoshka (Bussmann et al. 2025)."""
    pre = _pre_activations(weights, z)
    return Forward(select(pre, rates.k, is_batch_wide=stack.shape.is_batch_wide), pre, weights["W_dec"], 0.0)


def _relu(weights: Weights, z: Tensor, rates: Rates, _: Stack) -> Forward:
    """ReLU with an L1 penalty (Bricken et al. 2023), in full where 2 k latents are active and more, none below k."""
    pre = _pre_activations(weights, z)
    latents = torch.relu(pre)
    excess = (latents > 0).sum() / (rates.k * len(z)) - 1
    return Forward(latents, pre, weights["W_dec"], rates.l1 * excess.clamp(0, 1) * latents.sum() / z.numel())


def _jumprelu(weights: Weights, z: Tensor, rates: Rates, _: Stack) -> Forward:
    """JumpReLU with a penalty on L0's distance from k (Rajamanoharan et al. 2024, arXiv:2407.14435)."""
    pre = _pre_activations(weights, z)
    threshold = weights["log_threshold"].exp()
    latents, is_active = cast("tuple[Tensor, Tensor]", _Jump.apply(torch.relu(pre), threshold))
    mean_l0 = is_active.sum() / len(z)
    return Forward(latents, pre, weights["W_dec"], L0_PENALTY * (mean_l0 / rates.k - 1).square())


def _archetypal(weights: Weights, z: Tensor, rates: Rates, _: Stack) -> Forward:
    """Top-k with atoms near the convex hull of data points (RA-SAE; Fel et al. 2025, arXiv:2502.12892)."""
    atoms = archetypes(weights)
    pre = _pre_activations(weights, z)
    return Forward(select(pre, rates.k, is_batch_wide=False), pre, atoms, 0.0)


def archetypes(weights: Weights) -> Tensor:
    """Directions of convex combinations of the points, each shifted by at most `RELAXATION`; (n_latents, d_in).

    The combinations are a softmax: shares that were clipped at 0, as in the paper, would get no gradient there.
    """
    mixture = torch.softmax(MIXTURE_SPEED * weights["mixture"], dim=1)
    relaxation = weights["relaxation"]
    relaxation = relaxation * (RELAXATION / relaxation.norm(dim=1, keepdim=True).clamp_min(RELAXATION))
    return normalize(mixture @ weights["points"] + relaxation)


def _pre_activations(weights: Weights, z: Tensor) -> Tensor:
    return torch.addmm(weights["b_enc"], z, weights["W_enc"].T)


class _Jump(torch.autograd.Function):
    """x where x > threshold, and 1 there; the gradients of the thresholds are those of a rectangle of `BANDWIDTH`."""

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
    """How well the silent latents alone, at most d_in / 2 of them a row, make the residual (Gao et al. 2024, A.2)."""
    n_aux = min(residual.shape[1] // 2, len(is_silent))
    silent = torch.where(is_silent, forward.pre, 0.0)
    latents = select(silent, n_aux, is_batch_wide=False)
    return (latents @ forward.atoms - residual).square().sum() / residual.numel()


def _slice(weights: Weights, s: int) -> Weights:
    return {name: tensor[s] for name, tensor in weights.items()}


_FORWARD: dict[str, Callable[[Weights, Tensor, Rates, Stack], Forward]] = {
    "topk": _selected,
    "batch_topk": _selected,
    "matryoshka": _selected,
    "relu": _relu,
    "jumprelu": _jumprelu,
    "archetypal": _archetypal,
}
