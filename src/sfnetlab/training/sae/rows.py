"""Rows of embeddings to train on, and which rows or columns of them hold most of what a loss sees."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sfnetlab.training.loop import Pieces
from sfnetlab.training.sae.settings import Standardize

FAR = 10.0
"""Distance from the columns' medians, in medians of all rows' distances, from which a row counts as far."""
_WIDE = 100.0
"""Variance of a column, in medians of all columns' variances, from which a column counts as wide."""
_ROWS_SHARE, _COLUMNS_SHARE = 0.1, 0.5
"""Shares of the variance from which far rows and wide columns are spoken of."""
_FEW_COLUMNS = 20
"""Wide columns are spoken of where they are at most one in so many: an embedding may have many silent columns."""
_MEDIAN_ROWS = 2048
"""Medians of columns are those of so many rows at most, spread evenly over all."""
_BLOCK_ROWS = 4096
_FIRST = 5


class UnevenSpreadWarning(UserWarning):
    """A few rows or columns hold so much of the variance that a loss sees little else."""


@dataclass(frozen=True)
class Rows:
    """Rows of embeddings, of which `chosen` are used.

    Attributes
    ----------
    embeddings
        (n, d_in), of any float or integer type, possibly memory-mapped.
    chosen
        Indices of the rows to use.
    """

    embeddings: NDArray[np.number]
    chosen: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, positions: NDArray[np.intp]) -> NDArray[np.float32]:
        """A copy of chosen rows, (len(positions), d_in), float32; infinite where a value is too large for float32."""
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(self.embeddings[self.chosen[positions]], dtype=np.float32)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """All chosen rows in order, a few thousand at a time."""
        for start in range(0, len(self), _BLOCK_ROWS):
            yield self.take(np.arange(start, min(start + _BLOCK_ROWS, len(self))))


