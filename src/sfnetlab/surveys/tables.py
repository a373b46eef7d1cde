"""Embeddings that somebody else made: opening their files, joining them to a survey by id, reading them in blocks.

Known are parquet, .npy with ids, HDF5, and the datasets of Hugging Face's `datasets`. No whole table is in memory.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from sfnetlab.errors import DataError
from sfnetlab.surveys.catalog import ids_as_text
from sfnetlab.surveys.embeddings import EmbeddingSource, IdRepair
from sfnetlab.surveys.fingerprints import hash_of
from sfnetlab.surveys.messages import did_you_mean, first_few

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

BLOCK_ROWS = 8192
_HDF5 = (".h5", ".hdf5")
_N_SHOWN = 5


@dataclass(frozen=True)
class EmbeddingTable:
    """A table of embeddings of which only the ids were read."""

    where: str
    """Its name in messages."""
    ids: "pd.Series[str]"
    """The ids of its rows as text, repaired as the settings say. No id occurs twice."""
    columns: tuple[str, ...]
    """The names of its d features."""
    blocks: Callable[[], Iterator[NDArray[np.float32]]]
    """Reads its rows in order, in blocks of shape (any number, d). A missing value is NaN; a value that is too large
    for float32 is infinite."""
    commit: str | None = None
    """The revision of a hub dataset that was read; None for files."""


class Joined(NamedTuple):
    """Which rows of a table and of a survey are the same galaxies."""

    place: NDArray[np.intp]
    """The row of the survey for each row of the table; -1 for galaxies that only the table has."""
    is_missing: NDArray[np.bool_]
    """Whether the table lacks a galaxy, for each galaxy of the survey."""

    @property
    def counts(self) -> dict[str, int]:
        """How many galaxies are in both, only in the table, and only in the catalogue of the survey."""
        n_both = int((self.place >= 0).sum())
        return {
            "n_both": n_both,
            "n_only_in_table": len(self.place) - n_both,
            "n_only_in_catalog": int(self.is_missing.sum()),
        }


def join_by_id(table: EmbeddingTable, ids: "pd.Series[str]") -> Joined:
    """Join the rows of a table to a survey by their ids, which occur once on either side: one to one."""
    place = pd.Index(ids).get_indexer(pd.Index(table.ids))
    is_missing = np.ones(len(ids), dtype=np.bool_)
    is_missing[place[place >= 0]] = False
    return Joined(place, is_missing)


def require_every(source: EmbeddingSource, table: EmbeddingTable, ids: "pd.Series[str]") -> Joined:
    """Join a table to a survey, and refuse a table that lacks a galaxy of the survey. It may have more galaxies.

    Raises
    ------
    DataError
        If a galaxy is missing. The message says how many, names the first ones, and says whether another `id_repair`
        would find more.
    """
    joined = join_by_id(table, ids)
    if not joined.is_missing.any():
        return joined
    counts = joined.counts
    better = _better_repair(source, table, ids, counts["n_both"])
    raise DataError(
        f"{table.where}: {counts['n_only_in_catalog']:,} of {len(ids):,} galaxies of the survey have no row in it: "
        f"{first_few(ids[joined.is_missing])}; {counts['n_both']:,} are in both, {counts['n_only_in_table']:,} only in "
        f"it ({first_few(table.ids[joined.place < 0]) or 'none'}); "
        + (better or 'leave them out of the catalogue, or, with survey kind = "embeddings", by without_embedding')
    )


def read_into(table: EmbeddingTable, joined: Joined, out: NDArray[np.float32]) -> None:
    """Copy the rows of the survey's galaxies to their places in `out` (n, d), a block at a time.

    Raises
    ------
    DataError
        If a value of these galaxies is missing, NaN or infinite, or the table has not as many rows as ids. The message
        says how many values of which galaxies.
    """
    start, n_bad_values = 0, 0
    bad = [np.empty(0, dtype=np.intp)]
    with tqdm(total=len(joined.place), desc="embeddings", unit="row", disable=None) as bar:
        for block in _readable(table):
            place = joined.place[start : start + len(block)]
            if len(place) < len(block):
                raise DataError(f"{table.where}: more rows than its {len(table.ids):,} ids; is it damaged?")
            wanted = np.flatnonzero(place >= 0)
            values = block[wanted]
            is_bad = ~np.isfinite(values)
            n_bad_values += int(is_bad.sum())
            bad.append(start + wanted[is_bad.any(axis=1)])
            out[place[wanted]] = values
            start += len(block)
            bar.update(len(block))
    if start != len(joined.place):
        raise DataError(f"{table.where}: {start:,} rows but {len(joined.place):,} ids; is it damaged?")
    rows = np.concatenate(bad)
    if len(rows):
        raise DataError(
            f"{table.where}: {n_bad_values:,} values of {len(rows):,} galaxies are missing, NaN, infinite or too large "
            f"for float32: {first_few(table.ids.iloc[rows])}; embed these again or leave them out of the catalogue"
        )


def common_galaxies(catalog: pd.DataFrame, sources: Iterable[EmbeddingSource]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide a catalogue into the galaxies that every table has, and the others.

    Returns
    -------
    kept : DataFrame
        The rows of the catalogue that every table has.
    dropped : DataFrame
        `id_str` of the other rows, and `features`, the name of the first table that lacks the galaxy.

    Raises
    ------
    DataError
        If no galaxy is left.
    """
    lacks = np.full(len(catalog), "", dtype=object)
    for source in sources:
        table = open_embeddings(source)
        joined = join_by_id(table, catalog["id_str"])
        if joined.is_missing.all():
            advice = _better_repair(source, table, catalog["id_str"], 0) or "are these the same galaxies?"
            raise DataError(
                f"{table.where}: no galaxy of the catalogue ({first_few(catalog['id_str'])}) is in it "
                f"({first_few(table.ids)}); {advice}"
            )
        lacks[joined.is_missing & (lacks == "")] = source.name
    is_common = lacks == ""
    if not is_common.any():
        raise DataError("no galaxy of the catalogue is in every one of the external [[features]]; take one at a time")
    dropped = pd.DataFrame({"id_str": catalog["id_str"], "features": lacks})[~is_common]
    return catalog[is_common].reset_index(drop=True), dropped.reset_index(drop=True)


