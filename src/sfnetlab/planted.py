"""Planted dictionaries: rows that are sparse sums of known atoms, to compare a learnt dictionary with.

This module makes the rows and the truth; `metrics.matching` and `metrics.dictionary` measure what was found of it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

ZIPF_EXPONENT, ZIPF_SHIFT = 1.0, 8.0
"""Atom i (from 0) is drawn with weight (i + shift)^-exponent. With 16 active of 2,048 atoms the most frequent is in
31 % of the rows, the median one in 0.285 %; among 65,536 rows the rarest is in about 0.11 % of them."""
COEFFICIENT_SHAPE, COEFFICIENT_SCALE = 4.0, 0.25
"""Of the gamma distribution of the coefficients, whose mean is 1."""
NOISE = 0.02
"""Standard deviation of the noise in each column if `column_ratio` is 1."""
MEAN_NORM = 5.0
"""Length of the vector that is added to every row if `column_ratio` is 1."""
CO_ACTIVATION = 0.5
"""Probability that a draw comes from the same block as the draw before it, if `block_size` is more than 1."""
_BLOCK_ROWS = 8192
_TRUTH, _TRAIN, _TEST = range(3)


@dataclass(frozen=True, kw_only=True)
class PlantedDictionary:
    """Rows and what they were made of: `X = mean + latents @ atoms + noise`. Train rows come first."""

    X: NDArray[np.float32]
    """(n_train + n_test, d_in)."""
    atoms: NDArray[np.float32]
    """(n_atoms, d_in), each of length 1, the most frequent first (within each level, if atoms have parents)."""
    latents: csr_array
    """(n_train + n_test, n_atoms) float32, with `n_active` positive coefficients in each row."""
    mean: NDArray[np.float32]
    """(d_in,), added to every row. The mean of the rows is another, because the sums of atoms have a mean too."""
    parent: NDArray[np.int64] | None
    """(n_atoms,): the atom without which each atom is never active, -1 for none. None if no atom has a parent."""
    n_train: int

    @property
    def X_train(self) -> NDArray[np.float32]:  # noqa: N802
        """The train rows (n_train, d_in)."""
        return self.X[: self.n_train]

    @property
    def X_test(self) -> NDArray[np.float32]:  # noqa: N802
        """The test rows (n_test, d_in)."""
        return self.X[self.n_train :]


def make_planted_dictionary(
    *,
    n_train: int = 65_536,
    n_test: int = 8_192,
    d_in: int = 512,
    n_atoms: int = 2_048,
    n_active: int = 16,
    seed: int = 0,
    column_ratio: float = 1.0,
    block_size: int = 1,
    n_children: int = 0,
) -> PlantedDictionary:
    """Return rows that are sums of exactly `n_active` atoms, with Gaussian noise and a mean of length 5.

    Atoms are random directions; coefficients are drawn from Gamma(4, 1/4). The atoms of a row are drawn without
    replacement, one after the other, each with Zipf-Mandelbrot weights among those that are left (successive
    sampling): they are the first `n_active` different ones in a stream of independent draws. Atom i is then in a share
    1 - exp(-w_i t) of the rows, with t such that the shares add up to `n_active` (Rosén 1972; a test checks it). A row
    depends neither on `n_train` nor on `n_test`, but on its position among the train or the test rows.

    Parameters
    ----------
    n_train, n_test, d_in, n_atoms, n_active
        Numbers of rows, of columns, of atoms and of atoms in each row.
    seed
        Decides the dictionary and the rows. The same seed gives the same bytes on one machine.
    column_ratio
        Largest over smallest scale of a column. Columns are scaled by factors that are evenly spaced in their
        logarithm and in random order. Atoms are then brought back to length 1, which changes their coefficients.
    block_size
        If more than 1, atoms of neighbouring frequency form blocks of this size, and a draw comes from the same block
        as the one before it with probability 1/2. The frequencies of the blocks stay nearly the same.
    n_children
        If more than 0, atoms form a forest of three levels, in which roots and their children have this number of
        children each. An atom is active only where its parent is: drawing it draws its ancestors too. Atoms that are
        left over have no parent and no children.

    Raises
    ------
    ValueError
        If a count is out of range, `column_ratio` is below 1, or blocks do not divide the atoms.
    """
    if min(n_train, d_in) < 1 or n_test < 0 or not 1 <= n_active <= n_atoms:
        raise ValueError(
            "expected n_train, d_in >= 1, n_test >= 0 and 1 <= n_active <= n_atoms, "
            f"got {n_train=}, {d_in=}, {n_test=}, {n_active=}, {n_atoms=}"
        )
    if column_ratio < 1 or n_children < 0 or block_size < 1 or n_atoms % block_size:
        raise ValueError(
            "expected column_ratio >= 1, n_children >= 0 and a block_size that divides n_atoms, "
            f"got {column_ratio=}, {n_children=}, {block_size=}, {n_atoms=}"
        )
    truth = _make_truth(np.random.default_rng([seed, _TRUTH]), n_atoms, d_in, column_ratio)
    parent = forest_parents(n_atoms, n_children) if n_children else None

    n = n_train + n_test
    X = np.empty((n, d_in), dtype=np.float32)
    indices = np.empty((n, n_active), dtype=np.int32)
    values = np.empty((n, n_active), dtype=np.float32)
    for stream, first, last in ((_TRAIN, 0, n_train), (_TEST, n_train, n)):
        for block, start in enumerate(range(first, last, _BLOCK_ROWS)):
            rng = np.random.default_rng([seed, stream, block])
            rows = slice(start, min(start + _BLOCK_ROWS, last))
            # Whole blocks are drawn, so that a row does not depend on the number of rows.
            chosen = _draw_supports(rng, n_atoms, n_active, block_size, parent)
            size = rows.stop - rows.start
            indices[rows] = chosen[:size]
            values[rows] = (COEFFICIENT_SCALE * rng.standard_gamma(COEFFICIENT_SHAPE, chosen.shape, np.float32))[:size]
            values[rows] *= truth.lengths[indices[rows]]
            noise = rng.standard_normal((size, d_in), dtype=np.float32)
            noise *= NOISE * truth.scales
            np.add(_as_csr(values[rows], indices[rows], n_atoms) @ truth.atoms, noise, out=X[rows])
    X += truth.mean
    latents = _as_csr(values, indices, n_atoms)
    return PlantedDictionary(X=X, atoms=truth.atoms, latents=latents, mean=truth.mean, parent=parent, n_train=n_train)


class _Truth(NamedTuple):
    atoms: NDArray[np.float32]
    """(n_atoms, d_in), each of length 1."""
    lengths: NDArray[np.float32]
    """(n_atoms,), of the atoms after their columns were scaled."""
    mean: NDArray[np.float32]
    """(d_in,)."""
    scales: NDArray[np.float32]
    """(d_in,), of the columns."""


def _make_truth(rng: np.random.Generator, n_atoms: int, d_in: int, column_ratio: float) -> _Truth:
    """Return atoms in random directions and a mean in another, both with their columns scaled."""
    atoms = rng.standard_normal((n_atoms, d_in), dtype=np.float32)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    mean = rng.standard_normal(d_in, dtype=np.float32)
    mean *= MEAN_NORM / np.linalg.norm(mean)
    scales = rng.permutation(np.geomspace(column_ratio**-0.5, column_ratio**0.5, d_in)).astype(np.float32)
    atoms *= scales
    lengths = np.linalg.norm(atoms, axis=1)
    atoms /= lengths[:, None]
    return _Truth(atoms, lengths, mean * scales, scales)


def forest_parents(n_atoms: int, n_children: int) -> NDArray[np.int64]:
    """Return the parent (n_atoms,) of each atom in a forest of three levels, -1 for none.

    All roots come first, then all their children, then all children of these, then the atoms that are left over.
    """
    n_roots = n_atoms // (1 + n_children + n_children**2)
    n_inner = n_roots * (1 + n_children)
    parent = np.full(n_atoms, -1)
    child = np.arange(n_roots, n_roots + n_inner * n_children)
    parent[child] = (child - n_roots) // n_children
    return parent


def _draw_supports(
    rng: np.random.Generator, n_atoms: int, n_active: int, block_size: int, parent: NDArray[np.int64] | None
) -> NDArray[np.int32]:
    """Return the active atoms (_BLOCK_ROWS, n_active) of each row, in ascending order."""
    weights = (np.arange(n_atoms) + ZIPF_SHIFT) ** -ZIPF_EXPONENT
    cumulative = np.cumsum(weights) / weights.sum()
    lineage = None if parent is None else _lineage(parent)
    stream = np.empty((_BLOCK_ROWS, 0), dtype=np.int64)
    while True:
        shape = (_BLOCK_ROWS, max(n_active + 8, stream.shape[1]))
        drawn = np.minimum(np.searchsorted(cumulative, rng.random(shape)), n_atoms - 1)
        if block_size > 1:
            position = np.arange(shape[1])
            stays = (rng.random(shape) < CO_ACTIVATION) & (position > 0)
            leader = np.maximum.accumulate(np.where(stays, 0, position), axis=1)
            block = np.take_along_axis(drawn, leader, axis=1) // block_size
            drawn = np.where(stays, block * block_size + rng.integers(0, block_size, shape), drawn)
        if lineage is not None:
            drawn = lineage[drawn].reshape(_BLOCK_ROWS, -1)
        stream = np.hstack((stream, drawn))
        is_new = _is_first_of_its_kind(stream)
        count = np.cumsum(is_new, axis=1)
        if count[:, -1].min() >= n_active:
            chosen = stream[is_new & (count <= n_active)].reshape(_BLOCK_ROWS, n_active)
            return np.sort(chosen.astype(np.int32), axis=1)


def _lineage(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the grandparent, the parent and the atom itself (n_atoms, 3); an atom stands in for a missing ancestor."""
    above = np.where(parent < 0, np.arange(len(parent)), parent)
    return np.stack((above[above], above, np.arange(len(parent))), axis=1)


def _is_first_of_its_kind(stream: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each draw (n_rows, n_draws) whether the same atom was not drawn before in its row."""
    n_draws = stream.shape[1]
    keys = np.sort(stream * n_draws + np.arange(n_draws), axis=1)
    is_first = np.ones(stream.shape, dtype=np.bool_)
    is_first[:, 1:] = np.diff(keys // n_draws, axis=1) != 0
    result = np.empty(stream.shape, dtype=np.bool_)
    np.put_along_axis(result, keys % n_draws, is_first, axis=1)
    return result


def _as_csr(values: NDArray[np.float32], indices: NDArray[np.int32], n_atoms: int) -> csr_array:
    # scipy keeps indices in 32 bits only where the row ends are.
    dtype = np.int32 if values.size < 2**31 else np.int64
    row_ends = np.arange(0, values.size + 1, values.shape[1], dtype=dtype)
    return csr_array((values.ravel(), indices.ravel(), row_ends), shape=(len(values), n_atoms))
