"""The step on a CPU: one dense product, then only the active latents. Equal to reference.py's.

Where the processor multiplies bfloat16 faster the product is in that and says where to look; values are float32's.

Threads are our own. Rows are cut into chunks that do not depend on how many threads there are, and sums are taken in
one order: any number of threads, one SAE or many, give the same bits.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import count
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfnetlab import runtime
from sfnetlab.training.sae import numba_selection, numba_update
from sfnetlab.training.sae.stack import Rates, Stack, Steps

_CHUNK, _SMALL_CHUNK = 256, 128
"""Rows of one product, whose result is selected from while it is in the cache; the smaller number where there are not
`_FEWEST_CHUNKS` of the larger one. Each product reads the whole encoder, and may copy it."""
_FEWEST_CHUNKS = 4

_ROUGH_SHARE = 20
"""Products are in bfloat16 where n_latents is at least so many times k: each value beyond is computed once more."""

_OVERFLOW = 1e37
"""Bound on values of a product in bfloat16; beyond, and where it is not a number, products are in float32."""


class _Arena:
    """Buffers that are used again in every step; contents last until the same name is taken again."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[Any]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
        size = prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            self._buffers.pop(name, None)
            buffer = self._buffers[name] = np.empty(size, dtype)
        return buffer[:size].reshape(shape)


class _Rounded:
    """An encoder in bfloat16, and what products in that need to know of it; see numba_selection.py."""

    def __init__(self, n_latents: int, d_in: int) -> None:
        self.W_enc = np.empty((n_latents, d_in), np.uint16)
        self.norms, self.shares = np.empty(n_latents, np.float32), np.empty(n_latents, np.float32)
        self.version = -1
        """Torch's number of changes to the float32 weights that these are of; steps, which torch does not see, keep
        both alike."""


class _SAE:
    """One SAE of a stack as arrays that share its memory, and what its last step says of the next one's selection."""

    def __init__(self, stack: Stack, s: int, *, has_bfloat16: bool) -> None:
        if not stack.shape.has_kernels:
            raise ValueError(f"no kernels for {stack.shape}; use reference.make_step")
        self.W_enc, self.b_enc, self.W_dec, self.b_dec = (
            stack.weights[name][s].numpy() for name in ("W_enc", "b_enc", "W_dec", "b_dec")
        )
        W_enc_means, b_enc_means = (stack.means[name][s].numpy() for name in ("W_enc", "b_enc"))
        W_enc_squares, b_enc_squares, W_dec_squares, self.b_dec_square = (
            stack.mean_squares[name][s].numpy() for name in ("W_enc", "b_enc", "W_dec", "b_dec")
        )
        self.latents = (
            stack.column_speeds.numpy(),
            *(self.W_enc, W_enc_means, W_enc_squares),
            *(self.b_enc, b_enc_means, b_enc_squares),
            *(self.W_dec, W_dec_squares),
        )
        """Speeds of columns, and what a step changes of the latents, in the order that the kernel wants."""
        self.encoder = stack.weights["W_enc"][s]
        self.last_active = stack.last_active[s].numpy()
        self.n_latents, self.d_in = self.W_dec.shape
        self.prefixes = np.array(stack.shape.prefixes)
        self.is_batch_wide = stack.shape.is_batch_wide
        self.rounded = _Rounded(self.n_latents if has_bfloat16 else 0, self.d_in)
        self.has_bfloat16 = has_bfloat16
        self.trains_encoder, self.trains_decoder = stack.trains_encoder, stack.trains_decoder
        # Floors to look for candidates above, of each chunk or one of the batch: they change how fast, not what.
        self.floors = np.zeros(1, np.float32)
        self.n_candidates = 0  # of a chunk, in batch-wide selection
        self.n_active = np.zeros(self.n_latents, np.int32)
        """On how many rows each latent was active in the last step: where ranges of latents are cut."""


class _Selection(NamedTuple):
    """What can be done with the product of a chunk: kernels with their first arguments, and a check of the values."""

    select: Callable[..., np.float32]
    collect: Callable[..., int]
    check: np.float32
    """0, or not a number if a latent's value is not finite."""


