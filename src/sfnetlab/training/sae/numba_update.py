"""Decoding of the active latents, and their step: gradients and weights of the latents that are active on some row.

Each kernel runs on one thread; code slots as in numba_selection.py.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfnetlab.training.sae import lanes
from sfnetlab.training.sae.lanes import WIDE
from sfnetlab.training.sae.numba_parts import Floats, Halves, Ints, blocks, kernel, part, products
from sfnetlab.training.sae.numba_selection import block_lengths, round_block
from sfnetlab.training.sae.stack import DECODER_SPEED, EPSILON, MEAN_ROWS, SQUARE_ROWS

_STEP_WORK = 4
"""Of a latent, in units of the work that one more row on which it is active makes."""


# --- decoding ---------------------------------------------------------------------------------------------------------


@part
def _add_rows(
    columns: Any,
    first: int,
    block: Any,
    table: Floats,
    rows: Ints,
    stride: int,
    shift: int,
    scales: Floats,
    begin: int,
    end: int,
) -> Any:
    """block + scales @ table[rows * stride + shift] in some columns, slots from begin to end."""
    for i in range(begin, end):
        block = block + scales[i] * lanes.load(columns, table, rows[i] * stride + shift, first)
    return block


@part
def _decode_block(
    columns: Any,
    first: int,
    squares: tuple[Any, Any],
    row: int,
    z: Floats,
    W_dec: Floats,
    b_dec: Floats,
    scale: np.float32,
    start: int,
    ends: NDArray[np.int64],
    latents: Ints,
    values: Floats,
    errors: Floats,
    b_dec_gradient: Floats,
) -> tuple[Any, Any]:
    """`decode_rows` of one row in some columns; adds to its squared errors, of all dictionaries and the whole one."""
    n_prefixes = len(ends)
    base, begin = row * n_prefixes, start
    all_squares, whole_squares = squares
    error = lanes.load(columns, b_dec, 0, first) - lanes.load(columns, z, row, first)
    for g in range(n_prefixes):
        error = _add_rows(columns, first, error, W_dec, latents, 1, 0, values, begin, ends[g])
        lanes.store(columns, error, errors, base + g, first)
        all_squares = all_squares + error * error
        begin = ends[g]
    whole_squares = whole_squares + error * error
    for g in range(n_prefixes - 2, -1, -1):
        error = error + lanes.load(columns, errors, base + g, first)
        lanes.store(columns, error, errors, base + g, first)
    so_far = lanes.load(columns, b_dec_gradient, 0, first)
    lanes.store(columns, so_far + scale * error, b_dec_gradient, 0, first)
    return all_squares, whole_squares


@kernel
def decode_rows(
    z: Floats,
    W_dec: Floats,
    b_dec: Floats,
    prefixes: NDArray[np.int64],
    scale: np.float32,
    first_row: int,
    n_rows: int,
    starts: NDArray[np.int64],
    counts: Ints,
    columns: Ints,
    values: Floats,
    errors: Floats,
    code_gradients: Floats,
    b_dec_gradient: Floats,
) -> tuple[float, float]:
    """Errors of each row and each nested dictionary, and what follows from them.

    Writes errors[row * n_prefixes + g] = sum of the errors (z_hat_p - z) over p >= g, the gradients of the codes, and
    adds up that of b_dec. Returns the squared errors: of all dictionaries together, and of the whole one.
    """
    n_prefixes, d_in = len(prefixes), z.shape[1]
    border, whole, rest = blocks(d_in)
    all_squares, whole_squares = 0.0, 0.0
    ends = np.empty(n_prefixes, np.int64)
    b_dec_gradient[:] = 0
    for row in range(first_row, first_row + n_rows):
        start, slot = starts[row], starts[row]
        for g in range(n_prefixes):
            while slot < start + counts[row] and columns[slot] < prefixes[g]:
                slot += 1
            ends[g] = slot
        of_row = (row, z, W_dec, b_dec, scale, start, ends, columns, values, errors, b_dec_gradient)
        squares = (lanes.zeros(whole), lanes.zeros(whole))
        for c in range(0, border, WIDE):
            squares = _decode_block(whole, c, squares, *of_row)
        if border < d_in:
            squares = _decode_block(rest, border, squares, *of_row)
        all_squares += lanes.total(squares[0])
        whole_squares += lanes.total(squares[1])
        begin = start
        for g in range(n_prefixes):
            products(W_dec, columns, errors, row * n_prefixes + g, scale, begin, ends[g], code_gradients)
            begin = ends[g]
    return all_squares, whole_squares


# --- latents ----------------------------------------------------------------------------------------------------------


@kernel
def _sort_by_latent(
    first_latent: int,
    last_latent: int,
    starts: NDArray[np.int64],
    counts: Ints,
    columns: Ints,
    values: Floats,
    code_gradients: Floats,
    offsets: NDArray[np.int64],
    rows: Ints,
    sorted_values: Floats,
    sorted_gradients: Floats,
) -> None:
    """Counting sort of the slots of a range: those of its j-th latent go to offsets[j]:offsets[j + 1], by row."""
    n_latents = last_latent - first_latent
    offsets[: n_latents + 1] = 0
    begins = np.empty(len(counts), np.int64)
    for row in range(len(counts)):
        end = starts[row] + counts[row]
        slot = _first_slot(columns, starts[row], end, first_latent)
        begins[row] = slot
        while slot < end and columns[slot] < last_latent:
            offsets[columns[slot] - first_latent + 1] += 1
            slot += 1
    total = 0
    for j in range(n_latents):  # offsets[j + 1] becomes the start of j, and its end while filling
        n = offsets[j + 1]
        offsets[j + 1] = total
        total += n
    for row in range(len(counts)):
        slot, end = begins[row], starts[row] + counts[row]
        while slot < end and columns[slot] < last_latent:
            j = columns[slot] - first_latent
            to = offsets[j + 1]
            offsets[j + 1] = to + 1
            rows[to] = row
            sorted_values[to] = values[slot]
            sorted_gradients[to] = code_gradients[slot]
            slot += 1


@part
def _first_slot(columns: Ints, begin: int, end: int, column: int) -> int:
    """The first of some slots, columns ascending, whose column is at least so much."""
    while begin < end:
        middle = (begin + end) // 2
        if columns[middle] < column:
            begin = middle + 1
        else:
            end = middle
    return begin


@kernel
def cut_ranges(n_active: Ints, bounds: NDArray[np.int64]) -> None:
    """Bounds of ranges of latents that make about the same work, of how many rows each latent is active on."""
    n_latents, n_ranges = len(n_active), len(bounds) - 1
    all_work = _STEP_WORK * n_latents
    for j in range(n_latents):
        all_work += n_active[j]
    work, i = 0, 0
    for j in range(n_latents):
        while work * n_ranges >= all_work * i:
            bounds[i] = j
            i += 1
        work += n_active[j] + _STEP_WORK
    bounds[i:] = n_latents


@part
def _shares(n_rows: int) -> tuple[np.float32, np.float32]:
    """What new gradients are of running means, and new squares of theirs."""
    return np.float32(min(1.0, n_rows / MEAN_ROWS)), np.float32(min(1.0, n_rows / SQUARE_ROWS))


@part
def _decay(share: np.float32, gap: np.float32) -> np.float32:
    """What is left of a mean after so many steps; mostly after one, where no power need be taken."""
    left = np.float32(1) - share
    return left if gap == np.float32(1) else left**gap


@part
def _running(mean: Any, new: Any, decay: np.float32, share: np.float32) -> Any:
    return decay * mean + share * new


@part
def _speed(mean_square: np.float32, rate: np.float32) -> np.float32:
    return rate / (np.float32(math.sqrt(mean_square)) + np.float32(EPSILON))


@kernel
def move_b_dec(b_dec: Floats, mean_square: Floats, gradients: Floats, rate: np.float32, n_rows: int) -> None:
    """Its step, which has no momentum; the first of the gradients, of each chunk, becomes their sum."""
    _, share = _shares(n_rows)
    gradient, square = gradients[0], np.float32(0)
    for c in range(len(b_dec)):
        for chunk in range(1, len(gradients)):
            gradient[c] += gradients[chunk, c]
        square += gradient[c] * gradient[c]
    square /= np.float32(len(b_dec))
    is_first = mean_square[0] == 0
    mean_square[0] = square if is_first else _running(mean_square[0], square, np.float32(1) - share, share)
    speed = _speed(mean_square[0], np.float32(DECODER_SPEED) * rate)
    for c in range(len(b_dec)):
        b_dec[c] -= speed * gradient[c]


@part
def _encoder_gradient(
    columns: Any,
    first: int,
    square: Any,
    begin: int,
    end: int,
    rows: Ints,
    code_gradients: Floats,
    z: Floats,
    column_speeds: Floats,
    gradient: Floats,
) -> Any:
    block = _add_rows(columns, first, lanes.zeros(columns), z, rows, 1, 0, code_gradients, begin, end)
    block = block * lanes.load(columns, column_speeds, 0, first)
    lanes.store(columns, block, gradient, 0, first)
    return square + block * block


@part
def _atom_gradient(
    columns: Any,
    first: int,
    sums: tuple[Any, Any, Any],
    begin: int,
    end: int,
    rows: Ints,
    n_prefixes: int,
    group: int,
    values: Floats,
    errors: Floats,
    scale: np.float32,
    along: np.float32,
    W_dec: Floats,
    latent: int,
    gradient: Floats,
) -> tuple[Any, Any, Any]:
    """Adds to the squared length of the gradient, its product with the atom, and the atom's squared length."""
    block = _add_rows(columns, first, lanes.zeros(columns), errors, rows, n_prefixes, group, values, begin, end)
    atom = lanes.load(columns, W_dec, latent, first)
    block = scale * block - along * atom
    lanes.store(columns, block, gradient, 0, first)
    return sums[0] + block * block, sums[1] + block * atom, sums[2] + atom * atom


