"""Tables for other programs: parquet, CSV and FITS, written in blocks, exact to the last bit.

What such tables have no type for becomes text that holds as much: lists are JSON, dates ISO 8601, bytes the text that
they encode; a missing text is an empty one. FITS holds printable ASCII alone: other characters are written as Python's
escapes, which `text.encode().decode("unicode_escape")` undoes.

Units, UCDs and descriptions are those of descriptions.py. TOPCAT and astropy show them.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.descriptions import WORDS, About, about
from sfnetlab.errors import DataError
from sfnetlab.surveys.messages import first_few

if TYPE_CHECKING:
    from astropy.io import fits

Format = Literal["parquet", "csv", "fits"]
FORMATS: tuple[Format, ...] = ("parquet", "csv", "fits")

log = logging.getLogger(__name__)

_NUMBERED = re.compile(r"feature_\d+")
_ANY_FEATURE, _OF_FEATURE = "feature_<i>", About("", "", "feature number i of the table, in this galaxy")

_MOST_FITS_COLUMNS = 999
_LONGEST_FITS_NAME = 68
_FITS_RECORD = 2880
_NO_INTEGER = -(2**63)
"""Stands in FITS for a missing integer, as its header says: so NumPy writes a missing duration, too."""
_NO_VERDICT = 255
"""Stands in FITS for an unknown verdict beside 1 and 0: of logical columns astropy reads an unknown value as False."""
_FROM_UNSIGNED = 2**63
"""What FITS subtracts from unsigned integers of 64 bits."""
_BEYOND_FITS = re.compile(r"[^ -~]")


@dataclass(frozen=True)
class TableBlocks:
    """A table to be written, in blocks, so that it need not fit into memory."""

    n: int
    """Rows of all blocks together."""
    blocks: Iterable[pd.DataFrame]
    """One block or more, all with the same columns and types."""
    widths: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the longest text of each column of text; FITS needs them before the last block."""
    n_scalars: int | None = None
    """Columns at the front that stay columns in a FITS file if there are more than 999, the most that FITS can have.
    The others become the vector `features`."""
    described: Mapping[str, str] = field(default_factory=dict)
    """Descriptions of columns that only this table has."""
    name: str = ""
    """Which table of the lab this is, see `descriptions.about`."""


def rows_of_frame(frame: pd.DataFrame, described: Mapping[str, str] | None = None, name: str = "") -> TableBlocks:
    """Return a table that is in memory, as one block to be written; descriptions are of columns that it alone has.

    Columns of objects that are all numbers or all verdicts, but for missing ones, become such columns.
    """
    named = frame.set_axis([str(name) for name in frame], axis=1)
    better: dict[str, Any] = {str(name): _better_type(named[name]) for name in named}
    typed = named.astype({name: dtype for name, dtype in better.items() if dtype is not None})
    return TableBlocks(len(typed), [typed], text_widths(typed), described=described or {}, name=name)


def _better_type(column: "pd.Series[Any]") -> str | None:
    """Return the type of NumPy or pandas that holds the same values as a column of objects or of Arrow, if any does."""
    if pd.api.types.is_extension_array_dtype(column.dtype):
        match column.dtype.kind:
            case "m":
                return "timedelta64[ns]"
            case "b" if not column.isna().any():
                return "bool"
            case "u" if column.isna().any() and not column.max() >= 2**63:
                return "Int64"
            case _:
                return None
    if column.dtype != object:
        return None
    match pd.api.types.infer_dtype(column, skipna=True):
        case "boolean":
            return "boolean"
        case "integer" if column.max() < 2**63 <= -column.min() + 2**64:
            return "Int64"
        case "floating":
            return "float64"
        case _:
            return None


def text_widths(frame: pd.DataFrame) -> dict[str, int]:
    """Return the bytes, in FITS, of the longest text of each column that is no number, verdict or duration."""
    return {
        str(name): max((len(_escaped(text)) for text in _texts(frame[name])), default=0)
        for name in frame
        if _kind(frame[name]) == "text"
    }


