"""Tables that astropy reads, FITS, VOTable and its formats of text, as pandas holds them without losing a digit."""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.surveys.messages import first_few

_logger = logging.getLogger(__name__)


def read_fits(path: Path, text: Sequence[str]) -> pd.DataFrame:
    """Read the table of a FITS file that `opened_fits` takes."""
    with opened_fits(path, text) as hdu:
        return _as_frame({name: fits_column(hdu, name) for name in hdu.columns.names}, path)


@contextmanager
def opened_fits(path: Path, text: Sequence[str]) -> Iterator[Any]:
    """Yield the extension with the first table of a FITS file that has the columns `text`, or else its first table.

    Raises
    ------
    ValueError
        If it holds no table, or one that fpack has compressed.
    """
    from astropy.io import fits

    with fits.open(path, memmap=False) as hdus:
        tables = fits.BinTableHDU | fits.TableHDU
        found: list[tuple[int, Any]] = [(i, hdu) for i, hdu in enumerate(hdus) if isinstance(hdu, tables)]
        found = [(i, hdu) for i, hdu in found if not isinstance(hdu, fits.CompImageHDU)]
        if not found:
            raise ValueError("it holds no table")
        names = [f"extension {i}" + (f" ({hdu.name})" if hdu.name else "") for i, hdu in found]
        taken = _with_columns([hdu.columns.names for _, hdu in found], text, names, path)
        hdu = found[taken][1]
        if hdu.header.get("ZTABLE"):
            raise ValueError(f"its table in {names[taken]} is compressed by fpack; unpack it with funpack")
        yield hdu


def read_votable(path: Path, text: Sequence[str]) -> pd.DataFrame:
    """Read the first table of a VOTable that has the columns `text`, or else its first table.

    Raises
    ------
    ValueError
        If it holds no table; with what the service says where it holds an error in the place of one.
    """
    from astropy.io import votable

    with warnings.catch_warnings(action="ignore", category=votable.exceptions.VOWarning):
        document = votable.parse(path, verify="ignore")
        statuses = [info for resource in document.resources for info in resource.infos if info.name == "QUERY_STATUS"]
        for info in statuses:
            if str(info.value).upper() == "ERROR":
                raise ValueError(f"the service answered with an error: {' '.join((info.content or '').split())}")
            if str(info.value).upper() == "OVERFLOW":
                _logger.warning("%s: the service cut this table off (OVERFLOW); ask it for more rows (MAXREC)", path)
        found = [table for table in document.iter_tables() if len(table.fields)]
        if not found:
            raise ValueError("it holds no table")
        names = [f"table {i}" + (f" ({table.name})" if table.name else "") for i, table in enumerate(found, 1)]
        columns = [[field.name for field in table.fields] for table in found]
        table = found[_with_columns(columns, text, names, path)].to_table(use_names_over_ids=True)
    return _as_frame(_columns(table), path)


def read_ascii(path: Path, form: str) -> pd.DataFrame:
    """Read a table of text that says itself what it is: ECSV, or the formats of IPAC, CDS, AAS and SExtractor."""
    from astropy.table import Table

    return _as_frame(_columns(Table.read(path, format=f"ascii.{form}")), path)


def _with_columns(columns: Sequence[Sequence[str]], wanted: Sequence[str], names: Sequence[str], path: Path) -> int:
    """The place of the first table that has the wanted columns; of several tables it is said which one is taken."""
    having = [i for i, known in enumerate(columns) if set(wanted) <= set(known)]
    taken = having[0] if having else 0
    if len(names) > 1:
        among = having if len(having) > 1 else []
        level = logging.WARNING if among else logging.INFO
        others = ", ".join(name for i, name in enumerate(names) if i != taken)
        advice = "; to read another, write it to a file of its own" if among else ""
        _logger.log(level, "%s: holds %d tables; %s is read, not %s%s", path, len(names), names[taken], others, advice)
    return taken


class Column(NamedTuple):
    """The values of a column, and where they are missing."""

    values: NDArray[Any]
    is_missing: NDArray[np.bool_] | None = None


def fits_column(hdu: Any, name: str) -> Column:
    """Return a column of a FITS table.

    Missing are integers that equal TNULL, logical values that are neither T nor F, and numbers of ASCII tables that
    are blank or equal TNULL. astropy turns such logical values into F and blank numbers into 0, and refuses TNULL of
    unsigned integers.
    """
    i = hdu.columns.names.index(name)
    column = hdu.columns[i]
    stored = hdu.data.view(np.ndarray)
    raw = stored[stored.dtype.names[i]]
    if re.fullmatch(r"1?L", str(column.format)):
        return Column(raw.view(np.uint8) == ord("T"), ~np.isin(raw.view(np.uint8), (ord("T"), ord("F"))))
    if raw.dtype.kind == "S" and "A" in str(column.format):
        return Column(_until_nul(raw))
    is_null = None if column.null is None or raw.dtype.kind not in "iu" else raw == column.null
    if raw.dtype.kind == "S":
        cells = np.char.strip(raw)
        is_null = (cells == b"") | (cells == str(column.null).strip().encode())
        raw[is_null] = b"0"
    values = np.asarray(hdu.data.field(i))
    if values.shape[1:] == (2,) and column.coord_type is not None:
        return _as_iso(values, str(column.coord_type))
    return Column(values, is_null)


