"""Results on disk: whether one is current, how one is written whole or not at all, how tables are read.

Layout and rules are in the README under "Files". Nothing here knows what a stage computes.
"""

import functools
import hashlib
import json
import logging
import os
import shutil
import socket
import struct
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sfnetlab import runtime
from sfnetlab.errors import ArtifactError, BusyError, SfnetlabError
from sfnetlab.files import PARTIAL, advice_on, fsync, has_locked, move, read_array, sha256_of, write_text
from sfnetlab.jobs import Job, Metrics

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

log = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint.safetensors"
RUNNING = "running.json"
"""The lock of a work directory: it says which process builds the result, and that process holds it by `flock`."""

_RECORDS = frozenset(
    (
        "config.toml",
        "source.json",
        "bad_images.csv",
        "missing_values.csv",
        "without_embedding.csv",
        "contact_sheet.png",
    )
)
"""Files that tell where a result is from and what was left out, of whichever stage. No other stage reads them."""


class State(NamedTuple):
    """What is on disk for a job, and why it will not do, or why it will do though its key differs."""

    kind: Literal["current", "stale", "missing"]
    why: tuple[str, ...] = ()


SAME_CONTENT = State("current", ("its inputs were made again, to the same content",))
"""The state of a result whose key differs, but what it read does not."""


def state_of(root: Path, job: Job, known: dict[str, State] | None = None) -> State:
    """Compare a job with what its directory holds.

    It is current if the manifest has its key. It is current too if only keys of inputs differ, but each such input is
    current and holds, byte for byte, what the job read: an input that was made again of other files to the same result
    changes nothing.

    Parameters
    ----------
    known
        States that were found before, by key, to which this one and those of its inputs are added; for many jobs.

    Raises
    ------
    ArtifactError
        If a manifest cannot be read or has a format that this version does not know.
    """
    known = {} if known is None else known
    if job.key not in known:
        known[job.key] = _compare(root, job, known)
    return known[job.key]


def _compare(root: Path, job: Job, known: dict[str, State]) -> State:
    directory = job.directory(root)
    manifest = find_manifest(directory)
    if manifest is None:
        return State("missing")
    why = tuple(_differences(manifest["recipe"], job.recipe)) if manifest["key"] != job.key else ()
    if why and not _read_the_same(root, job, manifest, known):
        return State("stale", why)
    damage = tuple(_damage(directory, manifest))
    if damage:
        return State("stale", damage)
    return SAME_CONTENT if why else State("current")


def _damage(directory: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with each file of a result whose size is not that of its manifest."""
    for name, entry in manifest["files"].items():
        if (size := _size(directory / name)) != entry["bytes"]:
            yield f"{name} is damaged: expected {entry['bytes']} bytes, found {size}"


def _read_the_same(root: Path, job: Job, manifest: dict[str, Any], known: dict[str, State]) -> bool:
    """Whether a result differs from its job in nothing but keys of inputs that hold what was read."""
    recipe, read = manifest["recipe"], manifest.get("read", {})
    if {**recipe, "inputs": 0} != {**job.recipe, "inputs": 0} or recipe["inputs"].keys() != job.inputs.keys():
        return False
    others = {role: needed for role, needed in job.inputs.items() if recipe["inputs"][role] != needed.key}
    return all(
        role in read and read[role] == _content_of(root, needed) and state_of(root, needed, known).kind == "current"
        for role, needed in others.items()
    )


def _content_of(root: Path, job: Job) -> str | None:
    """Hash of the files of a result that others read, as its manifest has them; None if there is no result."""
    manifest = find_manifest(job.directory(root))
    if manifest is None:
        return None
    files = {name: entry["sha256"] for name, entry in manifest["files"].items() if name not in _RECORDS}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def take_over(root: Path, job: Job) -> None:
    """Give a current result the key and recipe of its job, where they are older; its files stay as they are.

    So others find it by the keys of today.
    """
    path = job.directory(root) / MANIFEST
    manifest = read_manifest(path.parent)
    if manifest["key"] != job.key:
        with _named_os_errors(path.parent):
            write_text(path, _as_json({**manifest, "key": job.key, "recipe": job.recipe}))


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest of a result.

    Raises
    ------
    ArtifactError
        If it is missing or cannot be read, or has a format that this version does not know.
    """
    manifest = find_manifest(directory)
    if manifest is None:
        raise ArtifactError(f"{directory / MANIFEST}: missing; remove {directory} and run again")
    return manifest


def find_manifest(directory: Path) -> dict[str, Any] | None:
    """Return the manifest of a result, as `read_manifest` does, or None if there is no result."""
    path = directory / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path}: not a readable manifest ({error}); remove {directory} and run again") from None
    if manifest.get("format") != FORMAT:
        raise ArtifactError(
            f"{path}: expected format {FORMAT}, found {manifest.get('format')!r}; "
            f"it was written by another version of sfnetlab: use that version, or another --out"
        )
    return manifest


