"""Which latents are active: the largest values of each row, or of all rows, and what bfloat16 says of where they are.

Each kernel runs on one thread. Rows come in chunks. Code slots lie in flat arrays: those of row r from `starts[r]` on,
`counts[r]` of them, columns ascending. Not-a-number is never greater than anything: such a latent is not selected, and
the sums say so.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfnetlab.training.sae import lanes
from sfnetlab.training.sae.lanes import WIDE
from sfnetlab.training.sae.numba_parts import Floats, Halves, Ints, blocks, kernel, part, products, split

_ROUNDING = 2.0**-8 * (1 + 2.0**-10)
"""Of a value that was rounded to bfloat16, times its size; with room for float32 arithmetic on it."""

_FLOOR_TRIES = 8
"""At raising a floor before exact values are computed."""

_NEAR_BYTES = 2**20
"""Of encoder rows that are looked at together, to stay in a core's cache while rows of a chunk go by."""


# --- selection --------------------------------------------------------------------------------------------------------


@kernel
def row_candidates(pre: Floats, b_enc: Floats, floor: np.float32, columns: Ints, values: Floats) -> int:
    """Columns of one row whose value is above the floor, in order; as many as there are, kept as far as they fit."""
    n_latents, room, n_found = len(pre), len(values), 0
    whole = lanes.whole(WIDE)
    for first in range(0, split(n_latents, WIDE), WIDE):
        bits = lanes.above(lanes.load(whole, pre, 0, first) + lanes.load(whole, b_enc, 0, first), floor)
        while bits:
            j = first + lanes.first_bit(bits)
            bits &= bits - np.uint64(1)
            if n_found < room:
                columns[n_found] = j
                values[n_found] = pre[j] + b_enc[j]
            n_found += 1
    for j in range(split(n_latents, WIDE), n_latents):
        if pre[j] + b_enc[j] > floor:
            if n_found < room:
                columns[n_found] = j
                values[n_found] = pre[j] + b_enc[j]
            n_found += 1
    return n_found


# --- the same from a product in bfloat16 ------------------------------------------------------------------------------
#
# A product in bfloat16 says where a value may be large; the value is then computed in float32. Let z~, w~ be a row and
# a latent's encoder rounded to bfloat16, and x the rounded product. By Cauchy and Schwarz
#   |z.w - z~.w~| <= |z - z~| |w| + |z~| |w - w~|;
# the sum of products in float32, in any order, is off by at most 2^-24 d |z| |w| (Higham 2002, section 3.1), here and
# where the value is computed, and 2^-22 leaves room for processors that do not round to nearest; x is off its sum by
# 2^-8 |x|. So the float32 value z.w + b lies within
#   2^-8 |x| + |w| (|z - z~| + |z~| max_latents(|w - w~| / |w|) + 2^-22 d |z|)
# of x + b. Lengths are computed in float32 too: each gets what its own rounding and underflow may take. `slack` covers
# adding b, and products below the normal range, which some processors set to zero.

_UNDERFLOW = 2.0**-74
"""A vector's length lost where squares are below float32's range, times sqrt(d)."""


@kernel
def slack_of(b_enc: Floats, d_in: int) -> np.float32:
    """What bounds need for adding b_enc; not finite if b_enc is not."""
    largest = check = np.float32(0)
    for j in range(len(b_enc)):
        largest = max(largest, abs(b_enc[j]))
        check += b_enc[j] * np.float32(0)
    return largest * np.float32(2.0**-20) + np.float32(d_in * 2.0**-120) + check


@part
def round_block(columns: Any, first: int, sums: tuple[Any, Any], block: Any, halves: Halves, row: int) -> Any:
    """Write a block as bfloat16; adds to the squared lengths of it and of what rounding changed."""
    change = block - lanes.store_bfloat16(columns, block, halves, row, first)
    return sums[0] + block * block, sums[1] + change * change


@part
def block_lengths(sums: tuple[Any, Any], d: int) -> tuple[np.float32, np.float32]:
    """From what `round_block` added up, not too small."""
    room, underflow = np.float32(1 + 2.0**-10 + d * 2.0**-23), np.float32(math.sqrt(d) * _UNDERFLOW)
    length, change = math.sqrt(lanes.total(sums[0])), math.sqrt(lanes.total(sums[1]))
    return np.float32(length) * room + underflow, np.float32(change) * room + underflow


