"""The SAE training step that most people write, with dense latents and autograd: what the kernels are timed against.

It uses torch well, so that the ratio is fair: it decodes nested dictionaries by adding one group after another, and
changes weights in place by one fused operation.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sfnetlab.training.sae.reference import select
from sfnetlab.training.sae.settings import SAESettings
from sfnetlab.training.sae.state import DECODER_SPEED, EPSILON, MEAN_ROWS, SQUARE_ROWS


def make_plain_step(
    settings: SAESettings, weights: dict[str, Tensor], column_speeds: Tensor, learning_rate: float
) -> Callable[[Tensor], Tensor]:
    """Return a function that takes one training step on centred and scaled rows z (n, d_in) and returns their loss.

    Parameters
    ----------
    settings
        Of a variant that selects the k largest latents.
    weights
        The start, as in `SAEState` but of one SAE, without the dimension of SAEs. The weights are copied.
    column_speeds
        As in `SAEState`.
    learning_rate
        The same in every step.
    """
    W_enc, b_enc, W_dec, b_dec = (nn.Parameter(weights[name].clone()) for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    parts = [weight.detach() for weight in (W_enc, b_enc[:, None], W_dec, b_dec[None])]
    means, mean_squares = (
        [torch.zeros_like(part) for part in parts[:2]],
        [torch.zeros_like(part[:, 0]) for part in parts],
    )

    is_first = True

    def step(z: Tensor) -> Tensor:
        nonlocal is_first
        latents = select(torch.addmm(b_enc, z, W_enc.T), settings.k, is_batch_wide=settings.is_batch_wide)
        z_hat, squared_error, start = b_dec, torch.zeros((), device=z.device), 0
        for prefix in settings.prefixes:
            z_hat = z_hat + latents[:, start:prefix] @ W_dec[start:prefix]
            squared_error = squared_error + (z_hat - z).square().sum()
            start = prefix
        loss = squared_error / (len(settings.prefixes) * z.numel())
        gradients = torch.autograd.grad(loss, [W_enc, b_enc, W_dec, b_dec])
        with torch.no_grad():
            gradients[0].mul_(column_speeds)
            gradients[2].sub_((gradients[2] * W_dec).sum(dim=1, keepdim=True) * W_dec)
            for i, (part, mean_square) in enumerate(zip(parts, mean_squares, strict=True)):
                gradient, speed = gradients[i].view_as(part), learning_rate
                square = torch.linalg.vector_norm(gradient, dim=1).square() / part.shape[1]
                mean_square.lerp_(square, 1.0 if is_first else len(z) / SQUARE_ROWS)
                if i < len(means):
                    gradient = means[i].lerp_(gradient, 1.0 if is_first else len(z) / MEAN_ROWS)
                else:
                    speed *= DECODER_SPEED
                part.addcmul_(gradient, (mean_square.sqrt() + EPSILON).reciprocal()[:, None], value=-speed)
            W_dec.copy_(normalize(W_dec))
        is_first = False
        return loss.detach()

    return step