def build(
    root: Path,
    job: Job,
    make: Callable[[Path], Metrics],
    *,
    config_toml: str,
    device: str,
    again: bool = False,
    shared: Iterable[Path] = (),
) -> None:
    """Make a job's directory whole, or leave what was there before.

    `make` fills a work directory whose name holds the key, so that a killed run finds its own checkpoint again and
    never another recipe's. The manifest is written last; then the directory takes its place by renaming.

    Parameters
    ----------
    again
        Whether a result that is current is made again. If not, one that another process made in the meantime stays.
    shared
        Folders of experiments. If one has the same result, made of the same inputs, its files are linked.

    Raises
    ------
    BusyError
        If another process is building the same job.
    """
    final, work = job.directory(root), _work_directory(root, job)
    with _named_os_errors(final), _locked(work, job):
        try:
            state = state_of(root, job)
        except ArtifactError:  # a manifest that cannot be read is replaced
            state = State("stale")
        if not again and state.kind == "current":
            log.info("%s is current: %s", job, "; ".join(state.why) or "another process made it")
            take_over(root, job)
            shutil.rmtree(work)
            return
        # A kill between manifest and rename leaves a work directory that is complete: only the rename is missing.
        if not (work / MANIFEST).exists() and not _link_shared(root, job, work, shared):
            started, cpu_s = datetime.now(UTC), runtime.cpu_seconds()
            (work / "config.toml").write_text(config_toml, encoding="utf-8")
            metrics = make(work)
            (work / "metrics.json").write_text(json.dumps(dict(metrics), indent=1, allow_nan=False) + "\n")
            for leftover in (*work.glob(f"{PARTIAL}*"), work / CHECKPOINT):
                leftover.unlink(missing_ok=True)
            read = {role: _content_of(root, needed) for role, needed in job.inputs.items()}
            _write_manifest(work, job, started, cpu_s, device, read)
        _publish(work, final)


def _work_directory(root: Path, job: Job) -> Path:
    return job.directory(root).parent / f".{job.name}.{job.key[:12]}"


def _publish(work: Path, final: Path) -> None:
    replaced = final.parent / f".{final.name}.replaced"
    if final.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        move(final, replaced)
    move(work, final)
    # Not before: whoever finds no lock would think that nobody works here.
    (final / RUNNING).unlink()
    fsync(final.parent)
    # What an earlier recipe of the same name left: its replaced result and its half-done work.
    for leftover in final.parent.glob(f".{final.name}.*"):
        if leftover == replaced or len(leftover.name) == len(work.name):
            shutil.rmtree(leftover, ignore_errors=True)


def _link_shared(root: Path, job: Job, work: Path, shared: Iterable[Path]) -> bool:
    """Fill a work directory with links to the same result of another experiment; return whether there is one.

    Where the file system has no hard links, the files are copied.
    """
    directory = find_shared(root, job, shared)
    if directory is None:
        return False
    for leftover in work.iterdir():
        if leftover.is_dir():
            shutil.rmtree(leftover)
        elif leftover.name != RUNNING:
            leftover.unlink()
    manifest = read_manifest(directory)
    for name in manifest["files"]:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(directory / name, work / name)
        except OSError:
            shutil.copyfile(directory / name, work / name)
            fsync(work / name)
    write_text(work / MANIFEST, _as_json({**manifest, "name": job.name}))
    log.info("%s: linked to the same result in %s", job, directory)
    return True


