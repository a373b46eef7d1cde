"""Which latents are active: the largest values of each row, or of all rows, and what bfloat16 says of where they are.

Each kernel runs on one thread. Rows come in chunks. Not-a-number is never greater than anything: such a latent is not
selected, and the sums of a step say so.
"""

import math
from typing import Any

import numpy as np

from sfnetlab.training.sae.kernels import lanes
from sfnetlab.training.sae.kernels.bundles import (
    Bounds,
    Candidates,
    Codes,
    Floats,
    Halves,
    Ints,
    Longs,
    Product,
    RoughProduct,
    RoughRow,
    RoundedEncoder,
)
from sfnetlab.training.sae.kernels.lanes import WIDE
from sfnetlab.training.sae.kernels.parts import blocks, kernel, part, products, split

_ROUNDING = 2.0**-8 * (1 + 2.0**-10)
"""Largest error of a value that was rounded to bfloat16, over its size; with room for float32 arithmetic on it."""

_FLOOR_TRIES = 8
"""How often a floor is raised, at most, before exact values are computed."""

_NEAR_BYTES = 2**20
"""Size of the encoder rows that are looked at together, which stay in a core's cache while rows of a chunk go by."""


# --- selection --------------------------------------------------------------------------------------------------------


@part
def _row_candidates(pre: Floats, b_enc: Floats, floor: np.float32, found: Candidates) -> int:
    """Write the latents of one row whose value is above the floor, as far as they fit; returns how many there are."""
    columns, values = found
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
"""What a vector's length may lose because squares lie below float32's range, over sqrt(d)."""


@kernel
def slack_of(b_enc: Floats, d_in: int) -> np.float32:
    """What bounds need for adding b_enc (n_latents,); not finite if b_enc is not."""
    largest = check = np.float32(0)
    for j in range(len(b_enc)):
        largest = max(largest, abs(b_enc[j]))
        check += b_enc[j] * np.float32(0)
    return largest * np.float32(2.0**-20) + np.float32(d_in * 2.0**-120) + check


@part
def round_block(columns: Any, first: int, sums: tuple[Any, Any], block: Any, halves: Halves, row: int) -> Any:
    """Write a block as bfloat16; returns `sums` with the squares of the block, and of what rounding changed, added."""
    change = block - lanes.store_bfloat16(columns, block, halves, row, first)
    return sums[0] + block * block, sums[1] + change * change


@part
def block_lengths(sums: tuple[Any, Any], d: int) -> tuple[np.float32, np.float32]:
    """(Length, length of what rounding changed), not too small, from what `round_block` added up over d columns."""
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
def round_latents(W_enc: Floats, rounded: RoundedEncoder) -> None:
    """Write the bfloat16 copy of an encoder."""
    for j in range(len(W_enc)):
        rounded.norms[j], change = _round_row(W_enc, j, rounded.W_enc)
        rounded.shares[j] = change / rounded.norms[j]


