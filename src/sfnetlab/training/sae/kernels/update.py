"""Decoding of the active latents, and their step: gradients and weights of the latents that are active on some row.

Each kernel runs on one thread.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from sfnetlab.training.sae.kernels import lanes
from sfnetlab.training.sae.kernels.bundles import (
    Activity,
    Batch,
    Codes,
    CodesByLatent,
    Decoder,
    Encoder,
    Floats,
    Halves,
    Ints,
    Longs,
    RoundedEncoder,
    StepOptions,
)
from sfnetlab.training.sae.kernels.lanes import WIDE
from sfnetlab.training.sae.kernels.parts import blocks, kernel, part, products
from sfnetlab.training.sae.kernels.selection import block_lengths, round_block
from sfnetlab.training.sae.state import DECODER_SPEED, EPSILON, MEAN_ROWS, SQUARE_ROWS

STEP_WORK = 4
"""Work that the step of one latent makes, in units of the work that one more row on which it is active makes."""


class _Terms(NamedTuple):
    """Rows of a table and their factors: term i is scales[i] * table[rows[i] * stride + shift]."""

    table: Floats
    rows: Ints
    stride: int
    shift: int
    scales: Floats


@part
def _add_terms(columns: Any, first: int, block: Any, terms: _Terms, begin: int, end: int) -> Any:
    """The block of columns from `first` on, with the terms from begin to end added to it."""
    table, rows, stride, shift, scales = terms
    for i in range(begin, end):
        block = block + scales[i] * lanes.load(columns, table, rows[i] * stride + shift, first)
    return block


# --- decoding ---------------------------------------------------------------------------------------------------------


@part
def _decode_block(
    columns: Any,
    first: int,
    squares: tuple[Any, Any],
    row: int,
    ends: Longs,
    codes: Codes,
    decoder: Decoder,
    batch: Batch,
    b_dec_gradient: Floats,
) -> tuple[Any, Any]:
    """Do `decode_rows` for one row in a block of columns.

    `ends` are the slots where the codes of each nested dictionary end. Returns `squares` with the squared errors added:
    of all dictionaries, and of the whole one.
    """
    n_prefixes = len(ends)
    base, begin = row * n_prefixes, codes.starts[row]
    atoms = _Terms(decoder.W_dec, codes.columns, 1, 0, codes.values)
    all_squares, whole_squares = squares
    error = lanes.load(columns, decoder.b_dec, 0, first) - lanes.load(columns, batch.z, row, first)
    for g in range(n_prefixes):
        error = _add_terms(columns, first, error, atoms, begin, ends[g])
        lanes.store(columns, error, batch.errors, base + g, first)
        all_squares = all_squares + error * error
        begin = ends[g]
    whole_squares = whole_squares + error * error
    for g in range(n_prefixes - 2, -1, -1):
        error = error + lanes.load(columns, batch.errors, base + g, first)
        lanes.store(columns, error, batch.errors, base + g, first)
    so_far = lanes.load(columns, b_dec_gradient, 0, first)
    lanes.store(columns, so_far + batch.scale * error, b_dec_gradient, 0, first)
    return all_squares, whole_squares


@kernel
def decode_rows(
    first_row: int, last_row: int, codes: Codes, decoder: Decoder, batch: Batch, b_dec_gradient: Floats
) -> tuple[float, float]:
    """Write the errors of the rows from first_row to last_row, the gradients of their codes, and their part of b_dec's.

    Returns the squared errors: of all nested dictionaries together, and of the whole one.
    """
    starts, counts, columns, gradients = codes.starts, codes.counts, codes.columns, codes.gradients
    W_dec, prefixes, errors, scale = decoder.W_dec, decoder.prefixes, batch.errors, batch.scale
    n_prefixes, d_in = len(prefixes), batch.z.shape[1]
    border, whole, rest = blocks(d_in)
    all_squares, whole_squares = 0.0, 0.0
    ends = np.empty(n_prefixes, np.int64)
    b_dec_gradient[:] = 0
    for row in range(first_row, last_row):
        start, slot = starts[row], starts[row]
        for g in range(n_prefixes):
            while slot < start + counts[row] and columns[slot] < prefixes[g]:
                slot += 1
            ends[g] = slot
        squares = (lanes.zeros(whole), lanes.zeros(whole))
        for c in range(0, border, WIDE):
            squares = _decode_block(whole, c, squares, row, ends, codes, decoder, batch, b_dec_gradient)
        if border < d_in:
            squares = _decode_block(rest, border, squares, row, ends, codes, decoder, batch, b_dec_gradient)
        all_squares += lanes.total(squares[0])
        whole_squares += lanes.total(squares[1])
        begin = start
        for g in range(n_prefixes):
            products(W_dec, columns, errors, row * n_prefixes + g, scale, begin, ends[g], gradients)
            begin = ends[g]
    return all_squares, whole_squares


# --- latents ----------------------------------------------------------------------------------------------------------


@part
def _sort_by_latent(first_latent: int, last_latent: int, codes: Codes, by_latent: CodesByLatent) -> None:
    """Sort the codes of a range of latents by latent: a counting sort, which keeps the order of rows."""
    starts, counts, columns, offsets = codes.starts, codes.counts, codes.columns, by_latent.offsets
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
            by_latent.rows[to] = row
            by_latent.values[to] = codes.values[slot]
            by_latent.gradients[to] = codes.gradients[slot]
            slot += 1


@part
def _first_slot(columns: Ints, begin: int, end: int, column: int) -> int:
    """The first of the slots from begin to end, columns ascending, whose column is at least `column`."""
    while begin < end:
        middle = (begin + end) // 2
        if columns[middle] < column:
            begin = middle + 1
        else:
            end = middle
    return begin


@kernel
def cut_ranges(n_active: Ints, bounds: Longs) -> None:
    """Write where to cut the latents into len(bounds) - 1 ranges that make about the same work.

    `n_active` (n_latents,) is on how many rows each latent is active; range i goes from bounds[i] to bounds[i + 1].
    """
    n_latents, n_ranges = len(n_active), len(bounds) - 1
    all_work = STEP_WORK * n_latents
    for j in range(n_latents):
        all_work += n_active[j]
    work, i = 0, 0
    for j in range(n_latents):
        while work * n_ranges >= all_work * i:
            bounds[i] = j
            i += 1
        work += n_active[j] + STEP_WORK
    bounds[i:] = n_latents


@part
def _shares(n_rows: int) -> tuple[np.float32, np.float32]:
    """The weights of new gradients in running means, and of their squares in theirs."""
    return np.float32(min(1.0, n_rows / MEAN_ROWS)), np.float32(min(1.0, n_rows / SQUARE_ROWS))


@part
def _decay(share: np.float32, gap: np.float32) -> np.float32:
    """(1 - share)^gap; mostly the gap is 1, and no power need be taken."""
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
    """Take the step of b_dec, which has no momentum.

    `mean_square` has the shape (1,), `gradients` (n_chunks, d_in); the first of them becomes their sum.
    """
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
    columns: Any, first: int, square: Any, terms: _Terms, begin: int, end: int, column_speeds: Floats, gradient: Floats
) -> Any:
    """Write a block of the gradient of a latent's row of W_enc; returns `square` with its squares added."""
    block = _add_terms(columns, first, lanes.zeros(columns), terms, begin, end)
    block = block * lanes.load(columns, column_speeds, 0, first)
    lanes.store(columns, block, gradient, 0, first)
    return square + block * block