def find_shared(root: Path, job: Job, shared: Iterable[Path]) -> Path | None:
    """Return the directory of the same result, made of the same inputs, in the folder of another experiment."""
    for directory in (each for folder in shared for each in _directories_of(folder, job.stage, job.key)):
        manifest = find_manifest(directory)
        if manifest is None or any(_damage(directory, manifest)):
            continue
        if all(manifest.get("read", {}).get(role) == _content_of(root, job.inputs[role]) for role in job.inputs):
            return directory
    return None


def _directories_of(folder: Path, stage: str, key: str) -> Iterator[Path]:
    """Yield the directories of an experiment's results of a stage that have this key."""
    for path in sorted((folder / stage).glob(f"[!.]*/{MANIFEST}")):
        try:
            found = _key_in(path, path.stat().st_mtime_ns)
        except (OSError, ValueError):  # it was just replaced, or is not ours
            continue
        if found == key:
            yield path.parent


@functools.cache
def _key_in(manifest: Path, mtime_ns: int) -> str | None:  # noqa: ARG001 (a manifest that was written anew is read anew)
    content = json.loads(manifest.read_text())
    return content.get("key") if isinstance(content, dict) and content.get("format") == FORMAT else None


def _write_manifest(
    work: Path, job: Job, started: datetime, cpu_s: float, device: str, read: dict[str, str | None]
) -> None:
    files = {
        path.relative_to(work).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for path in sorted(work.rglob("*"))
        if path.is_file() and path != work / RUNNING
    }
    ended = datetime.now(UTC)
    manifest = {
        "format": FORMAT,
        "stage": job.stage,
        "name": job.name,
        "key": job.key,
        "recipe": job.recipe,
        "read": {role: content for role, content in read.items() if content is not None},
        "files": files,
        "seed": getattr(job.spec, "seed", None),
        "versions": runtime.versions(),
        "device": device,
        "started": started.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        "wall_s": round((ended - started).total_seconds(), 3),
        "cpu_s": round(runtime.cpu_seconds() - cpu_s, 3),
        "peak_memory_bytes": runtime.peak_memory_bytes(),
    }
    for name in files:
        fsync(work / name)
    write_text(work / MANIFEST, _as_json(manifest))


def _as_json(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=1, allow_nan=False) + "\n"


# --- tables -----------------------------------------------------------------------------------------------------------


class SurveyTable(NamedTuple):
    """A prepared survey: `catalog` (a row a galaxy, `id_str` first, `split` in it) and its cutouts, row by row.

    A survey of embeddings has no cutouts: `images` is None.
    """

    catalog: "pd.DataFrame"
    images: "NDArray[np.uint8] | None"
    pixel_scale_arcsec: float | None

    @property
    def cutouts(self) -> "NDArray[np.uint8]":
        """The images, for what cannot do without them."""
        assert self.images is not None, "the plan asks a survey without images for them"
        return self.images


class FeatureTable(NamedTuple):
    """Features of galaxies: `rows` (`id_str`, `split`) and `values` (n, d), float32, dense or CSR."""

    rows: "pd.DataFrame"
    values: "NDArray[np.float32] | csr_array"

    @property
    def n_features(self) -> int:
        """Number of columns, d."""
        n_features: int = self.values.shape[1]  # pyrefly: ignore[unsupported-operation]
        return n_features

    def of(self, ids: "pd.Series[str]") -> "NDArray[np.float32] | csr_array":
        """The features of the named galaxies, in their order; every id must be there."""
        chosen: NDArray[np.float32] | csr_array = self.values[self.places(ids)]  # pyrefly: ignore[bad-assignment]
        return chosen

    def places(self, ids: "pd.Series[str]") -> "NDArray[np.intp]":
        """The rows of the named galaxies, in their order; every id must be there."""
        import pandas as pd

        places = pd.Index(self.rows["id_str"]).get_indexer(pd.Index(ids))
        if (places < 0).any():
            absent = ids[places < 0]
            raise ArtifactError(f"{len(absent)} of {len(ids)} galaxies have no features (first: {absent.iloc[0]})")
        return places


def read_survey(directory: Path) -> SurveyTable:
    import pandas as pd

    catalog = pd.read_parquet(directory / "catalog.parquet")
    path = directory / "images.npy"
    images = read_array(path) if path.exists() else None
    if images is not None and len(images) != len(catalog):
        raise ArtifactError(f"{directory}: {len(catalog)} catalogue rows but {len(images)} images; build it again")
    scale = json.loads((directory / "metrics.json").read_text()).get("pixel_scale_arcsec")
    return SurveyTable(catalog, images, scale)


