"""The training step on a CPU: one dense product, then only the active latents. It equals reference.py's.

Where the processor multiplies bfloat16 faster, the product is in bfloat16 and says where to look; values are float32's.

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
from sfnetlab.training.sae.kernels import selection, update
from sfnetlab.training.sae.kernels.bundles import (
    Activity,
    Batch,
    Bounds,
    Candidates,
    Codes,
    CodesByLatent,
    Decoder,
    Encoder,
    Floats,
    Halves,
    Product,
    RoughProduct,
    RoundedEncoder,
    StepOptions,
)
from sfnetlab.training.sae.state import Rates, SAEState, Steps

_CHUNK, _SMALL_CHUNK = 256, 128
"""Rows of one product, whose result is selected from while it is in the cache; the smaller number where there are not
`_FEWEST_CHUNKS` of the larger one. Each product reads the whole encoder, and may copy it."""
_FEWEST_CHUNKS = 4

ROUGH_SHARE = 20
"""Products are in bfloat16 where n_latents is at least this multiple of k: each value that is selected, and each one
beyond that might be, is computed once more."""

_OVERFLOW = 1e37
"""Bound on values of a product in bfloat16; where they may exceed it, or are not numbers, products are in float32."""


class _Arena:
    """Buffers that are used again in every step; contents last until the same name is taken again."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[Any]] = {}
        self._last: dict[str, NDArray[Any]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
        last = self._last.pop(name, None)
        if last is None or last.shape != shape:
            size = prod(shape)
            buffer = self._buffers.get(name)
            if buffer is None or len(buffer) < size:
                last = None  # before there is another one of its size
                self._buffers.pop(name, None)
                buffer = self._buffers[name] = np.empty(size, dtype)
            last = buffer[:size].reshape(shape)
        self._last[name] = last
        return last


class _SAE:
    """One SAE as arrays that share its memory, and what its last step says of the next one's selection."""

    def __init__(self, state: SAEState, *, has_bfloat16: bool) -> None:
        settings = state.settings
        if not settings.has_kernels:
            raise ValueError(f"no kernels for {settings}; use reference.make_step")
        W_enc, b_enc, W_dec, b_dec = (state.weights[name].numpy() for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
        means, squares = (
            {name: tensor.numpy() for name, tensor in part.items()} for part in (state.means, state.mean_squares)
        )
        self.encoder = Encoder(
            W_enc=W_enc,
            W_enc_means=means["W_enc"],
            W_enc_squares=squares["W_enc"],
            b_enc=b_enc,
            b_enc_means=means["b_enc"],
            b_enc_squares=squares["b_enc"],
            column_speeds=state.column_speeds.numpy(),
        )
        self.decoder = Decoder(W_dec, squares["W_dec"], b_dec, np.array(settings.prefixes))
        self.b_dec_square = squares["b_dec"]
        self.n_latents, self.d_in = W_dec.shape
        self.activity = Activity(state.last_active.numpy(), np.zeros(self.n_latents, np.int32))
        self.is_batch_wide = settings.is_batch_wide
        self.trains_encoder, self.trains_decoder = state.trains_encoder, state.trains_decoder
        self.W_enc = state.weights["W_enc"]
        """As a tensor, for products."""
        self.has_bfloat16 = has_bfloat16
        n_rounded = self.n_latents if has_bfloat16 else 0
        self.rounded = RoundedEncoder(
            np.empty((n_rounded, self.d_in), np.uint16),
            np.empty(n_rounded, np.float32),
            np.empty(n_rounded, np.float32),
        )
        self.rounded_W_enc = _bfloat16(self.rounded.W_enc)
        """As a tensor, for products."""
        self.rounded_version = -1
        """Torch's number of changes to the weights that `rounded` is of. Torch does not see the changes that steps
        make; these change `rounded` too."""
        self.floors = np.zeros(1, np.float32)
        """Floors to look for candidates above, of each chunk or one of the batch: they change how fast a step is, not
        what it does."""
        self.n_candidates = 0
        """Number of candidates of a chunk that there is room for, in batch-wide selection."""


class _Work(NamedTuple):
    """Who works on one SAE."""

    for_each: Callable[[int, Callable[[_Arena, int], None]], None]
    """Does (number of items, work on one item with buffers that no other thread uses)."""
    n_ranges: int
    """Number of ranges into which the latents are cut."""
    arena: _Arena
    """Buffers for all who work on it."""


def make_steps(states: Sequence[SAEState], *, has_bfloat16: bool | None = None) -> Steps:
    """Steps of SAEs that have kernels.

    As many SAEs as threads or more: each is the work of one thread. Fewer: one is trained after another, and the
    threads share the rows and then the latents of each. An SAE takes all of the steps before the next one takes the
    first: its weights are in the cache then.

    Parameters
    ----------
    states
        Their tensors are on the CPU, float32 and contiguous, and must stay where they are.
    has_bfloat16
        Whether products may be in bfloat16, which changes how fast a step is, and how its sums are rounded; None: if
        `runtime.multiplies_bfloat16`.

    Raises
    ------
    ValueError
        For an SAE without kernels.
    """
    if has_bfloat16 is None:
        has_bfloat16 = runtime.multiplies_bfloat16()
    saes = [_SAE(state, has_bfloat16=has_bfloat16) for state in states]
    n_threads = runtime.n_threads()
    arenas = [_Arena() for _ in range(n_threads)]
    alone = {id(arena): _Work(partial(_in_turn, arena), 1, arena) for arena in arenas}
    together = _Work(partial(_share, arenas), 4 * n_threads, _Arena())

    def steps(batches: Sequence[Tensor], rates: Sequence[Sequence[Rates]], first: int) -> Tensor:
        sums = np.empty((len(batches), len(saes), 3), np.float32)
        for of_step in rates:
            if len(of_step) != len(saes):
                raise ValueError(f"expected rates of {len(saes)} SAEs, got {len(of_step)}")

        def take(i: int, work: _Work) -> None:
            for b, (z, of_step) in enumerate(zip(batches, rates, strict=True)):
                sums[b, i] = _step_one(saes[i], z, of_step[i], first + b, work)

        with _one_thread_each():
            if len(saes) >= n_threads:
                _share(arenas, len(saes), lambda arena, i: take(i, alone[id(arena)]))
            else:
                for i in range(len(saes)):
                    take(i, together)
        return torch.from_numpy(sums)

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
    """Work on the items in this thread and those of the pool, one thread for each arena."""
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


class _Rough(NamedTuple):
    """What products in bfloat16 need to know of the whole encoder."""

    slack: np.float32
    """As in `RoughProduct`; not finite if a bias is not."""
    largest_share: np.float32
    largest_norm: np.float32
    """The largest of `RoundedEncoder`."""


class _Selection(NamedTuple):
    """What can be done with the product of a chunk: kernels with their first arguments, and a check of the values."""

    select: Callable[..., np.float32]
    collect: Callable[..., int]
    check: np.float32
    """0, or not a number if a latent's value is not finite."""


def _step_one(sae: _SAE, z: Tensor, rates: Rates, number: int, work: _Work) -> tuple[float, float, int]:
    """Take a step of one SAE; returns the three sums of `Step`."""
    n_rows, n_slots, n_prefixes = len(z), len(z) * rates.k, len(sae.decoder.prefixes)
    take = work.arena.take
    codes = Codes(
        starts=take("starts", (n_rows,), np.int64),
        counts=take("counts", (n_rows,), np.int32),
        columns=take("columns", (n_slots,), np.int32),
        values=take("values", (n_slots,), np.float32),
        gradients=take("gradients", (n_slots,), np.float32),
    )
    batch = Batch(
        z=z.numpy(),
        errors=take("errors", (n_rows * n_prefixes, sae.d_in), np.float32),
        scale=np.float32(2 / (n_prefixes * n_rows * sae.d_in)),
    )
    chunk_rows = _CHUNK if n_rows >= _FEWEST_CHUNKS * _CHUNK else _SMALL_CHUNK
    chunks = [slice(first, min(first + chunk_rows, n_rows)) for first in range(0, n_rows, chunk_rows)]
    b_dec_gradients = take("b_dec_gradients", (len(chunks), sae.d_in), np.float32)
    squares = take("squares", (len(chunks), 3), np.float64)  # of all dictionaries, of the whole one, and a check
    is_rounded = sae.has_bfloat16 and ROUGH_SHARE * rates.k <= sae.n_latents
    rough = _round_encoder(sae, work) if is_rounded else None
    if rough is None:
        sae.rounded_version = -1

    def product(scratch: _Arena, chunk: int) -> _Selection:
        selection = _rough_product(sae, rough, batch.z[chunks[chunk]], scratch) if rough else None
        selection = selection or _product(sae, z[chunks[chunk]], scratch)
        squares[chunk, 2] = selection.check
        return selection

    def decode(_: _Arena, chunk: int) -> None:
        rows = chunks[chunk]
        squares[chunk, :2] = update.decode_rows(
            rows.start, rows.stop, codes, sae.decoder, batch, b_dec_gradients[chunk]
        )

    def select_and_decode(scratch: _Arena, chunk: int) -> None:
        selection = product(scratch, chunk)
        sae.floors[chunk] = selection.select(rates.k, sae.floors[chunk], chunks[chunk].start, codes)
        decode(scratch, chunk)

    if sae.is_batch_wide:
        _select_batch(sae, chunks, rates.k, product, codes, work)
        work.for_each(len(chunks), decode)
    else:
        codes.starts[:] = np.arange(n_rows) * rates.k
        if len(sae.floors) != len(chunks):
            sae.floors = np.zeros(len(chunks), np.float32)
        work.for_each(len(chunks), select_and_decode)

    rate = np.float32(rates.learning_rate)
    options = StepOptions(number, rate, sae.trains_encoder, sae.trains_decoder, is_rounded)
    check = _update(sae, codes, batch, options, work)
    update.move_b_dec(sae.decoder.b_dec, sae.b_dec_square, b_dec_gradients, rate, n_rows)
    all_squares, whole_squares, product_check = squares.sum(axis=0)
    loss = all_squares / (n_prefixes * sae.d_in) + product_check + check
    return loss, whole_squares, int(codes.counts.sum())


def _update(sae: _SAE, codes: Codes, batch: Batch, options: StepOptions, work: _Work) -> np.float32:
    """Take the step of all latents, by ranges; returns 0, or not a number if a weight became so."""
    bounds = work.arena.take("range_bounds", (work.n_ranges + 1,), np.int64)
    update.cut_ranges(sae.activity.n_active, bounds)
    checks = work.arena.take("checks", (work.n_ranges,), np.float32)
    n_slots = len(codes.values)

    def update_range(scratch: _Arena, i: int) -> None:
        by_latent = CodesByLatent(
            offsets=scratch.take("offsets", (sae.n_latents + 1,), np.int64),
            rows=scratch.take("sorted_rows", (n_slots,), np.int32),
            values=scratch.take("sorted_values", (n_slots,), np.float32),
            gradients=scratch.take("sorted_gradients", (n_slots,), np.float32),
        )
        arrays = (codes, by_latent, batch, sae.encoder, sae.rounded, sae.decoder, sae.activity)
        checks[i] = update.update_latents(bounds[i], bounds[i + 1], *arrays, options)

    work.for_each(work.n_ranges, update_range)
    return checks.sum()


def _product(sae: _SAE, rows: Tensor, scratch: _Arena) -> _Selection:
    pre = scratch.take("pre", (len(rows), sae.n_latents), np.float32)
    torch.mm(rows, sae.W_enc.T, out=torch.from_numpy(pre))
    product = Product(pre, sae.encoder.b_enc)
    of_row = _candidates(scratch, "row", (sae.n_latents,))
    return _Selection(
        partial(selection.select_rows, product, of_row),
        partial(selection.collect_rows, product),
        selection.finite_or_nan(product),
    )


def _rough_product(sae: _SAE, rough: _Rough, rows: Floats, scratch: _Arena) -> _Selection | None:
    """None where the product would overflow, or something is not finite."""
    halves = scratch.take("rounded_rows", rows.shape, np.uint16)
    row_errors = scratch.take("row_errors", (len(rows),), np.float32)
    largest_norm = selection.round_batch(rows, rough.largest_share, halves, row_errors)
    if not largest_norm * rough.largest_norm < _OVERFLOW:
        return None
    pre = scratch.take("rough_pre", (len(rows), sae.n_latents), np.uint16)
    torch.mm(_bfloat16(halves), sae.rounded_W_enc.T, out=_bfloat16(pre))
    arguments = (
        RoughProduct(pre, sae.encoder.b_enc, rough.slack, sae.rounded.norms, row_errors, rows, sae.encoder.W_enc),
        Bounds(*scratch.take("bounds", (2, sae.n_latents), np.float32)),
        _candidates(scratch, "rows", (len(rows), sae.n_latents)),
    )
    return _Selection(
        partial(selection.select_rows_roughly, *arguments),
        partial(selection.collect_rows_roughly, *arguments),
        np.float32(0) * rough.slack,
    )


def _candidates(arena: _Arena, name: str, shape: tuple[int, ...]) -> Candidates:
    return Candidates(
        arena.take(f"columns of {name}", shape, np.int32), arena.take(f"values of {name}", shape, np.float32)
    )


def _round_encoder(sae: _SAE, work: _Work) -> _Rough:
    """Round the encoder if somebody else than steps may have changed the weights; returns its extremes."""

    def round_range(_: _Arena, i: int) -> None:
        part = slice(i * sae.n_latents // work.n_ranges, (i + 1) * sae.n_latents // work.n_ranges)
        rounded = RoundedEncoder(sae.rounded.W_enc[part], sae.rounded.norms[part], sae.rounded.shares[part])
        selection.round_latents(sae.encoder.W_enc[part], rounded)

    if sae.rounded_version != sae.W_enc._version:
        work.for_each(work.n_ranges, round_range)
        sae.rounded_version = sae.W_enc._version
    slack = selection.slack_of(sae.encoder.b_enc, sae.d_in)
    return _Rough(slack, sae.rounded.shares.max(), sae.rounded.norms.max())


def _bfloat16(bits: Halves) -> Tensor:
    return torch.from_numpy(bits).view(torch.bfloat16)


def _select_batch(
    sae: _SAE,
    chunks: Sequence[slice],
    k: int,
    product: Callable[[_Arena, int], _Selection],
    codes: Codes,
    work: _Work,
) -> None:
    """Write the n_rows k largest values of all rows: candidates of each chunk, one threshold, what stays of a chunk."""
    n_chunks, n_kept, chunk_rows = len(chunks), chunks[-1].stop * k, chunks[0].stop
    n_found = work.arena.take("n_found", (n_chunks,), np.int64)
    row_counts = work.arena.take("row_counts", (n_chunks, chunk_rows), np.int32)
    sae.n_candidates = max(sae.n_candidates, min(2 * k, sae.n_latents) * chunk_rows)

    def collect_above(floor: np.float32) -> Candidates:
        found = _candidates(work.arena, "batch", (n_chunks, sae.n_candidates))

        def collect(scratch: _Arena, chunk: int) -> None:
            n_found[chunk] = product(scratch, chunk).collect(floor, row_counts[chunk], _of_chunk(found, chunk))

        work.for_each(n_chunks, collect)
        return found

    floor, n_tries = sae.floors[0], 0
    found = collect_above(floor)
    while (is_full := n_found.max() > sae.n_candidates) or (n_found.sum() < n_kept and floor > 0):
        if is_full:
            sae.n_candidates = min(int(1.2 * n_found.max()), chunk_rows * sae.n_latents)
        else:
            n_tries += 1
            floor = np.float32(0.7 * floor if n_tries < 3 else 0)
        found = collect_above(floor)

    threshold, n_equal = np.float32(0), 0
    if n_found.sum() > n_kept:
        threshold, n_equal = selection.cut(found.values, n_found, n_kept, floor)
        threshold = np.float32(threshold)
    sae.floors[0] = 0.9 * threshold
    first_slots: list[int] = []
    n_equals: list[int] = []
    slot = 0
    for chunk in range(n_chunks):
        n_above, n_tied = selection.count_kept(found.values[chunk], n_found[chunk], threshold)
        first_slots.append(slot)
        n_equals.append(min(n_tied, n_equal))
        slot += n_above + n_equals[-1]
        n_equal -= n_equals[-1]

    def keep(_: _Arena, chunk: int) -> None:
        rows = chunks[chunk]
        counts = row_counts[chunk, : rows.stop - rows.start]
        selection.keep_rows(
            _of_chunk(found, chunk), counts, threshold, n_equals[chunk], rows.start, first_slots[chunk], codes
        )

    work.for_each(n_chunks, keep)


def _of_chunk(found: Candidates, chunk: int) -> Candidates:
    return Candidates(found.columns[chunk], found.values[chunk])