def _until_nul(texts: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    """Texts up to their first NUL, where the standard ends them, without the blanks that pad them."""
    if texts.dtype.itemsize == 0 or texts.ndim != 1:
        return texts
    letters = np.array(texts).view(np.uint8).reshape(len(texts), -1)
    letters[np.logical_or.accumulate(letters == 0, axis=1)] = 0
    return np.char.rstrip(letters.view(texts.dtype)[:, 0])


def _as_iso(days: NDArray[np.float64], scale: str) -> Column:
    """Julian dates in two parts, as astropy writes a Time to FITS, as ISO text."""
    from astropy.time import Time

    if scale.lower() not in Time.SCALES:
        return Column(days)
    return Column(np.asarray(Time(days[:, 0], days[:, 1], format="jd", scale=scale.lower()).isot))


def _columns(table: Any) -> dict[str, Column]:
    """The columns of a table of astropy.

    A SkyCoord becomes a column for each of its components (`<name>.ra`, `<name>.dec`, in degrees), as astropy itself
    writes it to FITS; a Quantity becomes its value, a Time its ISO text.
    """
    from astropy.coordinates import SkyCoord
    from astropy.time import Time

    columns: dict[str, Column] = {}
    for name in table.colnames:
        column: Any = table[name]
        mask = getattr(column, "mask", None)
        if isinstance(column, SkyCoord):
            coordinates: Any = column
            for component in coordinates.get_representation_component_names():
                part = getattr(coordinates, component)
                if str(part.unit):  # a distance without a unit is that of a direction
                    columns[f"{name}.{component}"] = Column(np.asarray(part.value))
        elif isinstance(column, Time):
            columns[name] = Column(np.asarray(column.isot), mask)
        else:
            values = getattr(column, "unmasked", column)
            columns[name] = Column(np.asarray(getattr(values, "value", values)), mask)
    return columns


def _as_frame(columns: dict[str, Column], path: Path) -> pd.DataFrame:
    """Columns as pandas holds them; those that hold arrays or objects are left out, and a warning names them."""
    of_pandas = {name: held(column) for name, column in columns.items()}
    left_out = [name for name, values in of_pandas.items() if values is None]
    if left_out:
        _logger.warning("%s: columns of arrays left out: %s", path, first_few(left_out, 20))
    return pd.DataFrame({name: values for name, values in of_pandas.items() if values is not None})


def held(column: Column) -> Any:
    """Return the values of a column as pandas holds them, missing ones as missing; None where they are arrays."""
    values = column.values
    is_missing = np.zeros(values.shape, np.bool_) if column.is_missing is None else np.asarray(column.is_missing)
    if values.ndim > 1 and values.shape[1:] == (1,) * (values.ndim - 1):
        values, is_missing = values.reshape(-1), is_missing.reshape(-1)  # an array of one value is that value
    if values.ndim != 1:
        return None
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    match values.dtype.kind:
        case "i" | "u":
            return pd.arrays.IntegerArray(values, is_missing)
        case "b":
            return pd.arrays.BooleanArray(values, is_missing)
        case "f" | "c":
            return np.where(is_missing, values.dtype.type(np.nan), values)
        case "S":
            return _as_text(_decoded(values), is_missing)
        case "U":
            return _as_text(values, is_missing)
        case "O" if all(isinstance(value, str) for value in values[~is_missing]):
            return _as_text(values, is_missing)
        case "M" | "m":
            return values
        case _:
            return None


def as_floats(column: Column) -> NDArray[np.floating]:
    """Return the values of a column of numbers, NaN where they are missing."""
    if column.is_missing is None or not column.is_missing.any():
        return column.values
    return np.where(column.is_missing, np.nan, column.values)


def _as_text(values: NDArray[Any], is_missing: NDArray[np.bool_]) -> "pd.Series[str]":
    return pd.Series(values.astype(object), dtype="string").mask(is_missing)


def _decoded(values: NDArray[np.bytes_]) -> NDArray[np.str_]:
    try:
        return np.char.decode(values, "utf-8")
    except UnicodeDecodeError:
        return np.char.decode(values, "cp1252")