def write_rows(directory: Path, rows: "pd.DataFrame") -> None:
    """Write `rows.parquet`: whose features these are."""
    rows[["id_str", "split"]].to_parquet(directory / "rows.parquet", index=False)


def write_dense_features(directory: Path, values: "NDArray[np.floating]") -> None:
    """Write `features.npy` at once; larger than memory: `create_array` and fill it."""
    import numpy as np

    np.save(directory / "features.npy", np.ascontiguousarray(values, dtype=np.float32))


_MAPPED_VALUES = 2**24
"""A CSR table of more stored values than this is neither compressed nor read as a whole."""


def write_csr_features(directory: Path, values: "csr_array") -> None:
    """Write `features.npz`; larger than memory: `write_csr_blocks`."""
    import numpy as np
    from scipy import sparse

    table = sparse.csr_array(values, dtype=np.float32)
    if table.nnz <= _MAPPED_VALUES:
        sparse.save_npz(directory / "features.npz", table)
    else:
        _save_aligned(directory / "features.npz", table)


def _save_aligned(path: Path, table: "csr_array") -> None:
    """Write what `scipy.sparse.load_npz` reads, without compression, every array at a multiple of 64 bytes.

    Elsewhere a mapped array would be copied whenever rows are taken of it.
    """
    import numpy as np

    arrays = {"indices": table.indices, "indptr": table.indptr, "format": b"csr", "shape": table.shape}
    with path.open("wb") as whole, zipfile.ZipFile(whole, "w") as archive:
        for name, array in (arrays | {"data": table.data, "_is_array": True}).items():
            member = zipfile.ZipInfo(f"{name}.npy")
            # Before the array: 30 bytes, the name, 20 of sizes beyond 4 GiB, and this field, which readers skip.
            before = whole.tell() + 30 + len(member.filename) + 20 + 4
            member.extra = struct.pack("<HH", 0xD935, -before % 64) + bytes(-before % 64)
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array))


def write_csr_blocks(directory: Path, blocks: "Iterable[csr_array]", n_columns: int) -> None:
    """Write `features.npz` from consecutive blocks of rows, which are not held together."""
    import numpy as np
    from scipy import sparse

    paths = [directory / f"{PARTIAL}{name}" for name in ("data", "indices")]
    counts = [np.zeros(1, dtype=np.int64)]
    with paths[0].open("wb") as data, paths[1].open("wb") as indices:
        for block in blocks:
            data.write(block.data.astype(np.float32, copy=False).data)
            indices.write(block.indices.astype(np.int32, copy=False).data)
            counts.append(np.diff(block.indptr))
    ends = np.cumsum(np.concatenate(counts))
    n_values, n_rows = int(ends[-1]), len(ends) - 1
    arrays = [
        np.memmap(path, dtype=dtype, mode="r") if n_values else np.zeros(0, dtype=dtype)
        for path, dtype in zip(paths, (np.float32, np.int32), strict=True)
    ]
    # scipy takes the wider type of the two for both
    ends = ends.astype(np.int32 if n_values < 2**31 else np.int64)
    write_csr_features(directory, sparse.csr_array((*arrays, ends), shape=(n_rows, n_columns)))
    for path in paths:
        path.unlink()


def _read_csr(path: Path) -> "csr_array":
    """The table of `features.npz`, memory-mapped where it is not compressed."""
    import numpy as np
    from scipy import sparse

    arrays = {}
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            return sparse.load_npz(path)
        for name in ("data", "indices", "indptr"):
            with archive.open(members[f"{name}.npy"]) as file:
                np.lib.format.read_magic(file)
                (length,), _, dtype = np.lib.format.read_array_header_1_0(file)
                n_before = file.tell()
            with path.open("rb") as whole:  # a member's own header: 30 bytes, its name and more
                whole.seek(members[f"{name}.npy"].header_offset + 26)
                n_name, n_more = np.frombuffer(whole.read(4), dtype="<u2").tolist()
                start = whole.tell() + n_name + n_more + n_before
            arrays[name] = np.memmap(path, dtype=dtype, mode="r", offset=start, shape=(length,))
        with archive.open(members["shape.npy"]) as file:
            n_rows, n_columns = np.lib.format.read_array(file).tolist()
    return sparse.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(n_rows, n_columns))


