"""Passes over a feature table, dense (also memory-mapped) or SciPy CSR, in float64 and bounded memory.

What the other metrics and the probes share; no metric of its own.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

FeatureMatrix = NDArray[np.floating] | sp.csr_array | sp.csr_matrix
"""Features as callers may pass them, dense or CSR, shape (n, d)."""


class CSR(Protocol):
    """The part of `scipy.sparse.csr_array` that is used here, for it has no types of its own."""

    shape: tuple[int, int]
    nnz: int
    data: NDArray[np.floating]
    indices: NDArray[np.integer]
    indptr: NDArray[np.integer]
    T: Any

    def __getitem__(self, key: Any) -> "CSR": ...
    def __matmul__(self, other: Any) -> Any: ...
    def astype(self, dtype: type) -> "CSR": ...
    def toarray(self) -> NDArray[np.floating]: ...
    def tocsc(self) -> Any: ...


class Mapped:
    """Some rows and columns of a dense array that lies on the disk, read a block at a time.

    Rows by a slice are an array, as are all by `toarray`; rows by their places and columns are `Mapped` again.
    """

    def __init__(
        self, values: NDArray[np.floating], rows: NDArray[np.integer], columns: NDArray[np.integer] | None = None
    ) -> None:
        self._values, self._rows, self._columns = values, rows, columns

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return len(self._rows), self._values.shape[1] if self._columns is None else len(self._columns)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            _, columns = key
            known = np.arange(self.shape[1]) if self._columns is None else self._columns
            return Mapped(self._values, self._rows, known[columns])
        if not isinstance(key, slice):
            return Mapped(self._values, self._rows[key], self._columns)
        block = self._values[self._rows[key]]
        return block if self._columns is None else block[:, self._columns]

    def toarray(self) -> NDArray[np.floating]:
        """Return all of it."""
        out = np.empty(self.shape, dtype=self._values.dtype)
        for rows in row_slices(self.shape):
            out[rows] = self[rows]
        return out


Table = NDArray[np.floating] | CSR
"""A checked feature table. What is typed as a CSR may be `Mapped`: see `is_dense`."""

BLOCK_VALUES = 2**22
"""Values of a block held at a time: 32 MiB in float64."""

CONSTANT_SPREAD = 1e-6
"""A column whose standard deviation is below this share of its root mean square counts as constant: what is left is
the rounding of float32."""


def checked_table(X: FeatureMatrix, name: str = "X") -> Table:
    """Return the table, CSR as sorted `csr_array` without repeats; ValueError unless (n, d) and finite throughout."""
    table: Table = cast("CSR", _canonical(X, name)) if sp.issparse(X) else _as_dense(X)
    if len(table.shape) != 2:
        raise ValueError(f"{name}: expected shape (n, d), got {table.shape}")
    if is_dense(table):
        n_bad = sum(np.count_nonzero(~np.isfinite(np.asarray(table[rows]))) for rows in row_slices(table.shape))
    else:
        n_bad = np.count_nonzero(~np.isfinite(cast("CSR", table).data))
    if n_bad:
        raise ValueError(f"{name}: {n_bad} of {table.shape[0] * table.shape[1]} values are not finite")
    return table


def is_dense(X: object) -> bool:
    """Return whether a table is an array, in memory or `Mapped`, whose rows are read in blocks."""
    return isinstance(X, (np.ndarray, Mapped))


def in_memory(X: Table) -> Any:
    """Return a table as an array or CSR, for those who need all of it at once."""
    return X.toarray() if isinstance(X, Mapped) else X


def _as_dense(X: Any) -> Any:
    return X if isinstance(X, Mapped) else np.asarray(X)


def checked_labels(Y: NDArray[np.floating], n: int, name: str = "Y") -> NDArray[np.float64]:
    """Return the labels in float64; ValueError unless (n, m) and finite throughout."""
    labels = checked_table(Y, name)
    if not isinstance(labels, np.ndarray) or labels.shape[0] != n:
        raise ValueError(f"{name}: expected a dense array of {n} rows, one a row of features, got {labels.shape}")
    return labels.astype(np.float64)


def _canonical(X: Any, name: str) -> Any:
    if X.format != "csr":
        raise ValueError(
            f"{name}: expected a dense array or CSR, got sparse format {X.format!r}; convert with .tocsr()"
        )
    table = sp.csr_array(X)
    if not table.has_canonical_format:
        table = table.copy()
        table.sum_duplicates()
    return table


def rows_of(X: FeatureMatrix, rows: NDArray[np.integer]) -> FeatureMatrix:
    """Return some rows of a table, dense or CSR, as a table of the same kind."""
    return cast(FeatureMatrix, X[rows])


def evenly(places: NDArray[np.intp], at_most: int) -> NDArray[np.intp]:
    """Return all of the places (n,), or `at_most` of them, spread evenly over all, in their order."""
    if len(places) <= at_most:
        return places
    return places[np.arange(at_most) * len(places) // at_most]


def stacked(blocks: Iterable[Any], n_rows: int, n_columns: int) -> sp.csr_array:
    """Return consecutive blocks of rows, `n_rows` in all, as one float32 CSR table with 32-bit column numbers.

    The blocks are copied one by one into arrays that grow to what the rows so far let expect: the blocks need not be
    held together.
    """
    data, indices = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int32)
    ends = np.zeros(n_rows + 1, dtype=np.int64)
    row = 0
    for block in blocks:
        start, following = int(ends[row]), row + block.shape[0]
        end = start + block.nnz
        if end > data.size:
            expected = int(1.02 * end * n_rows / following)
            for array in (data, indices):
                array.resize(max(end, expected), refcheck=False)
        data[start:end], indices[start:end] = block.data, block.indices
        ends[row + 1 : following + 1] = start + block.indptr[1:]
        row = following
    for array in (data, indices):
        array.resize(int(ends[row]), refcheck=False)
    # scipy takes the wider type of the two for both
    ends = ends[: row + 1].astype(np.int32 if ends[row] < 2**31 else np.int64)
    return sp.csr_array((data, indices, ends), shape=(row, n_columns))


def columns_of(X: FeatureMatrix, columns: NDArray[np.integer]) -> FeatureMatrix:
    """Return some columns of a table, dense or CSR, as a table of the same kind."""
    return cast(FeatureMatrix, X[:, columns])


def varying_columns(*parts: FeatureMatrix) -> NDArray[np.intp]:
    """Return the columns of one table that vary among the rows of each of these parts of it, rising."""
    varies = [column_mean_sd(checked_table(part))[1] > 0 for part in parts]
    return np.flatnonzero(np.logical_and.reduce(varies))


def row_slices(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield consecutive row ranges that cover an (n, d) array in blocks of at most `BLOCK_VALUES` values (or a row)."""
    n_rows = max(1, BLOCK_VALUES // max(1, shape[1]))
    for start in range(0, shape[0], n_rows):
        yield slice(start, min(start + n_rows, shape[0]))


def row_blocks(X: Table) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield each row range and its rows as a dense float64 array."""
    for rows in row_slices(X.shape):
        block = X[rows]
        yield rows, (block if isinstance(block, np.ndarray) else block.toarray()).astype(np.float64)


def column_mean_sd(X: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and population standard deviation of each column; the sd of a constant column is exactly 0."""
    n, d = X.shape
    if n == 0:
        raise ValueError("mean and standard deviation need at least one row, got none")
    if is_dense(X):
        mean = sum((block.sum(axis=0) for _, block in row_blocks(X)), np.zeros(d)) / n
        squares = sum((((block - mean) ** 2).sum(axis=0) for _, block in row_blocks(X)), np.zeros(d))
    else:
        X = cast("CSR", X)
        mean = np.bincount(X.indices, weights=X.data, minlength=d) / n
        of_zeros = (n - np.bincount(X.indices, minlength=d)) * mean**2
        squares = of_zeros + np.bincount(X.indices, weights=(X.data - mean[X.indices]) ** 2, minlength=d)
    sd = np.sqrt(squares / n)
    sd[sd <= CONSTANT_SPREAD * np.hypot(mean, sd)] = 0.0
    return mean, sd


def transpose_product(X: Table, V: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return X.T @ V in float64, for V of shape (n,) or (n, m)."""
    if not is_dense(X):
        return cast("CSR", X).T @ V
    product = np.zeros((X.shape[1], *V.shape[1:]))
    for rows, block in row_blocks(X):
        product += block.T @ V[rows]
    return product
