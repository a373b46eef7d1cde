"""The recipe: how learning rate and k go through a run, when silent latents start again. All in shares of the run.

What is not from Gao et al. (2024, arXiv:2406.04093) is there because runs on embeddings are short, and was chosen by
measurement on planted dictionaries (`sfnetlab bench sae-quality`).
"""

import math

from sfnetlab.training.sae.settings import SAESettings
from sfnetlab.training.sae.stack import Rates

WARM_UP, DECAY = 0.05, 0.2
"""Shares of the run in which the learning rate rises, and in which it falls to zero."""
K_START, K_DESCENT = 8, 0.6
"""k starts at so many times its final value, and comes down in this share of the run."""
RESAMPLED_AT = (0.2, 0.35, 0.5, 0.65)
"""Where in the run silent latents start again."""
RESAMPLED_LENGTH = 0.2
"""Length of the encoder of a latent that starts again, in terms of the mean length (Bricken et al. 2023)."""
SILENT_EPOCHS = 0.5
"""A latent that was not active in this share of an epoch is silent."""


def peak_learning_rate(settings: SAESettings) -> float:
    """The one that was set, or one for the size of the dictionary."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    return (2e-3 if settings.variant == "matryoshka" else 4e-3) * math.sqrt(2048 / settings.n_latents)


def rates_at(settings: SAESettings, step: int, n_steps: int) -> Rates:
    """Where the schedules are at a step, counted from 0."""
    slope = min(1.0, (step + 1) / (WARM_UP * n_steps), (n_steps - step) / (DECAY * n_steps))
    first = max(settings.k, min(K_START * settings.k, settings.n_latents // 4))
    k = round(settings.k + (first - settings.k) * max(0.0, 1 - step / (K_DESCENT * n_steps)))
    return Rates(k, peak_learning_rate(settings) * slope)


def resampling_steps(n_steps: int) -> frozenset[int]:
    """Steps before which silent latents start again; not before the first, which gives Adam its means."""
    return frozenset(max(1, round(share * n_steps)) for share in RESAMPLED_AT)