def read_embedding(directory: Path) -> "tuple[pd.DataFrame, NDArray[np.float32]]":
    """Rows and dense features (n, d), memory-mapped, of an encoder."""
    rows, values = read_features(directory)
    if not hasattr(values, "flags"):
        raise ArtifactError(f"{directory}: expected dense features, found sparse ones")
    return rows, values  # pyrefly: ignore[bad-return]


def read_features(directory: Path) -> FeatureTable:
    import pandas as pd

    rows = pd.read_parquet(directory / "rows.parquet")
    dense = directory / "features.npy"
    values: Any = read_array(dense) if dense.exists() else _read_csr(directory / "features.npz")
    if values.shape[0] != len(rows):
        raise ArtifactError(f"{directory}: {len(rows)} rows but {values.shape[0]} rows of features; build it again")
    return FeatureTable(rows, values)


# --- small parts ------------------------------------------------------------------------------------------------------


_SHOWN_INPUTS = 3
"""Changed inputs that are named one by one; a job may have hundreds."""


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield f"{path.removeprefix('settings.')}: {json.dumps(old)} -> {json.dumps(new)}"
        return
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if path == "inputs":
        yield from (f"input {name} changed" for name in changed[:_SHOWN_INPUTS])
        if len(changed) > _SHOWN_INPUTS:
            yield f"{len(changed) - _SHOWN_INPUTS} more inputs changed"
        return
    for name in changed:
        yield from _differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


_LOCK_TRIES = 5
"""How often a lock is asked for: whoever looks whether somebody holds it holds it too, for a moment."""


@contextmanager
def _locked(work: Path, job: Job) -> Iterator[None]:
    """Make a work directory and hold its lock."""
    descriptor = _try_lock(work)
    if descriptor is None:
        builder = running(work) or {}
        who = f"process {builder['pid']} on {builder['host']}" if builder else "another process"
        raise BusyError(
            f"{work}: {who} is building {job}; wait for it or stop it, or share the work with it by --skip-busy"
        )
    try:
        builder = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.time()}
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(builder).encode())
        yield
    finally:
        os.close(descriptor)


def _try_lock(work: Path) -> int | None:
    """Return the descriptor that holds the lock of a work directory, or None if somebody else holds it.

    The lock is a file, because network file systems lock no directories for other machines. Where there are no locks,
    do without.
    """
    for attempt in range(_LOCK_TRIES):
        time.sleep(0.02 * attempt)
        work.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(work / RUNNING, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # the directory has just taken its result's place
        try:
            if not has_locked(descriptor):
                log.warning("%s: this file system has no locks: run one command at a time on these results", work)
            if os.path.samestat(os.fstat(descriptor), os.stat(work / RUNNING)):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return None


def builder_of(root: Path, job: Job) -> dict[str, Any] | None:
    """Return `host`, `pid` and `started` (seconds since 1970) of the process that builds a job; None if none does."""
    return running(_work_directory(root, job))


def progress_of(root: Path, job: Job) -> tuple[list[dict[str, Any]], float]:
    """Return the records of `progress.jsonl` of a job that is being built, and when it was written (s since 1970)."""
    path = _work_directory(root, job) / "progress.jsonl"
    try:
        return [json.loads(line) for line in path.read_text().splitlines()], path.stat().st_mtime
    except FileNotFoundError:
        return [], 0.0


def running(work: Path) -> dict[str, Any] | None:
    """Return what the process that holds a work directory wrote into its lock, or None if no process holds it."""
    try:
        with (work / RUNNING).open() as file:
            try:
                has_locked(file.fileno(), shared=True)
            except BlockingIOError:
                builder: dict[str, Any] = json.loads(file.read())
                return builder
    except FileNotFoundError:
        pass
    except json.JSONDecodeError:  # it is just being written
        return {}
    return None


@contextmanager
def _named_os_errors(final: Path) -> Iterator[None]:
    try:
        yield
    except SfnetlabError:
        raise
    except OSError as error:
        if (advice := advice_on(error)) is None:
            raise
        raise ArtifactError(f"{error.filename or final}: {advice}") from error
