"""What triton_step.py launches: kernels over stacked SAEs, with no host synchronisation.

`key` = SAE * n_latents + latent is a row of the stacked weights; codes lie in slots, each row's by ascending key.
"""

# pyrefly: ignore-errors[implicit-any-parameter]
# Triton takes an annotation for code, so only constants have one.

from typing import Any

import triton
from triton.language import constexpr

from sfnetlab.training.sae.stack import DECODER_SPEED, EPSILON

tl: Any = triton.language
_jit: Any = triton.jit
"""Untyped: kernels look like Python but mean tensors and pointers where a type checker sees arguments."""

N_RATES = constexpr(5)
"""k, learning rate, shares of new gradients and of their squares in running means, number of the step; float64, which
holds them all exactly."""
_DECODER_SPEED, _EPSILON = constexpr(DECODER_SPEED), constexpr(EPSILON)
_NAN_BITS = constexpr(0x7FC00000)
"""Of the quiet NaN: above infinity, so that a NaN is selected first and shows in the sums."""


# --- selection --------------------------------------------------------------------------------------------------------


@_jit
def _bits(pre, b_enc, row, s, columns, n_latents, n_saes):
    """Bits of ReLU(pre + b_enc), which sort as the floats do; 0 beyond the last column."""
    is_column = columns < n_latents
    value = tl.load(pre + (row.to(tl.int64) * n_saes + s) * n_latents + columns, mask=is_column, other=0.0)
    value += tl.load(b_enc + s.to(tl.int64) * n_latents + columns, mask=is_column, other=0.0)
    bits = tl.where(value <= 0, 0.0, value).to(tl.int32, bitcast=True) & 0x7FFFFFFF  # a NaN stays and counts as largest
    return tl.where(is_column, tl.minimum(bits, _NAN_BITS), 0)


@_jit
def _count_at_least(pre, b_enc, row, s, n_latents, n_saes, bound, BLOCK: constexpr):
    count = 0
    for begin in range(0, n_latents, BLOCK):
        bits = _bits(pre, b_enc, row, s, begin + tl.arange(0, BLOCK), n_latents, n_saes)
        count += tl.sum((bits >= bound).to(tl.int32))
    return count


@_jit
def _emit(
    pre,
    b_enc,
    threshold,
    need,
    start,
    row,
    s,
    n_latents,
    n_saes,
    values,
    keys,
    rows,
    BLOCK: constexpr,
):
    """Write a row's values above the threshold and the first `need` equal to it; returns how many."""
    n_above, n_equal = threshold * 0, threshold * 0
    for begin in range(0, n_latents, BLOCK):
        columns = begin + tl.arange(0, BLOCK)
        bits = _bits(pre, b_enc, row, s, columns, n_latents, n_saes)
        is_above = bits > threshold
        is_equal = (bits == threshold) & (bits > 0)
        ranks = tl.cumsum(is_above.to(tl.int32) * 65536 + is_equal.to(tl.int32), 0)  # two counts in one scan
        above, equal = n_above + (ranks >> 16), n_equal + (ranks & 0xFFFF)
        slots = start + above + tl.minimum(equal, need) - 1
        is_taken = is_above | (is_equal & (equal <= need))
        tl.store(values + slots, bits.to(tl.float32, bitcast=True), mask=is_taken)
        tl.store(keys + slots, s * n_latents + columns, mask=is_taken)
        tl.store(rows + slots, row + tl.zeros_like(columns), mask=is_taken)
        n_above += tl.sum(is_above.to(tl.int32))
        n_equal += tl.sum(is_equal.to(tl.int32))
    return n_above + tl.minimum(n_equal, need)


