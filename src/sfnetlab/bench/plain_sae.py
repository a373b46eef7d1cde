"""The training loop that most people write: dense latents, autograd, whole tensors. What kernels are timed against.

It uses the library well (nested dictionaries by adding one group after another, weights changed in place by one fused
operation), so that the ratio is fair.
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
    """A step from rows z (n, d_in), centred and scaled, to their loss; of variants with a top-k.

    `weights` and `column_speeds` are as in `SAEState`; they are copied.
    """
    own = {name: nn.Parameter(tensor.clone()) for name, tensor in weights.items()}
    W_enc, b_enc, W_dec, b_dec = (own[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
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