@part
def _move_encoder(
    columns: Any,
    first: int,
    sums: tuple[Any, Any],
    W_enc: Floats,
    means: Floats,
    latent: int,
    gradient: Floats,
    decay: np.float32,
    share: np.float32,
    speed: np.float32,
    is_rounded: bool,
    halves: Halves,
) -> tuple[Any, Any]:
    mean = _running(lanes.load(columns, means, latent, first), lanes.load(columns, gradient, 0, first), decay, share)
    lanes.store(columns, mean, means, latent, first)
    moved = lanes.load(columns, W_enc, latent, first) - speed * mean
    lanes.store(columns, moved, W_enc, latent, first)
    return round_block(columns, first, sums, moved, halves, latent) if is_rounded else sums


@part
def _move_atom(
    columns: Any, first: int, W_dec: Floats, latent: int, gradient: Floats, shrink: np.float32, speed: np.float32
) -> None:
    moved = lanes.load(columns, W_dec, latent, first) - speed * lanes.load(columns, gradient, 0, first)
    lanes.store(columns, shrink * moved, W_dec, latent, first)


@kernel
def _move_encoders(
    first_latent: int,
    last_latent: int,
    offsets: NDArray[np.int64],
    rows: Ints,
    code_gradients: Floats,
    z: Floats,
    number: int,
    rate: np.float32,
    column_speeds: Floats,
    W_enc: Floats,
    W_enc_means: Floats,
    W_enc_squares: Floats,
    b_enc: Floats,
    b_enc_means: Floats,
    b_enc_squares: Floats,
    last_active: NDArray[np.int64],
    is_rounded: bool,
    halves: Halves,
    norms: Floats,
    shares: Floats,
) -> np.float32:
    """Step of the encoder's part; what `round_latents` would write after it, it writes too, if that is wanted."""
    d_in = z.shape[1]
    border, whole, rest = blocks(d_in)
    gradient = np.empty(d_in, np.float32)
    check, per_column, one = np.float32(0), np.float32(1 / d_in), np.float32(1)
    mean_share, square_share = _shares(len(z))
    for j in range(first_latent, last_latent):
        begin, end = offsets[j - first_latent], offsets[j - first_latent + 1]
        if begin == end:
            continue
        gap = np.float32(number - last_active[j])
        mean_decay, square_decay = _decay(mean_share, gap), _decay(square_share, gap)
        of_latent = (begin, end, rows, code_gradients, z, column_speeds, gradient)
        squares = lanes.zeros(whole)
        for c in range(0, border, WIDE):
            squares = _encoder_gradient(whole, c, squares, *of_latent)
        if border < d_in:
            squares = _encoder_gradient(rest, border, squares, *of_latent)
        new_decay, new_share = mean_decay, mean_share
        square = per_column * lanes.total(squares)
        if W_enc_squares[j] == 0:
            new_decay, new_share = np.float32(0), one
            W_enc_squares[j] = square
        else:
            W_enc_squares[j] = _running(W_enc_squares[j], square, square_decay, square_share)
        speed = _speed(W_enc_squares[j], rate)
        to_move = (W_enc, W_enc_means, j, gradient, new_decay, new_share, speed, is_rounded, halves)
        lengths = (lanes.zeros(whole), lanes.zeros(whole))
        for c in range(0, border, WIDE):
            lengths = _move_encoder(whole, c, lengths, *to_move)
        if border < d_in:
            lengths = _move_encoder(rest, border, lengths, *to_move)
        if is_rounded:
            norms[j], change = block_lengths(lengths, d_in)
            shares[j] = change / norms[j]
        bias_gradient = np.float32(0)
        for i in range(begin, end):
            bias_gradient += code_gradients[i]
        square = bias_gradient * bias_gradient
        if b_enc_squares[j] == 0:
            b_enc_means[j], b_enc_squares[j] = bias_gradient, square
        else:
            b_enc_means[j] = _running(b_enc_means[j], bias_gradient, mean_decay, mean_share)
            b_enc_squares[j] = _running(b_enc_squares[j], square, square_decay, square_share)
        b_enc[j] -= _speed(b_enc_squares[j], rate) * b_enc_means[j]
        check += b_enc[j] * np.float32(0)
    return check


