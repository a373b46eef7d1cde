"""Hashes that identify a user's files: of what they hold, or, of many images, of their names, sizes and times."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from sfnetlab.errors import DataError
from sfnetlab.files import file_problem, sha256_of


def hash_of(path: Path, setting: str) -> str:
    """Return the sha256 of a file's content, or of the names and contents of all files in a folder.

    Parameters
    ----------
    setting : str
        The setting that names the path, for messages.

    Raises
    ------
    DataError
        If there is no such file, or no file in the folder.
    """
    if not path.is_dir() and (problem := file_problem(path)):
        raise DataError(f"{path}: no readable file ({setting}): {problem}")
    try:
        if not path.is_dir():
            return sha256_of(path)
        files = sorted(each for each in path.rglob("*") if each.is_file() and not each.name.startswith("."))
        listed = [(each.relative_to(path).as_posix(), sha256_of(each)) for each in files]
    except OSError as error:
        raise DataError(f"{path}: no readable file ({setting}): {error.strerror}") from None
    if not listed:
        raise DataError(f"{path}: the folder is empty ({setting})")
    return hashlib.sha256(repr(listed).encode()).hexdigest()


def hash_of_listing(files: Iterable[tuple[str, os.stat_result]]) -> str:
    """Return the sha256 of the name, size and time of change of every file, whatever their order."""
    listing = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)
    return hashlib.sha256(repr(listing).encode()).hexdigest()