def write_table(path: Path, table: TableBlocks, form: Format) -> dict[str, About]:
    """Write a table to a file from which the same values can be read; return what is known of its columns.

    Parquet fields and FITS columns carry unit, UCD and description. CSV has no place for them. Parquet keeps lists,
    dates and durations, in FITS a duration is an integer with its unit. A text in FITS that is not printable ASCII is
    escaped, which the log says.

    Raises
    ------
    DataError
        If the form is FITS and there are too many columns, or an integer that stands there for a missing one.
    """
    rest = iter(table.blocks)
    first = next(rest)
    match form:
        case "parquet":
            _write_parquet(path, table, first, rest)
        case "csv":
            for i, block in enumerate(chain([first], rest)):
                _with_texts(block).to_csv(path, mode="w" if i == 0 else "a", header=i == 0, index=False)
        case "fits":
            _write_fits(path, table, first, rest)
    return {str(name): _described(str(name), table) for name in first}


def form_of(path: Path) -> Format:
    """Return the format that the ending of a file's name stands for.

    Raises
    ------
    DataError
        If the ending is that of no format.
    """
    for form in FORMATS:
        if path.suffix == f".{form}":
            return form
    raise DataError(f"{path}: tables are written as .parquet, .csv or .fits, got {path.suffix!r}")


def _write_parquet(path: Path, table: TableBlocks, block: pd.DataFrame, rest: Iterator[pd.DataFrame]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = pa.Table.from_pandas(_with_texts(block, keeps_lists=True), preserve_index=False)
    fields = []
    for each in first.schema:
        known = _described(each.name, table)._asdict()
        fields.append(each.with_metadata({name: text for name, text in known.items() if text}))
    # Astropy cannot read a column of text without rows, unless it is told here how long its texts are.
    lengths = {f"table::len::{name}": str(max(width, 1)) for name, width in table.widths.items()}
    schema = pa.schema(fields, {**(first.schema.metadata or {}), **lengths})
    texts = [each.name for each in schema if not pa.types.is_primitive(each.type)]
    with pq.ParquetWriter(path, schema, use_dictionary=texts) as writer:
        writer.write_table(first.cast(schema))
        for more in rest:
            texts_of_more = _with_texts(more, keeps_lists=True)
            writer.write_table(pa.Table.from_pandas(texts_of_more, schema=schema, preserve_index=False))


def _described(column: str, table: TableBlocks) -> About:
    known = about(column, table.name)
    return known._replace(description=table.described.get(column, known.description))


# --- columns ----------------------------------------------------------------------------------------------------------


def _kind(column: "pd.Series[Any]") -> Literal["number", "verdict", "duration", "text"]:
    """Return what a column is to a table of any form."""
    match getattr(column.dtype, "kind", "O"):
        case "b":
            return "verdict"
        case "i" | "u" | "f" | "c":
            return "number"
        case "m":
            return "duration"
        case _:
            return "text"


def _with_texts(block: pd.DataFrame, *, keeps_lists: bool = False) -> pd.DataFrame:
    """Return a block whose columns of objects are text, and complex ones; dates stay, and lists if they are kept."""
    texts: dict[str, list[str]] = {}
    for name, column in block.items():
        if getattr(column.dtype, "kind", "O") not in "OSUc":
            continue
        if not (keeps_lists and len(column) and column.map(_is_list).all()):
            texts[str(name)] = _texts(column)
    return block.assign(**{name: pd.Series(each, block.index, dtype="str") for name, each in texts.items()})


def _texts(column: "pd.Series[Any]") -> list[str]:
    return [_text(value) for value in column]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if _is_list(value):
        return json.dumps(value, default=lambda part: part.tolist() if hasattr(part, "tolist") else _text(part))
    if pd.isna(value):
        return ""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, (Sequence, Mapping, np.ndarray)) and not isinstance(value, str | bytes)


