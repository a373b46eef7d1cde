"""The recipe: how learning rate and k go through a run, when latents start again. All in shares of the run.

What is not from Gao et al. (2024, arXiv:2406.04093) is there because runs on embeddings are short, and was chosen by
measurement on planted dictionaries and on DINOv2 embeddings of galaxies; `sfnetlab bench sae-quality` measures again.
"""

import math

from sfnetlab.training.sae.settings import SAESettings, Variant
from sfnetlab.training.sae.state import Rates

BATCH_SIZES = (256, 128, 64)
"""Of these the largest is taken that makes `FEWEST_STEPS`, or the last: few steps leave latents unfinished. Learning
rates are given for the first."""
FEWEST_STEPS = 1800
LEARNING_RATES = {"relu": 7e-3, "jumprelu": 2.5e-3}
"""Of variants that want another than 3.5e-3, at 2,048 latents."""
WARM_UP, DECAY = 0.05, 0.25
"""Shares of the run in which the learning rate rises, and in which it falls to zero."""
K_START, K_DESCENT = 8, 0.4
"""k starts at so many times its final value, and comes down in this share of the run."""
RESAMPLED_AT = (0.35, 0.45, 0.55, 0.65, 0.75, 0.85)
"""Where in the run latents start again: earlier k is large, and no atom seems to be missing."""
RESAMPLED_LATE = 0.95
"""And once more for "relu" and "jumprelu", whose latents fall silent until the end."""
RESTART_GAIN = 4.0
"""By how many times what a new atom gains must exceed what the latent is worth that makes room for it."""
STANDARD_ERRORS = 2.0
"""A latent is taken to be worth so many standard errors more than it seems."""
CANDIDATES = 0.25
"""How many atoms are tried each time, in terms of the number of latents."""
ALIKE, SAME = 0.5, 0.9
"""Cosines to a better new atom above which one may take the place of a silent latent only, and of none."""
RESTART_RESPONSE = 0.5
"""What the encoder of a latent that starts again answers to its own atom: in full it would push aside too much."""
FILTER_RIDGE = 0.3
"""Ridge on the rows' covariance in that encoder, in terms of the mean variance of a column."""
L1_PEAK, L1_END, L1_RISE = 0.375, 0.1, 0.3
"""Of "relu", in units of sqrt(d_in / k), about the size of a latent: the L1 penalty's weight rises to the first in this
share of the run, and falls to the second with the learning rate. Few steps do not find the weight for a given L0: one
that follows L0 swings. This one leaves about 2 k latents active; the threshold that is set in the end leaves k."""
RESTART_L0 = {"relu": 3.0, "jumprelu": 1.0}
"""A latent that starts again is active on so many times k / n_latents of the rows, where nothing else limits that."""
SILENT_EPOCHS, SILENT_SHARE = 0.5, 0.05
"""A latent that was not active in these shares of an epoch and of the run, whichever is longer, is silent."""


def batch_size(n_rows: int, epochs: int) -> int:
    """Rows a step for so many passes over so many rows."""
    return next((size for size in BATCH_SIZES if n_rows * epochs >= FEWEST_STEPS * size), BATCH_SIZES[-1])


def peak_learning_rate(settings: SAESettings, n_batch: float) -> float:
    """The one that was set, or one for the size of the dictionary and for batches of about `n_batch` rows.

    An adaptive rate goes with the root of the batch where gradients are mostly noise (Malladi et al. 2022,
    arXiv:2205.10287).
    """
    if settings.learning_rate is not None:
        return settings.learning_rate
    return (
        LEARNING_RATES.get(settings.variant, 3.5e-3)
        * math.sqrt(2048 / settings.n_latents)
        * math.sqrt(n_batch / BATCH_SIZES[0])
    )


def rates_at(settings: SAESettings, step: int, n_steps: int, n_batch: float, d_in: int) -> Rates:
    """Where the schedules are at a step, counted from 0, for rows of mean square 1."""
    slope = min(1.0, (step + 1) / (WARM_UP * n_steps), (n_steps - step) / (DECAY * n_steps))
    return Rates(
        k_at(settings, step, n_steps),
        peak_learning_rate(settings, n_batch) * slope,
        _l1_weight(settings.k, d_in, step, n_steps) if settings.variant == "relu" else 0.0,
    )


def k_at(settings: SAESettings, step: int, n_steps: int) -> int:
    """Active latents a row at a step."""
    first = max(settings.k, min(K_START * settings.k, settings.n_latents // 4))
    return round(settings.k + (first - settings.k) * max(0.0, 1 - step / (K_DESCENT * n_steps)))


def _l1_weight(k: int, d_in: int, step: int, n_steps: int) -> float:
    rise, left = min(1.0, (step + 1) / (L1_RISE * n_steps)), min(1.0, (n_steps - step) / (DECAY * n_steps))
    return rise * (L1_END + (L1_PEAK - L1_END) * left) * math.sqrt(d_in / k)


def silent_after(n_steps: int, steps_per_epoch: int) -> int:
    """After how many steps without activity a latent counts as silent."""
    return math.ceil(max(SILENT_EPOCHS * steps_per_epoch, SILENT_SHARE * n_steps))


def resampling_steps(variant: Variant, n_steps: int) -> frozenset[int]:
    """Steps before which latents start again; not before the first, before which no latent was active."""
    shares = (*RESAMPLED_AT, RESAMPLED_LATE) if variant in ("relu", "jumprelu") else RESAMPLED_AT
    return frozenset(max(1, round(share * n_steps)) for share in shares)