@_jit
def select_rows(
    pre,
    b_enc,
    table,
    values,
    keys,
    rows,
    starts,
    counts,
    n,
    n_latents,
    k_max,
    IS_WHOLE: constexpr,
    BLOCK: constexpr,
    SCAN_BLOCK: constexpr,
):
    row, s, n_saes = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    k = tl.load(table + s * N_RATES).to(tl.int32)
    columns = tl.arange(0, BLOCK)
    bits = _bits(pre, b_enc, row, s, columns, n_latents, n_saes)
    largest = tl.max(bits)
    if not IS_WHOLE:
        for begin in range(BLOCK, n_latents, BLOCK):
            largest = tl.maximum(largest, tl.max(_bits(pre, b_enc, row, s, begin + columns, n_latents, n_saes)))

    # At least k are >= low, or low is 0; fewer than k are >= high. With exactly k, low need not be one of them.
    low, high = largest * 0, largest + 1
    while high - low > 1:
        middle = low + (high - low) // 2
        if IS_WHOLE:
            count = tl.sum((bits >= middle).to(tl.int32))
        else:
            count = _count_at_least(pre, b_enc, row, s, n_latents, n_saes, middle, BLOCK)
        low = tl.where(count >= k, middle, low)
        high = tl.where(count > k, high, tl.where(count == k, middle + 1, middle))

    if IS_WHOLE:
        n_above = tl.sum((bits > low).to(tl.int32))
    else:
        n_above = _count_at_least(pre, b_enc, row, s, n_latents, n_saes, low + 1, BLOCK)
    start = (s * n + row) * k_max
    count = _emit(pre, b_enc, low, k - n_above, start, row, s, n_latents, n_saes, values, keys, rows, SCAN_BLOCK)
    tl.store(starts + s * n + row, start)
    tl.store(counts + s * n + row, count)


@_jit
def histogram(
    pre,
    b_enc,
    state,
    counts,
    n,
    n_latents,
    N_ROWS: constexpr,
    SHIFT: constexpr,
    WIDTH: constexpr,
    RADIX: constexpr,
    BINS: constexpr,
    IS_FIRST: constexpr,
    BLOCK: constexpr,
):
    """Count the values of some rows by this digit, of those whose digits before it are the threshold's."""
    s, n_saes = tl.program_id(1), tl.num_programs(1)
    found = tl.zeros([BINS], tl.int32)
    for i in range(N_ROWS):
        row = tl.program_id(0) * N_ROWS + i
        if row < n:
            for begin in range(0, n_latents, BLOCK):
                bits = _bits(pre, b_enc, row, s, begin + tl.arange(0, BLOCK), n_latents, n_saes)
                is_candidate = bits > 0
                if not IS_FIRST:
                    is_candidate &= (bits >> SHIFT + WIDTH) == (tl.load(state + s * 2) >> SHIFT + WIDTH)
                found += tl.histogram((bits >> SHIFT) % RADIX, BINS, mask=is_candidate)
    tl.atomic_add(counts + s * BINS + tl.arange(0, BINS), found, mask=found > 0)


@_jit
def choose_digit(
    counts,
    state,
    table,
    n,
    n_latents,
    SHIFT: constexpr,
    BINS: constexpr,
    IS_FIRST: constexpr,
):
    """Extend the threshold's bits by a digit; state = (bits so far, how many values to take from there down)."""
    s = tl.program_id(0)
    if IS_FIRST:
        prefix = s * 0
        wanted = n * tl.minimum(tl.load(table + s * N_RATES).to(tl.int32), n_latents)
    else:
        prefix, wanted = tl.load(state + s * 2), tl.load(state + s * 2 + 1)
    bins = tl.arange(0, BINS)
    count = tl.load(counts + s * BINS + bins)
    at_least = tl.cumsum(count, 0, reverse=True)
    digit = tl.maximum(tl.sum((at_least >= wanted).to(tl.int32)) - 1, 0)  # too few positive values: threshold 0
    tl.store(state + s * 2, prefix | (digit << SHIFT))
    tl.store(state + s * 2 + 1, wanted - tl.sum(tl.where(bins > digit, count, 0)))


