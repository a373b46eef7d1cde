"""Optimisers of networks, and the learning rate as a function of the step."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """Which optimiser trains a network, and with which learning rates."""

    optimizer: Literal["adamw", "ranger"]
    """See `make_optimizer`."""
    schedule: Literal["one_cycle", "flat_cosine"]
    """See `learning_rate_at`."""
    learning_rate: float
    """Largest learning rate of the run."""
    weight_decay: float
    """Decoupled weight decay of the weights; biases and norms have none."""


def make_optimizer(module: nn.Module, optimization: Optimization) -> torch.optim.Optimizer:
    """Return the optimiser of a module's parameters, which starts at the largest learning rate.

    "adamw" is torch's AdamW. "ranger" is Lookahead around RAdam with the constants of fastai's `ranger`, which the
    SFNet paper used. Weight decay is decoupled and leaves biases and norms alone, that is parameters with one
    dimension.
    """
    decayed = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": optimization.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if optimization.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=optimization.learning_rate)
    from timm.optim import Lookahead

    inner = torch.optim.RAdam(
        groups, lr=optimization.learning_rate, betas=(0.95, 0.99), eps=1e-6, decoupled_weight_decay=True
    )
    return Lookahead(inner, alpha=0.5, k=6)


def learning_rate_at(step: int, n_steps: int, optimization: Optimization) -> float:
    """Return the learning rate of a step, counted from 0, in a run of `n_steps`.

    "one_cycle" rises along a cosine from 1/25 of the largest learning rate over the first quarter of the run and falls
    along another to 1e-5 of it, as fastai's `fit_one_cycle` (Smith 2018, arXiv:1803.09820). "flat_cosine" is flat for
    three quarters and falls along a cosine to zero.
    """
    done, largest = step / n_steps, optimization.learning_rate
    if optimization.schedule == "flat_cosine":
        return _cosine(largest, 0.0, max(0.0, (done - 0.75) / 0.25))
    if done < 0.25:
        return _cosine(largest / 25, largest, done / 0.25)
    return _cosine(largest, largest * 1e-5, (done - 0.25) / 0.75)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
