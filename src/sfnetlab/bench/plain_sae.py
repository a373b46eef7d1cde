"""The training loop that most people write: dense latents, autograd, torch's own Adam. What kernels are timed against.

It uses the library well (fused Adam, nested dictionaries by adding one group after another), so that the ratio is fair.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sfnetlab.training.sae.reference import select
from sfnetlab.training.sae.settings import SAESettings
from sfnetlab.training.sae.stack import BETA_1, BETA_2, EPSILON


def make_plain_step(
    settings: SAESettings, weights: dict[str, Tensor], learning_rate: float
) -> Callable[[Tensor], Tensor]:
    """A step from rows z (n, d_in), centred and scaled, to their loss; of variants with a top-k.

    `weights` as in `Stack.weights`, of one SAE and without its dimension; they are copied.
    """
    own = {name: nn.Parameter(tensor.clone()) for name, tensor in weights.items()}
    W_enc, b_enc, W_dec, b_dec = (own[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    adam = torch.optim.Adam(own.values(), learning_rate, (BETA_1, BETA_2), EPSILON, fused=True)

    def step(z: Tensor) -> Tensor:
        adam.zero_grad()
        latents = select(torch.addmm(b_enc, z, W_enc.T), settings.k, is_batch_wide=settings.is_batch_wide)
        z_hat, squared_error, start = b_dec, torch.zeros((), device=z.device), 0
        for prefix in settings.prefixes:
            z_hat = z_hat + latents[:, start:prefix] @ W_dec[start:prefix]
            squared_error = squared_error + (z_hat - z).square().sum()
            start = prefix
        loss = squared_error / (len(settings.prefixes) * z.numel())
        loss.backward()
        with torch.no_grad():
            gradient = W_dec.grad
            assert gradient is not None
            gradient -= (gradient * W_dec).sum(dim=1, keepdim=True) * W_dec
            adam.step()
            W_dec.copy_(normalize(W_dec))
        return loss.detach()

    return step