@_jit
def count_rows(
    pre,
    b_enc,
    state,
    n_above,
    n_equal,
    n,
    n_latents,
    BLOCK: constexpr,
):
    row, s, n_saes = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    threshold = tl.load(state + s * 2)
    above, equal = threshold * 0, threshold * 0
    for begin in range(0, n_latents, BLOCK):
        bits = _bits(pre, b_enc, row, s, begin + tl.arange(0, BLOCK), n_latents, n_saes)
        above += tl.sum((bits > threshold).to(tl.int32))
        equal += tl.sum(((bits == threshold) & (bits > 0)).to(tl.int32))
    tl.store(n_above + s * n + row, above)
    tl.store(n_equal + s * n + row, equal)


@_jit
def place_rows(state, counts, n_equal, starts, n, k_max, BLOCK: constexpr):
    """From the numbers above and equal, in place: slots of each row, and how many of its equal values are taken."""
    s = tl.program_id(0)
    need = tl.load(state + s * 2 + 1)
    n_equal_before, start = need * 0, s * n * k_max
    for begin in range(0, n, BLOCK):
        rows = begin + tl.arange(0, BLOCK)
        is_row = rows < n
        equal = tl.load(n_equal + s * n + rows, mask=is_row, other=0)
        before = n_equal_before + tl.cumsum(equal, 0) - equal
        taken = tl.minimum(tl.maximum(need - before, 0), equal)
        count = tl.load(counts + s * n + rows, mask=is_row, other=0) + taken
        tl.store(n_equal + s * n + rows, taken, mask=is_row)
        tl.store(counts + s * n + rows, count, mask=is_row)
        tl.store(starts + s * n + rows, start + tl.cumsum(count, 0) - count, mask=is_row)
        n_equal_before += tl.sum(equal)
        start += tl.sum(count)


@_jit
def emit_rows(
    pre,
    b_enc,
    state,
    needs,
    values,
    keys,
    rows,
    starts,
    n,
    n_latents,
    BLOCK: constexpr,
):
    row, s, n_saes = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    threshold, need = tl.load(state + s * 2), tl.load(needs + s * n + row)
    start = tl.load(starts + s * n + row)
    _emit(pre, b_enc, threshold, need, start, row, s, n_latents, n_saes, values, keys, rows, BLOCK)


# --- decoding ---------------------------------------------------------------------------------------------------------


@_jit
def _atoms(values, keys, begin, end, W_dec, d_in, columns, TILE_E: constexpr):
    """Slots, values and atoms of up to TILE_E codes; 0 beyond the end."""
    slots = begin + tl.arange(0, TILE_E)
    is_slot = slots < end
    value = tl.load(values + slots, mask=is_slot, other=0.0)
    key = tl.load(keys + slots, mask=is_slot, other=0).to(tl.int64)
    atoms = tl.load(
        W_dec + key[:, None] * d_in + columns[None, :], mask=is_slot[:, None] & (columns < d_in)[None, :], other=0.0
    )
    return slots, value, atoms


@_jit
def decode(
    values,
    keys,
    starts,
    counts,
    z,
    W_dec,
    b_dec,
    prefixes,
    suffix_sums,
    d_codes,
    errors,
    n,
    d_in,
    n_latents,
    scale,
    N_PREFIXES: constexpr,
    TILE_E: constexpr,
    BLOCK_D: constexpr,
):
    row, s = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, BLOCK_D)
    is_column = columns < d_in
    begin = tl.load(starts + s * n + row)
    end = begin + tl.load(counts + s * n + row)

    residual = tl.load(b_dec + s.to(tl.int64) * d_in + columns, mask=is_column, other=0.0)
    residual -= tl.load(z + row.to(tl.int64) * d_in + columns, mask=is_column, other=0.0)
    for e in range(begin, end, TILE_E):
        _, value, atoms = _atoms(values, keys, e, end, W_dec, d_in, columns, TILE_E)
        residual += tl.sum(value[:, None] * atoms, axis=0)

    error = tl.sum(residual * residual)
    tl.store(errors + (s * n + row) * 2 + 1, error)
    all_errors = 0.0
    suffix_sum = tl.zeros([BLOCK_D], tl.float32)
    for reverse in range(N_PREFIXES):
        p = N_PREFIXES - 1 - reverse
        all_errors += tl.sum(residual * residual)
        suffix_sum += residual * scale
        place = ((s.to(tl.int64) * N_PREFIXES + p) * n + row) * d_in
        tl.store(suffix_sums + place + columns, suffix_sum, mask=is_column)
        group = begin
        if p > 0:  # the slots are ordered by key
            border = s * n_latents + tl.load(prefixes + p - 1)
            for e in range(begin, end, 32):
                slots = e + tl.arange(0, 32)
                key = tl.load(keys + slots, mask=slots < end, other=2147483647)
                group += tl.sum((key < border).to(tl.int32))
        for e in range(group, end, TILE_E):
            slots, value, atoms = _atoms(values, keys, e, end, W_dec, d_in, columns, TILE_E)
            tl.store(d_codes + slots, tl.sum(atoms * suffix_sum[None, :], axis=1), mask=slots < end)
            if N_PREFIXES > 1:
                residual -= tl.sum(value[:, None] * atoms, axis=0)
        end = group
    tl.store(errors + (s * n + row) * 2, all_errors)