class _Move(NamedTuple):
    """How the mean of a gradient, and with it a weight, moves."""

    decay: np.float32
    share: np.float32
    speed: np.float32


@part
def _move_encoder_block(
    columns: Any,
    first: int,
    sums: tuple[Any, Any],
    latent: int,
    gradient: Floats,
    move: _Move,
    W_enc: Floats,
    means: Floats,
    halves: Halves,
    is_rounded: bool,
) -> tuple[Any, Any]:
    """Move a block of a latent's row of W_enc, and its bfloat16 copy if that is wanted; `sums` as in `round_block`."""
    old, new = lanes.load(columns, means, latent, first), lanes.load(columns, gradient, 0, first)
    mean = _running(old, new, move.decay, move.share)
    lanes.store(columns, mean, means, latent, first)
    moved = lanes.load(columns, W_enc, latent, first) - move.speed * mean
    lanes.store(columns, moved, W_enc, latent, first)
    return round_block(columns, first, sums, moved, halves, latent) if is_rounded else sums


@part
def _move_b_enc(
    j: int, gradient: np.float32, encoder: Encoder, shares: tuple[Any, Any], decays: tuple[Any, Any], rate: np.float32
) -> None:
    """Take the step of one latent's bias."""
    means, squares = encoder.b_enc_means, encoder.b_enc_squares
    square = gradient * gradient
    if squares[j] == 0:
        means[j], squares[j] = gradient, square
    else:
        means[j] = _running(means[j], gradient, decays[0], shares[0])
        squares[j] = _running(squares[j], square, decays[1], shares[1])
    encoder.b_enc[j] -= _speed(squares[j], rate) * means[j]