@kernel
def round_batch(rows: Floats, share: np.float32, halves: Halves, row_errors: Floats) -> np.float32:
    """Write rows as bfloat16 and `RoughProduct.row_errors`; returns the largest length of a row.

    The length is not finite if one is not. `share` is the largest of `RoundedEncoder.shares`.
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
    row: RoughRow,
    floor: np.float32,
    n_found: int,
    columns: Ints,
    bounds: Bounds,
) -> tuple[int, int]:
    """Do `rough_candidates` for one block, of which the columns `there` exist; (how many, how many surely are)."""
    x, bias = lanes.load_bfloat16(of_block, row.pre, 0, first), lanes.load(of_block, row.b_enc, 0, first)
    margin = lanes.size(x) * np.float32(_ROUNDING) + row.error * lanes.load(of_block, row.norms, 0, first)
    upper = x + (bias + row.slack) + margin
    bits = lanes.above(upper, floor) & there
    if not bits:
        return 0, 0
    lower = x + (bias - row.slack) - margin
    lanes.pack_places(bits, first, columns, n_found)
    lanes.pack(bits, upper, bounds.uppers, n_found)
    lanes.pack(bits, lower, bounds.lowers, n_found)
    return lanes.n_bits(bits), lanes.n_bits(lanes.above(lower, floor) & there)


@kernel
def rough_candidates(row: RoughRow, floor: np.float32, columns: Ints, bounds: Bounds) -> tuple[int, int]:
    """Write the columns of one row whose value may be above the floor, in order, and bounds on these values.

    Returns (how many they are, how many of them surely are above the floor). There must be room for all columns.
    """
    n_latents, n_found, n_sure = len(row.pre), 0, 0
    border, whole, rest = blocks(n_latents)
    for first in range(0, border, WIDE):
        n, n_lower = _rough_block(whole, first, ~np.uint64(0), row, floor, n_found, columns, bounds)
        n_found, n_sure = n_found + n, n_sure + n_lower
    if border < n_latents:
        there = (np.uint64(1) << np.uint64(n_latents - border)) - np.uint64(1)
        n, n_lower = _rough_block(rest, border, there, row, floor, n_found, columns, bounds)
        n_found, n_sure = n_found + n, n_sure + n_lower
    return n_found, n_sure


@part
def _sure_floor(lowers: Floats, n_found: int, k: int, floor: np.float32) -> np.float32:
    """A higher floor that k values are surely above too.

    At least k of the first n_found `lowers` are above the given floor, which is 0 or more.
    """
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


@part
def _exact_values(product: RoughProduct, n_found: Ints, found: Candidates) -> None:
    """Write the values of the first n_found[i] candidates of each row i, columns ascending: z[i] . W_enc[j] + b_enc[j].

    Some latents are taken at a time for all rows, as many as a cache holds, where rows have enough of them there.
    """
    z, W_enc, b_enc, columns, values = product.z, product.W_enc, product.b_enc, found.columns, found.values
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


@part
def _keep_above(floor: np.float32, n_found: int, bounds: Floats, columns: Ints, values: Floats) -> int:
    """Keep those of one row's candidates whose bound is above a floor >= 0; returns how many.

    `bounds` may be the values.
    """
    n_above = 0
    for i in range(0, n_found, WIDE):
        of_block = lanes.first(WIDE, n_found - i)
        bits = lanes.above(lanes.load(of_block, bounds, 0, i), floor)
        lanes.pack_from(of_block, bits, columns, i, columns, n_above)
        lanes.pack_from(of_block, bits, values, i, values, n_above)
        n_above += lanes.n_bits(bits)
    return n_above


@kernel
def finite_or_nan(product: Product) -> np.float32:
    """0, or not a number if one latent's value in the first row is not finite."""
    check = np.float32(0)
    for j in range(len(product.b_enc)):
        check += (product.pre[0, j] + product.b_enc[j]) * np.float32(0)
    return check


