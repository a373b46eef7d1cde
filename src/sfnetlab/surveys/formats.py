"""The tables of the field, whatever their format: which format a file has, and its rows as pandas holds them.

What a file is says its content; the ending of its name decides nothing but the words of a message.
"""

import logging
import zlib
from collections.abc import Mapping, Sequence
from lzma import LZMAError
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sfnetlab.errors import DataError
from sfnetlab.files import require_file
from sfnetlab.surveys.columns import frame_of_arrow
from sfnetlab.surveys.text_tables import open_bytes, read_text_table

if TYPE_CHECKING:
    import pyarrow as pa

KNOWN = "CSV and other tables of text, ECSV, VOTable, FITS, parquet (a file or a folder) and Feather"
"""The formats that `read_table` reads, for messages."""

_BINARY_NAMES = (".parquet", ".fits", ".fit", ".fz", ".feather", ".arrow")
_NO_DATA = {
    b"version https://git-lfs": "a pointer of Git LFS in the place of the file; fetch the file with `git lfs pull`",
    b"SQLite format 3": "an SQLite database; write its table as CSV or parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the table as CSV",
    b"%PDF": "a PDF; write the table as CSV",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
}
"""What is neither a table nor an array, by its first bytes, and what to do about it."""
_NO_TABLE = {
    b"\x89HDF": "an HDF5 file; write its table as parquet or FITS",
    b"\x93NUMPY": "an array of numpy without names of columns; write it as CSV or parquet, with its ids",
    b"PK\x03\x04": "a ZIP archive (an Excel workbook is one too); unpack it, or save the table as CSV",
    **dict.fromkeys(
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "a pickle, which could run anything; write the table as parquet or CSV",
    ),
}
"""What is no table, though it may hold arrays."""

_logger = logging.getLogger(__name__)


def read_table(path: Path, *, text: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table of any of the formats of the field, every value as it is stored.

    Integers keep all digits; where some are missing they are nullable integers, as booleans are nullable booleans.
    Missing floats are NaN, missing text is NaN in a column of dtype str. Bytes are decoded. Columns that hold arrays
    or objects are left out, and a warning names them.

    Parameters
    ----------
    path
        A file, or a folder of parquet files; side files of HATS (LSDB) are no rows.
    text
        Columns that are read as text exactly as they are written where a format does not say what they are, such as
        ids in a CSV; those that the table lacks do not matter. Of several tables in a file the first that has them is
        read.

    Raises
    ------
    DataError
        If there is no such table, it is damaged, or no format of the field. The message says what was found.
    """
    try:
        frame = _parquet_folder(path) if path.is_dir() else _file(path, text)
    except (OSError, EOFError, ValueError, TypeError, SyntaxError, NotImplementedError, zlib.error, LZMAError) as error:
        raise DataError(
            f"{path}: cannot be read as {path.suffix.lower() or 'a table'}, damaged or not such a file: {error}"
        ) from error
    repeated = frame.columns[frame.columns.duplicated()].tolist()
    if repeated:
        raise DataError(f"{path}: two columns are called {repeated[0]!r}; rename one")
    return pd.DataFrame({name: _settled(frame[name]) for name in frame.columns}, index=frame.index)


def beginning_of(path: Path, what: str) -> bytes:
    """Return the first bytes of a file, unpacked.

    Raises
    ------
    DataError
        If it is no readable file, empty, or what no program takes for data, such as a web page.
    """
    with open_bytes(require_file(path, what)) as file:
        start = file.read(4096)
    if not start:
        raise DataError(f"{path}: cannot be read as {path.suffix.lower() or 'a table'}, the file is empty (0 bytes)")
    found = _named(start, _NO_DATA)
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:100].lower().startswith((b"<!doctype html", b"<html")):
        found = "a web page (HTML) in the place of the file, perhaps of a login or an error; fetch the file again"
    if found is not None:
        raise DataError(f"{path}: is {found}")
    return start


def _named(start: bytes, known: Mapping[bytes, str]) -> str | None:
    return next((what for magic, what in known.items() if start.startswith(magic)), None)


def _file(path: Path, text: Sequence[str]) -> pd.DataFrame:
    start = beginning_of(path, "catalogue")
    if (found := _named(start, _NO_TABLE)) is not None:
        raise DataError(f"{path}: is {found}")
    beginning = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"PAR1", b"ARROW1", b"FEA1", b"\xff\xff\xff\xff")):
        return _frame_of_arrow(arrow_table(path, start), path)
    form = _form_of_text(beginning)
    if start.startswith(b"SIMPLE  =") or form is not None:
        return _by_astropy(path, form, text)
    if beginning.startswith((b"{", b"[")):
        return _json_lines(path)
    if path.suffix.lower() in _BINARY_NAMES:
        raise ValueError(f"it begins with {start[:20]!r}; known are {KNOWN}")
    return read_text_table(path, text)


def _form_of_text(start: bytes) -> str | None:
    """What astropy calls the format of a file that says itself what it is; None for all others."""
    if start.startswith(b"# %ECSV"):
        return "ecsv"
    if b"<VOTABLE" in start:
        return "votable"
    if b"Byte-by-byte Description" in start:
        return "mrt" if start.startswith(b"Title:") else "cds"
    lines = start.splitlines()
    if start.startswith((b"\\", b"|")) and any(
        line.startswith(b"|") and line.rstrip().endswith(b"|") for line in lines
    ):
        return "ipac"
    return (
        "sextractor"
        if all(line.split()[1:2] == [b"%d" % i] for i, line in enumerate(lines[:2], 1)) and start.startswith(b"#")
        else None
    )


def _by_astropy(path: Path, form: str | None, text: Sequence[str]) -> pd.DataFrame:
    from sfnetlab.surveys import astropy_tables

    match form:
        case None:
            return astropy_tables.read_fits(path, text)
        case "votable":
            return astropy_tables.read_votable(path, text)
        case _:
            return astropy_tables.read_ascii(path, form)


def _json_lines(path: Path) -> pd.DataFrame:
    from pyarrow import json

    with open_bytes(path) as file:
        table = json.read_json(file)
    return _frame_of_arrow(table, path)


def arrow_table(path: Path, start: bytes) -> "pa.Table":
    """Return the table of a parquet or Feather file, or of an Arrow stream, which its first bytes tell apart.

    Columns of arrays in parquet files are not read: what stands for them is a column of missing lists.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import feather

    if start.startswith(b"PAR1"):
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            flat = [field.name for field in schema if not pa.types.is_nested(field.type)]
            if len(flat) == len(schema):
                return file.read()
            # Arrays are left out: embeddings may be larger than memory, and are read elsewhere, block by block.
            table = file.read(columns=flat)
            for i, field in enumerate(schema):
                if pa.types.is_nested(field.type):
                    table = table.add_column(i, field.name, pa.nulls(len(table), pa.list_(pa.null())))
            return table
    if start.startswith(b"\xff\xff\xff\xff"):
        with pa.ipc.open_stream(path.read_bytes()) as stream:
            return stream.read_all()
    return feather.read_table(path)


def parquet_files(folder: Path) -> list[Path]:
    """Return the files of a table in a folder, in the order of their names: of HATS (LSDB), those of its pixels.

    Of a HATS collection it is the files of its primary table. Names that begin with '_' or '.' are no part of a table.
    """
    properties = folder / "collection.properties"
    if properties.is_file():
        lines = (line.partition("=") for line in properties.read_text().splitlines())
        primary = {name.strip(): value.strip() for name, _, value in lines}.get("hats_primary_table_url")
        folder = folder / primary if primary else folder
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".parquet", ".parq", ".pq")
        and not any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts)
    ]
    of_pixels = [path for path in files if any(part.startswith("Npix=") for part in path.parts)]
    return of_pixels or files