@part
def _move_encoders(
    first_latent: int,
    last_latent: int,
    by_latent: CodesByLatent,
    batch: Batch,
    encoder: Encoder,
    rounded: RoundedEncoder,
    last_active: Longs,
    options: StepOptions,
) -> np.float32:
    """Take the encoder's step for a range of latents; returns 0, or not a number if a bias became so."""
    offsets, rows, _, gradients = by_latent
    W_enc, W_enc_means, W_enc_squares, b_enc, _, _, column_speeds = encoder
    halves, norms, rounded_shares = rounded
    rate, is_rounded = options.learning_rate, options.rounds_encoder
    d_in = batch.z.shape[1]
    border, whole, rest = blocks(d_in)
    gradient = np.empty(d_in, np.float32)
    check, per_column, one = np.float32(0), np.float32(1 / d_in), np.float32(1)
    shares = _shares(len(batch.z))
    terms = _Terms(batch.z, rows, 1, 0, gradients)
    for j in range(first_latent, last_latent):
        begin, end = offsets[j - first_latent], offsets[j - first_latent + 1]
        if begin == end:
            continue
        gap = np.float32(options.number - last_active[j])
        decays = _decay(shares[0], gap), _decay(shares[1], gap)
        squares = lanes.zeros(whole)
        for c in range(0, border, WIDE):
            squares = _encoder_gradient(whole, c, squares, terms, begin, end, column_speeds, gradient)
        if border < d_in:
            squares = _encoder_gradient(rest, border, squares, terms, begin, end, column_speeds, gradient)
        decay, share = decays[0], shares[0]
        square = per_column * lanes.total(squares)
        if W_enc_squares[j] == 0:
            decay, share = np.float32(0), one
            W_enc_squares[j] = square
        else:
            W_enc_squares[j] = _running(W_enc_squares[j], square, decays[1], shares[1])
        move = _Move(decay, share, _speed(W_enc_squares[j], rate))
        lengths = (lanes.zeros(whole), lanes.zeros(whole))
        for c in range(0, border, WIDE):
            lengths = _move_encoder_block(whole, c, lengths, j, gradient, move, W_enc, W_enc_means, halves, is_rounded)
        if border < d_in:
            lengths = _move_encoder_block(
                rest, border, lengths, j, gradient, move, W_enc, W_enc_means, halves, is_rounded
            )
        if is_rounded:
            norms[j], change = block_lengths(lengths, d_in)
            rounded_shares[j] = change / norms[j]
        bias_gradient = np.float32(0)
        for i in range(begin, end):
            bias_gradient += gradients[i]
        _move_b_enc(j, bias_gradient, encoder, shares, decays, rate)
        check += b_enc[j] * np.float32(0)
    return check


class _Atom(NamedTuple):
    """One latent in the step of the decoder."""

    latent: int
    along: np.float32
    """What its gradient has along it, to be subtracted."""
    begin: int
    """The first of its codes; and behind the last one:"""
    end: int


@part
def _atom_gradient(
    columns: Any,
    first: int,
    sums: tuple[Any, Any, Any],
    atom: _Atom,
    terms: _Terms,
    scale: np.float32,
    W_dec: Floats,
    gradient: Floats,
) -> tuple[Any, Any, Any]:
    """Write a block of the gradient of an atom.

    Returns `sums` with the gradient's squares, its products with the atom, and the atom's squares added.
    """
    block = _add_terms(columns, first, lanes.zeros(columns), terms, atom.begin, atom.end)
    entries = lanes.load(columns, W_dec, atom.latent, first)
    block = scale * block - atom.along * entries
    lanes.store(columns, block, gradient, 0, first)
    return sums[0] + block * block, sums[1] + block * entries, sums[2] + entries * entries