@kernel
def cut(values: Floats, counts: Longs, n_kept: int, floor: np.float32) -> tuple[np.float32, int]:
    """Where to cut the values values[c, :counts[c]], all of them above a floor >= 0, so that the n_kept largest stay.

    Returns (threshold, n_equal): all values above the threshold stay, and the first n_equal that equal it. The bits,
    which are ordered as the values are, are bisected until the right number is above or only equal values are left.
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
def keep(found: Candidates, n_found: int, threshold: np.float32, n_equal: int, to: Candidates) -> tuple[int, int]:
    """Write those of one row's n_found candidates that stay: above the threshold, and the first n_equal equal to it.

    Returns (how many stay, how much of n_equal is left).
    """
    found_columns, found_values = found
    columns, values = to
    n_kept = 0
    for i in range(0, n_found, WIDE):
        of_block = lanes.first(WIDE, n_found - i)
        block = lanes.load(of_block, found_values, 0, i)
        bits = lanes.above(block, threshold)
        if n_equal > 0:
            ties = lanes.equal(block, threshold)
            while ties and n_equal > 0:
                bits |= ties & (~ties + np.uint64(1))
                ties &= ties - np.uint64(1)
                n_equal -= 1
        lanes.pack_from(of_block, bits, found_columns, i, columns, n_kept)
        lanes.pack_from(of_block, bits, found_values, i, values, n_kept)
        n_kept += lanes.n_bits(bits)
    return n_kept, n_equal


@part
def _lowered(floor: np.float32, n_tries: int) -> np.float32:
    """The floor to try after n_tries that found too few: a little lower, then much lower, then 0."""
    return floor * np.float32(0.85) ** np.float32(n_tries) if n_tries < 4 else np.float32(0)


@kernel
def select_rows(
    product: Product, found: Candidates, k: int, guess: np.float32, first_row: int, codes: Codes
) -> np.float32:
    """Write the codes of a chunk of rows: the k largest positive values of each.

    Parameters
    ----------
    found
        Room for the candidates of one row.
    guess
        A floor to try first: it changes how fast the codes are found, not what they are.
    first_row
        Number of the chunk's first row in the batch.

    Returns
    -------
    float32
        The next guess.
    """
    pre, b_enc = product
    starts, counts, columns, values, _ = codes
    for i in range(len(pre)):
        floor, n_tries = guess, 0
        n_found = _row_candidates(pre[i], b_enc, floor, found)
        while n_found < k and floor > 0:
            n_tries += 1
            floor = _lowered(floor, n_tries)
            n_found = _row_candidates(pre[i], b_enc, floor, found)
            guess = floor
        row = first_row + i
        to = slice(starts[row], starts[row] + k)
        counts[row], threshold = _keep_largest(found, n_found, floor, Candidates(columns[to], values[to]))
        guess = _next_guess(guess, n_found, k, threshold)
    return guess


@part
def _copy(source: Candidates, n: int, target: Candidates, at: int) -> None:
    """Write the first n candidates of a source into a target, from place `at` on."""
    # Slices would be compiled with their error messages, which takes seconds.
    columns, values = source
    to_columns, to_values = target
    for i in range(n):
        to_columns[at + i] = columns[i]
        to_values[at + i] = values[i]


@part
def _keep_largest(found: Candidates, n_found: int, floor: np.float32, to: Candidates) -> tuple[int, np.float32]:
    """Write the largest of one row's candidates, as many as there is room for.

    Returns (how many, where they were cut; 0 if all stay).
    """
    k = len(to.columns)
    if n_found <= k:
        _copy(found, n_found, to, 0)
        return n_found, np.float32(0)
    counts = np.empty(1, np.int64)
    counts[0] = n_found
    threshold, n_equal = cut(found.values.reshape((1, len(found.values))), counts, k, floor)
    return keep(found, n_found, threshold, n_equal, to)[0], threshold


@part
def _next_guess(guess: np.float32, n_found: int, k: int, threshold: np.float32) -> np.float32:
    """A floor that leaves a few more candidates than k, from how many this guess left."""
    if guess <= 0:
        return threshold * np.float32(0.8)
    step = np.float32(0.03) if 2 * n_found > 3 * k + 8 else np.float32(-0.01)
    return guess * (np.float32(1) + step) if n_found > k else guess


@kernel
def select_rows_roughly(
    product: RoughProduct,
    bounds: Bounds,
    found: Candidates,
    k: int,
    guess: np.float32,
    first_row: int,
    codes: Codes,
) -> np.float32:
    """Do `select_rows` from a product in bfloat16.

    `found` is room for all latents of all rows of the chunk, `bounds` for those of one; guesses are in units of a row's
    error.
    """
    pre, b_enc, slack, norms, row_errors, _, _ = product
    found_columns, found_values = found
    starts, counts, columns, values, _ = codes
    n_rows = len(pre)
    floors, n_likely = np.empty(n_rows, np.float32), np.zeros(n_rows, np.int32)
    for i in range(n_rows):
        row, of_row, error = RoughRow(pre[i], b_enc, slack, norms, row_errors[i]), found_columns[i], row_errors[i]
        floor, n_tries = guess * error, 0
        n_found, n_sure = rough_candidates(row, floor, of_row, bounds)
        while n_sure < k and floor > 0:
            n_tries += 1
            floor = _lowered(floor, n_tries)
            n_found, n_sure = rough_candidates(row, floor, of_row, bounds)
            guess = floor / error
        if n_sure >= k:
            floor = _sure_floor(bounds.lowers, n_found, k, floor)
        n_likely[i] = _keep_above(floor, n_found, bounds.uppers, of_row, bounds.uppers)
        floors[i] = floor
        guess = _next_guess(guess, n_sure, k, floor / error)
    _exact_values(product, n_likely, found)
    for i in range(n_rows):
        likely = Candidates(found_columns[i], found_values[i])
        n_exact = _keep_above(floors[i], n_likely[i], likely.values, likely.columns, likely.values)
        to = slice(starts[first_row + i], starts[first_row + i] + k)
        counts[first_row + i], _ = _keep_largest(likely, n_exact, floors[i], Candidates(columns[to], values[to]))
    return guess


@kernel
def collect_rows(product: Product, floor: np.float32, row_counts: Ints, found: Candidates) -> int:
    """Write all values of a chunk above the floor, row after row, as far as they fit; returns how many there are.

    `row_counts` gets the number of each row.
    """
    pre, b_enc = product
    columns, values = found
    n_found, room = 0, len(values)
    for i in range(len(pre)):
        begin = min(n_found, room)
        row_counts[i] = _row_candidates(pre[i], b_enc, floor, Candidates(columns[begin:], values[begin:]))
        n_found += row_counts[i]
    return n_found


@kernel
def collect_rows_roughly(
    product: RoughProduct,
    bounds: Bounds,
    of_rows: Candidates,
    floor: np.float32,
    row_counts: Ints,
    found: Candidates,
) -> int:
    """Do `collect_rows` from a product in bfloat16; `of_rows` is room for all latents of all rows of the chunk."""
    pre, b_enc, slack, norms, row_errors, _, _ = product
    row_columns, row_values = of_rows
    n_rows, n_found, room = len(pre), 0, len(found.values)
    n_rough = np.empty(n_rows, np.int32)
    for i in range(n_rows):
        row = RoughRow(pre[i], b_enc, slack, norms, row_errors[i])
        n_rough[i], _ = rough_candidates(row, floor, row_columns[i], bounds)
    _exact_values(product, n_rough, of_rows)
    for i in range(n_rows):
        columns, values = row_columns[i], row_values[i]
        row_counts[i] = _keep_above(floor, n_rough[i], values, columns, values)
        begin = min(n_found, room)
        n_kept = min(row_counts[i], room - begin)
        _copy(Candidates(columns, values), n_kept, found, begin)
        n_found += row_counts[i]
    return n_found


@kernel
def count_kept(values: Floats, n_found: int, threshold: np.float32) -> tuple[int, int]:
    """(How many of the first n_found values are above the threshold, how many equal it)."""
    n_above, n_equal = 0, 0
    for i in range(n_found):
        n_above += values[i] > threshold
        n_equal += values[i] == threshold
    return n_above, n_equal


@kernel
def keep_rows(
    found: Candidates,
    row_counts: Ints,
    threshold: np.float32,
    n_equal: int,
    first_row: int,
    first_slot: int,
    codes: Codes,
) -> None:
    """Write the codes of a chunk, from `first_slot` on: those of its candidates that stay, as by `keep`.

    `found` and `row_counts` are as `collect_rows` wrote them; `first_row` is the number of the chunk's first row in the
    batch.
    """
    found_columns, found_values = found
    starts, counts, columns, values, _ = codes
    begin, slot = 0, first_slot
    for i in range(len(row_counts)):
        end, row = begin + row_counts[i], first_row + i
        of_row = Candidates(found_columns[begin:end], found_values[begin:end])
        starts[row] = slot
        to = Candidates(columns[slot:], values[slot:])
        counts[row], n_equal = keep(of_row, row_counts[i], threshold, n_equal, to)
        slot += counts[row]
        begin = end
