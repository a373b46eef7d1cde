"""The recipe: how learning rate and k go through a run, and when latents start again, in shares of the run.

What is not from Gao et al. (2024, arXiv:2406.04093) is there because runs on embeddings are short, and was chosen by
measurement on planted dictionaries and on DINOv2 embeddings of galaxies; `sfnetlab bench sae-quality` measures again.
"""

import math

from sfnetlab.training.sae.settings import SAESettings, Variant
from sfnetlab.training.sae.state import Rates

BATCH_SIZES = (256, 128, 64)
"""Numbers of rows a step. The largest is taken with which a run has `FEWEST_STEPS`, or else the last: few steps leave
latents unfinished. Learning rates are given for the first."""
FEWEST_STEPS = 1800
_LEARNING_RATE = 3.5e-3
"""Peak learning rate for a dictionary of 2,048 latents."""
LEARNING_RATES = {"relu": 7e-3, "jumprelu": 2.5e-3}
"""Peak learning rates of the variants that want another one."""
WARM_UP, DECAY = 0.05, 0.25
"""Shares of the run in which the learning rate rises, and in which it falls to zero."""
K_START, K_DESCENT = 8, 0.4
"""k starts at this multiple of its final value, and comes down to that in this share of the run."""
RESAMPLED_AT = (0.35, 0.45, 0.55, 0.65, 0.75, 0.85)
"""Moments of the run at which latents start again. Earlier k is large, and no atom seems to be missing."""
RESAMPLED_LATE = 0.95
"""One more such moment for "relu" and "jumprelu", whose latents fall silent until the end."""
RESTART_GAIN = 4.0
"""What a new atom gains must be more than this multiple of what the latent is worth that makes room for it."""
STANDARD_ERRORS = 2.0
"""Number of standard errors by which a latent is taken to be worth more than it seems."""
CANDIDATES = 0.25
"""Number of new atoms that are tried each time, as a share of the number of latents."""
ALIKE, SAME = 0.5, 0.9
"""Cosines to a better new atom above which an atom may take the place of a silent latent only, and of no latent."""
RESTART_RESPONSE = 0.5
"""What the encoder of a latent that starts again answers to its own atom; a full 1 would push aside too much."""
FILTER_RIDGE = 0.3
"""Ridge on the rows' covariance in that encoder, as a multiple of the mean variance of a column."""
L1_PEAK, L1_END, L1_RISE = 0.375, 0.1, 0.3
"""Weight of the L1 penalty of "relu", in units of sqrt(d_in / k), which is about the size of a latent. It rises to
L1_PEAK in the share L1_RISE of the run, and falls to L1_END with the learning rate. Few steps do not find the weight
for a given L0: one that follows L0 swings. This one leaves about 2 k latents active; the threshold that is set in the
end leaves k."""
RESTART_L0 = {"relu": 3.0, "jumprelu": 1.0}
"""Share of the rows on which a latent that starts again is active, over k / n_latents, in variants without a top-k."""
SILENT_EPOCHS, SILENT_SHARE = 0.5, 0.05
"""A latent is silent if it was not active for this share of an epoch, or this share of the run if that is longer."""


def batch_size(n_rows: int, epochs: int) -> int:
    """Number of rows a step, for `epochs` passes over n_rows rows."""
    return next((size for size in BATCH_SIZES if n_rows * epochs >= FEWEST_STEPS * size), BATCH_SIZES[-1])


def peak_learning_rate(settings: SAESettings, n_batch: float) -> float:
    """The peak learning rate that was set, or one for the size of the dictionary and for n_batch rows a step.

    An adaptive rate goes with the root of the batch where gradients are mostly noise (Malladi et al. 2022,
    arXiv:2205.10287).
    """
    if settings.learning_rate is not None:
        return settings.learning_rate
    return (
        LEARNING_RATES.get(settings.variant, _LEARNING_RATE)
        * math.sqrt(2048 / settings.n_latents)
        * math.sqrt(n_batch / BATCH_SIZES[0])
    )


def rates_at(settings: SAESettings, step: int, n_steps: int, n_batch: float, d_in: int) -> Rates:
    """What the schedules say at a step, counted from 0, for rows of mean square 1 and about n_batch of them a step."""
    slope = min(1.0, (step + 1) / (WARM_UP * n_steps), (n_steps - step) / (DECAY * n_steps))
    return Rates(
        k_at(settings, step, n_steps),
        peak_learning_rate(settings, n_batch) * slope,
        _l1_weight(settings.k, d_in, step, n_steps) if settings.variant == "relu" else 0.0,
    )


def k_at(settings: SAESettings, step: int, n_steps: int) -> int:
    """Number of active latents a row at a step."""
    first = max(settings.k, min(K_START * settings.k, settings.n_latents // 4))
    return round(settings.k + (first - settings.k) * max(0.0, 1 - step / (K_DESCENT * n_steps)))


def _l1_weight(k: int, d_in: int, step: int, n_steps: int) -> float:
    rise, left = min(1.0, (step + 1) / (L1_RISE * n_steps)), min(1.0, (n_steps - step) / (DECAY * n_steps))
    return rise * (L1_END + (L1_PEAK - L1_END) * left) * math.sqrt(d_in / k)


def silent_after(n_steps: int, steps_per_epoch: int) -> int:
    """Number of steps without activity after which a latent counts as silent."""
    return math.ceil(max(SILENT_EPOCHS * steps_per_epoch, SILENT_SHARE * n_steps))


def resampling_steps(variant: Variant, n_steps: int) -> frozenset[int]:
    """Numbers of the steps before which latents start again; never the first one, before which no latent was active."""
    shares = (*RESAMPLED_AT, RESAMPLED_LATE) if variant in ("relu", "jumprelu") else RESAMPLED_AT
    return frozenset(max(1, round(share * n_steps)) for share in shares)
