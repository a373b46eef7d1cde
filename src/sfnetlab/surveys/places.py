"""Where the cutouts of galaxies lie: found by id in a folder and its sub-folders, or by the paths of a catalogue.

Nothing is read here, so that a missing or ambiguous file is a reason, not an error.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sfnetlab.errors import DataError

EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".gif", ".webp"),
    *(".fits", ".fit", ".fits.gz", ".fits.fz"),
)
"""Endings of files that `images.read_image` reads, in small letters or capitals."""


class NoFile(NamedTuple):
    """Why a galaxy has no file."""

    reason: str


Place = str | NoFile
"""The path of a cutout's file, or why there is none. Text, for there may be millions."""


def places_of_ids(folder: Path, ids: Sequence[str], extension: str | None) -> list[Place]:
    """Return the file of each id: `<id><extension>` in the folder or in one of its sub-folders, in the order of ids.

    The ending may have capitals. Files in the folder itself go before those in sub-folders, and the ending as it is
    asked for before one in capitals. Two files that are equal in this are a reason, which names them. Names that
    begin with a dot do not count. Links to folders are followed, each folder once.

    Parameters
    ----------
    extension : str or None
        One of `EXTENSIONS`, in small letters or capitals. None: any of them, and the .jpg where an id
        has several files in the folder.

    Raises
    ------
    DataError
        If the folder is missing or cannot be listed.
    """
    wanted = set(ids)
    endings = sorted((extension.lower(),) if extension else EXTENSIONS, key=len, reverse=True)
    ending = re.compile(f"({'|'.join(map(re.escape, endings))})\\Z", re.IGNORECASE)
    exact = extension or ".jpg"
    found: dict[str, list[tuple[int, str]]] = {}
    for parent, name in _entries(folder):
        match = ending.search(name)
        if match is None or (id_str := name[: match.start()]) not in wanted:
            continue
        rank = 2 * bool(parent) + (match[0] != exact)
        files = found.setdefault(id_str, [])
        if not files or rank <= files[0][0]:
            files[:] = [each for each in files if each[0] == rank] + [(rank, f"{folder}/{parent}{name}")]
    return [_only(found.get(id_str, ()), folder) for id_str in ids]


def listing(folder: Path) -> Iterator[str]:
    """Return the paths in a folder and below it, as `places_of_ids` sees them; raises DataError as it does."""
    return (parent + name for parent, name in _entries(folder))


def places_of_paths(folder: Path, paths: Sequence[Any], column: str) -> list[Place]:
    """Return the file that each path of a catalogue names: an absolute path, or one relative to the folder."""
    return [
        os.path.join(folder, path.strip())
        if isinstance(path, str) and path.strip()
        else NoFile(f"missing, no path in column {column!r}")
        for path in paths
    ]


def _only(files: Sequence[tuple[int, str]], folder: Path) -> Place:
    if len(files) > 1:
        names = ", ".join(sorted(os.path.relpath(path, folder) for _, path in files)[:3])
        return NoFile(f"{len(files)} files: {names}; say which by survey.extension or image_column")
    return files[0][1] if files else NoFile("missing")


def _entries(folder: Path) -> Iterator[tuple[str, str]]:
    """Names in a folder and below it, each after the path of its sub-folder ("" or "a/b/"); a looping link ends."""
    seen: set[tuple[int, int]] = set()
    todo = [""]
    while todo:
        parent = todo.pop()
        try:
            stat = os.stat(folder / parent)
            if (stat.st_dev, stat.st_ino) in seen:
                continue
            seen.add((stat.st_dev, stat.st_ino))
            with os.scandir(folder / parent) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        yield parent, entry.name
                        if _is_folder(entry):
                            todo.append(f"{parent}{entry.name}/")
        except OSError as error:
            if not parent:
                raise DataError(f"{folder}: cannot be listed: {error.strerror} (survey.images)") from None


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a loop
        return False