class _Workers(NamedTuple):
    """Who works on one SAE."""

    for_each: Callable[[int, Callable[[_Arena, int], None]], None]
    """(number of items, work on one item with buffers that no other thread uses)."""
    n_ranges: int
    """Into which the latents are cut."""


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32; no where torch cannot tell."""
    find = getattr(torch.cpu, "get_capabilities", None)
    found = find() if find else {}
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def make_steps(stacks: Sequence[Stack], *, has_bfloat16: bool | None = None) -> Steps:
    """Steps on CPU tensors (float32, contiguous) for stacks that have kernels; their tensors must stay where they are.

    `has_bfloat16` changes how fast a step is, beside the rounding of its sums; None: `multiplies_bfloat16`.

    As many SAEs as threads or more: each is the work of one thread; fewer: one after another, the rows and then the
    latents of each shared by the threads. Each takes all of the steps before the next one takes the first: its weights
    are in the cache then.
    """
    if has_bfloat16 is None:
        has_bfloat16 = multiplies_bfloat16()
    saes = [_SAE(stack, s, has_bfloat16=has_bfloat16) for stack in stacks for s in range(stack.n_saes)]
    n_threads = runtime.n_threads()
    arenas = [_Arena() for _ in range(n_threads)]
    alone = [_Workers(partial(_in_turn, arena), 1) for arena in arenas]
    all_of_them = _Workers(partial(_share, arenas), 4 * n_threads)

    def steps(batches: Sequence[Tensor], rates: Sequence[Sequence[Rates]], first: int) -> Tensor:
        sums = np.empty((len(batches), len(saes), 3), np.float32)
        for own in rates:
            if len(own) != len(saes):
                raise ValueError(f"expected rates of {len(saes)} SAEs, got {len(own)}")

        def take(arena: _Arena, i: int, workers: _Workers) -> None:
            for b, (z, own) in enumerate(zip(batches, rates, strict=True)):
                sums[b, i] = _step_one(saes[i], z, own[i], first + b, arena, workers)

        with _one_thread_each():
            if len(saes) >= n_threads:
                _share(arenas, len(saes), lambda arena, i: take(arena, i, alone[arenas.index(arena)]))
            else:
                for i in range(len(saes)):
                    take(shared, i, all_of_them)
        return torch.from_numpy(sums)

    shared = _Arena()
    return steps


# --- threads ----------------------------------------------------------------------------------------------------------


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, "sae", initializer=torch.set_num_threads, initargs=(1,))


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Products on the thread that asks for them: torch's own threads would fight with ours."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _share(arenas: Sequence[_Arena], n_items: int, work: Callable[[_Arena, int], None]) -> None:
    """The items shared by this thread and those of the pool, one thread for each arena."""
    items = count()

    def work_on(arena: _Arena) -> None:
        while (item := next(items)) < n_items:
            work(arena, item)

    n_helpers = min(len(arenas), n_items) - 1
    helpers = [_pool(len(arenas) - 1).submit(work_on, arena) for arena in arenas[1 : n_helpers + 1]]
    try:
        work_on(arenas[0])
    finally:
        for helper in helpers:
            helper.result()


def _in_turn(arena: _Arena, n_items: int, work: Callable[[_Arena, int], None]) -> None:
    for item in range(n_items):
        work(arena, item)


# --- one SAE ----------------------------------------------------------------------------------------------------------


def _step_one(
    sae: _SAE, z: Tensor, rates: Rates, number: int, arena: _Arena, workers: _Workers
) -> tuple[float, float, int]:
    z_array, n_rows, k, n_prefixes = z.numpy(), len(z), rates.k, len(sae.prefixes)
    scale = np.float32(2 / (n_prefixes * n_rows * sae.d_in))
    is_rounded = sae.has_bfloat16 and _ROUGH_SHARE * k <= sae.n_latents
    chunk_rows = _CHUNK if n_rows >= _FEWEST_CHUNKS * _CHUNK else _SMALL_CHUNK
    chunks = [slice(first, min(first + chunk_rows, n_rows)) for first in range(0, n_rows, chunk_rows)]
    n_chunks = len(chunks)
    starts, counts = arena.take("starts", (n_rows,), np.int64), arena.take("counts", (n_rows,), np.int32)
    columns, values = arena.take("columns", (n_rows * k,), np.int32), arena.take("values", (n_rows * k,), np.float32)
    code_gradients = arena.take("code_gradients", (n_rows * k,), np.float32)
    slots = (starts, counts, columns, values)
    errors = arena.take("errors", (n_rows * n_prefixes, sae.d_in), np.float32)
    b_dec_gradients = arena.take("b_dec_gradients", (n_chunks, sae.d_in), np.float32)
    squares = arena.take("squares", (n_chunks, 3), np.float64)  # of all dictionaries, of the whole one, and a check

    if is_rounded:
        _round_latents(sae, workers)
    else:
        sae.rounded.version = -1

    def product(scratch: _Arena, chunk: int) -> _Selection:
        selection = _rough_product(sae, z_array[chunks[chunk]], scratch) if is_rounded else None
        selection = selection or _product(sae, z[chunks[chunk]], scratch)
        squares[chunk, 2] = selection.check
        return selection

    def decode(_: _Arena, chunk: int) -> None:
        first, last = chunks[chunk].start, chunks[chunk].stop
        squares[chunk, :2] = numba_update.decode_rows(
            z_array,
            sae.W_dec,
            sae.b_dec,
            sae.prefixes,
            scale,
            first,
            last - first,
            *slots,
            errors,
            code_gradients,
            b_dec_gradients[chunk],
        )

    if sae.is_batch_wide:
        _select_batch(sae, chunks, k, product, slots, arena, workers)
        workers.for_each(n_chunks, decode)
    else:
        starts[:] = np.arange(n_rows) * k
        if len(sae.floors) != n_chunks:
            sae.floors = np.zeros(n_chunks, np.float32)

        def select_and_decode(scratch: _Arena, chunk: int) -> None:
            sae.floors[chunk] = product(scratch, chunk).select(k, sae.floors[chunk], chunks[chunk].start, *slots)
            decode(scratch, chunk)

        workers.for_each(n_chunks, select_and_decode)

    bounds = arena.take("range_bounds", (workers.n_ranges + 1,), np.int64)
    numba_update.cut_ranges(sae.n_active, bounds)
    checks = arena.take("checks", (workers.n_ranges,), np.float32)
    rate = np.float32(rates.learning_rate)

    def update(scratch: _Arena, i: int) -> None:
        checks[i] = numba_update.update_latents(
            bounds[i],
            bounds[i + 1],
            *slots,
            code_gradients,
            scratch.take("offsets", (sae.n_latents + 1,), np.int64),
            scratch.take("sorted_rows", (n_rows * k,), np.int32),
            scratch.take("sorted_values", (n_rows * k,), np.float32),
            scratch.take("sorted_gradients", (n_rows * k,), np.float32),
            sae.n_active,
            z_array,
            errors,
            sae.prefixes,
            scale,
            number,
            rate,
            sae.trains_encoder,
            sae.trains_decoder,
            *sae.latents,
            sae.last_active,
            is_rounded,
            sae.rounded.W_enc,
            sae.rounded.norms,
            sae.rounded.shares,
        )

    workers.for_each(workers.n_ranges, update)
    numba_update.move_b_dec(sae.b_dec, sae.b_dec_square, b_dec_gradients, rate, n_rows)
    all_squares, whole_squares, check = squares.sum(axis=0)
    return all_squares / (n_prefixes * sae.d_in) + check + checks.sum(), whole_squares, int(counts.sum())


def _product(sae: _SAE, rows: Tensor, scratch: _Arena) -> _Selection:
    b_enc = sae.b_enc
    pre = scratch.take("pre", (len(rows), sae.n_latents), np.float32)
    torch.mm(rows, sae.encoder.T, out=torch.from_numpy(pre))
    found = (
        scratch.take("row_columns", (sae.n_latents,), np.int32),
        scratch.take("row_values", (sae.n_latents,), np.float32),
    )
    return _Selection(
        partial(numba_selection.select_rows, pre, b_enc, *found),
        partial(numba_selection.collect_rows, pre, b_enc),
        numba_selection.finite_or_nan(pre[0], b_enc),
    )


def _rough_product(sae: _SAE, rows: NDArray[np.float32], scratch: _Arena) -> _Selection | None:
    """None where it would overflow, or something is not finite."""
    rounded, slack = sae.rounded, numba_selection.slack_of(sae.b_enc, sae.d_in)
    halves, row_errors = (
        scratch.take("rounded_rows", rows.shape, np.uint16),
        scratch.take("row_errors", (len(rows),), np.float32),
    )
    largest_norm = numba_selection.round_batch(rows, rounded.shares.max(), halves, row_errors)
    if not largest_norm * rounded.norms.max() < _OVERFLOW:
        return None
    pre = scratch.take("rough_pre", (len(rows), sae.n_latents), np.uint16)
    torch.mm(_bfloat16(halves), _bfloat16(rounded.W_enc).T, out=_bfloat16(pre))
    arguments = (
        pre,
        rounded.norms,
        row_errors,
        slack,
        rows,
        sae.W_enc,
        sae.b_enc,
        scratch.take("bounds", (2, sae.n_latents), np.float32),
        scratch.take("rows_columns", (len(rows), sae.n_latents), np.int32),
        scratch.take("rows_values", (len(rows), sae.n_latents), np.float32),
    )
    return _Selection(
        partial(numba_selection.select_rows_roughly, *arguments),
        partial(numba_selection.collect_rows_roughly, *arguments),
        np.float32(0) * slack,
    )


def _round_latents(sae: _SAE, workers: _Workers) -> None:
    """Where somebody else than steps may have changed the weights."""
    rounded, version = sae.rounded, sae.encoder._version
    if rounded.version == version:
        return

    def round_range(_: _Arena, i: int) -> None:
        part = slice(i * sae.n_latents // workers.n_ranges, (i + 1) * sae.n_latents // workers.n_ranges)
        numba_selection.round_latents(sae.W_enc[part], rounded.W_enc[part], rounded.norms[part], rounded.shares[part])

    workers.for_each(workers.n_ranges, round_range)
    rounded.version = version


def _bfloat16(bits: NDArray[np.uint16]) -> Tensor:
    return torch.from_numpy(bits).view(torch.bfloat16)


def _select_batch(
    sae: _SAE,
    chunks: Sequence[slice],
    k: int,
    product: Callable[[_Arena, int], _Selection],
    slots: tuple[NDArray[Any], ...],
    arena: _Arena,
    workers: _Workers,
) -> None:
    """The n_rows k largest values of all rows: candidates of each chunk, one threshold, what stays of each chunk."""
    n_chunks, n_kept, chunk_rows = len(chunks), chunks[-1].stop * k, chunks[0].stop
    n_found = arena.take("n_found", (n_chunks,), np.int64)
    row_counts = arena.take("row_counts", (n_chunks, chunk_rows), np.int32)
    sae.n_candidates = max(sae.n_candidates, min(2 * k, sae.n_latents) * chunk_rows)

    def collect_above(floor: np.float32) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        found_columns = arena.take("found_columns", (n_chunks, sae.n_candidates), np.int32)
        found_values = arena.take("found_values", (n_chunks, sae.n_candidates), np.float32)

        def collect(scratch: _Arena, chunk: int) -> None:
            n_found[chunk] = product(scratch, chunk).collect(
                floor, row_counts[chunk], found_columns[chunk], found_values[chunk]
            )

        workers.for_each(n_chunks, collect)
        return found_columns, found_values

    floor, n_tries = sae.floors[0], 0
    found_columns, found_values = collect_above(floor)
    while (is_full := n_found.max() > sae.n_candidates) or (n_found.sum() < n_kept and floor > 0):
        if is_full:
            sae.n_candidates = min(int(1.2 * n_found.max()), chunk_rows * sae.n_latents)
        else:
            n_tries += 1
            floor = np.float32(0.7 * floor if n_tries < 3 else 0)
        found_columns, found_values = collect_above(floor)

    threshold, n_equal = np.float32(0), 0
    if n_found.sum() > n_kept:
        threshold, n_equal = numba_selection.cut(found_values, n_found, n_kept, floor)
        threshold = np.float32(threshold)
    sae.floors[0] = 0.9 * threshold
    first_slots: list[int] = []
    n_equals: list[int] = []
    slot = 0
    for chunk in range(n_chunks):
        n_above, n_tied = numba_selection.count_kept(found_values[chunk], n_found[chunk], threshold)
        first_slots.append(slot)
        n_equals.append(min(n_tied, n_equal))
        slot += n_above + n_equals[-1]
        n_equal -= n_equals[-1]

    def keep(_: _Arena, chunk: int) -> None:
        first, last = chunks[chunk].start, chunks[chunk].stop
        numba_selection.keep_rows(
            found_columns[chunk],
            found_values[chunk],
            row_counts[chunk, : last - first],
            threshold,
            n_equals[chunk],
            first,
            first_slots[chunk],
            *slots,
        )

    workers.for_each(n_chunks, keep)
