"""The step of the top-k variants in Triton: all SAEs of a stack at once, with no host synchronisation.

One dense product finds the pre-activations of all SAEs; everything else touches the few active latents only:

1. `select_rows` (or, over the batch, `histogram` ... `emit_rows`) writes codes as flat slots, each row's by column.
   A slot holds value, row and key; key = SAE * n_latents + latent, which is a row of the stacked weights.
2. `decode`, a program a row: residuals of the nested dictionaries, their sums from the last one down to each group
   (what that group's latents and atoms have as gradient), gradient of the codes. The way back takes each group's part
   off the residual again, so no residual is kept.
3. One stable sort of the keys brings the slots of a latent together: deterministic, of known size, a few per cent of
   the step's traffic. A counting sort by atomics would place them in another order each time.
4. `update`, a program a latent: gradients over its slots, projection, its step, renormalisation in one go. A segment
   that crosses a border of `CHUNK` sorted slots is split there, its parts added up by `partial_sums` beforehand: so
   a latent active on all rows does not hold up the step.
5. `finish`: the step of b_dec, and the sums.

Sums are in float32 and in a fixed order. What ran where: everything in Triton's interpreter (3.9) against reference.py;
every kernel compiled to machine code for sm_90; nothing on a GPU yet, so warps and sizes of blocks are guesses.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
import triton
from torch import Tensor

from sfnetlab.training.sae import triton_kernels as kernels
from sfnetlab.training.sae.stack import MEAN_ROWS, SQUARE_ROWS, Rates, Stack, Step

Product = Literal["float32", "tf32", "bfloat16"]
"""How the encoder's product is computed; everything else is in float32."""

ROW_BLOCK = 32768
"""Rows of up to so many latents are bisected in registers, longer ones from memory in blocks of as many."""
SCAN_BLOCK = 4096
"""Columns at a time where codes are written; below 2^15, as two counts are packed in 32 bits."""
CHUNK = 256
"""Sorted slots after which a latent's segment is split."""
TILE = 4096
"""Elements of the tile of atoms or rows that a program gathers at a time."""
LARGEST_D_IN = 16384
"""A row is one block of a program's registers; slower than need be above 2,048."""

_DIGITS = ((20, 11), (10, 10), (0, 10))
"""Shift and width of the digits of a positive float's 31 bits."""
_BINS = 2048
_FUSED = {"enable_fp_fusion": True}
"""Multiply-add in one; said aloud because Triton 3.9 warns where it is not."""


class _Constants(NamedTuple):
    """What a stack's steps have in common, on its device."""

    prefixes: Tensor
    """(n_prefixes,), int32"""
    keys: Tensor
    """(n_saes * n_latents + 1,), int32: 0, 1, ..."""


def make_step(stacks: Sequence[Stack], *, dtype: Product = "float32") -> Step:
    """A step that takes all SAEs of a stack at once, on CUDA or, under TRITON_INTERPRET=1, slowly on the CPU.

    Parameters
    ----------
    dtype
        Of the encoder's product: "float32" exactly; "tf32", with inputs rounded to 10 bits; or "bfloat16", with inputs
        rounded to 7 bits. Weights and all sums are in float32 with each.

    Raises
    ------
    ValueError
        For a stack whose step these kernels do not know.
    """
    for stack in stacks:
        n_saes, n_latents, d_in = stack.weights["W_enc"].shape
        for name, tensor in (*stack.weights.items(), *stack.means.items(), *stack.mean_squares.items()):
            if tensor.dtype != torch.float32 or not tensor.is_contiguous():
                raise ValueError(
                    f"expected contiguous float32, {name} is {tensor.dtype} with strides {tensor.stride()}"
                )
        if not stack.shape.has_kernels:
            raise ValueError(f"no Triton step for variant {stack.shape.variant!r} with auxk {stack.shape.auxk}")
        if d_in > LARGEST_D_IN:
            raise ValueError(f"the Triton step takes d_in up to {LARGEST_D_IN}, got {d_in}")
        if n_saes * n_latents >= 2**31:
            raise ValueError(f"the Triton step takes fewer than 2^31 latents in a stack, got {n_saes * n_latents}")
    constants = [_constants(stack) for stack in stacks]

    def step(z: Tensor, rates: Sequence[Rates], number: int) -> Tensor:
        n_saes = sum(stack.n_saes for stack in stacks)
        if len(rates) != n_saes:
            raise ValueError(f"expected the rates of {n_saes} SAEs, got {len(rates)}")
        z, sums, first = z.contiguous(), list[Tensor](), 0
        with torch.no_grad(), torch.cuda.device_of(z):
            for stack, constant in zip(stacks, constants, strict=True):
                own = rates[first : first + stack.n_saes]
                first += stack.n_saes
                k_max = max(rate.k for rate in own)
                sums.append(_step_stack(stack, constant, z, _upload(own, number, len(z), z.device), k_max, dtype))
            return torch.cat(sums)

    return step