# --- gradients and updates of the latents -----------------------------------------------------------------------------


@_jit
def _sum_segment(
    begin,
    end,
    key,
    order,
    values,
    rows,
    d_codes,
    z,
    suffix_sums,
    prefixes,
    n,
    d_in,
    n_latents,
    N_PREFIXES: constexpr,
    TRAINS_ENCODER: constexpr,
    TRAINS_DECODER: constexpr,
    TILE_E: constexpr,
    BLOCK_D: constexpr,
):
    """Gradients of a latent's row of W_enc, b_enc and atom over sorted slots begin to end; zeros where frozen."""
    columns = tl.arange(0, BLOCK_D)
    is_column = columns < d_in
    s, latent = key // n_latents, key % n_latents
    group = latent * 0
    for p in range(N_PREFIXES - 1):
        group += (tl.load(prefixes + p) <= latent).to(tl.int32)
    residuals = suffix_sums + (s.to(tl.int64) * N_PREFIXES + group) * n * d_in

    d_row, d_atom = tl.zeros([BLOCK_D], tl.float32), tl.zeros([BLOCK_D], tl.float32)
    d_bias = 0.0
    for e in range(begin, end, TILE_E):
        places = e + tl.arange(0, TILE_E)
        is_slot = places < end
        slots = tl.load(order + places, mask=is_slot, other=0)
        offsets = tl.load(rows + slots, mask=is_slot, other=0).to(tl.int64)[:, None] * d_in + columns[None, :]
        mask = is_slot[:, None] & is_column[None, :]
        if TRAINS_ENCODER:
            d_code = tl.load(d_codes + slots, mask=is_slot, other=0.0)
            d_row += tl.sum(d_code[:, None] * tl.load(z + offsets, mask=mask, other=0.0), axis=0)
            d_bias += tl.sum(d_code)
        if TRAINS_DECODER:
            value = tl.load(values + slots, mask=is_slot, other=0.0)
            d_atom += tl.sum(value[:, None] * tl.load(residuals + offsets, mask=mask, other=0.0), axis=0)
    return d_row, d_bias, d_atom