def open_embeddings(source: EmbeddingSource) -> EmbeddingTable:
    """Open the table that the settings name, and read its ids.

    Raises
    ------
    DataError
        If it is missing, damaged or of another kind, if a column is not there or not numeric, or if ids are floats or
        repeat.
    """
    where = f"{source.path or source.dataset}"
    try:
        ids, columns, blocks, commit = _opened(source, where)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: cannot be read: {error}") from error
    text = _repaired(ids_as_text(ids, f"{where}: ids"), source.id_repair).reset_index(drop=True)
    if len(text) == 0 or len(columns) == 0:
        raise DataError(f"{where}: expected embeddings (n, d), found {len(text)} rows of {len(columns)} columns")
    repeats = text.duplicated()
    if repeats.any():
        raise DataError(
            f"{where}: {text[repeats].nunique():,} ids occur more than once, {repeats.sum():,} rows too many: "
            f"{first_few(text[repeats].drop_duplicates())}; keep one row a galaxy"
        )
    return EmbeddingTable(where, text, columns, blocks, commit)


def fingerprint(source: EmbeddingSource) -> dict[str, str]:
    """Return hashes of the contents of a table's files; empty for a dataset of the hub, which its revision identifies.

    Raises
    ------
    DataError
        If a file is missing, or a folder holds none.
    """
    name = f"features {source.name!r}"
    files = {} if source.path is None else {"sha256": hash_of(source.path, f"{name}: path")}
    return files if source.ids is None else files | {"ids_sha256": hash_of(source.ids, f"{name}: ids")}


# --- the kinds of files -----------------------------------------------------------------------------------------------

_Batches = Callable[[list[str]], Iterator["pa.RecordBatch | pa.Table"]]


class _Opened(NamedTuple):
    ids: "pd.Series[Any]"
    columns: tuple[str, ...]
    blocks: Callable[[], Iterator[NDArray[np.float32]]]
    commit: str | None = None


