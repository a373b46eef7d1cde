"""Data of the atlas as classic scripts, which a page may load from disk, where it may not fetch a file.

A script calls `atlasData(key, value)`; arrays of numbers stand in it as base64 of their bytes, little-endian.
"""

import base64
import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Kind = Literal["u1", "u2", "u4", "i2", "f4", "f8"]
QUANTA = 65535
"""Steps between the least and the largest value of a map."""


def pack_array(values: ArrayLike, kind: Kind) -> dict[str, str]:
    """Return an array, flattened in C order, as `unpack` of data.js reads it. NaN is kept where the kind has it.

    Raises
    ------
    ValueError
        If an integer kind cannot hold a value.
    """
    array = np.asarray(values)
    if kind[0] != "f" and array.size:
        limits = np.iinfo(kind)
        if not (np.isfinite(array).all() and limits.min <= array.min() and array.max() <= limits.max):
            raise ValueError(f"{kind} holds {limits.min} to {limits.max}, got {array.min()} to {array.max()}")
    return {"t": kind, "b": base64.b64encode(array.astype(f"<{kind}").tobytes()).decode("ascii")}


def pack_rows(places: ArrayLike) -> dict[str, str]:
    """Return places of galaxies or features, packed in the smallest kind that holds them."""
    array = np.asarray(places)
    return pack_array(array, "u2" if array.size == 0 or array.max() < 2**16 else "u4")


def pack_correlations(rho: ArrayLike) -> dict[str, str]:
    """Return correlations, packed to four decimals; NaN becomes -32768."""
    array = np.asarray(rho, dtype=np.float64)
    return pack_array(np.where(np.isnan(array), -32768, np.round(array * 10000)), "i2")


def pack_maps(maps: NDArray[np.floating]) -> dict[str, Any]:
    """Return maps (n, h, w), each packed in 65,535 steps between its least and its largest value."""
    flat = np.asarray(maps, dtype=np.float64).reshape(len(maps), -1)
    low, high = (bound(flat, axis=1, keepdims=True) for bound in (np.min, np.max))
    step = np.where(high > low, (high - low) / QUANTA, 1.0)
    return {
        "h": maps.shape[1],
        "w": maps.shape[2],
        "low": pack_array(low, "f4"),
        "step": pack_array(step, "f4"),
        "cells": pack_array(np.round((flat - low) / step), "u2"),
    }


def finite(value: float | None) -> float | None:
    """Return a number as JSON knows it, with seven digits; None where it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.7g}")


def write_script(path: Path, key: str, data: Any) -> None:
    """Write one script. Its text is ASCII and its object keys are ours: what a catalogue says is only ever a value."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), default=_plain)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"atlasData({json.dumps(key)},{text});\n", encoding="ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