@_jit
def partial_sums(
    sorted_keys,
    bounds,
    order,
    values,
    rows,
    d_codes,
    z,
    suffix_sums,
    prefixes,
    parts,
    bias_parts,
    n,
    d_in,
    n_latents,
    n_slots,
    n_keys,
    N_PREFIXES: constexpr,
    TRAINS_ENCODER: constexpr,
    TRAINS_DECODER: constexpr,
    CHUNK_SIZE: constexpr,
    TILE_E: constexpr,
    BLOCK_D: constexpr,
):
    """Sums over a chunk's first (side 0) and last (side 1) segment where those go on beyond the chunk."""
    chunk, side = tl.program_id(0), tl.program_id(1)
    chunk_begin = chunk * CHUNK_SIZE
    chunk_end = tl.minimum(chunk_begin + CHUNK_SIZE, n_slots)
    first_key = tl.load(sorted_keys + chunk_begin)
    key = tl.load(sorted_keys + tl.where(side == 0, chunk_begin, chunk_end - 1))
    is_latent = key < n_keys
    segment_begin = tl.load(bounds + key, mask=is_latent, other=0)
    segment_end = tl.load(bounds + key + 1, mask=is_latent, other=0)
    crosses = (segment_begin < chunk_begin) | (segment_end > chunk_end)
    if is_latent & crosses & ((side == 0) | (key != first_key)):
        d_row, d_bias, d_atom = _sum_segment(
            tl.maximum(segment_begin, chunk_begin),
            tl.minimum(segment_end, chunk_end),
            key,
            order,
            values,
            rows,
            d_codes,
            z,
            suffix_sums,
            prefixes,
            n,
            d_in,
            n_latents,
            N_PREFIXES,
            TRAINS_ENCODER,
            TRAINS_DECODER,
            TILE_E,
            BLOCK_D,
        )
        part = (chunk * 2 + side).to(tl.int64)
        columns = tl.arange(0, BLOCK_D)
        tl.store(parts + part * 2 * d_in + columns, d_row, mask=columns < d_in)
        tl.store(parts + (part * 2 + 1) * d_in + columns, d_atom, mask=columns < d_in)
        tl.store(bias_parts + part, d_bias)


@_jit
def _running(mean, new, is_first, decay, share):
    return tl.where(is_first, new, decay * mean + share * new)


@_jit
def _speed(rate, mean_square):
    return rate / (tl.sqrt(mean_square) + _EPSILON)


