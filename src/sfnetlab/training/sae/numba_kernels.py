"""What numba_step.py compiles: loops over rows and over latents that touch active latents only, each on one thread.

Rows come in chunks. Code slots lie in flat arrays: those of row r from `starts[r]` on, `counts[r]` of them, columns
ascending. Not-a-number is never greater than anything: such a latent is not selected, and the sums say so.
"""

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, types
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

_BLOCK = 64
"""Columns that are looked at together."""

_ROUNDING = 2.0**-8 * (1 + 2.0**-10)
"""Of a value that was rounded to bfloat16, times its size; with room for float32 arithmetic on it."""

_FLOOR_TRIES = 8
"""At raising a floor before exact values are computed."""

_ADAM_WORK = 4
"""Of a latent, in units of the work that one more row on which it is active makes."""

# No "nnan" and "ninf": what is not finite must reach the sums.
_FLAGS = {"reassoc", "contract", "nsz", "arcp", "afn"}
_intrinsic: Any = extending.intrinsic
_kernel: Any = numba.njit(nogil=True, cache=True, fastmath=_FLAGS, error_model="numpy")


# --- selection --------------------------------------------------------------------------------------------------------


@_intrinsic
def _above(_typing: Any, pre: Any, b_enc: Any, _first: Any, _floor: Any) -> Any:
    """(pre, b_enc, first, floor) -> one bit for each of 64 columns from `first` on: whether pre + b_enc > floor."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, bits = ir.VectorType(ir.FloatType(), _BLOCK), ir.IntType(_BLOCK)

        def load(i: int) -> Any:
            array = context.make_array(signature.args[i])(context, builder, arguments[i])
            address = builder.gep(array.data, [arguments[2]])
            return builder.load(builder.bitcast(address, vector.as_pointer()), align=4)

        lane_0 = builder.insert_element(ir.Constant(vector, ir.Undefined), arguments[3], ir.Constant(ir.IntType(32), 0))
        floors = builder.shuffle_vector(
            lane_0, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), _BLOCK), None)
        )
        return builder.bitcast(builder.fcmp_ordered(">", builder.fadd(load(0), load(1)), floors), bits)

    return types.uint64(pre, b_enc, types.intp, types.float32), generate


@_intrinsic
def _above_roughly(_typing: Any, pre: Any, b_upper: Any, norms: Any, _first: Any, _row_error: Any, _floor: Any) -> Any:
    """(pre, b_upper, norms, first, row_error, floor) -> `_above` of the upper bounds (`_bounds`)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, bits = ir.VectorType(ir.FloatType(), _BLOCK), ir.IntType(_BLOCK)
        words = ir.VectorType(ir.IntType(32), _BLOCK)

        def load(i: int, kind: Any, align: int) -> Any:
            array = context.make_array(signature.args[i])(context, builder, arguments[i])
            address = builder.gep(array.data, [arguments[3]])
            return builder.load(builder.bitcast(address, kind.as_pointer()), align=align)

        def repeat(scalar: Any) -> Any:
            lane_0 = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(lane_0, ir.Constant(vector, ir.Undefined), ir.Constant(words, None))

        halves = builder.zext(load(0, ir.VectorType(ir.IntType(16), _BLOCK), 2), words)
        shifted = builder.shl(halves, ir.Constant(words, [16] * _BLOCK))
        x = builder.bitcast(shifted, vector)
        size = builder.bitcast(builder.and_(shifted, ir.Constant(words, [0x7FFFFFFF] * _BLOCK)), vector)
        rounding = builder.fmul(size, ir.Constant(vector, [_ROUNDING] * _BLOCK))
        margin = builder.fadd(rounding, builder.fmul(repeat(arguments[4]), load(2, vector, 4)))
        upper = builder.fadd(builder.fadd(x, load(1, vector, 4)), margin)
        return builder.bitcast(builder.fcmp_ordered(">", upper, repeat(arguments[5])), bits)

    return types.uint64(pre, b_upper, norms, types.intp, types.float32, types.float32), generate


