"""Where in a cutout a feature comes from, for any feature that is a linear combination of what an encoder gives.

Of an encoder that averages its last convolutional map, a unit of a network, the pre-activation of an SAE's latent and
a principal component are averages of maps themselves: (mean of maps) · direction + offset = mean of (maps · direction +
offset). So their maps are exact, and their mean is the activation. It is what the gradient of the feature with respect
to the last convolutional map, times that map, gives (Grad-CAM without the ReLU; Selvaraju et al. 2017,
arXiv:1610.02391), and the class activation maps of Zhou et al. 2016 (arXiv:1512.04150). Where the encoder's own map has
fewer than 5 x 5 cells, it is shown on the finer grid of fine_maps.py, of which its own are every second or fourth.

Encoders that do not average (transformers) get the size of gradient times pixels, on a coarse grid: a hint, no sum.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sfnetlab.atlas.content import How
from sfnetlab.models.backbones import ImageEncoder
from sfnetlab.models.fine_maps import inputs_of, with_fine_maps

GRID = 14
"""Cells across and down a map by gradient."""
_TOLERANCE = 1e-4
"""How far the mean of a map may be from the pooled value, relative to the largest value."""


@dataclass(frozen=True)
class MapRequest:
    """The maps to make: an entry is a row of the images and a direction of the embedding to look at.

    Attributes
    ----------
    rows : (n,)
        Rows of the images, in any order.
    directions : callable
        From entries (m,) to (m, d_in): what the embedding is multiplied with.
    offsets : (n,)
        What is added to that.
    """

    rows: NDArray[np.intp]
    directions: Callable[[NDArray[np.intp]], NDArray[np.floating]]
    offsets: NDArray[np.floating]


@dataclass(frozen=True)
class Maps:
    """What `make_maps` made.

    Attributes
    ----------
    maps
        The maps (n, h, w) of each request, in the order of its entries.
    rows : (n_rows,)
        Every row of the images that was asked for, once, rising.
    outputs : (n_rows, n_outputs)
        What `run` gave for these rows.
    """

    maps: list[NDArray[np.float32]]
    rows: NDArray[np.intp]
    outputs: NDArray[np.float32]


def how_maps_are_made(encoder: ImageEncoder, images: NDArray[np.uint8], device: str) -> How:
    """Return "exact" if the embedding of these few images is the mean of the map before the pooling layer."""
    pool = getattr(encoder.backbone, "global_pool", None)
    if not isinstance(pool, nn.Module):
        return "gradient"
    with torch.no_grad(), inputs_of(pool) as seen:
        pooled = encoder(torch.from_numpy(np.array(images)).to(device))
    if len(seen) != 1 or seen[0].ndim != 4 or seen[0].shape[:2] != pooled.shape:
        return "gradient"
    error = (seen[0].mean(dim=(2, 3)) - pooled).abs().max()
    return "exact" if float(error) <= _TOLERANCE * float(pooled.abs().max()) else "gradient"


def make_maps(
    encoder: ImageEncoder,
    run: Callable[[Tensor], Tensor],
    images: NDArray[np.uint8],
    requests: Sequence[MapRequest],
    how: How,
    *,
    device: str,
    batch_size: int = 64,
) -> Maps:
    """Make all maps in one run over the images that are asked for.

    Parameters
    ----------
    encoder
        Ready to embed, on the device.
    run
        What is run on each batch of images: the encoder, or the prediction of the network that it is part of.
    images : uint8 (n, side, side, 3)
        May be memory-mapped.
    how
        From `how_maps_are_made`. With "gradient" each entry costs a run of its own.
    """
    finer = with_fine_maps(encoder, torch.from_numpy(np.array(images[:1])).to(device)) if how == "exact" else encoder
    pool = finer.backbone.global_pool if how == "exact" else encoder
    assert isinstance(pool, nn.Module)
    wanted = np.unique(np.concatenate([request.rows for request in requests]))
    in_order = [np.argsort(request.rows, kind="stable") for request in requests]
    sorted_rows = [request.rows[order] for request, order in zip(requests, in_order, strict=True)]
    made: list[list[NDArray[np.float32]]] = [[] for _ in requests]
    outputs = []
    for start in range(0, len(wanted), batch_size):
        rows = wanted[start : start + batch_size]
        batch = torch.from_numpy(np.asarray(images[rows])).to(device)
        with torch.no_grad(), inputs_of(pool) as seen:
            outputs.append(run(batch).float().cpu().numpy())
            if finer is not encoder:
                finer(batch)
        for request, order, ordered, parts in zip(requests, in_order, sorted_rows, made, strict=True):
            first, last = np.searchsorted(ordered, [rows[0], rows[-1] + 1])
            if first == last:
                continue
            entries, places = order[first:last], np.searchsorted(rows, ordered[first:last])
            directions = torch.from_numpy(np.asarray(request.directions(entries), dtype=np.float32)).to(device)
            if how == "exact":
                maps = torch.einsum("ncyx,nc->nyx", seen[0].float()[torch.from_numpy(places).to(device)], directions)
                parts.append(maps.cpu().numpy() + request.offsets[entries].astype(np.float32)[:, None, None])
            else:
                parts.append(_by_gradient(encoder, batch, places, directions))
    return Maps(
        [_in_order(parts, order) for parts, order in zip(made, in_order, strict=True)], wanted, np.concatenate(outputs)
    )


def _in_order(parts: list[NDArray[np.float32]], order: NDArray[np.intp]) -> NDArray[np.float32]:
    if not parts:
        return np.zeros((0, 1, 1), dtype=np.float32)
    sorted_maps = np.concatenate(parts)
    maps = np.empty_like(sorted_maps)
    maps[order] = sorted_maps
    return maps


def _by_gradient(
    encoder: ImageEncoder, batch: Tensor, places: NDArray[np.intp], directions: Tensor, at_once: int = 32
) -> NDArray[np.float32]:
    """Absolute gradient times pixel, summed over channels and averaged over the cells of a grid."""
    parts = []
    for start in range(0, len(places), at_once):
        some = torch.from_numpy(places[start : start + at_once]).to(batch.device)
        with _leaf_input(encoder.backbone) as seen, torch.enable_grad():
            value = (encoder(batch[some]) * directions[start : start + at_once]).sum()
            (gradient,) = torch.autograd.grad(value, seen[0])
        weight = (gradient * seen[0].detach()).sum(dim=1, keepdim=True).abs()
        parts.append(nn.functional.adaptive_avg_pool2d(weight, GRID)[:, 0].float().cpu().numpy())
    return np.concatenate(parts)


@contextmanager
def _leaf_input(module: nn.Module) -> Iterator[list[Tensor]]:
    """Make what the module is given a leaf of the graph, so that gradients end there."""
    seen: list[Tensor] = []

    def replace(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(inputs[0].detach().requires_grad_())
        return (seen[0], *inputs[1:])

    hook = module.register_forward_pre_hook(replace)
    try:
        yield seen
    finally:
        hook.remove()