def _opened(source: EmbeddingSource, where: str) -> _Opened:
    path = source.path
    if path is None:
        schema, batches, commit = _hub_batches(source, where)
        return _open_arrow(source, where, schema, batches)._replace(commit=commit)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder of embeddings")
    if path.is_dir():
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            return _open_arrow(source, where, *_saved_batches(source, path))
        return _open_arrow(source, where, *_parquet_batches(sorted(path.rglob("*.parquet")), source, where))
    if path.suffix == ".parquet":
        return _open_arrow(source, where, *_parquet_batches([path], source, where))
    if path.suffix == ".npy":
        return _open_npy(path, source)
    if path.suffix in _HDF5:
        return _open_hdf5(path, source)
    raise DataError(
        f"{path}: embeddings are a .parquet, .npy, .h5 or .hdf5 file or a folder of datasets, found {path.suffix!r}"
    )


def _parquet_batches(files: Sequence[Path], source: EmbeddingSource, where: str) -> "tuple[pa.Schema, _Batches]":
    import pyarrow.parquet as pq

    if source.splits:
        raise DataError(f"{where}: splits are for a hub or saved dataset; parquet files have none")
    if not files:
        raise DataError(f"{where}: no .parquet files in this folder, and no dataset that was saved with save_to_disk")
    schema = pq.read_schema(files[0])
    for file in files[1:]:
        absent = set(schema.names) - set(pq.read_schema(file).names)
        if absent:
            raise DataError(f"{file}: lacks the columns {sorted(absent)} of {files[0].name}; are these one table?")

    def batches(columns: list[str]) -> Iterator["pa.RecordBatch"]:
        for file in files:
            with pq.ParquetFile(file, pre_buffer=False) as parquet:
                yield from parquet.iter_batches(BLOCK_ROWS, columns=columns)

    return schema, batches


def _saved_batches(source: EmbeddingSource, path: Path) -> "tuple[pa.Schema, _Batches]":
    import datasets

    return _dataset_batches(source, str(path), datasets.load_from_disk(str(path)))


def _hub_batches(source: EmbeddingSource, where: str) -> "tuple[pa.Schema, _Batches, str | None]":
    """The schema and batches of a dataset of the hub, and the commit that is read."""
    import datasets

    assert source.dataset is not None
    advice = "on a machine with a network, save_to_disk, and give that folder as path"
    try:
        builder = datasets.load_dataset_builder(source.dataset, source.config, revision=source.revision)
        if re.fullmatch(r"[0-9a-f]{40}", source.revision) and builder.hash != source.revision:
            # Without a network, `datasets` takes whatever it has cached.
            raise DataError(f"{where}: the cache holds {builder.hash}, not the revision {source.revision}; {advice}")
        builder.download_and_prepare()
        return *_dataset_batches(source, where, builder.as_dataset()), builder.hash
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{where}: cannot be had from the hub: {error}; check dataset, config and revision, or {advice}"
        ) from error


def _dataset_batches(source: EmbeddingSource, where: str, loaded: Any) -> "tuple[pa.Schema, _Batches]":
    """The schema and batches of a Dataset, or of the chosen splits of a DatasetDict one after the other."""
    import datasets

    if isinstance(loaded, datasets.DatasetDict):
        known = [str(name) for name in loaded]
        unknown = sorted(set(source.splits) - set(known))
        if unknown:
            raise DataError(f"{where}: no split {', '.join(unknown)}; it has {', '.join(known)}")
        parts: list[Dataset] = [loaded[name] for name in source.splits or known]
    elif source.splits:
        raise DataError(f"{where}: splits are given, but it is one table without splits; leave them out")
    else:
        parts = [loaded]

    def batches(columns: list[str]) -> Iterator["pa.Table"]:
        for part in parts:
            in_arrow: Any = part.select_columns(columns).with_format("arrow")
            yield from in_arrow.iter(BLOCK_ROWS)

    return parts[0].features.arrow_schema, batches


