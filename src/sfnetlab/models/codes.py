"""Codes of embeddings in a dictionary that is already learned: least squares on given latents, and matching pursuit.

An SAE's encoder guesses a row's latents in one step; these find better values, or better latents, for its decoder.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sfnetlab.metrics.tables import BLOCK_VALUES
from sfnetlab.runtime import compiled

COLLINEAR = 1e-10
"""An atom adds nothing where the atoms before it leave less than this share of its squared length."""

CONVERGED = 1e-6
"""A residual goes with no atom where its largest correlation is below this share of the row's own length."""

GRAM_LATENTS = 8192
"""Up to this many latents the products of all atoms are held (512 MiB in float64); beyond, residuals are encoded."""


def refit(
    z: NDArray[np.floating], W_dec: NDArray[np.floating], values: NDArray[np.floating], indices: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Return the least-squares values of given latents: the best reconstruction that their atoms allow, row by row.

    A value may come out negative where the encoder's is not. An atom that those before it in the row already span (the
    same atom twice, k > d_in) gets zero, which changes no reconstruction.

    Parameters
    ----------
    z : ndarray of shape (n_samples, d_in)
        What the atoms are to sum to: standardised rows less `b_dec`.
    W_dec : ndarray of shape (n_latents, d_in)
        Atoms of any length.
    values, indices : ndarray of shape (n_samples, m)
        The latents of each row, as an encoder gives them. A value of zero is padding, whose index is ignored; what the
        other values are does not matter.

    Returns
    -------
    ndarray of shape (n_samples, m)
        The values, zero at padding. Solved in float64.

    Raises
    ------
    ValueError
        If shapes do not fit, z or an atom is not finite, or an index lies outside the dictionary.
    """
    rows, atoms, lengths = _checked(z, W_dec)
    if values.shape != indices.shape or values.ndim != 2 or len(values) != len(rows):
        raise ValueError(
            f"expected values and indices of one shape ({len(rows)}, m), got {values.shape} and {indices.shape}"
        )
    is_used = np.ascontiguousarray(values != 0)
    used = indices[is_used]
    if used.size and (used.min() < 0 or used.max() >= len(atoms)):
        raise ValueError(f"indices must lie in [0, n_latents={len(atoms)}), got {used.min()} to {used.max()}")
    support = np.where(is_used, indices, 0).astype(np.int64)
    solved = np.empty(values.shape)
    n_block = max(1, BLOCK_VALUES // rows.shape[1])
    for start in range(0, len(rows), n_block):
        part = slice(start, start + n_block)
        _refit_rows(rows[part].astype(np.float64), atoms, support[part], is_used[part], solved[part])
    return (solved / lengths[support]).astype(np.float32)


def orthogonal_matching_pursuit(
    z: NDArray[np.floating], W_dec: NDArray[np.floating], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return at most k latents of each row: one at a time the atom that goes best with what is left, then a refit.

    An atom is judged by |cosine| to the residual, so values may be negative: few are where k is at most the number of
    true atoms of a row, many are beyond that, where atoms describe noise. A row takes no further atom once none goes
    with its residual (`CONVERGED`). Up to `GRAM_LATENTS` latents this is Batch-OMP: correlations follow from products
    of atoms, which are taken once, and the residual is never formed.

    Parameters
    ----------
    z : ndarray of shape (n_samples, d_in)
        What the atoms are to sum to: standardised rows less `b_dec`.
    W_dec : ndarray of shape (n_latents, d_in)
        Atoms of any length; those of length zero are never chosen.
    k : int
        In [1, n_latents].

    Returns
    -------
    values, indices : ndarray of shape (n_samples, k)
        Values and latents, in the order of choice; a value of zero is padding, whose index is 0. Solved in float64.

    Raises
    ------
    ValueError
        If shapes do not fit, z or an atom is not finite, or k is out of range.

    References
    ----------
    Pati, Rezaiifar & Krishnaprasad 1993, Asilomar 27, 40. Batch-OMP: Rubinstein, Zibulevsky & Elad 2008, Technion
    CS-2008-08.
    """
    rows, atoms, lengths = _checked(z, W_dec)
    n_latents = len(atoms)
    if not 1 <= k <= n_latents:
        raise ValueError(f"k must lie in [1, n_latents={n_latents}], got {k}")
    gram = atoms @ atoms.T if n_latents <= GRAM_LATENTS else None
    values, indices = np.zeros((len(rows), k)), np.zeros((len(rows), k), dtype=np.int64)
    n_block = max(1, BLOCK_VALUES // n_latents)
    for start in range(0, len(rows), n_block):
        part = slice(start, start + n_block)
        block = rows[part].astype(np.float64)
        correlations = block @ atoms.T
        if gram is not None:
            _pursue(correlations, gram, np.sqrt(np.sum(block**2, axis=1)), values[part], indices[part])
        else:
            _pursue_residuals(block, correlations, atoms, values[part], indices[part])
    return (values / lengths[indices]).astype(np.float32), indices


def _checked(
    z: NDArray[np.floating], W_dec: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.float64], NDArray[np.float64]]:
    """Return rows as they are, atoms of length 1 in float64, and the atoms' own lengths (1 for an atom of zeros)."""
    rows, atoms = np.asarray(z), np.array(W_dec, dtype=np.float64, order="C")
    if rows.ndim != 2 or atoms.ndim != 2 or rows.shape[1] != atoms.shape[1] or 0 in atoms.shape:
        raise ValueError(f"expected z (n_samples, d_in) and W_dec (n_latents, d_in), got {rows.shape}, {atoms.shape}")
    for name, table in (("z", rows), ("W_dec", atoms)):
        if n_bad := np.count_nonzero(~np.isfinite(table)):
            raise ValueError(f"{name}: {n_bad} of {table.size} values are not finite")
    lengths = np.linalg.norm(atoms, axis=1)
    lengths[lengths == 0] = 1
    return rows, atoms / lengths[:, None], lengths


