"""Files of embeddings that somebody else made, opened without reading all of them: parquet, arrays, tensors, tables.

tables.py joins what is opened here to a survey.
"""

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.errors import DataError
from sfnetlab.files import read_array, require_file
from sfnetlab.surveys.embeddings import EmbeddingSource
from sfnetlab.surveys.formats import arrow_table, beginning_of, parquet_files, read_table
from sfnetlab.surveys.messages import did_you_mean, first_few

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

BLOCK_ROWS = 8192
_N_SHOWN = 5

_Batches = Callable[[list[str]], Iterator["pa.RecordBatch | pa.Table"]]
_Read = Callable[[list[str]], AbstractContextManager[list[Any]]]
"""Opens arrays by their names: what it yields can be sliced by rows."""


class Opened(NamedTuple):
    """A file of embeddings of which the ids were read."""

    ids: "pd.Series[Any]"
    """Its ids as they are stored."""
    columns: tuple[str, ...]
    """The names of its d features."""
    blocks: Callable[[], Iterator[NDArray[np.float32]]]
    """Reads its rows in order, in blocks of shape (any number, d). A missing value is NaN."""
    commit: str | None = None
    """The revision of a hub dataset that was read; None for files."""


class _Array(NamedTuple):
    """What is known of an array before its values are read."""

    shape: tuple[int, ...]
    is_number: bool


def open_source(source: EmbeddingSource, where: str) -> Opened:
    """Open a file, a folder or a dataset of embeddings, and read its ids.

    Raises
    ------
    DataError
        If there is no such file, it is another thing than embeddings, or lacks what the settings name.
    OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile
        If it is damaged.
    """
    path = source.path
    if path is None:
        schema, batches, commit = _hub_batches(source, where)
        return _open_arrow(source, where, schema, batches)._replace(commit=commit)
    if path.is_dir():
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            return _open_arrow(source, where, *_saved_batches(source, path))
        return _open_arrow(source, where, *_parquet_batches(parquet_files(path), source, where))
    start = beginning_of(path, "embeddings")
    match path.suffix.lower():
        case ".npy":
            return _open_npy(path, source)
        case ".npz":
            return _open_npz(path, source)
        case ".pt" | ".pth":
            return _open_torch(path, start, source)
        case ".safetensors":
            return _open_safetensors(path, source)
        case ".h5" | ".hdf5":
            return _open_hdf5(path, source)
        case _ if start.startswith(b"PAR1"):
            return _open_arrow(source, where, *_parquet_batches([path], source, where))
        case _ if start.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
            return _open_arrow(source, where, *_feather_batches(path, start))
        case _ if start.startswith(b"SIMPLE  ="):
            return _open_fits(path, source)
        case _:
            return _open_table(path, source)


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


def _feather_batches(path: Path, start: bytes) -> "tuple[pa.Schema, _Batches]":
    table = arrow_table(path, start)

    def batches(columns: list[str]) -> Iterator["pa.RecordBatch"]:
        yield from table.select(columns).to_batches(BLOCK_ROWS)

    return table.schema, batches


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


def _open_arrow(source: EmbeddingSource, where: str, schema: "pa.Schema", batches: _Batches) -> Opened:
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

    return Opened(ids.to_pandas(), columns, blocks)


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


# --- arrays -----------------------------------------------------------------------------------------------------------


def _open_npy(path: Path, source: EmbeddingSource) -> Opened:
    values = read_array(path)
    return _open_arrays(path, source, {path.stem: values})


def _open_npz(path: Path, source: EmbeddingSource) -> Opened:
    with np.load(path, allow_pickle=False) as file:
        return _open_arrays(path, source, {name: file[name] for name in file.files})


def _open_torch(path: Path, start: bytes, source: EmbeddingSource) -> Opened:
    """A tensor, a dict of tensors and ids, or a dict of a vector for each id; nothing that could run is loaded."""
    import torch

    if not start.startswith((b"PK", b"\x80")):
        raise ValueError(f"it begins with {start[:20]!r}, which torch.save does not write")
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        raise DataError(
            f"{path}: holds Python objects, which are not loaded, for they could run anything; save tensors and text "
            'alone: torch.save({"ids": list_of_text, "embeddings": tensor}, path)'
        ) from error
    if isinstance(loaded, torch.Tensor):
        return _open_arrays(path, source, {path.stem: loaded})
    if not isinstance(loaded, Mapping):
        raise DataError(f"{path}: expected a tensor, or a dict of tensors and ids, found {type(loaded).__name__}")
    known = {str(name): value for name, value in loaded.items()}
    tensors = {name: value for name, value in known.items() if isinstance(value, torch.Tensor)}
    ids_name = _name_of_ids(source, list(known))
    if source.ids is None and ids_name is None and not source.columns and tensors and len(tensors) == len(known):
        shapes = {tuple(value.shape) for value in tensors.values()}
        if len(shapes) == 1 and len(*shapes) == 1:
            values = torch.stack(list(tensors.values()))
            return _open_arrays(path, source, {path.stem: values}, pd.Series(list(tensors), dtype="str"))
    if source.ids is None and ids_name is not None and ids_name not in tensors:
        return _open_arrays(path, source, tensors, pd.Series(list(known[ids_name])))
    return _open_arrays(path, source, tensors)