@part
def _round_row(table: Floats, row: int, halves: Halves) -> tuple[np.float32, np.float32]:
    d = table.shape[1]
    border, whole, rest = blocks(d)
    sums = (lanes.zeros(whole), lanes.zeros(whole))
    for c in range(0, border, WIDE):
        sums = round_block(whole, c, sums, lanes.load(whole, table, row, c), halves, row)
    if border < d:
        sums = round_block(rest, border, sums, lanes.load(rest, table, row, border), halves, row)
    return block_lengths(sums, d)


@kernel
def round_latents(W_enc: Floats, halves: Halves, norms: Floats, shares: Floats) -> None:
    """Latents for products in bfloat16: lengths of the encoder's rows, and which share of it rounding changed."""
    for j in range(len(W_enc)):
        norms[j], change = _round_row(W_enc, j, halves)
        shares[j] = change / norms[j]


@kernel
def round_batch(rows: Floats, share: np.float32, halves: Halves, row_errors: Floats) -> np.float32:
    """Rows for products in bfloat16, how far off these may be in units of a latent's length; the largest length.

    The length is not finite if one is not.
    """
    d, largest, check = rows.shape[1], np.float32(0), np.float32(0)
    for i in range(len(rows)):
        norm, change = _round_row(rows, i, halves)
        check += norm * np.float32(0)
        largest = max(largest, norm)
        row_errors[i] = np.float32(1 + 2.0**-10) * (change + (norm + change) * share + np.float32(d * 2.0**-22) * norm)
    return largest + check


@part
def _rough_block(
    of_block: Any,
    first: int,
    there: np.uint64,
    pre: Halves,
    b_enc: Floats,
    norms: Floats,
    row_error: np.float32,
    slack: np.float32,
    floor: np.float32,
    n_found: int,
    columns: Ints,
    uppers: Floats,
    lowers: Floats,
) -> tuple[int, int]:
    """`rough_candidates` of one block, of which some are `there`; (how many, how many surely are)."""
    x, bias = lanes.load_bfloat16(of_block, pre, 0, first), lanes.load(of_block, b_enc, 0, first)
    margin = lanes.size(x) * np.float32(_ROUNDING) + row_error * lanes.load(of_block, norms, 0, first)
    upper = x + (bias + slack) + margin
    bits = lanes.above(upper, floor) & there
    if not bits:
        return 0, 0
    lower = x + (bias - slack) - margin
    lanes.pack_places(bits, first, columns, n_found)
    lanes.pack(bits, upper, uppers, n_found)
    lanes.pack(bits, lower, lowers, n_found)
    return lanes.n_bits(bits), lanes.n_bits(lanes.above(lower, floor) & there)


@kernel
def rough_candidates(
    pre: Halves,
    b_enc: Floats,
    norms: Floats,
    row_error: np.float32,
    slack: np.float32,
    floor: np.float32,
    columns: Ints,
    uppers: Floats,
    lowers: Floats,
) -> tuple[int, int]:
    """Columns of one row whose value may be above the floor, in order, with bounds; (how many, how many surely are)."""
    n_latents, n_found, n_sure = len(pre), 0, 0
    border, whole, rest = blocks(n_latents)
    of_row = (pre, b_enc, norms, row_error, slack, floor)
    found = (columns, uppers, lowers)
    for first in range(0, border, WIDE):
        n, n_lower = _rough_block(whole, first, ~np.uint64(0), *of_row, n_found, *found)
        n_found, n_sure = n_found + n, n_sure + n_lower
    if border < n_latents:
        there = (np.uint64(1) << np.uint64(n_latents - border)) - np.uint64(1)
        n, n_lower = _rough_block(rest, border, there, *of_row, n_found, *found)
        n_found, n_sure = n_found + n, n_sure + n_lower
    return n_found, n_sure


