"""Tables of text as the field writes them: CSV, what SkyServer, TOPCAT and VizieR give, columns between white space.

Where the header stands, what parts the columns and which lines are comments is found here; pandas reads the values.
"""

import bz2
import csv
import gzip
import logging
import lzma
import re
import warnings
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd

MISSING_TEXTS = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
"""Cells that hold nothing, as pandas knows them; columns of text that are asked for keep them."""

_HEAD_CHARACTERS = 2**18
_SEPARATORS = (",", ";", "\t", "|")
_WHITE_SPACE = " "
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_OPENERS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_OF_SKYSERVER = re.compile(r"#Table\d+")
_DECIMAL_COMMA = r"[+-]?(?:\d+(?:,\d*)?|,\d+)(?:[eE][+-]?\d+)?"

_logger = logging.getLogger(__name__)


class _Layout(NamedTuple):
    """Where the table of a text file stands."""

    separator: str
    """A character, or a blank for any white space."""
    header: int
    """The line that names the columns, from 0."""
    is_comment: bool
    """Whether '#' stands before the names."""
    first: int
    """The first line that may hold values."""
    has_comments: bool
    """Whether lines that begin with '#' stand above the values; such lines are then comments below them too."""


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file to read it, unpacked where it is compressed by gzip, bzip2 or xz, whatever its name."""
    with path.open("rb") as file:
        start = file.read(6)
    return next((opener(path) for magic, opener in _OPENERS.items() if start.startswith(magic)), None) or path.open(
        "rb"
    )


def read_text_table(path: Path, text: Sequence[str]) -> pd.DataFrame:
    """Read a table of text; integers with missing values are nullable, columns of `text` as they are written.

    Known are separators , ; tab | and white space, comment lines that begin with '#', names that stand behind such a
    '#', decimal commas where commas part no columns, UTF-8, UTF-16 by its byte-order mark, and Windows-1252.

    Raises
    ------
    ValueError
        If rows do not fit the header, or no header is found.
    """
    with open_bytes(path) as file:
        start = file.read(3)
    encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
    try:
        return _read(path, encoding, text)
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise
    _logger.warning("%s: is no UTF-8 text and is read as Windows-1252 (which Latin-1 is a part of)", path)
    return _read(path, "cp1252", text)


def _read(path: Path, encoding: str, text: Sequence[str]) -> pd.DataFrame:
    with _opened(path, encoding) as file:
        head = file.read(_HEAD_CHARACTERS)
    lines = head.split("\n")
    layout = _layout(lines[:-1] if len(head) == _HEAD_CHARACTERS and len(lines) > 1 else lines)
    names = _cells(lines[layout.header].lstrip("# \t") if layout.is_comment else lines[layout.header], layout.separator)
    if layout.is_comment and not names[0]:
        names[0] = "#"  # a column that is called so
    unprintable = [name for name in names if not name.replace("\n", " ").isprintable()]
    if unprintable:
        raise ValueError(f"its header holds {unprintable[0][:20]!r}, which is no text")
    skipped = {*range(layout.header + layout.is_comment), *range(layout.header + 1, layout.first)}
    if layout.has_comments or layout.separator == _WHITE_SPACE:
        with _opened(path, encoding) as file:
            skipped |= set(_comments_below(file, layout, len(names)))
    frame = _values(path, encoding, text, layout, names if layout.is_comment else None, sorted(skipped))
    if layout != _Layout(",", 0, is_comment=False, first=1, has_comments=False):
        parts = "white space" if layout.separator == _WHITE_SPACE else repr(layout.separator)
        _logger.info("%s: the names of its columns stand in line %d, parted by %s", path, layout.header + 1, parts)
    frame.columns = [str(name).strip() for name in frame.columns]
    frame = frame.assign(**{name: _integers(frame[name]) for name in frame.columns if name not in text})
    return frame if layout.separator == "," else _with_decimal_points(path, frame, text)


def _opened(path: Path, encoding: str) -> TextIOWrapper:
    return TextIOWrapper(open_bytes(path), encoding=encoding)  # type: ignore[arg-type]


def _values(
    path: Path, encoding: str, text: Sequence[str], layout: _Layout, names: list[str] | None, skipped: list[int]
) -> pd.DataFrame:
    """The values as pandas reads them: one pass for the names as it spells them, one for the rows."""

    def read(file: TextIOWrapper, n_rows: int | None, as_text: dict[Any, Any], others: list[str]) -> pd.DataFrame:
        return pd.read_csv(
            file,
            sep=r"\s+" if layout.separator == _WHITE_SPACE else layout.separator,
            header=None if names else 0,
            names=names,
            skiprows=skipped,
            nrows=n_rows,
            index_col=False,
            dtype=as_text,
            keep_default_na=False,
            na_values={name: list(MISSING_TEXTS) for name in others},
            dtype_backend="numpy_nullable",
            low_memory=False,
        )

    with _opened(path, encoding) as file:
        spelt = [str(name) for name in read(file, 0, {}, []).columns]
    as_text = {name: str for name in spelt if name.strip() in text}
    # Given rows longer than the header, pandas would take the first fields for an index and shift all columns.
    with _opened(path, encoding) as file, warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
        try:
            return read(file, None, as_text, [name for name in spelt if name not in as_text])
        except pd.errors.ParserWarning as warning:
            raise ValueError("rows hold more fields than the header names") from warning


def _layout(lines: list[str]) -> _Layout:
    """The layout of a table, from the lines with which its file begins."""
    comments = [i for i, line in enumerate(lines) if line.startswith("#")]
    start = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), None)
    if start is None:
        raise ValueError("it holds comment lines and no table" if comments else "No columns to parse from file")
    above = [i for i in comments if i < start]
    rows = [line for line in lines[start : start + 200] if line.strip() and not line.startswith("#")]
    separator = _separator(rows, lines[above[-1]].lstrip("# \t") if above else "")
    header, is_comment = start, False
    if above and not _OF_SKYSERVER.fullmatch(lines[above[-1]].strip()):
        names = _cells(lines[above[-1]].lstrip("# \t"), separator)
        n_cells = len(_cells(rows[0], separator))
        are_names = all(name and not re.search(r"\s", name.strip()) for name in names)
        has_numbers = any(map(_is_number, _cells(rows[0], separator)))
        if has_numbers and len(names) != n_cells:
            raise ValueError(
                f"no header: line {start + 1} holds numbers, and the comment above it names {len(names)} columns of "
                f"{n_cells}; write the names of the columns above the values"
            )
        only_text = not any(_is_number(cell) for row in rows[1:] for cell in _cells(row, separator))
        if has_numbers or (only_text and len(names) == n_cells > 1 and are_names):
            header, is_comment = above[-1], True
    first = start if is_comment else start + 1
    for i in range(first, min(first + 3, len(lines))):  # VizieR writes units and a line of dashes below the names
        if lines[i].strip() and all(re.fullmatch(r"-+", cell.strip()) for cell in _cells(lines[i], separator)):
            first = i + 1
            break
    return _Layout(separator, header, is_comment, first, bool(above))


def _separator(rows: list[str], comment: str) -> str:
    """What parts the columns: the comma of a CSV wherever it may be, else what parts all rows alike most often.

    Where it parts the comment above the rows into as many, the comment names the columns.
    """
    n_cells = {separator: [len(_cells(row, separator)) for row in rows] for separator in _SEPARATORS}
    parts = {separator: counts[0] for separator, counts in n_cells.items() if counts[0] > 1}
    even = {separator: n for separator, n in parts.items() if len(set(n_cells[separator])) == 1}
    named = [separator for separator, n in even.items() if len(_cells(comment, separator)) == n]
    if named and "," not in named:
        return max(named, key=lambda separator: even[separator])
    if "," in parts and ("," in even or not even):
        return ","
    if parts:
        return max(even or parts, key=lambda separator: parts[separator])
    n_words = [len(_cells(row, _WHITE_SPACE)) for row in rows]
    is_even = n_words[0] > 1 and len(rows) > 1 and sum(n == n_words[0] for n in n_words) > len(rows) / 2
    has_numbers = any(_is_number(cell) for row in rows[1:] for cell in _cells(row, _WHITE_SPACE))
    return _WHITE_SPACE if is_even and has_numbers else ","


def _cells(line: str, separator: str) -> list[str]:
    if separator == _WHITE_SPACE:
        line = line.replace("\t", " ").strip()
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _comments_below(file: IO[str], layout: _Layout, n_names: int) -> Iterator[int]:
    """Yield the lines of comments below the header; refuse another table, and short rows between white space.

    Lines are counted as pandas counts them: one that ends within quotes goes on.
    """
    number, is_quoted = -1, False
    for line in file:
        is_begun, is_quoted = is_quoted, is_quoted ^ (line.count('"') % 2 == 1)
        if is_begun:
            continue
        number += 1
        if number < layout.first:
            continue
        if layout.has_comments and line.startswith("#"):
            if _OF_SKYSERVER.fullmatch(line.strip()):
                raise ValueError(
                    f"another table ({line.strip()}) begins in line {number + 1}; save each in its own file"
                )
            yield number
        elif layout.separator == _WHITE_SPACE and line.strip() and len(_cells(line, _WHITE_SPACE)) != n_names:
            raise ValueError(
                f"line {number + 1} holds {len(_cells(line, _WHITE_SPACE))} values between white space, but there are "
                f"{n_names} names; write nan where a value is missing, and quotes around text with blanks"
            )


def _integers(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """A column with its integers above 2^63, which pandas leaves as text where one is missing, as nullable ones."""
    if not pd.api.types.is_string_dtype(column.dtype):
        return column
    is_missing = (column.isna() | (column == "")).to_numpy(np.bool_)
    cells = column[~is_missing]
    if not len(cells) or not cells.str.fullmatch(r"\d{1,20}").all():
        return column
    numbers = [0 if missing else int(cell) for cell, missing in zip(column, is_missing, strict=True)]
    if max(numbers) >= 2**64:
        return column
    return pd.Series(pd.arrays.IntegerArray(np.array(numbers, dtype=np.uint64), is_missing), index=column.index)


def _with_decimal_points(path: Path, frame: pd.DataFrame, text: Sequence[str]) -> pd.DataFrame:
    """The table with columns of numbers with decimal commas as floats, unless others have decimal points."""
    if any(pd.api.types.is_float_dtype(kind) for kind in frame.dtypes):
        return frame
    chosen = [name for name in frame.columns if name not in text and _has_decimal_commas(frame[name])]
    if not chosen:
        return frame
    _logger.info("%s: decimal commas in %s", path, ", ".join(chosen))
    points = {name: frame[name].str.strip().str.replace(",", ".", regex=False) for name in chosen}
    return frame.assign(**{name: column.astype("Float64") for name, column in points.items()})


def _has_decimal_commas(column: "pd.Series[Any]") -> bool:
    """Whether a column of text holds numbers alone, some with a comma."""
    if not pd.api.types.is_string_dtype(column.dtype):
        return False
    cells = column.dropna().str.strip()
    return len(cells) > 0 and bool(cells.str.fullmatch(_DECIMAL_COMMA).all())
