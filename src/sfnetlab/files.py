"""Files on disk: replaced at once or not at all, hashed, and arrays whose space is reserved."""

import argparse
import errno
import hashlib
import os
import re
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


def expanded(written: str) -> str:
    """Return a path as a user wrote it with `~` and $VARIABLES replaced; $$ stands for one $.

    A relative path stays one: it begins at the folder in which the command runs.

    Raises
    ------
    ValueError
        If a variable is not set or empty.
    """

    def value_of(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None:
            return "$"
        if not os.environ.get(name):
            raise ValueError(f"${name} is not set in the environment, in the path {written!r}; $$ stands for one $")
        return os.environ[name]

    return os.path.expanduser(re.sub(r"\$(?:\$|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", value_of, written))


def unexpanded(path: str) -> str:
    """Return what `expanded` reads as this path."""
    return ("./" if path.startswith("~") else "") + path.replace("$", "$$")


def path_argument(text: str) -> Path:
    """Return the path of an argument of the command line, as `expanded` does."""
    try:
        return Path(expanded(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def require_file(path: Path, what: str) -> Path:
    """Return the path, if it is a file that can be read.

    Parameters
    ----------
    what : str
        What the file should be, for messages.

    Raises
    ------
    DataError
        If it is not; `file_problem` says why.
    """
    if problem := file_problem(path):
        raise DataError(f"{path}: no such {what} file: {problem}")
    return path


def file_problem(path: Path) -> str:
    """Return why a path is no file that can be read, with the whole path where it is a relative one; else empty."""
    problem = ""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
        else:
            problem = "it is a folder" if stat.S_ISDIR(mode) else "it is no regular file"
    except OSError as error:
        problem = error.strerror or "it cannot be read"
        if path.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP):
            where = "in a circle" if error.errno == errno.ELOOP else f"to {path.readlink()}, which is not there"
            problem = f"it is a link that leads {where}"
    return problem if not problem or path.is_absolute() else f"{problem}; its whole path is {Path.cwd() / path}"