@kernel
def _sure_floor(lowers: Floats, n_found: int, k: int, floor: np.float32) -> np.float32:
    """A higher floor that k values are surely above too; `lowers` has at least k above the one given, which is >= 0."""
    low = high = floor
    for i in range(0, n_found, WIDE):
        high = max(high, lanes.largest(lanes.load(lanes.first(WIDE, n_found - i), lowers, 0, i)))
    for _ in range(_FLOOR_TRIES):
        middle = np.float32(0.5) * (low + high)
        n_above = 0
        for i in range(0, n_found, WIDE):
            n_above += lanes.n_bits(lanes.above(lanes.load(lanes.first(WIDE, n_found - i), lowers, 0, i), middle))
        if n_above < k:
            high = middle
        else:
            low = middle
            if 16 * (n_above - k) <= k:
                break
    return low


@kernel
def exact_values(z: Floats, W_enc: Floats, b_enc: Floats, n_found: Ints, columns: Ints, values: Floats) -> None:
    """values[i, :n_found[i]] = z[i] . W_enc[columns[i]] + b_enc, columns ascending.

    Some latents at a time for all rows, as many as a cache holds, where rows have enough of them there.
    """
    n_rows, n_latents, most = len(z), len(W_enc), 1
    for i in range(n_rows):
        most = max(most, n_found[i])
    n_near = max(_NEAR_BYTES // (4 * z.shape[1]), 8 * n_latents // most)
    done = np.zeros(n_rows, np.int32)
    for first in range(0, n_latents, n_near):
        for i in range(n_rows):
            begin = end = done[i]
            while end < n_found[i] and columns[i, end] < first + n_near:
                end += 1
            done[i] = end
            products(W_enc, columns[i], z, i, np.float32(1), begin, end, values[i])
    for i in range(n_rows):
        for at in range(n_found[i]):
            values[i, at] += b_enc[columns[i, at]]


@kernel
def _keep_above(floor: np.float32, n_found: int, bounds: Floats, columns: Ints, values: Floats) -> int:
    """Of one row's candidates keep those whose bound is above a floor >= 0; how many. `bounds` may be the values."""
    n_above = 0
    for i in range(0, n_found, WIDE):
        of_block = lanes.first(WIDE, n_found - i)
        bits = lanes.above(lanes.load(of_block, bounds, 0, i), floor)
        lanes.pack_from(of_block, bits, columns, i, columns, n_above)
        lanes.pack_from(of_block, bits, values, i, values, n_above)
        n_above += lanes.n_bits(bits)
    return n_above


@kernel
def finite_or_nan(pre: Floats, b_enc: Floats) -> np.float32:
    """0, or not a number if one latent's value is not finite."""
    check = np.float32(0)
    for j in range(len(pre)):
        check += (pre[j] + b_enc[j]) * np.float32(0)
    return check


@kernel
def cut(values: Floats, counts: NDArray[np.int64], n_kept: int, floor: np.float32) -> tuple[np.float32, int]:
    """Where to cut values above a floor >= 0 (rows `values[c, :counts[c]]`) so that the `n_kept` largest stay.

    Returns (threshold, n_equal): all values above the threshold stay and the first `n_equal` that equal it. Bisects the
    bits, which are ordered as the values are, until the number above is the right one or only equal values are left.
    """
    bits = values.view(np.int32)
    low_high = np.array([floor, 0], dtype=np.float32)
    ends = low_high.view(np.int32)
    for c in range(len(counts)):
        for i in range(counts[c]):
            ends[1] = max(ends[1], bits[c, i])
    low, high, n_high = ends[0], ends[1], 0  # more than n_kept are above low; n_high <= n_kept are above high
    while high - low > 1:
        middle = np.int32(low + (high - low) // 2)
        n_above = 0
        for c in range(len(counts)):
            n = np.int32(0)
            for i in range(counts[c]):
                n = np.int32(n + np.int32(bits[c, i] > middle))
            n_above += n
        if n_above > n_kept:
            low = middle
        else:
            high, n_high = middle, n_above
            if n_above == n_kept:
                break
    ends[1] = high
    return low_high[1], int(n_kept - n_high)


@kernel
def keep(
    columns: Ints,
    values: Floats,
    n_found: int,
    threshold: np.float32,
    n_equal: int,
    to_columns: Ints,
    to_values: Floats,
) -> tuple[int, int]:
    """Write what stays of one row's candidates; (how many, how many of the equal ones are left to give)."""
    n_kept = 0
    for i in range(0, n_found, WIDE):
        of_block = lanes.first(WIDE, n_found - i)
        block = lanes.load(of_block, values, 0, i)
        bits = lanes.above(block, threshold)
        if n_equal > 0:
            ties = lanes.equal(block, threshold)
            while ties and n_equal > 0:
                bits |= ties & (~ties + np.uint64(1))
                ties &= ties - np.uint64(1)
                n_equal -= 1
        lanes.pack_from(of_block, bits, columns, i, to_columns, n_kept)
        lanes.pack_from(of_block, bits, values, i, to_values, n_kept)
        n_kept += lanes.n_bits(bits)
    return n_kept, n_equal


@part
def _lowered(floor: np.float32, n_tries: int) -> np.float32:
    """Where to look next, after so many tries that found too few: a little lower, then much, then everywhere."""
    return floor * np.float32(0.85) ** np.float32(n_tries) if n_tries < 4 else np.float32(0)


@kernel
def select_rows(
    pre: Floats,
    b_enc: Floats,
    found_columns: Ints,
    found_values: Floats,
    k: int,
    guess: np.float32,
    first_row: int,
    starts: NDArray[np.int64],
    counts: Ints,
    columns: Ints,
    values: Floats,
) -> np.float32:
    """The k largest positive values of each row; `guess` is a floor to try first, the next one is returned."""
    for i in range(len(pre)):
        floor, n_tries = guess, 0
        n_found = row_candidates(pre[i], b_enc, floor, found_columns, found_values)
        while n_found < k and floor > 0:
            n_tries += 1
            floor = _lowered(floor, n_tries)
            n_found = row_candidates(pre[i], b_enc, floor, found_columns, found_values)
            guess = floor
        row = first_row + i
        to = slice(starts[row], starts[row] + k)
        counts[row], threshold = _keep_largest(found_columns, found_values, n_found, floor, columns[to], values[to])
        guess = _next_guess(guess, n_found, k, threshold)
    return guess


@kernel
def _keep_largest(
    found_columns: Ints, found_values: Floats, n_found: int, floor: np.float32, columns: Ints, values: Floats
) -> tuple[int, np.float32]:
    """Write the largest of one row's candidates, as many as there is room for; (how many, smallest of them or 0)."""
    k = len(columns)
    if n_found <= k:
        columns[:n_found] = found_columns[:n_found]
        values[:n_found] = found_values[:n_found]
        return n_found, np.float32(0)
    one_count = np.full(1, n_found)
    threshold, n_equal = cut(found_values.reshape((1, -1)), one_count, k, floor)
    return keep(found_columns, found_values, n_found, threshold, n_equal, columns, values)[0], threshold


@kernel
def _next_guess(guess: np.float32, n_found: int, k: int, threshold: np.float32) -> np.float32:
    """Aim at a few more candidates than k."""
    if guess <= 0:
        return threshold * np.float32(0.8)
    step = np.float32(0.03) if 2 * n_found > 3 * k + 8 else np.float32(-0.01)
    return guess * (np.float32(1) + step) if n_found > k else guess


@kernel
def select_rows_roughly(
    pre: Halves,
    norms: Floats,
    row_errors: Floats,
    slack: np.float32,
    z: Floats,
    W_enc: Floats,
    b_enc: Floats,
    bounds: Floats,
    found_columns: Ints,
    found_values: Floats,
    k: int,
    guess: np.float32,
    first_row: int,
    starts: NDArray[np.int64],
    counts: Ints,
    columns: Ints,
    values: Floats,
) -> np.float32:
    """`select_rows` from a product in bfloat16; z are the chunk's rows, guesses in units of their errors."""
    uppers, lowers = bounds
    n_rows = len(pre)
    floors, n_likely = np.empty(n_rows, np.float32), np.zeros(n_rows, np.int32)
    for i in range(n_rows):
        row_columns = found_columns[i]
        floor, n_tries = guess * row_errors[i], 0
        n_found, n_sure = rough_candidates(
            pre[i], b_enc, norms, row_errors[i], slack, floor, row_columns, uppers, lowers
        )
        while n_sure < k and floor > 0:
            n_tries += 1
            floor = _lowered(floor, n_tries)
            n_found, n_sure = rough_candidates(
                pre[i], b_enc, norms, row_errors[i], slack, floor, row_columns, uppers, lowers
            )
            guess = floor / row_errors[i]
        if n_sure >= k:
            floor = _sure_floor(lowers, n_found, k, floor)
        n_likely[i] = _keep_above(floor, n_found, uppers, row_columns, uppers)
        floors[i] = floor
        guess = _next_guess(guess, n_sure, k, floor / row_errors[i])
    exact_values(z, W_enc, b_enc, n_likely, found_columns, found_values)
    for i in range(n_rows):
        row = first_row + i
        to = slice(starts[row], starts[row] + k)
        n_exact = _keep_above(floors[i], n_likely[i], found_values[i], found_columns[i], found_values[i])
        counts[row], _ = _keep_largest(found_columns[i], found_values[i], n_exact, floors[i], columns[to], values[to])
    return guess


@kernel
def collect_rows(
    pre: Floats, b_enc: Floats, floor: np.float32, row_counts: Ints, found_columns: Ints, found_values: Floats
) -> int:
    """All values of all rows above the floor, row after row; as many as there are, kept as far as they fit."""
    n_found = 0
    for i in range(len(pre)):
        begin = min(n_found, len(found_values))
        row_counts[i] = row_candidates(pre[i], b_enc, floor, found_columns[begin:], found_values[begin:])
        n_found += row_counts[i]
    return n_found


@kernel
def collect_rows_roughly(
    pre: Halves,
    norms: Floats,
    row_errors: Floats,
    slack: np.float32,
    z: Floats,
    W_enc: Floats,
    b_enc: Floats,
    bounds: Floats,
    row_columns: Ints,
    row_values: Floats,
    floor: np.float32,
    row_counts: Ints,
    found_columns: Ints,
    found_values: Floats,
) -> int:
    """`collect_rows` from a product in bfloat16; z are the chunk's rows."""
    n_rows, n_found = len(pre), 0
    n_rough = np.empty(n_rows, np.int32)
    for i in range(n_rows):
        n_rough[i], _ = rough_candidates(
            pre[i], b_enc, norms, row_errors[i], slack, floor, row_columns[i], bounds[0], bounds[1]
        )
    exact_values(z, W_enc, b_enc, n_rough, row_columns, row_values)
    for i in range(n_rows):
        row_counts[i] = _keep_above(floor, n_rough[i], row_values[i], row_columns[i], row_values[i])
        begin = min(n_found, len(found_values))
        n_kept = min(row_counts[i], len(found_values) - begin)
        found_columns[begin : begin + n_kept] = row_columns[i, :n_kept]
        found_values[begin : begin + n_kept] = row_values[i, :n_kept]
        n_found += row_counts[i]
    return n_found


@kernel
def count_kept(values: Floats, n_found: int, threshold: np.float32) -> tuple[int, int]:
    """How many are above the threshold, how many equal it."""
    n_above, n_equal = 0, 0
    for i in range(n_found):
        n_above += values[i] > threshold
        n_equal += values[i] == threshold
    return n_above, n_equal


@kernel
def keep_rows(
    found_columns: Ints,
    found_values: Floats,
    row_counts: Ints,
    threshold: np.float32,
    n_equal: int,
    first_row: int,
    first_slot: int,
    starts: NDArray[np.int64],
    counts: Ints,
    columns: Ints,
    values: Floats,
) -> None:
    """Write what stays of one chunk's candidates from `first_slot` on."""
    begin, slot = 0, first_slot
    for i in range(len(row_counts)):
        end = begin + row_counts[i]
        starts[first_row + i] = slot
        counts[first_row + i], n_equal = keep(
            found_columns[begin:end],
            found_values[begin:end],
            row_counts[i],
            threshold,
            n_equal,
            columns[slot:],
            values[slot:],
        )
        slot += counts[first_row + i]
        begin = end
