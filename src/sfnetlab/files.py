"""Files on disk: replaced at once or not at all, hashed, and arrays whose space is reserved."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfnetlab.errors import DataError

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


def require_file(path: Path, what: str) -> Path:
    """Return the path, if it is a file that can be read.

    Parameters
    ----------
    what : str
        What the file should be, for messages.

    Raises
    ------
    DataError
        If it is missing, a folder, a link that leads nowhere or in a circle, or may not be read. The message shows the
        whole path where a relative one is not found.
    """
    problem = ""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
        else:
            problem = "is a folder" if stat.S_ISDIR(mode) else "is no regular file"
    except PermissionError:
        problem = "may not be read (permission denied)"
    except OSError as error:
        problem = f"no such {what} file ({error.strerror})"
        if path.is_symlink():
            where = "in a circle" if error.errno == errno.ELOOP else f"to {path.readlink()}, where nothing is"
            problem = f"is a link that leads {where}"
    if problem:
        whole = "" if path.is_absolute() else f"; the whole path is {Path.cwd() / path}"
        raise DataError(f"{path}: {problem}, expected a {what} file{whole}")
    return path
