"""The k largest values of each row, everything else zero: the sparsity of an SFNet."""

import torch
from torch import Tensor


def keep_top_k(x: Tensor, k: int) -> Tensor:
    """Return x with the k largest values of each row as they are and the others set to zero.

    Rows do not influence each other. Among equal values those in the first columns win, so the result does not depend
    on the device. A zero that is kept stays zero: of non-negative input at most k values a row are non-zero.

    Parameters
    ----------
    x : Tensor of shape (n_samples, n_features)
        Activations, 0 or more where the count of non-zeros matters.

    Returns
    -------
    Tensor of shape (n_samples, n_features)
        Gradients flow through the values that are kept.

    Raises
    ------
    ValueError
        If k is not in [1, n_features].
    """
    if not 1 <= k <= x.shape[1]:
        raise ValueError(f"k must lie in [1, n_features={x.shape[1]}], got {k}")
    winners = x.sort(dim=1, descending=True, stable=True).indices[:, :k]
    is_kept = torch.zeros_like(x, dtype=torch.bool).scatter_(1, winners, True)
    return torch.where(is_kept, x, 0)
