"""Files on disk: replaced at once or not at all, hashed, locked, and arrays whose space is reserved.

Shared folders of virtual machines, network disks and layered ones of containers lack some operations. What needs one
then does with the next best, and a warning says so; a full disk, or one that may not be written, stays an error.
"""

import argparse
import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfnetlab.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_LACKING = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.ENOTTY})
"""What systems say of an operation that a file system does not have."""
_NO_FOLDERS = _LACKING | {errno.EACCES, errno.EPERM, errno.EISDIR}
_NO_RENAMING = _LACKING | {errno.EXDEV, errno.EBUSY, errno.ETXTBSY}
_NO_LOCKS = _LACKING | {errno.ENOLCK, errno.EISDIR}
_NO_MAPPING = _LACKING | {errno.ENODEV, errno.EPERM, errno.EACCES}

_USERS_TO_MEND = {
    errno.ENOSPC: "no space is left on the disk; free some and run again, finished parts are kept",
    errno.EDQUOT: "the disk quota is used up; free some and run again, finished parts are kept",
    errno.EROFS: "the file system is read-only; choose another folder with --out or --to",
    errno.EACCES: "permission denied; choose a folder you may write to with --out or --to",
    errno.EPERM: "permission denied; choose a folder you may write to with --out or --to",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another folder with --out or --to",
    errno.EEXIST: "a file stands where a folder is needed; choose another folder with --out or --to",
}

_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written$")
"""All that NumPy says of a disk that fills up while it writes an array."""

PARTIAL = ".partial-"
"""Begins the name of a file that is being written."""


def advice_on(error: OSError) -> str | None:
    """Return what a user can do about an error of the disk; None where that is not known."""
    number = errno.ENOSPC if _SHORT_WRITE.match(str(error)) else error.errno
    return _USERS_TO_MEND.get(number or 0)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write, and then replace `path` at once: after a kill the old or the new file is there, whole."""
    partial = path.with_name(f"{PARTIAL}{path.name}")
    yield partial
    fsync(partial)
    move(partial, path)
    fsync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a file at once with this text."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk, if the file system can say so."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (_NO_FOLDERS if path.is_dir() else _LACKING):
            raise
        _warn(error, path, "cannot say when files are on the disk: a power failure may cost the last results")


def move(source: Path, to: Path) -> None:
    """Rename a file over another, or a folder to a new name; where that cannot be done at once, copy it."""
    try:
        source.rename(to) if source.is_dir() else source.replace(to)
    except OSError as error:
        if error.errno not in _NO_RENAMING:
            raise
        _warn(error, to, "cannot rename: results are copied, and a kill may leave one that is built again")
        if source.is_dir():
            shutil.copytree(source, to)
            shutil.rmtree(source)
        else:
            shutil.copyfile(source, to)
            source.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, of which a process that ends lets go; where there are no locks, do without.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if has_locked(descriptor):
            yield
            return
    finally:
        os.close(descriptor)
    beside = folder.with_name(f"{folder.name}.lock")  # NFS locks what is open for writing, and no folder can be
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not has_locked(descriptor):
            log.warning("%s: this file system has no locks: run one command at a time on these results", folder)
        yield
        beside.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def has_locked(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file or folder, for this process alone or `shared`; return False if the file system cannot.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _warn(error: OSError, path: Path, what: str) -> None:
    log.warning(f"%s (%s): this file system {what}", path, error.strerror)


def create_array(path: Path, shape: tuple[int, ...], dtype: str) -> "NDArray[Any]":
    """Return a writable memory-mapped `.npy`, of zeros, to fill and then `finish_array`.

    Its disk space is reserved: a full disk is an error here, and not a SIGBUS later. Where files cannot be mapped it is
    an array in memory.
    """
    import numpy as np

    try:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    except OSError as error:
        if error.errno not in _NO_MAPPING:
            raise
        _warn(error, path, "cannot map files: arrays are held in memory")
        return np.zeros(shape, dtype)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in _LACKING:
                    raise
                _warn(error, path, "cannot reserve space: a disk that fills up ends the process without a message")
    return array


def finish_array(path: Path, array: "NDArray[Any]") -> None:
    """Write what was filled into an array of `create_array`, unless the file itself was filled."""
    import numpy as np

    if not isinstance(array, np.memmap):
        np.save(path, array)


def read_array(path: Path) -> "NDArray[Any]":
    """Return the array of a `.npy` file, memory-mapped and read-only, or in memory where files cannot be mapped."""
    import numpy as np

    try:
        return np.load(path, mmap_mode="r")
    except OSError as error:
        if error.errno not in _NO_MAPPING:
            raise
        array: NDArray[Any] = np.load(path)
        _warn(error, path, "cannot map files: arrays are held in memory")
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

    path = os.path.expanduser(re.sub(r"\$(?:\$|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", value_of, written))
    return path.removeprefix("./") if _TILDE_NAME.match(path) else path


def unexpanded(path: str) -> str:
    """Return what `expanded` reads as this path."""
    return ("./" if _TILDE_NAME.match(path) else "") + path.replace("$", "$$")


_TILDE_NAME = re.compile(r"(\./)*~")
"""Begins the path of a file whose name begins with `~`; `./` before it says that it is no home."""


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
