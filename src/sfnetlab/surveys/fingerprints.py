"""Hashes of what a user's files hold. Places and times do not count: a copy is the same as its original.

Hashes of many or large files are kept in the user's cache, so that the next command reads only files that changed.
"""

import hashlib
import json
import logging
import os
import re
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, NamedTuple

from sfnetlab.errors import DataError
from sfnetlab.files import file_problem, replacing, sha256_of

if TYPE_CHECKING:
    import pandas as pd

_MANY_FILES, _MANY_BYTES = 1_000, 2**26
"""From so many on, hashes are kept. Fewer are read again in less than a second."""

_RACY_NS = 2 * 10**9
"""The hash of a file that changed less than this before is not kept: another change might leave the same time."""

_PASSING = re.compile(r"(^|/)(\.|cache-)")

_logger = logging.getLogger(__name__)


def hash_of(path: Path, setting: str) -> str:
    """Return the sha256 of a file's content, or of the names and contents of all files in a folder.

    Of a folder, hidden files and the caches of `datasets` do not count: they come and go while a dataset is read.

    Parameters
    ----------
    setting : str
        The setting that names the path, for messages.

    Raises
    ------
    DataError
        If there is no such file, or no file in the folder.
    """
    if path.is_dir():
        found = (os.path.join(parent, name) for parent, _, names in os.walk(path) for name in names)
        names = (file[len(str(path)) + 1 :] for file in found if os.path.isfile(file))
        lasting = sorted((name for name in names if not _PASSING.search(name)), key=lambda name: name.split("/"))
        if not lasting:
            raise DataError(f"{path}: the folder is empty ({setting})")
        contents = contents_of([f"{path}/{name}" for name in lasting], path)
        return hash_of_texts(f"{name}:{content}" for name, content in zip(lasting, contents, strict=True))
    if problem := file_problem(path):
        raise DataError(f"{path}: no readable file ({setting}): {problem}")
    return contents_of([str(path)], path)[0]