@part
def _move_atom_block(
    columns: Any, first: int, W_dec: Floats, latent: int, gradient: Floats, shrink: np.float32, speed: np.float32
) -> None:
    moved = lanes.load(columns, W_dec, latent, first) - speed * lanes.load(columns, gradient, 0, first)
    lanes.store(columns, shrink * moved, W_dec, latent, first)


@part
def _move_atoms(
    first_latent: int,
    last_latent: int,
    by_latent: CodesByLatent,
    batch: Batch,
    decoder: Decoder,
    last_active: Longs,
    options: StepOptions,
) -> np.float32:
    """Take the decoder's step for a range of latents, after which their atoms have length 1.

    Returns 0, or not a number if an atom became so.
    """
    offsets, rows, values, gradients = by_latent
    W_dec, squares, _, prefixes = decoder
    errors, scale = batch.errors, batch.scale
    n_prefixes, d_in = len(prefixes), W_dec.shape[1]
    border, whole, rest = blocks(d_in)
    gradient = np.empty(d_in, np.float32)
    check, per_column, one = np.float32(0), np.float32(1 / d_in), np.float32(1)
    _, square_share = _shares(len(batch.z))
    group = 0
    for j in range(first_latent, last_latent):
        while prefixes[group] <= j:
            group += 1
        begin, end = offsets[j - first_latent], offsets[j - first_latent + 1]
        if begin == end:
            continue
        along = np.float32(0)
        for i in range(begin, end):
            along += values[i] * gradients[i]
        atom = _Atom(j, along, begin, end)
        terms = _Terms(errors, rows, n_prefixes, group, values)
        sums = (lanes.zeros(whole), lanes.zeros(whole), lanes.zeros(whole))
        for c in range(0, border, WIDE):
            sums = _atom_gradient(whole, c, sums, atom, terms, scale, W_dec, gradient)
        if border < d_in:
            sums = _atom_gradient(rest, border, sums, atom, terms, scale, W_dec, gradient)
        square = lanes.total(sums[0])
        if squares[j] == 0:
            squares[j] = per_column * square
        else:
            square_decay = _decay(square_share, np.float32(options.number - last_active[j]))
            squares[j] = _running(squares[j], per_column * square, square_decay, square_share)
        speed = _speed(squares[j], np.float32(DECODER_SPEED) * options.learning_rate)
        # |atom - speed gradient|^2, whose two parts are all but orthogonal.
        length_square = lanes.total(sums[2]) - speed * (np.float32(2) * lanes.total(sums[1]) - speed * square)
        check += length_square * np.float32(0)
        shrink = one / max(np.float32(math.sqrt(length_square)), np.float32(1e-12))
        for c in range(0, border, WIDE):
            _move_atom_block(whole, c, W_dec, j, gradient, shrink, speed)
        if border < d_in:
            _move_atom_block(rest, border, W_dec, j, gradient, shrink, speed)
    return check


@kernel
def update_latents(
    first_latent: int,
    last_latent: int,
    codes: Codes,
    by_latent: CodesByLatent,
    batch: Batch,
    encoder: Encoder,
    rounded: RoundedEncoder,
    decoder: Decoder,
    activity: Activity,
    options: StepOptions,
) -> np.float32:
    """Take the step of each latent of a range that is active: gradients, weights, and length 1 of its atom.

    `by_latent` is room for the codes of the range. Encoders of the whole range are moved before its atoms: what the
    former read of rows, and the latter of errors, stays in the cache. Returns 0, or not a number if a weight became so.
    """
    _sort_by_latent(first_latent, last_latent, codes, by_latent)
    last_active, n_active, offsets = activity.last_active, activity.n_active, by_latent.offsets
    check = np.float32(0)
    if options.trains_encoder:
        check += _move_encoders(first_latent, last_latent, by_latent, batch, encoder, rounded, last_active, options)
    if options.trains_decoder:
        check += _move_atoms(first_latent, last_latent, by_latent, batch, decoder, last_active, options)
    for j in range(first_latent, last_latent):
        n_active[j] = offsets[j - first_latent + 1] - offsets[j - first_latent]
        if n_active[j] > 0:
            last_active[j] = options.number
    return check
