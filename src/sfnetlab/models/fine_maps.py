"""Last convolutional maps of a trained ResNet on a finer grid, without training: strides become dilations.

A stride leaves out positions that the same weights can be applied to as well. At stride 1, with the kernels of all
later convolutions spread out by as much (the à-trous algorithm; Long, Shelhamer & Darrell 2015, arXiv:1411.4038,
section 3.2), a network also gives the values between those of its own map, which it still gives where they were.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from sfnetlab.metrics.maps import is_fine
from sfnetlab.models.backbones import ImageEncoder

STAGES = ("layer4", "layer3", "layer2")
"""Stages of timm's ResNets that begin with a stride, the last first."""
_TOLERANCE = 1e-4
"""How far a cell of the finer map may be from the network's own, relative to the largest."""


def with_fine_maps(encoder: ImageEncoder, images: Tensor) -> ImageEncoder:
    """Return a copy of an encoder, of the same weights, whose last map has at least 5 x 5 cells.

    As few strides as that takes are replaced, those of the last stages. Every second (fourth, eighth) row and column of
    the finer map are the encoder's own map; that is tried on the images. The copy is for maps alone: its pooled
    features are others. The encoder itself is returned where its map is fine enough, where it is no ResNet of timm's,
    and where its map would not stay what it is (a block that averages over the map, a blur) or not be fine enough even
    so: then the map says how coarse it is.

    Parameters
    ----------
    images : uint8 (n, side, side, 3)
        A few cutouts on the encoder's device.
    """
    backbone: Any = encoder.backbone
    if not all(isinstance(getattr(backbone, stage, None), nn.Sequential) for stage in STAGES):
        return encoder
    with torch.no_grad():
        coarse = last_map(encoder, images)
        fine, step = coarse, 1
        finer = deepcopy(encoder).eval()
        for n_stages in range(1, len(STAGES) + 1):
            if is_fine(fine):
                break
            finer, step = deepcopy(encoder).eval(), 2**n_stages
            for place, stage in enumerate(reversed(STAGES[:n_stages])):
                _spread(getattr(finer.backbone, stage), 2**place)
            fine = last_map(finer, images)
    same = fine[:, :, ::step, ::step]
    is_same = same.shape == coarse.shape and (same - coarse).abs().max() <= _TOLERANCE * coarse.abs().max()
    return finer if step > 1 and is_fine(fine) and is_same else encoder


def last_map(encoder: ImageEncoder, images: Tensor) -> Tensor:
    """Return what an encoder's pooling layer is given for cutouts: the last map, (n, n_features, h, w), of a ResNet.

    Raises
    ------
    ValueError
        If the backbone has no pooling layer, or another number of them (a transformer).
    """
    pool = getattr(encoder.backbone, "global_pool", None)
    if not isinstance(pool, nn.Module):
        raise ValueError("the backbone has no pooling layer: its features have no activation maps")
    with inputs_of(pool) as seen:
        encoder(images)
    return seen[0]


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a layer is given while the context lasts."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    hook = module.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()


def _spread(stage: nn.Module, before: int) -> None:
    """Replace a stage's stride in place; `before` is the dilation that earlier stages ask for."""
    for parent in list(stage.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.AvgPool2d) and layer.stride == 2:
                setattr(parent, name, _SpreadMean(before))
            elif isinstance(layer, nn.Conv2d) and isinstance(layer.padding, tuple):
                dilation = before if layer.stride != (1, 1) else 2 * before
                layer.stride, layer.dilation = (1, 1), (dilation, dilation)
                layer.padding = tuple(dilation * size for size in layer.padding)


class _SpreadMean(nn.Module):
    """The mean of 2 x 2 cells some way apart, of those that there are, as timm's average pooling at every cell."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore[missing-override-decorator]
        return self._sum(x) / self._sum(torch.ones_like(x[:1, :1]))

    def _sum(self, x: Tensor) -> Tensor:
        d = self.dilation
        padded = pad(x, (0, d, 0, d))
        down = padded[:, :, d:] + padded[:, :, :-d]
        return down[..., d:] + down[..., :-d]
