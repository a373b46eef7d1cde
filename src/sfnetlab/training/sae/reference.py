"""The step of every variant in plain PyTorch: dense latents, autograd. Slow and readable; the kernels must equal it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sfnetlab.training.sae.stack import BETA_1, BETA_2, EPSILON, Rates, Stack, Step

Weights = dict[str, Tensor]

RELAXATION = 1.0
"""How far an archetypal atom may lie from the convex hull, in units of the embedding's scale (delta of 2502.12892)."""
BANDWIDTH = 0.5
"""Of the kernel through which JumpReLU's thresholds get their gradient, in units of the embedding's scale."""
L0_PENALTY = 0.1
"""Weight of JumpReLU's (L0 / k - 1)^2."""
L1_RATE = 0.02
"""How fast the weight of ReLU's L1 penalty follows L0 to k."""


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
    forward = _FORWARD[shape.variant](weights, z, rates.k, stack)
    errors = nested_reconstructions(forward.latents, forward.atoms, weights["b_dec"], shape.prefixes) - z
    squared_errors = errors.square().sum(dim=(1, 2))
    loss = squared_errors.mean() / z.numel() + forward.penalty
    if shape.auxk:
        is_silent = number - stack.last_active[s] > stack.silent_after
        loss = loss + shape.auxk * _auxiliary_loss(forward, -errors[-1].detach(), is_silent)
    loss.backward()

    with torch.no_grad():
        n_active = (forward.latents > 0).sum()
        is_active = (forward.latents > 0).any(dim=0)
        if shape.has_kernels:
            is_touched, gap = is_active, number - stack.last_active[s]
        else:
            is_touched, gap = torch.ones_like(is_active), torch.ones_like(stack.last_active[s])
        for name in trained:
            gradient = cast("Tensor", weights[name].grad)
            if name == "W_dec":
                gradient -= (gradient * weights[name]).sum(dim=1, keepdim=True) * weights[name]
            everywhere = name == "b_dec"
            _adam(
                (stack.weights[name][s], stack.first[name][s], stack.second[name][s]),
                gradient,
                None if everywhere else is_touched,
                torch.ones((), device=z.device) if everywhere else gap,
                rates.learning_rate,
                number,
            )
        if shape.variant == "archetypal":
            stack.weights["W_dec"][s] = _archetypes(_slice(stack.weights, s))
        elif stack.trains_decoder:
            W_dec = stack.weights["W_dec"][s]
            W_dec.copy_(torch.where(is_touched[:, None], normalize(W_dec), W_dec))
        stack.last_active[s] = torch.where(is_active, number, stack.last_active[s])
        return torch.stack([loss.detach() * len(z), squared_errors[-1].detach(), n_active])


def trained_weights(stack: Stack) -> tuple[str, ...]:
    """Names of the weights that Adam changes."""
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
    """What each nested dictionary makes of the latents, (len(prefixes), n, d_in)."""
    return torch.stack([torch.addmm(b_dec, latents[:, :prefix], atoms[:prefix]) for prefix in prefixes])


def _adam(
    state: tuple[Tensor, Tensor, Tensor],
    gradient: Tensor,
    is_touched: Tensor | None,
    gap: Tensor,
    learning_rate: float,
    number: int,
) -> None:
    """Kingma & Ba 2015, of the latents that are touched; means decay once for every step since the last touch."""
    weight, first, second = state
    decay = gap.to(weight.dtype).reshape(-1, *[1] * (weight.ndim - 1))
    mean = BETA_1**decay * first + (1 - BETA_1) * gradient
    square = BETA_2**decay * second + (1 - BETA_2) * gradient.square()
    correction_1, correction_2 = 1 - BETA_1 ** (number + 1), 1 - BETA_2 ** (number + 1)
    change = learning_rate * (mean / correction_1) / ((square / correction_2).sqrt() + EPSILON)
    for tensor, new in ((weight, weight - change), (first, mean), (second, square)):
        if is_touched is None:
            tensor.copy_(new)
        else:
            tensor.copy_(torch.where(is_touched.reshape(-1, *[1] * (tensor.ndim - 1)), new, tensor))


# --- the variants -----------------------------------------------------------------------------------------------------


def select(pre: Tensor, k: int, *, is_batch_wide: bool) -> Tensor:
    """ReLU of the k largest values of each row, or of the n k largest of all rows; the others are 0."""
    positive = torch.relu(pre)
    if is_batch_wide:
        kept = positive.flatten().topk(min(k * len(pre), pre.numel()))
        return torch.zeros_like(positive).flatten().scatter(0, kept.indices, kept.values).view_as(pre)
    kept = positive.topk(k, dim=1)
    return torch.zeros_like(positive).scatter(1, kept.indices, kept.values)


def _selected(weights: Weights, z: Tensor, k: int, stack: Stack) -> Forward:
    """Top-k (Gao et al. 2024), BatchTopK (Bussmann et al. 2024), Matryoshka (Bussmann et al. 2025)."""
    pre = _pre_activations(weights, z)
    return Forward(select(pre, k, is_batch_wide=stack.shape.is_batch_wide), pre, weights["W_dec"], 0.0)


def _relu(weights: Weights, z: Tensor, k: int, _: Stack) -> Forward:
    """ReLU with an L1 penalty (Bricken et al. 2023) whose weight follows the L0 to k."""
    pre = _pre_activations(weights, z)
    latents = torch.relu(pre)
    penalty = weights["l1"].clone() * latents.sum() / z.numel()  # a copy: it changes below
    with torch.no_grad():
        excess = (latents > 0).sum() / (k * len(z)) - 1
        weights["l1"].mul_(torch.exp(L1_RATE * excess.clamp(-1, 1)))
    return Forward(latents, pre, weights["W_dec"], penalty)


def _jumprelu(weights: Weights, z: Tensor, k: int, _: Stack) -> Forward:
    """JumpReLU with a penalty on L0's distance from k (Rajamanoharan et al. 2024, arXiv:2407.14435)."""
    pre = _pre_activations(weights, z)
    threshold = weights["log_threshold"].exp()
    latents, is_active = cast("tuple[Tensor, Tensor]", _Jump.apply(torch.relu(pre), threshold))
    mean_l0 = is_active.sum() / len(z)
    return Forward(latents, pre, weights["W_dec"], L0_PENALTY * (mean_l0 / k - 1).square())


def _archetypal(weights: Weights, z: Tensor, k: int, _: Stack) -> Forward:
    """Top-k with atoms near the convex hull of data points (RA-SAE; Fel et al. 2025, arXiv:2502.12892)."""
    atoms = _archetypes(weights)
    pre = _pre_activations(weights, z)
    return Forward(select(pre, k, is_batch_wide=False), pre, atoms, 0.0)


def _archetypes(weights: Weights) -> Tensor:
    """Directions of convex combinations of the points, each shifted by at most `RELAXATION`; (n_latents, d_in)."""
    mixture = torch.relu(weights["mixture"])
    mixture = mixture / mixture.sum(dim=1, keepdim=True).clamp_min(1e-12)
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


_FORWARD: dict[str, Callable[[Weights, Tensor, int, Stack], Forward]] = {
    "topk": _selected,
    "batch_topk": _selected,
    "matryoshka": _selected,
    "relu": _relu,
    "jumprelu": _jumprelu,
    "archetypal": _archetypal,
}
