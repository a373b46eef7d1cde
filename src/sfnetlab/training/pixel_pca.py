"""Principal components of the pixels of cutouts that need not fit into memory: the linear control of autoencoders."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfnetlab.errors import DataError
from sfnetlab.surveys.images import N_DIHEDRAL, dihedral
from sfnetlab.training.loop import START, generator

BLOCK_IMAGES = 128
N_PASSES = 8
N_SPARE = 10
"""Directions beyond those wanted, which make the wanted ones converge fast."""
FILE = "pixel_pca.safetensors"


class PixelPCA(NamedTuple):
    """Components of cutouts, black 0 and white 1, in memory order (height, width, 3)."""

    components: NDArray[np.float32]
    """(n_components, n_values), orthonormal, the most important first."""
    mean: NDArray[np.float32]
    """(height, width, 3)."""

    def reconstruct(self, x: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the reconstructions of cutouts (n, height, width, 3), clipped to between black and white."""
        flat = (x - self.mean).reshape(len(x), -1)
        x_hat = (flat @ self.components.T) @ self.components
        return np.clip(x_hat.reshape(x.shape) + self.mean, 0, 1).astype(np.float32)


def fit_pixel_pca(images: NDArray[np.uint8], rows: NDArray[np.integer], n_components: int, *, seed: int) -> PixelPCA:
    """Return the components of some cutouts in all 8 orientations, which is what autoencoders see of them.

    Randomised subspace iteration makes `N_PASSES` passes over the store, a block at a time. Memory holds
    n_components + `N_SPARE` cutouts.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, side, side, 3)
        May be memory-mapped.
    rows
        Rows to use.
    seed
        Seed of the first directions.

    Raises
    ------
    DataError
        If there are more components than rows or values.

    References
    ----------
    Halko, Martinsson & Tropp 2011, SIAM Review 53, 217, algorithm 4.4.
    """
    n_values = int(np.prod(images.shape[1:]))
    largest = min(len(rows), n_values)
    if n_components > largest:
        raise DataError(
            f"n_latents must be at most {largest} ({len(rows)} train cutouts of {n_values} values), got {n_components}"
        )
    in_file_order = np.sort(rows)
    total = sum(block.sum(axis=0, dtype=np.float64) for block in _blocks(images, in_file_order))
    mean = (np.asarray(total) / (N_DIHEDRAL * len(rows))).astype(np.float32)
    n_directions = min(n_components + N_SPARE, largest)
    directions = generator(seed, START).standard_normal((n_values, n_directions)).astype(np.float32)
    for _ in range(N_PASSES):
        directions, _, _ = np.linalg.svd(_scatter(images, in_file_order, mean, directions), full_matrices=False)
    return PixelPCA(np.ascontiguousarray(directions[:, :n_components].T), mean.reshape(images.shape[1:]))


def save_pixel_pca(directory: Path, pca: PixelPCA) -> None:
    """Write `pixel_pca.safetensors` into a directory."""
    from safetensors.numpy import save

    (directory / FILE).write_bytes(save(pca._asdict()))


def load_pixel_pca(directory: Path) -> PixelPCA:
    """Return the components that `save_pixel_pca` wrote."""
    from safetensors.numpy import load

    return PixelPCA(**load((directory / FILE).read_bytes()))


def _scatter(
    images: NDArray[np.uint8], rows: NDArray[np.integer], mean: NDArray[np.float32], directions: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the scatter matrix of the cutouts about `mean`, (n_values, n_values), times some directions."""
    product = np.zeros_like(directions)
    for block in _blocks(images, rows):
        block -= mean
        product += block.T @ (block @ directions)
    return product


def _blocks(images: NDArray[np.uint8], rows: NDArray[np.integer]) -> Iterator[NDArray[np.float32]]:
    """Yield blocks of flat cutouts (n, n_values), black 0 and white 1, in each orientation."""
    for start in range(0, len(rows), BLOCK_IMAGES):
        block = np.asarray(images[rows[start : start + BLOCK_IMAGES]])
        for op in range(N_DIHEDRAL):
            yield np.float32(1 / 255) * dihedral(block, np.full(len(block), op)).reshape(len(block), -1)
