"""What one sparse autoencoder is like: its latents, how many are active at a time, how alike its atoms are."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sfnetlab.metrics.sparsity import l0
from sfnetlab.metrics.tables import BLOCK_VALUES, FeatureMatrix, checked_table

DENSE_FREQUENCY = 0.1
"""A latent that is active on more than this share of the rows counts as dense."""

_BLOCK_ROWS = 2**20
"""Rows of codes that are looked at together."""


class Spectrum(NamedTuple):
    """How evenly atoms fill the space."""

    singular_values: NDArray[np.float64]
    """(min(n_latents, d_in),), of the atoms scaled to length 1, largest first."""
    effective_rank: float
    """exp of the entropy of the singular values' shares of their sum (Roy & Vetterli 2007, EUSIPCO)."""


def max_cosines(W_dec: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the largest cosine of each atom to any other, shape (n_latents,); near 1 it is the same atom twice.

    NaN for an atom of zeros, and where there is no other.
    """
    atoms, is_zero = _unit_atoms(W_dec)
    if len(atoms) < 2:
        return np.full(len(atoms), np.nan)
    largest = np.empty(len(atoms))
    n_block = max(1, BLOCK_VALUES // len(atoms))
    for start in range(0, len(atoms), n_block):
        cosine = atoms[start : start + n_block] @ atoms.T
        in_block = np.arange(len(cosine))
        cosine[in_block, start + in_block] = -np.inf
        largest[start : start + n_block] = cosine.max(axis=1)
    largest[is_zero] = np.nan
    return largest


def decoder_spectrum(W_dec: NDArray[np.floating]) -> Spectrum:
    """Return the singular values of the directions of the atoms (n_latents, d_in), and how many count."""
    atoms, is_zero = _unit_atoms(W_dec)
    if is_zero.all():
        raise ValueError(f"all {len(atoms)} atoms are zero: they have no spectrum")
    values = np.linalg.svd(atoms, compute_uv=False)
    share = values[values > 0] / values.sum()
    return Spectrum(values.astype(np.float64), float(np.exp(-np.sum(share * np.log(share)))))


def describe_latents(
    codes: FeatureMatrix, W_dec: NDArray[np.floating], rows: NDArray[np.intp] | None = None
) -> pd.DataFrame:
    """Return a table with a row for each latent, in order.

    Rows are looked at in blocks, so that a memory-mapped CSR need not fit into memory.

    Parameters
    ----------
    codes : ndarray or CSR of shape (n, n_latents)
        Latents; active where not zero.
    W_dec : ndarray of shape (n_latents, d_in)
    rows : ndarray of int, optional
        The rows to judge by, at least one; None: all.

    Returns
    -------
    DataFrame
        `latent`, `frequency` (share of rows on which it is active), `mean_active` (mean value on these; NaN: dead),
        `max_active` (NaN: dead), `is_dead` (active on no row), `is_dense` (more often than `DENSE_FREQUENCY`),
        `max_cosine` (of its atom to any other).
    """
    table = checked_table(codes, "codes")
    if table.shape[1] != len(W_dec):
        raise ValueError(f"codes of {table.shape[1]} latents and {len(W_dec)} atoms do not fit together")
    rows = np.arange(table.shape[0]) if rows is None else rows
    if len(rows) == 0:
        raise ValueError("codes: expected at least one row, got none")
    count = np.zeros(len(W_dec), dtype=np.int64)
    sums, max_active = np.zeros(len(W_dec)), np.full(len(W_dec), -np.inf)
    for start in range(0, len(rows), _BLOCK_ROWS):
        by_column = sparse.csc_array(table[rows[start : start + _BLOCK_ROWS]])
        by_column.eliminate_zeros()
        in_block = np.diff(by_column.indptr)
        count += in_block
        sums += np.asarray(by_column.sum(axis=0, dtype=np.float64))
        if by_column.nnz:
            largest = np.maximum.reduceat(by_column.data, by_column.indptr[:-1][in_block > 0])
            max_active[in_block > 0] = np.maximum(max_active[in_block > 0], largest)
    frequency, is_dead = count / len(rows), count == 0
    mean_active = np.divide(sums, count, out=np.full(len(W_dec), np.nan), where=~is_dead)
    max_active[is_dead] = np.nan
    return pd.DataFrame(
        {
            "latent": np.arange(len(W_dec)),
            "frequency": frequency,
            "mean_active": mean_active,
            "max_active": max_active,
            "is_dead": is_dead,
            "is_dense": frequency > DENSE_FREQUENCY,
            "max_cosine": max_cosines(W_dec),
        }
    )


def l0_distribution(codes: FeatureMatrix) -> pd.DataFrame:
    """Return how many rows have how many active latents: columns `l0` (0 to the largest) and `n_rows`."""
    n_rows = np.bincount(l0(codes))
    return pd.DataFrame({"l0": np.arange(len(n_rows)), "n_rows": n_rows})


def fvu_of_blocks(
    blocks: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]],
) -> NDArray[np.float64]:
    """Return the fraction of variance unexplained of several reconstructions, in one pass and bounded memory.

    As `fraction_of_variance_unexplained` about the column means of all rows, for what is never held whole: the
    reconstructions of Matryoshka prefixes, codes of several kinds.

    Parameters
    ----------
    blocks : iterable of (x, x_hats)
        Embeddings (n_block, d_in) and their reconstructions (n_block, n_reconstructions, d_in), in any block sizes.

    Returns
    -------
    ndarray of shape (n_reconstructions,)

    Raises
    ------
    ValueError
        If shapes do not fit, there is no row, a value is not finite, or every column of x is constant.
    """
    n, mean, residual = 0, np.zeros(1), np.zeros(1)
    spread, squares = np.zeros(1), np.zeros(1)
    for x, x_hats in blocks:
        if x.ndim != 2 or x_hats.ndim != 3 or (len(x), x.shape[1]) != (len(x_hats), x_hats.shape[2]):
            raise ValueError(f"expected x (n, d_in) and x_hats (n, m, d_in), got {x.shape} and {x_hats.shape}")
        if len(x) == 0:
            continue
        block = x.astype(np.float64)
        residual = residual + np.einsum("nmd,nmd->m", error := block[:, None] - x_hats, error)
        # Chan, Golub & LeVeque 1983: means and sums of squares of parts merge without cancellation
        block_mean = block.mean(axis=0)
        gap, total = block_mean - mean, n + len(block)
        spread = spread + np.sum((block - block_mean) ** 2, axis=0) + gap**2 * (n * len(block) / total)
        squares = squares + np.sum(block**2, axis=0)
        mean, n = mean + gap * (len(block) / total), total
    if n == 0:
        raise ValueError("FVU needs at least one row, got none")
    if not np.isfinite(residual).all():
        raise ValueError("x and its reconstructions must be finite, at least one value is not")
    # what is left of a constant column is rounding
    if not (spread > 1e-28 * n * squares).any():
        raise ValueError(f"every column of x is constant over its {n} rows: there is no variance to explain")
    return residual / spread.sum()


def _unit_atoms(W_dec: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Atoms of length 1, and which are zero (and stay)."""
    atoms = np.array(checked_table(W_dec, "W_dec"), dtype=np.float64)
    lengths = np.linalg.norm(atoms, axis=1, keepdims=True)
    is_zero = lengths[:, 0] == 0
    return np.divide(atoms, lengths, out=atoms, where=lengths > 0), is_zero