def _parquet_folder(folder: Path) -> pd.DataFrame:
    """The rows of all parquet files of a folder; columns that only some files have are missing in the others."""
    import pyarrow as pa

    files = parquet_files(folder)
    if not files:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise DataError(f"{folder}: is a folder without parquet files, expected a table; it holds {found}")
    tables = []
    for path in files:
        start = beginning_of(path, "part of a catalogue")
        if not start.startswith(b"PAR1"):
            raise DataError(f"{path}: is no parquet file, unlike what its name says")
        tables.append(arrow_table(path, start))
    return _frame_of_arrow(pa.concat_tables(tables, promote_options="permissive"), folder)


def _frame_of_arrow(table: "pa.Table", path: Path) -> pd.DataFrame:
    """An Arrow table as pandas holds it: what its index was are columns again."""
    import pyarrow as pa
    from pyarrow import types

    left_out: list[str] = []
    for i, field in reversed(list(enumerate(table.schema))):
        kind, column = field.type, table.column(i)
        if types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        elif types.is_decimal(kind):
            column = column.cast(pa.int64() if kind.scale == 0 and kind.precision <= 18 else pa.float64())
        elif types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
            column = _as_text(column)
        elif types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):
            column = None
        if column is None:
            left_out.insert(0, field.name)
            table = table.remove_column(i)
        elif column is not table.column(i):
            table = table.set_column(i, field.name, column)
    if left_out:
        _logger.warning("%s: columns of arrays left out: %s", path, ", ".join(left_out))
    frame = frame_of_arrow(table)
    return frame.reset_index(drop=all(name is None for name in frame.index.names))


def _as_text(column: "pa.ChunkedArray") -> "pa.ChunkedArray | None":
    """Bytes as text; None where they are none."""
    import pyarrow as pa

    try:
        return column.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return None


def _settled(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """A column with the plainest type that holds its values: nullable only integers and booleans that miss some."""
    kind = column.dtype
    is_missing = column.isna()
    is_float, is_date = pd.api.types.is_float_dtype(kind), pd.api.types.is_datetime64_any_dtype(kind)
    if is_missing.all() and not is_float and not is_date:
        return pd.Series(np.full(len(column), np.nan), index=column.index)
    if pd.api.types.is_string_dtype(kind) and not isinstance(kind, pd.CategoricalDtype):
        return column.astype("string").astype("str")
    of_numpy = getattr(kind, "numpy_dtype", None)  # of nullable numbers and booleans
    if of_numpy is not None and is_float:
        return pd.Series(column.to_numpy(of_numpy, na_value=np.nan), index=column.index)
    return column if of_numpy is None or is_missing.any() else column.astype(of_numpy)