def _constants(stack: Stack) -> _Constants:
    device = stack.last_active.device
    return _Constants(
        torch.tensor(stack.shape.prefixes, dtype=torch.int32, device=device),
        torch.arange(stack.last_active.numel() + 1, dtype=torch.int32, device=device),
    )


def _upload(rates: Sequence[Rates], number: int, n_rows: int, device: torch.device) -> Tensor:
    """(n_saes, N_RATES), float64, without waiting: the pinned copy is not reused before the device has read it."""
    shares = min(1.0, n_rows / MEAN_ROWS), min(1.0, n_rows / SQUARE_ROWS)
    table = torch.tensor(
        [[rate.k, rate.learning_rate, *shares, number] for rate in rates],
        dtype=torch.float64,
        pin_memory=device.type == "cuda",
    )
    return table.to(device, non_blocking=True)


class _Codes(NamedTuple):
    """Active latents in slots; those of row r of SAE s are count[s, r] slots from start[s, r] on."""

    values: Tensor
    keys: Tensor
    rows: Tensor
    """(n_saes * n * k_max,) each; the key of an unused slot is n_saes * n_latents, its value and row mean nothing."""
    start: Tensor
    count: Tensor
    """(n_saes, n), int32"""


def _step_stack(stack: Stack, constants: _Constants, z: Tensor, table: Tensor, k_max: int, dtype: Product) -> Tensor:
    """Launches alone, of sizes known beforehand (a CUDA graph could hold them for as long as k_max and n stay)."""
    weights, means, squares = stack.weights, stack.means, stack.mean_squares
    n_saes, n_latents, d_in = weights["W_enc"].shape
    n, n_prefixes, n_keys = len(z), len(constants.prefixes), n_saes * n_latents
    if n_saes * n * k_max >= 2**31:
        raise ValueError(f"{n_saes} SAEs x {n} rows x k {k_max} are 2^31 active latents or more; use smaller batches")
    block_d = triton.next_power_of_2(d_in)
    tile: dict[str, Any] = {
        "TILE_E": max(1, min(16, TILE // block_d)),
        "BLOCK_D": block_d,
        "num_warps": max(1, min(16, block_d // 256)),
        **_FUSED,
    }
    pre = _product(z, weights["W_enc"].view(n_keys, d_in), dtype)
    select = _select_batch if stack.shape.is_batch_wide else _select_each_row
    codes = select(pre, weights["b_enc"], table, k_max)
    del pre

    suffix_sums = z.new_empty(n_saes, n_prefixes, n, d_in)
    d_codes = torch.empty_like(codes.values)
    errors = z.new_empty(n_saes, n, 2)
    kernels.decode[(n, n_saes)](
        codes.values,
        codes.keys,
        codes.start,
        codes.count,
        z,
        weights["W_dec"],
        weights["b_dec"],
        constants.prefixes,
        suffix_sums,
        d_codes,
        errors,
        n,
        d_in,
        n_latents,
        2 / (n_prefixes * n * d_in),
        N_PREFIXES=n_prefixes,
        **tile,
    )

    sorted_keys, order = torch.sort(codes.keys, stable=True)
    bounds = torch.searchsorted(sorted_keys, constants.keys, out_int32=True)
    n_chunks = triton.cdiv(len(sorted_keys), CHUNK)
    parts = z.new_empty(2 * n_chunks, 2, d_in)
    bias_parts = z.new_empty(2 * n_chunks)
    segments = (order, codes.values, codes.rows, d_codes, z, suffix_sums, constants.prefixes)
    sizes = (n, d_in, n_latents)
    flags: dict[str, Any] = {
        "N_PREFIXES": n_prefixes,
        "TRAINS_ENCODER": stack.trains_encoder,
        "TRAINS_DECODER": stack.trains_decoder,
        "CHUNK_SIZE": CHUNK,
        **tile,
    }
    kernels.partial_sums[(n_chunks, 2)](
        sorted_keys, bounds, *segments, parts, bias_parts, *sizes, len(sorted_keys), n_keys, **flags
    )
    states = [
        *(state[name] for name in ("W_enc", "b_enc") for state in (weights, means, squares)),
        *(state["W_dec"] for state in (weights, squares)),
    ]
    kernels.update[(n_keys,)](
        *(bounds, *segments, parts, bias_parts, stack.column_speeds, *states, stack.last_active, table, *sizes), **flags
    )

    sums = z.new_empty(n_saes, 3)
    kernels.finish[(n_saes,)](
        suffix_sums[:, 0].sum(dim=1),
        errors,
        codes.count,
        weights["b_dec"],
        squares["b_dec"],
        table,
        sums,
        n,
        d_in,
        n_prefixes * d_in,
        BLOCK=1024,
        num_warps=4,
        **_FUSED,
    )
    return sums


def _product(z: Tensor, W_enc: Tensor, dtype: Product) -> Tensor:
    """z W_enc^T, (n, n_keys) in float32."""
    if dtype == "bfloat16":
        halves = z.bfloat16(), W_enc.bfloat16().T
        if z.is_cuda:
            return torch.mm(*halves, out_dtype=torch.float32)  # rounded to bfloat16, latents would tie
        return torch.mm(*(half.float() for half in halves))
    with _tf32(dtype == "tf32"):
        return torch.mm(z, W_enc.T)


@contextmanager
def _tf32(is_allowed: bool) -> Iterator[None]:
    """Says it for this product only, whatever the process has chosen for others."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = is_allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _empty_codes(n_saes: int, n: int, n_keys: int, k_max: int, device: torch.device) -> _Codes:
    n_slots = n_saes * n * k_max
    return _Codes(
        values=torch.empty(n_slots, device=device),
        keys=torch.full((n_slots,), n_keys, dtype=torch.int32, device=device),
        rows=torch.empty(n_slots, dtype=torch.int32, device=device),
        start=torch.empty(n_saes, n, dtype=torch.int32, device=device),
        count=torch.empty(n_saes, n, dtype=torch.int32, device=device),
    )


def _select_each_row(pre: Tensor, b_enc: Tensor, table: Tensor, k_max: int) -> _Codes:
    """The k largest positive values of each row, bisected by their bits; of equal ones the first columns."""
    n_saes, n_latents = b_enc.shape
    n = len(pre)
    codes = _empty_codes(n_saes, n, n_saes * n_latents, k_max, pre.device)
    block = min(triton.next_power_of_2(n_latents), ROW_BLOCK)
    kernels.select_rows[(n, n_saes)](
        pre,
        b_enc,
        table,
        *codes,
        n,
        n_latents,
        k_max,
        IS_WHOLE=block >= n_latents,
        BLOCK=block,
        SCAN_BLOCK=min(block, SCAN_BLOCK),
        num_warps=max(1, min(16, block // 512)),
        **_FUSED,
    )
    return codes


def _select_batch(pre: Tensor, b_enc: Tensor, table: Tensor, k_max: int) -> _Codes:
    """The n k largest positive values of all rows, by three passes of digits; of equal ones the first rows, columns."""
    n_saes, n_latents = b_enc.shape
    n = len(pre)
    codes = _empty_codes(n_saes, n, n_saes * n_latents, k_max, pre.device)
    block = min(triton.next_power_of_2(n_latents), SCAN_BLOCK)
    scan: dict[str, Any] = {"BLOCK": block, "num_warps": max(1, min(8, block // 512)), **_FUSED}
    counts = torch.zeros(len(_DIGITS), n_saes, _BINS, dtype=torch.int32, device=pre.device)
    state = torch.empty(n_saes, 2, dtype=torch.int32, device=pre.device)
    n_rows = 8
    for number, (shift, width) in enumerate(_DIGITS):
        kernels.histogram[(triton.cdiv(n, n_rows), n_saes)](
            pre,
            b_enc,
            state,
            counts[number],
            n,
            n_latents,
            N_ROWS=n_rows,
            SHIFT=shift,
            WIDTH=width,
            RADIX=2**width,
            BINS=_BINS,
            IS_FIRST=number == 0,
            **scan,
        )
        kernels.choose_digit[(n_saes,)](
            counts[number],
            state,
            table,
            n,
            n_latents,
            SHIFT=shift,
            BINS=_BINS,
            IS_FIRST=number == 0,
            num_warps=4,
            **_FUSED,
        )
    n_equal = torch.empty_like(codes.count)
    kernels.count_rows[(n, n_saes)](pre, b_enc, state, codes.count, n_equal, n, n_latents, **scan)
    kernels.place_rows[(n_saes,)](state, codes.count, n_equal, codes.start, n, k_max, BLOCK=1024, num_warps=4, **_FUSED)
    kernels.emit_rows[(n, n_saes)](
        pre, b_enc, state, n_equal, codes.values, codes.keys, codes.rows, codes.start, n, n_latents, **scan
    )
    return codes