@_intrinsic
def _widened(_typing: Any, _half: Any) -> Any:
    """The float32 that a bfloat16's bits stand for."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(word, ir.FloatType())

    return types.float32(types.uint16), generate


@_intrinsic
def _first_bit(_typing: Any, _bits: Any) -> Any:
    """Position of the lowest bit that is set; there must be one."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@_kernel
def row_candidates(pre: Floats, b_enc: Floats, floor: np.float32, columns: Ints, values: Floats) -> int:
    """Columns of one row whose value is above the floor, in order; as many as there are, kept as far as they fit."""
    n_latents, room, n_found = len(pre), len(values), 0
    whole = n_latents - n_latents % _BLOCK
    for first in range(0, whole, _BLOCK):
        bits = _above(pre, b_enc, first, floor)
        while bits:
            j = first + _first_bit(bits)
            bits &= bits - np.uint64(1)
            if n_found < room:
                columns[n_found] = j
                values[n_found] = pre[j] + b_enc[j]
            n_found += 1
    for j in range(whole, n_latents):
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


@_kernel
def slack_of(b_enc: Floats, d_in: int) -> np.float32:
    """What bounds need for adding b_enc; not finite if b_enc is not."""
    largest = check = np.float32(0)
    for j in range(len(b_enc)):
        largest = max(largest, abs(b_enc[j]))
        check += b_enc[j] * np.float32(0)
    return largest * np.float32(2.0**-20) + np.float32(d_in * 2.0**-120) + check