def _open_arrow(source: EmbeddingSource, where: str, schema: "pa.Schema", batches: _Batches) -> _Opened:
    import pyarrow as pa

    if source.id_column not in schema.names:
        raise DataError(f"{where}: no id column {source.id_column!r}; {_known(source.id_column, schema.names)}")
    names = _matching(source, schema.names, where)
    types = [schema.field(name).type for name in names]
    id_type = schema.field(source.id_column).type
    chunks = [batch.column(source.id_column) for batch in batches([source.id_column])]
    flat = [chunk for each in chunks for chunk in (each.chunks if isinstance(each, pa.ChunkedArray) else [each])]
    ids = pa.chunked_array(flat, type=id_type)
    if pa.types.is_dictionary(id_type):
        ids = ids.cast(id_type.value_type)
    if all(pa.types.is_integer(each) or pa.types.is_floating(each) for each in types):
        columns = tuple(names)
        decode = _decode_numbers
    elif len(names) == 1 and _is_list_of_numbers(types[0]):
        columns = tuple(f"{names[0]}_{i}" for i in range(_list_length(batches, names[0], where)))
        decode = _decode_lists
    else:
        found = ", ".join(f"{name} ({kind})" for name, kind in zip(names[:_N_SHOWN], types, strict=False))
        raise DataError(f"{where}: columns must be one column of lists of numbers, or numeric columns; found {found}")

    def blocks() -> Iterator[NDArray[np.float32]]:
        for batch in batches(names):
            yield decode([batch.column(name) for name in names], len(columns))

    return _Opened(ids.to_pandas(), columns, blocks)


def _is_list_of_numbers(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type))


def _list_length(batches: _Batches, name: str, where: str) -> int:
    """The length of the list in the first row that has one."""
    from pyarrow import compute

    pc: Any = compute  # its functions are made at run time
    for batch in batches([name]):
        longest = pc.list_value_length(batch.column(name)).drop_null()
        if len(longest):
            return int(longest[0].as_py())
    raise DataError(f"{where}: column {name!r} holds no list")


def _decode_numbers(columns: "Sequence[pa.Array | pa.ChunkedArray]", d: int) -> NDArray[np.float32]:
    out = np.empty((len(columns[0]), d), dtype=np.float32)
    with np.errstate(over="ignore"):
        for i, column in enumerate(columns):
            out[:, i] = _as_array(column)
    return out


def _decode_lists(columns: "Sequence[pa.Array | pa.ChunkedArray]", d: int) -> NDArray[np.float32]:
    """The lists of a column as rows (n, d). A row without a list, or with a list of another length, is NaN."""
    from pyarrow import compute

    pc: Any = compute
    (column,) = columns
    lengths = pc.list_value_length(column)
    is_whole = pc.fill_null(pc.equal(lengths, d), fill_value=False)
    values = _as_array(pc.list_flatten(column.filter(is_whole)))
    out = np.full((len(column), d), np.nan, dtype=np.float32)
    with np.errstate(over="ignore"):
        out[_as_array(is_whole)] = values.reshape(-1, d)
    return out


def _as_array(column: "pa.Array | pa.ChunkedArray") -> NDArray[Any]:
    """The values of an Arrow column, NaN for null."""
    import pyarrow as pa

    # An Array must be told that a copy is fine; a ChunkedArray makes one always, and cannot be told.
    if isinstance(column, pa.ChunkedArray):
        return column.to_numpy()
    return column.to_numpy(zero_copy_only=False)


def _open_npy(path: Path, source: EmbeddingSource) -> _Opened:
    assert source.ids is not None
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise DataError(f"{path}: expected numbers (n, d), found {values.dtype} of shape {values.shape}")
    ids = _read_ids(source.ids, source.id_column)
    if len(ids) != len(values):
        raise DataError(
            f"{path}: {len(values):,} rows, but {source.ids} has {len(ids):,} ids; do they belong together?"
        )

    def blocks() -> Iterator[NDArray[np.float32]]:
        for rows in _slices(len(values)):
            yield _as_float32(values[rows])

    return _Opened(ids, tuple(f"{path.stem}_{i}" for i in range(values.shape[1])), blocks)


