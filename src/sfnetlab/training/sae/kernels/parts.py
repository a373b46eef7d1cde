"""How kernels are compiled, and products that several of them take."""

from typing import Any

import numba
import numpy as np

from sfnetlab.runtime import compiled
from sfnetlab.training.sae.kernels import lanes
from sfnetlab.training.sae.kernels.bundles import Floats, Ints
from sfnetlab.training.sae.kernels.lanes import NARROW, WIDE

_options: dict[str, Any] = {"nogil": True, "fastmath": set(lanes.FAST), "error_model": "numpy", "forceinline": True}
kernel: Any = compiled(**_options)
"""Compiles a function that is called from Python.

It is inlined where other kernels call it. Otherwise the process that compiles them would run the called kernel's own
copy, later processes the copy that was optimised with its caller, and their sums differ in the last bit.
"""
part: Any = numba.njit(**_options)
"""Compiles a part of kernels; only a part can take and return blocks.

Numba keeps what it compiled of a kernel until that kernel's own file changes: after a change of a part or of lanes.py,
delete `__pycache__`.
"""


@part
def split(d: int, width: int) -> int:
    """The column at which the last, incomplete block of `width` columns begins, of d columns."""
    return d - d % width


@part
def blocks(d: int) -> tuple[int, Any, Any]:
    """How d columns are cut into wide blocks: (where the last, incomplete one begins, a whole block, the last one)."""
    border = split(d, WIDE)
    return border, lanes.whole(WIDE), lanes.first(WIDE, d - border)


@part
def _four_products(
    table: Floats, rows: tuple[int, int, int, int], vectors: Floats, vector: int
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Inner products of four rows of a table with vectors[vector].

    There are always four, because the bits of one must not depend on which others are asked for.
    """
    d = table.shape[1]
    border = split(d, NARROW)
    whole, rest = lanes.whole(NARROW), lanes.first(NARROW, d - border)
    r0, r1, r2, r3 = rows
    s0 = s1 = s2 = s3 = lanes.zeros(whole)
    for c in range(0, border, NARROW):
        v = lanes.load(whole, vectors, vector, c)
        s0 = s0 + v * lanes.load(whole, table, r0, c)
        s1 = s1 + v * lanes.load(whole, table, r1, c)
        s2 = s2 + v * lanes.load(whole, table, r2, c)
        s3 = s3 + v * lanes.load(whole, table, r3, c)
    if border < d:
        v = lanes.load(rest, vectors, vector, border)
        s0 = s0 + v * lanes.load(rest, table, r0, border)
        s1 = s1 + v * lanes.load(rest, table, r1, border)
        s2 = s2 + v * lanes.load(rest, table, r2, border)
        s3 = s3 + v * lanes.load(rest, table, r3, border)
    return lanes.total(s0), lanes.total(s1), lanes.total(s2), lanes.total(s3)


@part
def products(
    table: Floats, rows: Ints, vectors: Floats, vector: int, scale: np.float32, begin: int, end: int, out: Floats
) -> None:
    """Write out[i] = scale * (table[rows[i]] . vectors[vector]) for i from begin to end."""
    last = end - 1
    for i in range(begin, end, 4):
        at = (rows[i], rows[min(i + 1, last)], rows[min(i + 2, last)], rows[min(i + 3, last)])
        p0, p1, p2, p3 = _four_products(table, at, vectors, vector)
        out[i] = scale * p0
        if i + 1 < end:
            out[i + 1] = scale * p1
        if i + 2 < end:
            out[i + 2] = scale * p2
        if i + 3 < end:
            out[i + 3] = scale * p3
