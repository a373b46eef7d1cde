"""Batches of cutouts on their way to the device: read ahead, turned there, or taken from a store that lies there.

Nothing here waits for a GPU: what it is sent comes from pinned memory, and the host goes on.
"""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_UNTOLD_FREE_BYTES = 2**32
"""Memory that a device is taken to have free where it does not tell."""
_BLOCK_ROWS = 1024

T = TypeVar("T")


def fits(n_bytes: int, device: str) -> bool:
    """Whether so many bytes take at most half of the device's free memory; where it does not tell, of 4 GiB."""
    free = torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else _UNTOLD_FREE_BYTES
    return n_bytes <= free / 2


def to_device(values: NDArray[np.generic], device: str) -> Tensor:
    """Return an array, perhaps memory-mapped, as a tensor on the device."""
    tensor = torch.from_numpy(np.asarray(values))
    if device.startswith("cuda"):
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@dataclass(frozen=True)
class Cutouts:
    """The cutouts of a survey, (n, side, side, 3), from which a training takes batches."""

    images: NDArray[np.uint8] | Tensor
    """As they are stored, perhaps memory-mapped, or all of them on the device."""
    device: str

    @classmethod
    def of(cls, images: NDArray[np.uint8], device: str) -> Self:
        """Return the cutouts of a store; a device that has memory of its own, and enough of it, gets all of them."""
        is_resident = device != "cpu" and fits(math.prod(images.shape), device)
        return cls(resident(images, device) if is_resident else images, device)

    def take(self, rows: NDArray[np.integer], ops: NDArray[np.integer] | None = None) -> Tensor:
        """Return some cutouts on the device, uint8 (len(rows), side, side, 3), turned as `turned` does with `ops`."""
        if isinstance(self.images, Tensor):
            batch = self.images[to_device(rows, self.device)]
        else:
            batch = to_device(self.images[rows], self.device)
        return batch if ops is None else turned(batch, ops)


def resident(images: NDArray[np.uint8], device: str) -> Tensor:
    """Return all of some images, perhaps memory-mapped, on the device."""
    out = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), _BLOCK_ROWS):
        out[start : start + _BLOCK_ROWS] = to_device(np.array(images[start : start + _BLOCK_ROWS]), device)
    return out


def turned(images: Tensor, ops: NDArray[np.integer]) -> Tensor:
    """Return square images (n, side, side, 3), each flipped and rotated as `surveys.images.dihedral` says of its op."""
    quarters = ops % 4
    changes = np.stack([quarters % 2 == 1, np.isin(quarters, (1, 2)), np.isin(quarters, (2, 3)) ^ (ops >= 4)])
    on_diagonal, in_rows, in_columns = to_device(changes, str(images.device))[..., None, None, None]
    images = torch.where(on_diagonal, images.transpose(1, 2), images)
    images = torch.where(in_rows, images.flip(1), images)
    return torch.where(in_columns, images.flip(2), images)


class Ahead(Generic[T]):
    """Reads what the next step needs in a thread, while this step is taken.

    Parameters
    ----------
    read
        From a step to what it needs.
    n_steps
        Steps of the run; nothing is read beyond the last one.
    """

    def __init__(self, read: Callable[[int], T], n_steps: int) -> None:
        self._read, self._n_steps = read, n_steps
        self._thread = ThreadPoolExecutor(1)
        self._coming: dict[int, Future[T]] = {}

    def take(self, step: int) -> T:
        """Return what a step needs, and begin to read what the next one does."""
        coming = self._coming.pop(step, None) or self._thread.submit(self._read, step)
        found = coming.result()
        if step + 1 < self._n_steps:
            self._coming = {step + 1: self._thread.submit(self._read, step + 1)}
        return found