def _read_ids(path: Path, id_column: str) -> "pd.Series[Any]":
    match path.suffix:
        case ".npy":
            ids = np.load(path, allow_pickle=False)
            if ids.ndim != 1:
                raise DataError(f"{path}: expected ids (n,), found shape {ids.shape}")
            return pd.Series(np.char.decode(ids, "utf-8") if ids.dtype.kind == "S" else ids)
        case ".csv":
            table = pd.read_csv(path, dtype={id_column: str}, index_col=False)
            if id_column not in table:
                raise DataError(f"{path}: no id column {id_column!r}; {_known(id_column, table.columns.tolist())}")
            return table[id_column]
        case ".txt":
            return pd.Series(path.read_text().splitlines(), dtype="str")
        case other:
            raise DataError(f"{path}: ids are a .npy, .csv or .txt file, found {other!r}")


def _open_hdf5(path: Path, source: EmbeddingSource) -> _Opened:
    import h5py

    with h5py.File(path) as file:
        known: list[str] = []
        file.visit(known.append)
        known = [name for name in known if isinstance(file[name], h5py.Dataset)]
        if source.id_column not in known:
            raise DataError(f"{path}: no dataset {source.id_column!r} of ids; {_known(source.id_column, known)}")
        stored: Any = file[source.id_column]
        ids = stored.asstr()[:] if h5py.check_string_dtype(stored.dtype) else stored[:]
        names = _matching(source, known, str(path))
        shapes = [file[name].shape for name in names]
        are_numbers = all(file[name].dtype.kind in "iuf" for name in names)
    n = len(ids)
    is_matrix = len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][0] == n
    if not are_numbers or not (is_matrix or all(shape == (n,) for shape in shapes)):
        found = ", ".join(f"{name} {shape}" for name, shape in zip(names[:_N_SHOWN], shapes, strict=False))
        raise DataError(f"{path}: columns must be one dataset of numbers ({n}, d), or several ({n},); found {found}")
    columns = tuple(f"{names[0]}_{i}" for i in range(shapes[0][1])) if is_matrix else tuple(names)

    def blocks() -> Iterator[NDArray[np.float32]]:
        with h5py.File(path) as file:
            for rows in _slices(n):
                parts: list[Any] = [file[name][rows] for name in names]
                yield _as_float32(parts[0] if is_matrix else np.stack(parts, axis=1))

    return _Opened(pd.Series(ids), columns, blocks)


def _readable(table: EmbeddingTable) -> Iterator[NDArray[np.float32]]:
    try:
        yield from table.blocks()
    except (OSError, ValueError) as error:
        raise DataError(f"{table.where}: cannot be read to its end, fetch it again: {error}") from error


# --- small parts ------------------------------------------------------------------------------------------------------


def _slices(n: int) -> Iterator[slice]:
    yield from (slice(start, end) for start, end in pairwise([*range(0, n, BLOCK_ROWS), n]))


def _as_float32(values: NDArray[np.number]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _matching(source: EmbeddingSource, known: Sequence[str], where: str) -> list[str]:
    """The names that the patterns of `columns` match, in the order of the file. Each pattern must match one or more."""
    candidates = [name for name in known if name != source.id_column]
    for pattern in source.columns:
        if not any(fnmatchcase(name, pattern) for name in candidates):
            raise DataError(f"{where}: no column {pattern!r}; {_known(pattern, candidates)}")
    return [name for name in candidates if any(fnmatchcase(name, pattern) for pattern in source.columns)]


def _repaired(ids: "pd.Series[str]", repair: IdRepair) -> "pd.Series[str]":
    match repair:
        case "none":
            return ids
        case "neg_to_minus":
            return ids.str.replace("NEG", "-", regex=False)
        case "minus_to_neg":
            return ids.str.replace("-", "NEG", regex=False)
        case _ as never:
            assert_never(never)


def _better_repair(source: EmbeddingSource, table: EmbeddingTable, ids: "pd.Series[str]", n_both: int) -> str:
    """Advice to repair the ids, if that would find more galaxies; else empty."""
    repairs: tuple[IdRepair, ...] = ("neg_to_minus", "minus_to_neg")
    for repair in repairs:
        n = int(_repaired(table.ids, repair).isin(ids).sum())
        if n > n_both and source.id_repair == "none":
            return f'with id_repair = "{repair}", {n:,} would be in both'
    return ""


def _known(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name, known) or f"it has {first_few(known, 20)}"