@kernel
def _move_atoms(
    first_latent: int,
    last_latent: int,
    offsets: NDArray[np.int64],
    rows: Ints,
    values: Floats,
    code_gradients: Floats,
    n_rows: int,
    errors: Floats,
    prefixes: NDArray[np.int64],
    scale: np.float32,
    number: int,
    rate: np.float32,
    W_dec: Floats,
    W_dec_squares: Floats,
    last_active: NDArray[np.int64],
) -> np.float32:
    """Step of the decoder's part, and length 1."""
    n_prefixes, d_in = len(prefixes), W_dec.shape[1]
    border, whole, rest = blocks(d_in)
    gradient = np.empty(d_in, np.float32)
    check, per_column, one = np.float32(0), np.float32(1 / d_in), np.float32(1)
    _, square_share = _shares(n_rows)
    group = 0
    for j in range(first_latent, last_latent):
        while prefixes[group] <= j:
            group += 1
        begin, end = offsets[j - first_latent], offsets[j - first_latent + 1]
        if begin == end:
            continue
        along = np.float32(0)
        for i in range(begin, end):
            along += values[i] * code_gradients[i]
        of_atom = (begin, end, rows, n_prefixes, group, values, errors, scale, along, W_dec, j, gradient)
        sums = (lanes.zeros(whole), lanes.zeros(whole), lanes.zeros(whole))
        for c in range(0, border, WIDE):
            sums = _atom_gradient(whole, c, sums, *of_atom)
        if border < d_in:
            sums = _atom_gradient(rest, border, sums, *of_atom)
        square = lanes.total(sums[0])
        if W_dec_squares[j] == 0:
            W_dec_squares[j] = per_column * square
        else:
            square_decay = _decay(square_share, np.float32(number - last_active[j]))
            W_dec_squares[j] = _running(W_dec_squares[j], per_column * square, square_decay, square_share)
        speed = _speed(W_dec_squares[j], np.float32(DECODER_SPEED) * rate)
        # |atom - speed gradient|^2, whose two parts are all but orthogonal.
        length_square = lanes.total(sums[2]) - speed * (np.float32(2) * lanes.total(sums[1]) - speed * square)
        check += length_square * np.float32(0)
        shrink = one / max(np.float32(math.sqrt(length_square)), np.float32(1e-12))
        for c in range(0, border, WIDE):
            _move_atom(whole, c, W_dec, j, gradient, shrink, speed)
        if border < d_in:
            _move_atom(rest, border, W_dec, j, gradient, shrink, speed)
    return check