def _pursue_residuals(
    z: NDArray[np.float64],
    correlations: NDArray[np.float64],
    atoms: NDArray[np.float64],
    values: NDArray[np.float64],
    indices: NDArray[np.int64],
) -> None:
    """Do what `_pursue` does, without the products of atoms, which may not fit: all rows of a block in step."""
    n, k = indices.shape
    converged = CONVERGED * np.linalg.norm(z, axis=1)
    is_used = np.zeros((n, k), dtype=np.bool_)
    for i in range(k):
        best = np.abs(correlations).argmax(axis=1)
        is_used[:, i] = np.abs(correlations[np.arange(n), best]) > converged
        if not is_used[:, i].any():
            break
        indices[:, i] = best
        _refit_rows(z, atoms, indices, is_used, values)
        codes = csr_array((values.ravel(), indices.ravel(), np.arange(0, n * k + 1, k)), shape=(n, len(atoms)))
        correlations = (z - codes @ atoms) @ atoms.T
    indices[values == 0] = 0


@compiled(nogil=True)
def _pursue(
    correlations: NDArray[np.float64],
    gram: NDArray[np.float64],
    lengths: NDArray[np.float64],
    values: NDArray[np.float64],
    indices: NDArray[np.int64],
) -> None:
    """Run Batch-OMP on rows of these lengths (n,), whose correlations (n, n_latents) with all atoms are given.

    Atoms have length 1, and `gram` holds their products. Results go into `values` and `indices`, which are zero before.
    """
    k = values.shape[1]
    factor, solution, products = np.empty((k, k)), np.empty(k), np.empty(k)
    left = np.empty(gram.shape[0])
    for row in range(values.shape[0]):
        chosen, code = indices[row], values[row]
        left[:] = correlations[row]
        for n in range(k):
            best, largest = 0, 0.0
            for latent in range(left.size):
                if abs(left[latent]) > largest:
                    best, largest = latent, abs(left[latent])
            if largest <= CONVERGED * lengths[row]:
                break
            for i in range(n):
                products[i] = gram[best, chosen[i]]
            if not _extend(factor, products, n):
                break
            chosen[n] = best
            solution[n] = _next_solution(factor, solution, correlations[row, best], n)
            _back_substitute(factor, solution, n + 1, code)
            left[:] = correlations[row]
            for i in range(n + 1):
                atom = gram[chosen[i]]
                for latent in range(left.size):
                    left[latent] -= code[i] * atom[latent]


@compiled(nogil=True)
def _refit_rows(
    z: NDArray[np.float64],
    atoms: NDArray[np.float64],
    indices: NDArray[np.int64],
    is_used: NDArray[np.bool_],
    values: NDArray[np.float64],
) -> None:
    """Write the least-squares values of the latents in use into `values`, zero for the others."""
    m = indices.shape[1]
    factor, solution, products = np.empty((m, m)), np.empty(m), np.empty(m)
    code, place = np.empty(m), np.empty(m, np.int64)
    for row in range(len(z)):
        n = 0
        for column in range(m):
            if not is_used[row, column]:
                continue
            atom = atoms[indices[row, column]]
            for i in range(n):
                products[i] = np.dot(atom, atoms[indices[row, place[i]]])
            if _extend(factor, products, n):
                solution[n] = _next_solution(factor, solution, np.dot(atom, z[row]), n)
                place[n] = column
                n += 1
        _back_substitute(factor, solution, n, code)
        values[row] = 0
        for i in range(n):
            values[row, place[i]] = code[i]


@compiled(nogil=True)
def _extend(factor: NDArray[np.float64], products: NDArray[np.float64], n: int) -> bool:
    """Write row n of the Cholesky factor of the atoms' products; return False if the new atom depends on the others.

    `products` are those of the new atom with the n before it; all have length 1, but for atoms of zeros.
    """
    rest = 1.0
    for i in range(n):
        factor[n, i] = _next_solution(factor, factor[n], products[i], i)
        rest -= factor[n, i] ** 2
    factor[n, n] = np.sqrt(max(rest, 0.0))
    return rest > COLLINEAR


@compiled(nogil=True)
def _next_solution(factor: NDArray[np.float64], solution: NDArray[np.float64], target: float, n: int) -> float:
    """Return element n of the solution of factor @ solution = targets, from the elements before it."""
    for i in range(n):
        target -= factor[n, i] * solution[i]
    return target / factor[n, n]


@compiled(nogil=True)
def _back_substitute(
    factor: NDArray[np.float64], solution: NDArray[np.float64], n: int, code: NDArray[np.float64]
) -> None:
    """Write the n elements of `code` that solve factor.T @ code = solution."""
    for i in range(n - 1, -1, -1):
        code[i] = solution[i]
        for j in range(i + 1, n):
            code[i] -= factor[j, i] * code[j]
        code[i] /= factor[i, i]
