"""Planted dictionaries: rows that are sparse sums of known atoms, against which a learnt dictionary can be judged.

Rows and truth only; what a dictionary found of the truth is measured in `metrics.matching` and `metrics.dictionary`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

ZIPF_EXPONENT, ZIPF_SHIFT = 1.0, 8.0
"""Atom i (from 0) is drawn with weight (i + shift)^-exponent. With 16 active of 2,048 atoms the most frequent is in
31 % of the rows, the median one in .285 %; among 65,536 rows the rarest is in about .11 % of them."""
COEFFICIENT_SHAPE, COEFFICIENT_SCALE = 4.0, 0.25
NOISE = 0.02
"""Standard deviation of the noise of each column, where `column_ratio` is 1."""
MEAN_NORM = 5.0
CO_ACTIVATION = 0.5
"""Chance that the next draw stays in the block of the last, where `block_size` is more than 1."""
_BLOCK_ROWS = 8192
_TRUTH, _TRAIN, _TEST = range(3)


@dataclass(frozen=True, kw_only=True)
class PlantedDictionary:
    """Rows and what they were made of: `X = mean + latents @ atoms + noise`. Train rows stand first."""

    X: NDArray[np.float32]
    """(n_train + n_test, d_in)."""
    atoms: NDArray[np.float32]
    """(n_atoms, d_in), of length 1, most frequent first (of each level, where there are parents)."""
    latents: csr_array
    """(n_train + n_test, n_atoms) float32, `n_active` positive coefficients a row."""
    mean: NDArray[np.float32]
    """(d_in,): what is added to every row; the rows' own mean holds that of the atoms' sums too."""
    parent: NDArray[np.int64] | None
    """(n_atoms,): the atom without which this one is never active, -1 for none; None where no atom has a parent."""
    n_train: int

    @property
    def X_train(self) -> NDArray[np.float32]:  # noqa: N802
        return self.X[: self.n_train]

    @property
    def X_test(self) -> NDArray[np.float32]:  # noqa: N802
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
    """Rows of exactly `n_active` atoms with Gamma(4, 1/4) coefficients, Gaussian noise and a mean of length 5.

    Atoms are Gaussian directions. Those of a row are drawn without replacement, one after the other, each with
    Zipf-Mandelbrot weights among those that are left (successive sampling): the first `n_active` different ones in a
    stream of independent draws. Atom i is then in a share 1 - exp(-w_i t) of the rows, with t such that the shares add
    up to `n_active` (Rosén 1972; tested). The first rows, train and test each, do not depend on how many there are.

    Parameters
    ----------
    seed
        Decides the dictionary and the rows. Same seed, same bytes on one machine.
    column_ratio
        Largest over smallest scale of a column: columns are scaled by factors even in their logarithm, in random
        order, and atoms come back to length 1, so that their coefficients change with them.
    block_size
        More than 1: atoms of neighbouring frequency form blocks of so many, and after a draw the next one comes from
        the same block with a chance of 1/2. Between blocks, frequencies stay nearly as they were.
    n_children
        More than 0: a forest of three levels, in which roots and their children have so many children each. An atom
        is active only where its parent is: a draw brings its ancestors along. Atoms that are left over stand alone.

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
    rng = np.random.default_rng([seed, _TRUTH])
    atoms = rng.standard_normal((n_atoms, d_in), dtype=np.float32)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    mean = rng.standard_normal(d_in, dtype=np.float32)
    mean *= MEAN_NORM / np.linalg.norm(mean)
    scales = rng.permutation(np.geomspace(column_ratio**-0.5, column_ratio**0.5, d_in)).astype(np.float32)
    atoms *= scales
    lengths = np.linalg.norm(atoms, axis=1)
    atoms /= lengths[:, None]
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
            values[rows] *= lengths[indices[rows]]
            noise = rng.standard_normal((size, d_in), dtype=np.float32)
            noise *= NOISE * scales
            np.add(_as_csr(values[rows], indices[rows], n_atoms) @ atoms, noise, out=X[rows])
    X += mean * scales
    return PlantedDictionary(
        X=X, atoms=atoms, latents=_as_csr(values, indices, n_atoms), mean=mean * scales, parent=parent, n_train=n_train
    )


def forest_parents(n_atoms: int, n_children: int) -> NDArray[np.int64]:
    """Parent of each atom in a forest of three levels, -1 for none: all roots stand first, then all their children."""
    n_roots = n_atoms // (1 + n_children + n_children**2)
    n_inner = n_roots * (1 + n_children)
    parent = np.full(n_atoms, -1)
    child = np.arange(n_roots, n_roots + n_inner * n_children)
    parent[child] = (child - n_roots) // n_children
    return parent


def _draw_supports(
    rng: np.random.Generator, n_atoms: int, n_active: int, block_size: int, parent: NDArray[np.int64] | None
) -> NDArray[np.int32]:
    """(_BLOCK_ROWS, n_active), the active atoms of each row in ascending order."""
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
    """(n_atoms, 3): grandparent, parent and the atom itself; who has no ancestor stands in for them."""
    above = np.where(parent < 0, np.arange(len(parent)), parent)
    return np.stack((above[above], above, np.arange(len(parent))), axis=1)


def _is_first_of_its_kind(stream: NDArray[np.int64]) -> NDArray[np.bool_]:
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