def _open_safetensors(path: Path, source: EmbeddingSource) -> Opened:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return _open_arrays(path, source, load_file(path), None)  # mapped into memory, not read
    except SafetensorError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _open_arrays(
    path: Path, source: EmbeddingSource, arrays: Mapping[str, Any], ids: "pd.Series[Any] | None" = None
) -> Opened:
    """The array of embeddings among those of numpy or torch in a file, with the ids beside it or in their own file."""
    if source.ids is not None:
        ids = _read_ids(source.ids, source.id_column)
    elif ids is None:
        name = _name_of_ids(source, list(arrays))
        if name is None:
            raise DataError(
                f"{path}: no array of ids, neither {source.id_column!r} nor 'ids', among {first_few(arrays, 20)}; save "
                "them beside the embeddings, name them by id_column, or name a file of ids by ids"
            )
        ids = _as_series(np.asarray(arrays[name]), path)
        arrays = {other: array for other, array in arrays.items() if other != name}

    @contextmanager
    def read(names: list[str]) -> Iterator[list[Any]]:
        yield [arrays[name] for name in names]

    return _open_columns(source, str(path), {name: _about(array) for name, array in arrays.items()}, ids, read)


def _about(array: Any) -> _Array:
    import torch

    if isinstance(array, torch.Tensor):
        is_number = array.dtype.is_floating_point or (array.dtype != torch.bool and not array.dtype.is_complex)
        return _Array(tuple(array.shape), is_number and array.layout == torch.strided)
    return _Array(array.shape, array.dtype.kind in "iuf")


def _name_of_ids(source: EmbeddingSource, known: Sequence[str]) -> str | None:
    return next((name for name in (source.id_column, "ids") if name in known), None)


def _as_series(ids: NDArray[Any], path: Path) -> "pd.Series[Any]":
    if ids.ndim != 1:
        raise DataError(f"{path}: expected ids (n,), found shape {ids.shape}")
    return pd.Series(np.char.decode(ids, "utf-8") if ids.dtype.kind == "S" else ids)


def _read_ids(path: Path, id_column: str) -> "pd.Series[Any]":
    require_file(path, "ids")
    match path.suffix.lower():
        case ".npy":
            try:
                return _as_series(np.load(path, allow_pickle=False), path)
            except ValueError as error:
                raise DataError(f"{path}: cannot be read: {error}; save ids as np.array(ids, dtype=str)") from error
        case ".txt":
            return pd.Series(path.read_text(encoding="utf-8-sig").splitlines(), dtype="str")
        case _:
            return _id_column(read_table(path, text=(id_column,)), id_column, path)


def _id_column(table: pd.DataFrame, id_column: str, path: Path) -> "pd.Series[Any]":
    if id_column not in table:
        raise DataError(f"{path}: no id column {id_column!r}; {_known(id_column, table.columns.tolist())}")
    return table[id_column]


def _open_hdf5(path: Path, source: EmbeddingSource) -> Opened:
    import h5py

    with h5py.File(path) as file:
        known: list[str] = []
        file.visit(known.append)
        known = [name for name in known if isinstance(file[name], h5py.Dataset)]
        if source.id_column not in known:
            raise DataError(f"{path}: no dataset {source.id_column!r} of ids; {_known(source.id_column, known)}")
        stored: Any = file[source.id_column]
        ids = stored.asstr()[:] if h5py.check_string_dtype(stored.dtype) else stored[:]
        arrays = {name: _Array(file[name].shape, file[name].dtype.kind in "iuf") for name in known}

    @contextmanager
    def read(names: list[str]) -> Iterator[list[Any]]:
        with h5py.File(path) as file:
            yield [file[name] for name in names]

    return _open_columns(source, str(path), arrays, pd.Series(ids), read)


# --- tables of FITS and text ------------------------------------------------------------------------------------------