class HeldPieces:
    """Takes rows from pieces of consecutive ones, which are read as a whole and held for as long as two windows.

    A batch is no longer than half a window, so that its rows are of two windows at most, and of the shorter last piece
    where that is a window of its own.
    """

    def __init__(self, rows: Rows, pieces: Pieces) -> None:
        self._rows, self._n_rows = rows, pieces.n_rows
        n_slots = 2 * pieces.n_pieces + 1
        self._held = np.empty((n_slots, pieces.n_rows, rows.embeddings.shape[1]), dtype=np.float32)
        self._piece_of_slot, self._last_used = np.full((2, n_slots), -1)
        self._slot_of_piece = np.full(-(-len(rows) // pieces.n_rows), -1)
        self._n_taken = 0

    def take(self, positions: NDArray[np.intp]) -> NDArray[np.float32]:
        """What `Rows.take` returns."""
        piece, row = np.divmod(positions, self._n_rows)
        slots = self._slot_of_piece[piece]
        self._n_taken += 1
        self._last_used[slots[slots >= 0]] = self._n_taken
        for missing in np.unique(piece[slots < 0]):
            self._read(int(missing))
        return self._held[self._slot_of_piece[piece], row]

    def _read(self, piece: int) -> None:
        """Read a piece to the place of the one that was not used for longest."""
        slot = int(self._last_used.argmin())
        if (left := self._piece_of_slot[slot]) >= 0:
            self._slot_of_piece[left] = -1
        start = piece * self._n_rows
        block = self._rows.take(np.arange(start, min(start + self._n_rows, len(self._rows))))
        self._held[slot, : len(block)] = block
        self._piece_of_slot[slot], self._slot_of_piece[piece], self._last_used[slot] = piece, slot, self._n_taken


def without_far_rows(rows: Rows, max_distance: float | None, standardize: Standardize) -> Rows:
    """These rows without those farther than `max_distance` median distances from the columns' medians; None: all.

    With `standardize="columns"` distances are in robust spreads of the columns. Rows that are not finite stay, as they
    are an error of their own.
    """
    if max_distance is None or len(rows) == 0:
        return rows
    with np.errstate(invalid="ignore"):
        distances, _ = _distances(rows, standardize)
    is_far = np.isfinite(distances) & (distances > max_distance * np.median(distances))
    return replace(rows, chosen=rows.chosen[~is_far])


def uneven_spread(rows: Rows, standardize: Standardize, name: Callable[[int], str] = str) -> Iterator[str]:
    """Yield what is to be said of rows, and of columns, that hold most of the variance; nothing of ordinary embeddings.

    Parameters
    ----------
    rows
        Finite rows, at least one.
    standardize
        As what is trained will have it: "columns" makes columns equal, so that only rows are looked at.
    name
        Name of a row of `rows.embeddings` in messages.
    """
    distances, variances = _distances(rows, standardize)
    squares, middle = np.square(distances), np.median(distances)
    far = np.flatnonzero(distances > FAR * middle)
    if middle > 0 and squares[far].sum() > _ROWS_SHARE * squares.sum():
        first = ", ".join(
            f"{name(int(rows.chosen[row]))} ({squares[row] / squares.sum():.1%})"
            for row in far[np.argsort(-squares[far], kind="stable")][:_FIRST]
        )
        yield (
            f"{len(far)} of {len(rows)} rows are more than {FAR:.0f} times as far from the columns' medians as the "
            f"median row and hold {squares[far].sum() / squares.sum():.1%} of the variance; the largest, with their "
            f"shares: {first}; a loss and an FVU are about these rows: correct them, or leave them out of sparse "
            f"autoencoders by max_distance = {FAR:.0f}"
        )
    ordinary = np.quantile(variances[variances > 0], 0.5, method="lower") if variances.any() else 0.0
    wide = np.flatnonzero(variances > _WIDE * ordinary)
    is_much = variances[wide].sum() > _COLUMNS_SHARE * variances.sum()
    if standardize == "one scale" and is_much and len(wide) <= max(1, len(variances) // _FEW_COLUMNS):
        first = ", ".join(
            f"{column} ({variances[column] / variances.sum():.1%})"
            for column in wide[np.argsort(-variances[wide], kind="stable")][:_FIRST]
        )
        yield (
            f"{len(wide)} of {len(variances)} columns hold {variances[wide].sum() / variances.sum():.1%} of the "
            f"variance; the largest, counted from 0, with their shares: {first}; a loss and an FVU are about these "
            f'columns: sparse autoencoders with standardize = "columns" count all columns alike'
        )


def repeated_rows(rows: Rows, among: Rows) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows that occur to the bit among others too, and the first of these of each; indices of embeddings."""
    hashes, known = (_hashes(part) for part in (rows, among))
    values, first = np.unique(known, return_index=True)
    place = np.minimum(np.searchsorted(values, hashes), max(len(values) - 1, 0))
    is_known = values[place] == hashes if len(values) else np.zeros(len(hashes), dtype=np.bool_)
    return rows.chosen[is_known], among.chosen[first[place[is_known]]]


def _hashes(rows: Rows) -> NDArray[np.uint64]:
    """A number for each row, (n,), which rows share that are equal to the bit."""
    factors = np.random.default_rng(0).integers(2**63, size=rows.embeddings.shape[1], dtype=np.uint64) | np.uint64(1)
    parts = [(block.view(np.uint32) * factors).sum(axis=1, dtype=np.uint64) for block in rows.blocks()]
    return np.concatenate([np.zeros(0, dtype=np.uint64), *parts])


def _distances(rows: Rows, standardize: Standardize) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance of each row from the columns' medians, (n,), and robust variances of the columns, (d_in,).

    The variance of a column is that of its values within `FAR` robust spreads of its median, so that one broken row
    makes no column wide. "columns" has distances in units of the columns' spreads.
    """
    sample = rows.take(np.unique(np.linspace(0, len(rows) - 1, _MEDIAN_ROWS).astype(np.intp))).astype(np.float64)
    center = np.median(sample, axis=0)
    deviations = np.abs(sample - center)
    spreads = 1.4826 * np.median(deviations, axis=0)
    # Half of a sparse column's values are alike: all values count then.
    within = (deviations <= FAR * spreads) | (spreads == 0)
    variances = np.sum(np.square(deviations), axis=0, where=within) / within.sum(axis=0)
    units = np.sqrt(np.where(variances > 0, variances, 1)) if standardize == "columns" else np.ones(len(center))
    distances = [np.linalg.norm((block - center) / units, axis=1) for block in rows.blocks()]
    return np.concatenate(distances), variances
