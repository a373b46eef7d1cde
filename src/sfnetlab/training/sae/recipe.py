"""The recipe: how learning rate and k go through a run, when latents start again. All in shares of the run.

What is not from Gao et al. (2024, arXiv:2406.04093) is there because runs on embeddings are short, and was chosen by
measurement on planted dictionaries (`sfnetlab bench sae-quality`).
"""

import math

from sfnetlab.training.sae.settings import SAESettings
from sfnetlab.training.sae.stack import Rates

WARM_UP, DECAY = 0.05, 0.25
"""Shares of the run in which the learning rate rises, and in which it falls to zero."""
K_START, K_DESCENT = 8, 0.4
"""k starts at so many times its final value, and comes down in this share of the run."""
RESAMPLED_AT = (0.35, 0.45, 0.55, 0.65, 0.75)
"""Where in the run latents that are worth little start again: earlier k is large, and no atom seems to be missing."""
RESTART_GAIN = 4.0
"""By how many times what an atom gains on rows must exceed what the latent is worth that makes room for it."""
RESTART_LENGTH = 0.2
"""Length of the encoder of a latent that starts again, in terms of the mean length (Bricken et al. 2023)."""
SAME_ATOM = 0.5
"""Cosine above which two new atoms are one."""
SILENT_EPOCHS = 0.5
"""A latent that was not active in this share of an epoch is silent: the auxiliary loss is about those."""


def peak_learning_rate(settings: SAESettings) -> float:
    """The one that was set, or one for the size of the dictionary."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    return (2e-3 if settings.variant == "matryoshka" else 3.5e-3) * math.sqrt(2048 / settings.n_latents)


def rates_at(settings: SAESettings, step: int, n_steps: int) -> Rates:
    """Where the schedules are at a step, counted from 0."""
    slope = min(1.0, (step + 1) / (WARM_UP * n_steps), (n_steps - step) / (DECAY * n_steps))
    first = max(settings.k, min(K_START * settings.k, settings.n_latents // 4))
    k = round(settings.k + (first - settings.k) * max(0.0, 1 - step / (K_DESCENT * n_steps)))
    return Rates(k, peak_learning_rate(settings) * slope)


def resampling_steps(n_steps: int) -> frozenset[int]:
    """Steps before which latents start again; not before the first, which gives Adam its means."""
    return frozenset(max(1, round(share * n_steps)) for share in RESAMPLED_AT)