@_kernel
def round_rows(rows: Floats, halves: NDArray[np.uint16], norms: Floats, distances: Floats) -> None:
    """Round each row to bfloat16 (to nearest, ties to even); lengths of the rows and of what rounding changed."""
    d = rows.shape[1]
    room, underflow = np.float32(1 + 2.0**-10 + d * 2.0**-23), np.float32(math.sqrt(d) * _UNDERFLOW)
    words = rows.view(np.uint32)
    rounded_words = np.empty(d, np.uint32)
    rounded = rounded_words.view(np.float32)
    for i in range(len(rows)):
        row, word, half = rows[i], words[i], halves[i]
        for c in range(d):
            top = np.uint32(
                (word[c] + np.uint32(0x7FFF) + ((word[c] >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            )
            half[c] = np.uint16(top)
            rounded_words[c] = np.uint32(top << np.uint32(16))
        square = change = np.float32(0)
        for c in range(d):
            square += row[c] * row[c]
            difference = row[c] - rounded[c]
            change += difference * difference
        norms[i] = np.float32(math.sqrt(square)) * room + underflow
        distances[i] = np.float32(math.sqrt(change)) * room + underflow


@_kernel
def round_latents(
    W_enc: Floats, b_enc: Floats, slack: np.float32, halves: NDArray[np.uint16], norms: Floats, b_upper: Floats
) -> tuple[np.float32, np.float32]:
    """Latents for products in bfloat16: (largest length of an encoder row, largest share of it lost by rounding).

    The length is not finite if one is not.
    """
    distances = np.empty(len(W_enc), np.float32)
    round_rows(W_enc, halves, norms, distances)
    largest = share = check = np.float32(0)
    for j in range(len(W_enc)):
        b_upper[j] = b_enc[j] + slack
        check += norms[j] * np.float32(0)
        largest = max(largest, norms[j])
        share = max(share, distances[j] / norms[j])
    return largest + check, share


@_kernel
def round_batch(rows: Floats, share: np.float32, halves: NDArray[np.uint16], row_errors: Floats) -> np.float32:
    """Rows for products in bfloat16, how far off these may be in units of a latent's length; the largest length."""
    norms = np.empty(len(rows), np.float32)
    round_rows(rows, halves, norms, row_errors)
    d, largest, check = rows.shape[1], np.float32(0), np.float32(0)
    for i in range(len(rows)):
        check += norms[i] * np.float32(0)
        largest = max(largest, norms[i])
        rounded_norm = norms[i] + row_errors[i]
        row_errors[i] = np.float32(1 + 2.0**-10) * (
            row_errors[i] + rounded_norm * share + np.float32(d * 2.0**-22) * norms[i]
        )
    return largest + check


@_kernel
def _bounds(
    half: np.uint16, b_upper: np.float32, norm: np.float32, row_error: np.float32, slack: np.float32
) -> tuple[np.float32, np.float32]:
    """Between which the float32 value lies."""
    x = _widened(half)
    margin = abs(x) * np.float32(_ROUNDING) + row_error * norm
    return x + b_upper + margin, x + (b_upper - np.float32(2) * slack) - margin


@_kernel
def rough_candidates(
    pre: NDArray[np.uint16],
    b_upper: Floats,
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
    whole = n_latents - n_latents % _BLOCK
    for first in range(0, whole, _BLOCK):
        bits = _above_roughly(pre, b_upper, norms, first, row_error, floor)
        while bits:
            j = first + _first_bit(bits)
            bits &= bits - np.uint64(1)
            columns[n_found] = j
            uppers[n_found], lowers[n_found] = _bounds(pre[j], b_upper[j], norms[j], row_error, slack)
            n_sure += lowers[n_found] > floor
            n_found += 1
    for j in range(whole, n_latents):
        upper, lower = _bounds(pre[j], b_upper[j], norms[j], row_error, slack)
        if upper > floor:
            columns[n_found], uppers[n_found], lowers[n_found] = j, upper, lower
            n_sure += lower > floor
            n_found += 1
    return n_found, n_sure


@_kernel
def _sure_floor(lowers: Floats, n_found: int, k: int, floor: np.float32) -> np.float32:
    """A higher floor that k values are surely above too; `lowers` has at least k above the one given."""
    low = high = floor
    for i in range(n_found):
        high = max(high, lowers[i])
    for _ in range(_FLOOR_TRIES):
        middle = np.float32(0.5) * (low + high)
        n_above = np.int32(0)
        for i in range(n_found):
            n_above = np.int32(n_above + np.int32(lowers[i] > middle))
        if n_above < k:
            high = middle
        else:
            low = middle
            if 16 * (n_above - k) <= k:
                break
    return low


@_kernel
def _exact_above(
    z_row: Floats, W_enc: Floats, b_enc: Floats, floor: np.float32, n_found: int, columns: Ints, values: Floats
) -> int:
    """Of these columns keep those whose value is above the floor, with their values; how many.

    Always four at a time: a value's bits must not depend on what other columns are there.
    """
    d, n_above = len(z_row), 0
    four = np.empty(4, np.float32)
    for i in range(0, n_found, 4):
        last = n_found - 1
        w0, w1 = W_enc[columns[i]], W_enc[columns[min(i + 1, last)]]
        w2, w3 = W_enc[columns[min(i + 2, last)]], W_enc[columns[min(i + 3, last)]]
        d0 = d1 = d2 = d3 = np.float32(0)
        for c in range(d):
            v = z_row[c]
            d0 += w0[c] * v
            d1 += w1[c] * v
            d2 += w2[c] * v
            d3 += w3[c] * v
        four[0], four[1], four[2], four[3] = d0, d1, d2, d3
        for q in range(min(4, n_found - i)):
            j = columns[i + q]
            value = four[q] + b_enc[j]
            if value > floor:
                columns[n_above], values[n_above] = j, value
                n_above += 1
    return n_above


@_kernel
def finite_or_nan(pre: Floats, b_enc: Floats) -> np.float32:
    """0, or not a number if one latent's value is not finite."""
    check = np.float32(0)
    for j in range(len(pre)):
        check += (pre[j] + b_enc[j]) * np.float32(0)
    return check


@_kernel
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


@_kernel
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
    for i in range(n_found):
        value = values[i]
        if value > threshold or (value == threshold and n_equal > 0):
            n_equal -= value == threshold
            to_columns[n_kept] = columns[i]
            to_values[n_kept] = value
            n_kept += 1
    return n_kept, n_equal


@_kernel
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
            floor = floor * np.float32(0.7) if n_tries < 4 else np.float32(0)
            n_found = row_candidates(pre[i], b_enc, floor, found_columns, found_values)
            guess = floor
        row = first_row + i
        to = slice(starts[row], starts[row] + k)
        counts[row], threshold = _keep_largest(found_columns, found_values, n_found, floor, columns[to], values[to])
        guess = _next_guess(guess, n_found, k, threshold)
    return guess


@_kernel
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


@_kernel
def _next_guess(guess: np.float32, n_found: int, k: int, threshold: np.float32) -> np.float32:
    """Aim at a few more candidates than k."""
    if guess <= 0:
        return threshold * np.float32(0.8)
    step = np.float32(0.03) if 2 * n_found > 3 * k + 8 else np.float32(-0.01)
    return guess * (np.float32(1) + step) if n_found > k else guess


@_kernel
def select_rows_roughly(
    pre: NDArray[np.uint16],
    b_upper: Floats,
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
    for i in range(len(pre)):
        floor, n_tries = guess * row_errors[i], 0
        n_found, n_sure = rough_candidates(
            pre[i], b_upper, norms, row_errors[i], slack, floor, found_columns, uppers, lowers
        )
        while n_sure < k and floor > 0:
            n_tries += 1
            floor = floor * np.float32(0.7) if n_tries < 4 else np.float32(0)
            n_found, n_sure = rough_candidates(
                pre[i], b_upper, norms, row_errors[i], slack, floor, found_columns, uppers, lowers
            )
            guess = floor / row_errors[i]
        if n_sure >= k:
            floor = _sure_floor(lowers, n_found, k, floor)
        n_likely = 0
        for at in range(n_found):
            if uppers[at] > floor:
                found_columns[n_likely] = found_columns[at]
                n_likely += 1
        n_exact = _exact_above(z[i], W_enc, b_enc, floor, n_likely, found_columns, found_values)
        row = first_row + i
        to = slice(starts[row], starts[row] + k)
        counts[row], threshold = _keep_largest(found_columns, found_values, n_exact, floor, columns[to], values[to])
        guess = _next_guess(guess, n_sure, k, max(threshold, floor) / row_errors[i])
    return guess


@_kernel
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


@_kernel
def collect_rows_roughly(
    pre: NDArray[np.uint16],
    b_upper: Floats,
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
    n_found = 0
    for i in range(len(pre)):
        n_rough, _ = rough_candidates(
            pre[i], b_upper, norms, row_errors[i], slack, floor, row_columns, bounds[0], bounds[1]
        )
        row_counts[i] = _exact_above(z[i], W_enc, b_enc, floor, n_rough, row_columns, row_values)
        begin = min(n_found, len(found_values))
        n_kept = min(row_counts[i], len(found_values) - begin)
        found_columns[begin : begin + n_kept] = row_columns[:n_kept]
        found_values[begin : begin + n_kept] = row_values[:n_kept]
        n_found += row_counts[i]
    return n_found


@_kernel
def count_kept(values: Floats, n_found: int, threshold: np.float32) -> tuple[int, int]:
    """How many are above the threshold, how many equal it."""
    n_above, n_equal = 0, 0
    for i in range(n_found):
        n_above += values[i] > threshold
        n_equal += values[i] == threshold
    return n_above, n_equal


@_kernel
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


# --- decoding ---------------------------------------------------------------------------------------------------------


@_kernel
def _add_rows(
    out: Floats, table: Floats, rows: Ints, stride: int, shift: int, scales: Floats, begin: int, end: int
) -> None:
    """out += scales @ table[rows * stride + shift], slots from begin to end.

    Four at a time, as out is read and written each time.
    """
    n = len(out)
    i = begin
    while i + 4 <= end:
        t0, t1 = table[rows[i] * stride + shift], table[rows[i + 1] * stride + shift]
        t2, t3 = table[rows[i + 2] * stride + shift], table[rows[i + 3] * stride + shift]
        s0, s1, s2, s3 = scales[i], scales[i + 1], scales[i + 2], scales[i + 3]
        for c in range(n):
            out[c] += (s0 * t0[c] + s1 * t1[c]) + (s2 * t2[c] + s3 * t3[c])
        i += 4
    while i < end:
        t0, s0 = table[rows[i] * stride + shift], scales[i]
        for c in range(n):
            out[c] += s0 * t0[c]
        i += 1


@_kernel
def _dots(out: Floats, table: Floats, rows: Ints, vector: Floats, scale: np.float32, begin: int, end: int) -> None:
    """out[i] = scale * (table[rows[i]] . vector), slots from begin to end."""
    n = len(vector)
    i = begin
    while i + 4 <= end:
        t0, t1, t2, t3 = table[rows[i]], table[rows[i + 1]], table[rows[i + 2]], table[rows[i + 3]]
        d0 = d1 = d2 = d3 = np.float32(0)
        for c in range(n):
            v = vector[c]
            d0 += t0[c] * v
            d1 += t1[c] * v
            d2 += t2[c] * v
            d3 += t3[c] * v
        out[i], out[i + 1], out[i + 2], out[i + 3] = d0 * scale, d1 * scale, d2 * scale, d3 * scale
        i += 4
    while i < end:
        t0 = table[rows[i]]
        d0 = np.float32(0)
        for c in range(n):
            d0 += t0[c] * vector[c]
        out[i] = d0 * scale
        i += 1


@_kernel
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
    all_squares, whole_squares = 0.0, 0.0
    ends = np.empty(n_prefixes, np.int64)
    b_dec_gradient[:] = 0
    for row in range(first_row, first_row + n_rows):
        start = starts[row]
        end = start + counts[row]
        base = row * n_prefixes
        slot = start
        for g in range(n_prefixes):
            error = errors[base + g]
            if g == 0:
                z_row = z[row]
                for c in range(d_in):
                    error[c] = b_dec[c] - z_row[c]
            else:
                error[:] = errors[base + g - 1]
            begin = slot
            while slot < end and columns[slot] < prefixes[g]:
                slot += 1
            ends[g] = slot
            _add_rows(error, W_dec, columns, 1, 0, values, begin, slot)
            square = np.float32(0)
            for c in range(d_in):
                square += error[c] * error[c]
            all_squares += square
            if g == n_prefixes - 1:
                whole_squares += square
        for g in range(n_prefixes - 2, -1, -1):
            error, later = errors[base + g], errors[base + g + 1]
            for c in range(d_in):
                error[c] += later[c]
        error = errors[base]
        for c in range(d_in):
            b_dec_gradient[c] += scale * error[c]
        begin = start
        for g in range(n_prefixes):
            _dots(code_gradients, W_dec, columns, errors[base + g], scale, begin, ends[g])
            begin = ends[g]
    return float(all_squares), float(whole_squares)


# --- latents ----------------------------------------------------------------------------------------------------------


@_kernel
def sort_by_latent(
    starts: NDArray[np.int64],
    counts: Ints,
    columns: Ints,
    values: Floats,
    code_gradients: Floats,
    offsets: NDArray[np.int64],
    rows: Ints,
    sorted_values: Floats,
    sorted_gradients: Floats,
    bounds: NDArray[np.int64],
) -> None:
    """Counting sort: the slots of latent j go to offsets[j]:offsets[j + 1], in order of their rows.

    `bounds` of ranges of latents with about the same work are written too.
    """
    n_latents = len(offsets) - 1
    offsets[:] = 0
    for row in range(len(counts)):
        for slot in range(starts[row], starts[row] + counts[row]):
            offsets[columns[slot] + 1] += 1
    total = 0
    for j in range(n_latents):  # offsets[j + 1] becomes the start of j, and its end while filling
        n = offsets[j + 1]
        offsets[j + 1] = total
        total += n
    for row in range(len(counts)):
        for slot in range(starts[row], starts[row] + counts[row]):
            j = columns[slot]
            to = offsets[j + 1]
            offsets[j + 1] = to + 1
            rows[to] = row
            sorted_values[to] = values[slot]
            sorted_gradients[to] = code_gradients[slot]
    n_ranges, i = len(bounds) - 1, 0
    all_work = total + _ADAM_WORK * n_latents
    for j in range(n_latents + 1):
        while i <= n_ranges and (offsets[j] + _ADAM_WORK * j) * n_ranges >= all_work * i:
            bounds[i] = j
            i += 1


@_kernel
def _adam(
    weight: Floats,
    first: Floats,
    second: Floats,
    gradient: Floats,
    decay_1: np.float32,
    decay_2: np.float32,
    rate: np.float32,
    correction_2: np.float32,
    constants: tuple[np.float32, np.float32, np.float32],
) -> None:
    new_1, new_2, epsilon = constants
    for c in range(len(weight)):
        g = gradient[c]
        mean = decay_1 * first[c] + new_1 * g
        square = decay_2 * second[c] + new_2 * (g * g)
        first[c] = mean
        second[c] = square
        weight[c] -= rate * mean / (np.sqrt(square * correction_2) + epsilon)


@_kernel
def adam_vector(
    weight: Floats,
    first: Floats,
    second: Floats,
    gradient: Floats,
    rate: np.float32,
    correction_2: np.float32,
    betas: tuple[np.float32, np.float32],
    constants: tuple[np.float32, np.float32, np.float32],
) -> None:
    """Adam for what changes in every step."""
    _adam(weight, first, second, gradient, betas[0], betas[1], rate, correction_2, constants)


@_kernel
def update_latents(
    first_latent: int,
    last_latent: int,
    offsets: NDArray[np.int64],
    rows: Ints,
    values: Floats,
    code_gradients: Floats,
    z: Floats,
    errors: Floats,
    prefixes: NDArray[np.int64],
    scale: np.float32,
    number: int,
    rate: np.float32,
    correction_2: np.float32,
    betas: tuple[np.float32, np.float32],
    constants: tuple[np.float32, np.float32, np.float32],
    trains_encoder: bool,
    trains_decoder: bool,
    W_enc: Floats,
    W_enc_first: Floats,
    W_enc_second: Floats,
    b_enc: Floats,
    b_enc_first: Floats,
    b_enc_second: Floats,
    W_dec: Floats,
    W_dec_first: Floats,
    W_dec_second: Floats,
    last_active: NDArray[np.int64],
) -> np.float32:
    """Gradients, Adam and length 1 of each latent in the range that is active; not a number if a weight became so."""
    n_prefixes, d_in = len(prefixes), z.shape[1]
    gradient = np.empty(d_in, np.float32)
    check = np.float32(0)
    group = 0
    for j in range(first_latent, last_latent):
        while prefixes[group] <= j:
            group += 1
        begin, end = offsets[j], offsets[j + 1]
        if begin == end:
            continue
        gap = np.float32(number - last_active[j])
        last_active[j] = number
        decay_1, decay_2 = betas[0] ** gap, betas[1] ** gap
        if trains_encoder:
            gradient[:] = 0
            _add_rows(gradient, z, rows, 1, 0, code_gradients, begin, end)
            _adam(W_enc[j], W_enc_first[j], W_enc_second[j], gradient, decay_1, decay_2, rate, correction_2, constants)
            total = np.float32(0)
            for i in range(begin, end):
                total += code_gradients[i]
            gradient[0] = total
            _adam(
                b_enc[j : j + 1],
                b_enc_first[j : j + 1],
                b_enc_second[j : j + 1],
                gradient,
                decay_1,
                decay_2,
                rate,
                correction_2,
                constants,
            )
            check += b_enc[j] * np.float32(0)
        if trains_decoder:
            atom = W_dec[j]
            gradient[:] = 0
            _add_rows(gradient, errors, rows, n_prefixes, group, values, begin, end)
            along = np.float32(0)
            for c in range(d_in):
                along += gradient[c] * atom[c]
            for c in range(d_in):
                gradient[c] = scale * (gradient[c] - along * atom[c])
            _adam(atom, W_dec_first[j], W_dec_second[j], gradient, decay_1, decay_2, rate, correction_2, constants)
            square = np.float32(0)
            for c in range(d_in):
                square += atom[c] * atom[c]
            check += square * np.float32(0)
            shrink = np.float32(1) / max(np.float32(math.sqrt(square)), np.float32(1e-12))
            for c in range(d_in):
                atom[c] *= shrink
    return check