@_jit
def update(
    bounds,
    order,
    values,
    rows,
    d_codes,
    z,
    suffix_sums,
    prefixes,
    parts,
    bias_parts,
    column_speeds,
    W_enc,
    W_enc_means,
    W_enc_squares,
    b_enc,
    b_enc_means,
    b_enc_squares,
    W_dec,
    W_dec_squares,
    last_active,
    table,
    n,
    d_in,
    n_latents,
    N_PREFIXES: constexpr,
    TRAINS_ENCODER: constexpr,
    TRAINS_DECODER: constexpr,
    CHUNK_SIZE: constexpr,
    TILE_E: constexpr,
    BLOCK_D: constexpr,
):
    key = tl.program_id(0)
    begin, end = tl.load(bounds + key), tl.load(bounds + key + 1)
    if begin == end:
        return
    first_chunk, last_chunk = begin // CHUNK_SIZE, (end - 1) // CHUNK_SIZE
    is_split = first_chunk != last_chunk
    d_row, d_bias, d_atom = _sum_segment(
        tl.where(is_split, end, begin),
        end,
        key,
        order,
        values,
        rows,
        d_codes,
        z,
        suffix_sums,
        prefixes,
        n,
        d_in,
        n_latents,
        N_PREFIXES,
        TRAINS_ENCODER,
        TRAINS_DECODER,
        TILE_E,
        BLOCK_D,
    )
    columns = tl.arange(0, BLOCK_D)
    mask = columns < d_in
    for chunk in range(first_chunk, tl.where(is_split, last_chunk + 1, first_chunk)):
        side = (begin != first_chunk * CHUNK_SIZE) & (first_chunk == chunk)
        part = side.to(tl.int64) + chunk * 2
        d_row += tl.load(parts + part * 2 * d_in + columns, mask=mask, other=0.0)
        d_atom += tl.load(parts + (part * 2 + 1) * d_in + columns, mask=mask, other=0.0)
        d_bias += tl.load(bias_parts + part)

    d_row *= tl.load(column_speeds + columns, mask=mask, other=0.0)
    rates = table + (key // n_latents) * N_RATES
    rate = tl.load(rates + 1).to(tl.float32)
    mean_share, square_share = tl.load(rates + 2).to(tl.float32), tl.load(rates + 3).to(tl.float32)
    number = tl.load(rates + 4).to(tl.int64)
    gap = (number - tl.load(last_active + key)).to(tl.float32)
    mean_decay, square_decay = tl.exp2(gap * tl.log2(1 - mean_share)), tl.exp2(gap * tl.log2(1 - square_share))
    places = key.to(tl.int64) * d_in + columns
    row_before, bias_before = tl.load(W_enc_squares + key), tl.load(b_enc_squares + key)
    atom_before = tl.load(W_dec_squares + key)
    bias, bias_mean = tl.load(b_enc + key), tl.load(b_enc_means + key)
    tl.debug_barrier()  # no warp stores these before all have read them
    if TRAINS_ENCODER:
        is_first = row_before == 0
        square = _running(row_before, tl.sum(d_row * d_row) / d_in, is_first, square_decay, square_share)
        tl.store(W_enc_squares + key, square)
        mean = tl.load(W_enc_means + places, mask=mask, other=0.0)
        mean = _running(mean, d_row, is_first, mean_decay, mean_share)
        tl.store(W_enc_means + places, mean, mask=mask)
        row = tl.load(W_enc + places, mask=mask, other=0.0)
        tl.store(W_enc + places, row - _speed(rate, square) * mean, mask=mask)
        is_first = bias_before == 0
        square = _running(bias_before, d_bias * d_bias, is_first, square_decay, square_share)
        tl.store(b_enc_squares + key, square)
        bias_mean = _running(bias_mean, d_bias, is_first, mean_decay, mean_share)
        tl.store(b_enc_means + key, bias_mean)
        tl.store(b_enc + key, bias - _speed(rate, square) * bias_mean)
    if TRAINS_DECODER:
        atom = tl.load(W_dec + places, mask=mask, other=0.0)
        d_atom -= tl.sum(d_atom * atom) * atom
        square = _running(atom_before, tl.sum(d_atom * d_atom) / d_in, atom_before == 0, square_decay, square_share)
        tl.store(W_dec_squares + key, square)
        atom -= _speed(_DECODER_SPEED * rate, square) * d_atom
        norm = tl.sqrt(tl.sum(atom * atom))
        tl.store(W_dec + places, atom / tl.maximum(norm, 1e-12), mask=mask)
    tl.store(last_active + key, number)


@_jit
def finish(
    gradient,
    errors,
    counts,
    b_dec,
    b_dec_square,
    table,
    sums,
    n,
    d_in,
    n_errors,
    BLOCK: constexpr,
):
    """The step of b_dec; the sums, with n_errors = n_prefixes * d_in errors behind each row's first."""
    s = tl.program_id(0)
    square = 0.0
    for begin in range(0, d_in, BLOCK):
        columns = begin + tl.arange(0, BLOCK)
        change = tl.load(gradient + s * d_in + columns, mask=columns < d_in, other=0.0)
        square += tl.sum(change * change) / d_in
    rates = table + s * N_RATES
    share, before = tl.load(rates + 3).to(tl.float32), tl.load(b_dec_square + s)
    square = _running(before, square, before == 0, 1 - share, share)
    speed = _speed(_DECODER_SPEED * tl.load(rates + 1).to(tl.float32), square)
    for begin in range(0, d_in, BLOCK):
        columns = begin + tl.arange(0, BLOCK)
        mask = columns < d_in
        places = s * d_in + columns
        change = tl.load(gradient + places, mask=mask, other=0.0)
        tl.store(b_dec + places, tl.load(b_dec + places, mask=mask, other=0.0) - speed * change, mask=mask)
    tl.debug_barrier()  # no warp stores it before all have read it
    tl.store(b_dec_square + s, square)
    all_errors, error, n_active = 0.0, 0.0, 0.0
    for begin in range(0, n, BLOCK):
        rows = begin + tl.arange(0, BLOCK)
        mask = rows < n
        all_errors += tl.sum(tl.load(errors + (s * n + rows) * 2, mask=mask, other=0.0))
        error += tl.sum(tl.load(errors + (s * n + rows) * 2 + 1, mask=mask, other=0.0))
        n_active += tl.sum(tl.load(counts + s * n + rows, mask=mask, other=0).to(tl.float32))
    tl.store(sums + s * 3, all_errors / n_errors)
    tl.store(sums + s * 3 + 1, error)
    tl.store(sums + s * 3 + 2, n_active)
