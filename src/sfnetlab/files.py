"""Files on disk: replaced at once or not at all, hashed, and arrays whose space is reserved."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTIAL = ".partial-"
"""Begins the name of a file that is being written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write, and then replace `path` at once: after a kill the old or the new file is there, whole."""
    partial = path.with_name(f"{PARTIAL}{path.name}")
    yield partial
    fsync(partial)
    partial.replace(path)
    fsync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a file at once with this text."""
    with replacing(path) as partial:
        partial.write_text(text)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_array(path: Path, shape: tuple[int, ...], dtype: str) -> "NDArray[Any]":
    """Return a writable memory-mapped `.npy`.

    Its disk space is reserved: a full disk is an error here, and not a SIGBUS later.
    """
    import numpy as np

    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