def _escaped(text: str) -> str:
    """Return a text as FITS can hold it; where anything is escaped, backslashes are doubled, to undo it."""
    return text.encode("unicode_escape").decode("ascii") if _BEYOND_FITS.search(text) else text


# --- FITS -------------------------------------------------------------------------------------------------------------


class _Field(NamedTuple):
    """A FITS column: its format, its big-endian type, and what stands for a missing value."""

    name: str
    tform: str
    dtype: str
    null: int | None = None
    zero: int | None = None
    unit: str = ""
    """Its unit where the type gives it one."""
    vector: tuple[str, ...] = ()
    """Columns of the block that it holds side by side, where it is a vector."""

    def of(self, block: pd.DataFrame) -> "NDArray[Any]":
        """Return the values of the column in a block."""
        if self.vector:
            return block[list(self.vector)].to_numpy(np.float32)
        column = block[self.name]
        match self.tform[-1]:
            case "A":
                return np.array([_escaped(text).encode("ascii") for text in _texts(column)], dtype=self.dtype)
            case "L":
                return np.where(column.to_numpy(bool), b"T", b"F")
            case "E" | "D":
                return column.to_numpy(np.float64, na_value=np.nan)
            case "C" | "M":
                return column.to_numpy(np.complex128, na_value=np.nan)
            case _:
                return self._integers(column)

    def _integers(self, column: "pd.Series[Any]") -> "NDArray[Any]":
        if _kind(column) == "duration":
            return column.to_numpy().view(np.int64)
        if self.zero is not None:
            return (column.to_numpy(np.uint64) ^ np.uint64(self.zero)).view(np.int64)
        if self.null is None:
            return column.to_numpy()
        values = column.astype("Int64")
        if (values == self.null).any():
            raise DataError(f"column {self.name!r}: holds {self.null}, in FITS a missing value; use parquet")
        return values.to_numpy(np.int64, na_value=self.null)


def _write_fits(path: Path, table: TableBlocks, first: pd.DataFrame, rest: Iterator[pd.DataFrame]) -> None:
    from astropy.io import fits

    columns = list(_fields(first, table))
    shapes = [(len(each.vector),) if each.vector else () for each in columns]
    dtype = np.dtype([(str(i), each.dtype, shape) for i, (each, shape) in enumerate(zip(columns, shapes, strict=True))])
    escaped: dict[str, None] = {}
    with path.open("wb") as file:
        file.write(fits.PrimaryHDU().header.tostring().encode("ascii"))
        file.write(_header(columns, table).tostring().encode("ascii"))
        for block in chain([first], rest):
            records = np.zeros(len(block), dtype=dtype)
            for i, each in enumerate(columns):
                records[str(i)] = each.of(block)
                is_text = each.tform[-1] == "A" and b"\\" in records[str(i)].tobytes()
                if is_text and any(map(_BEYOND_FITS.search, _texts(block[each.name]))):
                    escaped[each.name] = None
            file.write(records.tobytes())
        file.write(b"\0" * (-file.tell() % _FITS_RECORD))
    renamed = [each.name for i, each in enumerate(columns, 1) if _fits_name(each.name, i) != each.name]
    if escaped or renamed:
        log.warning(
            "%s: FITS has ASCII text and names of %d characters at most; escaped (\\xfc for u umlaut) or shortened: %s",
            path.name,
            _LONGEST_FITS_NAME,
            first_few(dict.fromkeys([*renamed, *escaped])),
        )


def _fields(first: pd.DataFrame, table: TableBlocks) -> Iterator[_Field]:
    names = [str(name) for name in first]
    n_scalars = len(names)
    if len(names) > _MOST_FITS_COLUMNS:
        if table.n_scalars is None:
            raise DataError(f"FITS has at most {_MOST_FITS_COLUMNS} columns, got {len(names):,}; use parquet")
        n_scalars = table.n_scalars
    for name in names[:n_scalars]:
        yield _field_of(name, first[name], max(table.widths.get(name, 0), 1))
    if vector := tuple(names[n_scalars:]):
        yield _Field("features", f"{len(vector)}E", ">f4", vector=vector)