@kernel
def update_latents(
    first_latent: int,
    last_latent: int,
    starts: NDArray[np.int64],
    counts: Ints,
    columns: Ints,
    row_values: Floats,
    row_gradients: Floats,
    offsets: NDArray[np.int64],
    rows: Ints,
    values: Floats,
    code_gradients: Floats,
    n_active: Ints,
    z: Floats,
    errors: Floats,
    prefixes: NDArray[np.int64],
    scale: np.float32,
    number: int,
    rate: np.float32,
    trains_encoder: bool,
    trains_decoder: bool,
    column_speeds: Floats,
    W_enc: Floats,
    W_enc_means: Floats,
    W_enc_squares: Floats,
    b_enc: Floats,
    b_enc_means: Floats,
    b_enc_squares: Floats,
    W_dec: Floats,
    W_dec_squares: Floats,
    last_active: NDArray[np.int64],
    is_rounded: bool,
    halves: Halves,
    norms: Floats,
    shares: Floats,
) -> np.float32:
    """Gradients, step and length 1 of each latent in the range that is active; not a number if a weight became so.

    Codes come by rows and are sorted by latents into `offsets` to `code_gradients`; `n_active` gets on how many rows
    each latent is active. Encoders of the whole range are moved before its atoms: what the former read of rows, and the
    latter of errors, stays in the cache.
    """
    of_range = (first_latent, last_latent)
    by_row = (starts, counts, columns, row_values, row_gradients)
    _sort_by_latent(*of_range, *by_row, offsets, rows, values, code_gradients)
    check = np.float32(0)
    if trains_encoder:
        of_W_enc, of_b_enc = (W_enc, W_enc_means, W_enc_squares), (b_enc, b_enc_means, b_enc_squares)
        rounded = (is_rounded, halves, norms, shares)
        by_latent = (offsets, rows, code_gradients, z, number, rate, column_speeds)
        check += _move_encoders(*of_range, *by_latent, *of_W_enc, *of_b_enc, last_active, *rounded)
    if trains_decoder:
        of_errors = (len(z), errors, prefixes, scale, number, rate)
        of_W_dec = (W_dec, W_dec_squares, last_active)
        check += _move_atoms(*of_range, offsets, rows, values, code_gradients, *of_errors, *of_W_dec)
    for j in range(first_latent, last_latent):
        n_active[j] = offsets[j - first_latent + 1] - offsets[j - first_latent]
        if n_active[j] > 0:
            last_active[j] = number
    return check
