"""Penalties that keep the features of a Sparse Feature Network apart while it learns: none changes how it predicts."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from sfnetlab.models.topk import keep_top_k

Penalty = Literal["decorrelation", "load_balance"]


def decorrelation(pooled: Tensor) -> Tensor:
    """Return how correlated features (n, d) of a batch are: the sum of all squared correlations of two, over d.

    This is the covariance term of VICReg (equations 3 and 4) of features divided by their standard deviations, as those
    of Barlow Twins are, so that features cannot escape it by becoming small. n rows of independent features have about
    (d - 1) / (n - 1).

    References
    ----------
    Bardes, Ponce & LeCun 2022, VICReg, ICLR. Zbontar et al. 2021, Barlow Twins, ICML.
    """
    centred = pooled - pooled.mean(dim=0)
    scaled = centred / (centred.square().mean(dim=0) + 1e-4).sqrt()
    correlations = scaled.T @ scaled / len(pooled)
    return (correlations.square().sum() - correlations.diagonal().square().sum()) / pooled.shape[1]


def load_balance(pooled: Tensor, k: int) -> Tensor:
    """Return how unevenly the k active features of n galaxies (n, d) fall on the d features: 1 where all are even.

    This is the auxiliary loss of the Switch Transformer (equations 4 to 6), for k choices a row: d times the sum over
    features of the share of choices that fall on a feature times its mean probability, the softmax of the features. As
    the share has no gradient, it weighs by how much each feature is to become smaller.

    References
    ----------
    Fedus, Zoph & Shazeer 2022, JMLR 23, 120. Shazeer et al. 2017, ICLR (the importance of experts).
    """
    share = (keep_top_k(pooled.detach(), k) != 0).float().mean(dim=0)
    return pooled.shape[1] * (share / share.sum().clamp(min=1e-12) * torch.softmax(pooled, dim=1).mean(dim=0)).sum()


def penalties_of(pooled: Tensor, k: int, weights: Mapping[Penalty, float]) -> Tensor:
    """Return the penalties (n_weights,) of pooled features (n, d), in the order of their weights, in float32."""
    terms: dict[Penalty, Callable[[Tensor], Tensor]] = {
        "decorrelation": decorrelation,
        "load_balance": lambda features: load_balance(features, k),
    }
    return torch.stack([terms[name](pooled.float()) for name in weights])