def _field_of(name: str, column: "pd.Series[Any]", width: int) -> _Field:
    dtype: Any = column.dtype
    match _kind(column):
        case "text":
            return _Field(name, f"{width}A", f"S{width}")
        case "verdict" if pd.api.types.is_extension_array_dtype(dtype):
            return _Field(name, "B", "u1", _NO_VERDICT)
        case "verdict":
            return _Field(name, "L", "S1")
        case "duration":
            return _Field(name, "K", ">i8", _NO_INTEGER, unit=np.datetime_data(dtype)[0])
        case "number":
            pass
    kind, size = dtype.kind, dtype.itemsize
    has_missing = pd.api.types.is_extension_array_dtype(dtype)
    if kind == "f":
        return _Field(name, "E", ">f4") if size <= 4 else _Field(name, "D", ">f8")
    if kind == "c":
        return _Field(name, "C", ">c8") if size <= 8 else _Field(name, "M", ">c16")
    if kind == "u" and size == 8:  # of unsigned columns astropy knows no missing value
        return _Field(name, "20A", "S20") if has_missing else _Field(name, "K", ">i8", zero=_FROM_UNSIGNED)
    if has_missing:
        return _Field(name, "K", ">i8", _NO_INTEGER)
    n_bytes = size if kind == "i" else 2 * size  # FITS has no unsigned integers
    if n_bytes <= 4:
        return _Field(name, "I", ">i2") if n_bytes <= 2 else _Field(name, "J", ">i4")
    return _Field(name, "K", ">i8")


def _header(columns: list[_Field], table: TableBlocks) -> "fits.Header":
    from astropy.io import fits

    empty = [
        fits.Column(name=f"column{i}", format=each.tform, null=each.null, bzero=each.zero)
        for i, each in enumerate(columns, 1)
    ]
    header = fits.BinTableHDU.from_columns(empty, nrows=0).header
    header["NAXIS2"] = table.n
    for i, each in enumerate(columns, 1):
        known = _described(each.name, table)
        name = _fits_name(each.name, i)
        header[f"TTYPE{i}"] = name  # fits.Column would warn of hyphens and the like
        about_it = known.description if name == each.name else ": ".join(filter(None, (each.name, known.description)))
        for keyword, text in (("TUNIT", each.unit or known.unit), ("TUCD", known.ucd), ("TCOMM", about_it)):
            if text:
                header[f"{keyword}{i}"] = _escaped(text)
    return header


def _fits_name(name: str, number: int) -> str:
    """Return a column's name, which must be ASCII on one card; the description has the name if it is another."""
    escaped = _escaped(name)
    if len(escaped) + escaped.count("'") <= _LONGEST_FITS_NAME:
        return escaped
    return f"{escaped.replace(chr(39), '')[: _LONGEST_FITS_NAME - 5]}_{number}"


# --- what is there ----------------------------------------------------------------------------------------------------


def column_list(tables: Mapping[str, Mapping[str, About]]) -> pd.DataFrame:
    """Return a table `column, unit, ucd, description, tables`: what the columns of some tables mean, to go with them.

    Numbered features are one row, `feature_<i>`. Below stand the words that tables have in their columns `metric` and
    `probe`.
    """
    places: dict[tuple[str, About], dict[str, None]] = {}
    for table, columns in tables.items():
        for name, known in columns.items():
            key = (_ANY_FEATURE, _OF_FEATURE) if _NUMBERED.fullmatch(name) else (name, known)
            places.setdefault(key, {})[table] = None
    rows = [{"column": name, **known._asdict(), "tables": ", ".join(at)} for (name, known), at in places.items()]
    of_words = "values of metric and probe"
    words = [
        {"column": name, "unit": "", "ucd": "", "description": text, "tables": of_words} for name, text in WORDS.items()
    ]
    return pd.DataFrame([*rows, *words])


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON; NaN and infinity, which JSON does not know, raise a ValueError."""
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