def hash_of_texts(texts: Iterable[str]) -> str:
    """Return the sha256 of texts in their order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()


def hash_of_files(find: Callable[[], Iterable[tuple[str, str | None]]], question: str, place: Path) -> str:
    """Return the sha256 of names and contents of files, whatever their order.

    The answer is kept, with the files and what `contents_of` looks at: the same question is answered by one look at
    each file, and neither `find` nor pandas is needed.

    Parameters
    ----------
    find : callable
        Returns the names and the files, None where there is none.
    question : str
        The hash of all that decides what `find` returns, but for this version of the package.
    place : Path
        As in `contents_of`.
    """
    now, cache = time.time_ns(), _cache(place, ".answer.json")
    question = f"{question} by sfnetlab {version('sfnetlab')}"
    try:
        kept, digest, answer, files = json.loads(cache.read_text())
        if kept == question and digest == _digest(map(_seen, files)):
            return str(answer)
    except (OSError, ValueError, TypeError):  # none yet, or damaged: it is made anew
        pass
    named = list(find())
    files = [file for _, file in named]
    seen = [_seen(file) for file in files]  # before they are read: what changes meanwhile has changed
    contents = contents_of(files, place)
    pairs = sorted((name, content) for (name, _), content in zip(named, contents, strict=True))
    answer = hash_of_texts(f"{name}:{content}" for name, content in pairs)
    if len(files) >= _MANY_FILES and max(each.ctime_ns for each in seen) < now - _RACY_NS:
        table = [question, _digest(seen), answer, files]
        _keep(cache, place, lambda partial: partial.write_text(json.dumps(table)))
    return answer


def contents_of(files: Sequence[str | None], place: Path) -> list[str]:
    """Return the sha256 of each file's content; "missing" of None, and a word of what cannot be read.

    A hash that was kept is taken if size, time of change (mtime) and time of the last change of the file's status
    (ctime, which nobody can set back) are what they were; otherwise the file is read. So a change that keeps the size
    and restores the mtime is noticed.

    Parameters
    ----------
    place : Path
        The folder or file that the settings name: hashes are kept for each.
    """
    now = time.time_ns()
    seen = [_seen(file) for file in files]
    if len(files) < _MANY_FILES and sum(each.bytes for each in seen) < _MANY_BYTES:
        return _read(files, seen)
    if len(files) < _MANY_FILES:
        return _contents_of_few(files, seen, place, now)
    import pandas as pd

    names = pd.Index([str(file) for file in files], dtype="object")
    table = pd.DataFrame(seen, index=names)
    kept = _kept(place)
    known = kept[~kept.index.duplicated()]
    is_same = (known[list(_Seen._fields)].reindex(names, fill_value=-3) == table).all(axis=1) & (table["bytes"] >= 0)
    todo = [i for i, same in enumerate(is_same) if not same]
    contents: list[str] = known["sha256"].reindex(names, fill_value="").tolist()
    for i, content in zip(todo, _read([files[i] for i in todo], [seen[i] for i in todo]), strict=True):
        contents[i] = content
    table["sha256"] = contents
    is_settled = (table["bytes"] >= 0) & (table["ctime_ns"] < now - _RACY_NS)
    if (is_settled & ~is_same).any():
        others = kept[~kept.index.isin(names)]
        together = pd.concat([others, table[is_settled]]).rename_axis("file").reset_index()
        _keep(_cache(place, ".parquet"), place, lambda partial: together.to_parquet(partial, index=False))
    return contents


def _contents_of_few(files: Sequence[str | None], seen: "Sequence[_Seen]", place: Path, now: int) -> list[str]:
    """What `contents_of` returns of a few large files, without pandas, which takes half a second to import."""
    path = _cache(place, ".json")
    try:
        kept = {file: (_Seen(*numbers), content) for file, *numbers, content in json.loads(path.read_text())}
    except (OSError, ValueError, TypeError):  # none yet, or damaged: it is made anew
        kept = dict[str, tuple[_Seen, str]]()
    known = [kept.get(str(file)) for file in files]
    contents = [
        entry[1] if entry is not None and entry[0] == one else "" for entry, one in zip(known, seen, strict=True)
    ]
    todo = [i for i, content in enumerate(contents) if not content or seen[i].bytes < 0]
    for i, content in zip(todo, _read([files[i] for i in todo], [seen[i] for i in todo]), strict=True):
        contents[i] = content
    settled = [i for i in todo if seen[i].bytes >= 0 and seen[i].ctime_ns < now - _RACY_NS]
    if settled:
        kept |= {str(files[i]): (seen[i], contents[i]) for i in settled}
        table = [[file, *one, content] for file, (one, content) in kept.items()]
        _keep(path, place, lambda partial: partial.write_text(json.dumps(table)))
    return contents


class _Seen(NamedTuple):
    """What tells cheaply that a file has not changed."""

    bytes: int
    """-1 of what is no file, -2 of what cannot be looked at, -3 where no hash was kept."""
    mtime_ns: int
    ctime_ns: int


def _seen(file: str | None) -> _Seen:
    try:
        stat = None if file is None else os.stat(file)
    except FileNotFoundError:
        stat = None
    except (OSError, ValueError):
        return _Seen(-2, 0, 0)
    if stat is None or not S_ISREG(stat.st_mode):
        return _Seen(-1, 0, 0)
    return _Seen(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _digest(seen: Iterable[_Seen]) -> str:
    return hashlib.sha256(array("q", chain.from_iterable(seen)).tobytes()).hexdigest()


def _read(files: Sequence[str | None], seen: Sequence[_Seen]) -> list[str]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_content, files, seen))


def _content(file: str | None, seen: _Seen) -> str:
    if file is None or seen.bytes == -1:
        return "missing"
    try:
        return "unreadable" if seen.bytes == -2 else sha256_of(Path(file))
    except OSError:
        return "unreadable"


# --- what is kept -----------------------------------------------------------------------------------------------------


def _cache(place: Path, ending: str) -> Path:
    """The file that keeps the hashes of a place, below $XDG_CACHE_HOME or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "sfnetlab" / "hashes" / f"{hash_of_texts([os.path.abspath(place)])[:24]}{ending}"


def _kept(place: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        kept = pd.read_parquet(_cache(place, ".parquet")).set_index("file")
        return kept[[*_Seen._fields, "sha256"]]
    except (OSError, ValueError, KeyError):  # none yet, or damaged: it is made anew
        none = pd.DataFrame(columns=list(_Seen._fields), index=pd.Index([], dtype="object"), dtype="int64")
        return none.assign(sha256=pd.Series(dtype="object"))


def _keep(path: Path, place: Path, write: Callable[[Path], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            write(partial)
    except OSError as error:
        _logger.warning(
            "%s: hashes of files cannot be kept (%s), so every command reads all files of %s again; set "
            "XDG_CACHE_HOME to a folder that can be written",
            *(path.parent, error.strerror, place),
        )
