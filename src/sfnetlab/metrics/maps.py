"""Whether activation maps have enough cells to be believed."""

from typing import Protocol

LEAST_CELLS = 5
"""Cells across and down a map below which it does not say where in a cutout a feature comes from."""


class HasShape(Protocol):
    """An array or a tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def is_fine(maps: HasShape) -> bool:
    """Return whether maps (..., h, w) have 5 x 5 cells or more."""
    return min(maps.shape[-2:]) >= LEAST_CELLS