def _open_fits(path: Path, source: EmbeddingSource) -> Opened:
    from sfnetlab.surveys import astropy_tables

    with astropy_tables.opened_fits(path, (source.id_column,)) as hdu:
        known = [str(name) for name in hdu.columns.names]
        if source.id_column not in known:
            raise DataError(f"{path}: no id column {source.id_column!r}; {_known(source.id_column, known)}")
        ids = pd.Series(astropy_tables.held(astropy_tables.fits_column(hdu, source.id_column)))
        dtypes = {name: hdu.data.dtype[i] for i, name in enumerate(known)}
        arrays = {name: _Array((len(ids), *kind.shape), kind.base.kind in "iuf") for name, kind in dtypes.items()}

    @contextmanager
    def read(names: list[str]) -> Iterator[list[Any]]:
        with astropy_tables.opened_fits(path, (source.id_column,)) as hdu:
            yield [astropy_tables.as_floats(astropy_tables.fits_column(hdu, name)) for name in names]

    return _open_columns(source, str(path), arrays, ids, read)


def _open_table(path: Path, source: EmbeddingSource) -> Opened:
    frame = read_table(path, text=(source.id_column,))
    ids = _id_column(frame, source.id_column, path)
    kinds = {str(name): frame[name].dtype for name in frame.columns}
    is_number = pd.api.types.is_numeric_dtype
    arrays = {
        name: _Array((len(frame),), is_number(kind) and not pd.api.types.is_bool_dtype(kind))
        for name, kind in kinds.items()
    }

    @contextmanager
    def read(names: list[str]) -> Iterator[list[Any]]:
        yield [frame[name].to_numpy(np.float64, na_value=np.nan) for name in names]

    return _open_columns(source, str(path), arrays, ids, read)


def _open_columns(
    source: EmbeddingSource, where: str, arrays: Mapping[str, _Array], ids: "pd.Series[Any]", read: _Read
) -> Opened:
    """One array of numbers (n, d), or several (n,), of those that the settings name, or the only one (n, d)."""
    matrices = [name for name, array in arrays.items() if len(array.shape) == 2 and array.is_number]
    if source.columns:
        names = _matching(source, list(arrays), where)
    elif len(matrices) == 1:
        names = matrices
    else:
        names = list(arrays)
    shapes = [arrays[name].shape for name in names]
    n = len(ids)
    is_matrix = len(names) == 1 and names[0] in matrices
    if source.ids is not None and is_matrix and shapes[0][0] != n:
        raise DataError(f"{where}: {shapes[0][0]:,} rows, but {source.ids} has {n:,} ids; do they belong together?")
    is_right = (is_matrix and shapes[0][0] == n) or (source.columns and all(shape == (n,) for shape in shapes))
    if not is_right or not all(arrays[name].is_number for name in names):
        found = ", ".join(f"{name} {shape}" for name, shape in zip(names[:_N_SHOWN], shapes, strict=False))
        advice = "; choose by columns" if len(matrices) > 1 and not source.columns else ""
        raise DataError(
            f"{where}: columns must be one dataset of numbers ({n}, d), or several ({n},); found {found or 'none'}"
            + ("" if all(arrays[name].is_number for name in names) else ", which are no numbers")
            + advice
        )
    columns = tuple(f"{names[0]}_{i}" for i in range(shapes[0][1])) if is_matrix else tuple(names)

    def blocks() -> Iterator[NDArray[np.float32]]:
        with read(names) as parts:
            for rows in _slices(n):
                block = [_as_float32(part[rows]) for part in parts]
                yield block[0] if is_matrix else np.stack(block, axis=1)

    return Opened(ids, columns, blocks)


# --- small parts ------------------------------------------------------------------------------------------------------


def _slices(n: int) -> Iterator[slice]:
    yield from (slice(start, end) for start, end in pairwise([*range(0, n, BLOCK_ROWS), n]))


def _as_float32(values: Any) -> NDArray[np.float32]:
    """Numbers of numpy or torch as float32; numpy knows no bfloat16."""
    if not isinstance(values, np.ndarray):
        values = values.detach().float().numpy()
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _matching(source: EmbeddingSource, known: Sequence[str], where: str) -> list[str]:
    """The names that the patterns of `columns` match, in the order of the file. Each pattern must match one or more."""
    candidates = [name for name in known if name != source.id_column]
    for pattern in source.columns:
        if not any(fnmatchcase(name, pattern) for name in candidates):
            raise DataError(f"{where}: no column {pattern!r}; {_known(pattern, candidates)}")
    return [name for name in candidates if any(fnmatchcase(name, pattern) for pattern in source.columns)]


def _known(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name, known) or f"it has {first_few(known, 20)}"
