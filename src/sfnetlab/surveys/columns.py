"""A catalogue as a reader of files gave it becomes typed columns: here alone, alike for every format and every use.

A typed column is of numbers, truth values or text. What is not known is missing in it: NaN in floats and text, NA in
integers and truth values. Integers keep all their digits.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.errors import DataError
from sfnetlab.settings import CatalogColumns
from sfnetlab.surveys.messages import did_you_mean, first_few
from sfnetlab.surveys.text_tables import MISSING_TEXTS

MISSING_WORDS = (*MISSING_TEXTS, "--", "---", "NAN", "NaT", "Null", r"\N")
"""Texts that mean a missing value in every column: those of pandas, then what astropy, databases and others write."""
MISSING_AMONG_NUMBERS = ("-", "...")
"""Texts that mean a missing value beside numbers. Among words they are words."""

ALWAYS_A_CODE = -9999.0
"""Means "not measured" in every column; the MPA-JHU tables and the SDSS write it."""
NINES = tuple(float(f"{'9' * n}.{'9' * m or 0}") for n in (2, 3, 4, 5) for m in (0, 1, 2, 3))
"""Numbers that mean "not measured" with a minus sign, and in magnitudes without one, where nothing else is near."""

LIMITS = {"ra": 360.0, "dec": 90.0}
"""The largest size of a position in degrees."""

_BANDS = ("fuv", "nuv", "u", "b", "v", "g", "r", "i", "z", "y", "j", "h", "k", "ks", "w1", "w2", "w3", "w4")
_MAGNITUDE = re.compile(r"mags?(?:err\w*)?(?![a-z])", re.IGNORECASE)
_LIKE_AN_ID = r"[+-]?(?:0\d+|\d{16,})"
"""Digits that are no amount: they would lose a leading zero, or digits if they were floats."""
_BEFORE = "target|coord|object|obj|pos|plug|mean|source|gal|galaxy|fiber|cat|sky|best"
_AFTER = r"(?:deg(?:rees)?|mean|median|stack|best|j?2000|icrs|fk5|[1-9])*"
_NAMES = {
    axis: re.compile(rf"({_BEFORE})?(?:{words}|{greek}(win|peak|sky)?(?=j?2000))({_AFTER})")
    for axis, words, greek in (("ra", "ra|rightascension", "alpha"), ("dec", "declination|decl|dec|de", "delta"))
}

_logger = logging.getLogger(__name__)


class Measured(NamedTuple):
    """A catalogue whose codes of missing values are missing values, and what was taken for such a code."""

    catalog: pd.DataFrame
    codes: pd.DataFrame
    """A row for each column and number in it that means "not measured": `column, code, n`, and `share` of all rows."""


def typed_columns(catalog: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return a catalogue, as a reader of files gave it, with columns of numbers, truth values and text.

    - Numbers: NaN and infinity are missing. Integers are nullable where some are missing.
    - Text: without blanks around it. Blank text and `MISSING_WORDS` are missing. Where some texts are missing and all
      others are numbers, the column is one of numbers; where they are True and False, one of truth values. A column in
      which all is missing is one of NaN. Dates and times become text as in ISO 8601, without the time where it is
      midnight in the whole column.
    - Durations become numbers of seconds. Of categories stays what they stand for.
    - Complex numbers, lists, structures and other objects are left out, with a warning that names them.

    Parameters
    ----------
    catalog : DataFrame of n rows
        Its column `id_str`, if it has one, is kept as it is.
    where : str
        The place of the catalogue, with which messages begin.

    Raises
    ------
    DataError
        If two columns have one name.
    """
    columns: dict[str, pd.Series[Any]] = {}
    left_out: list[str] = []
    for place, name in enumerate(catalog.columns.map(str)):
        column = catalog.iloc[:, place]
        if name in columns:
            raise DataError(f"{where}: two columns are called {name!r}; rename or drop one")
        values = column if name == "id_str" else typed_column(column)
        if values is None:
            left_out.append(f"{name} ({_kind_of(column)})")
        else:
            columns[name] = values
    if left_out:
        _logger.warning("%s: left out columns that cannot be kept: %s", where, first_few(left_out, 20))
    return pd.DataFrame(columns, index=catalog.index)


def measured(catalog: pd.DataFrame, settings: CatalogColumns, where: str) -> Measured:
    """Return a catalogue of typed columns with positions in `ra` and `dec`, and with codes of missing values missing.

    The codes are those of `settings.missing_values`. A code counts in `ra` and `dec` only where it is no position.
    What is found is logged. A column of which more than half is codes is warned of.

    Raises
    ------
    DataError
        As `with_positions`.
    """
    return _without_codes(with_positions(catalog, settings, where), settings, where)


def typed_column(column: "pd.Series[Any]") -> "pd.Series[Any] | None":
    """Return the values of a column as `typed_columns` says; None where it must be left out.

    Codes of missing values are left as they are.
    """
    column = _plain(column)
    dtype: Any = column.dtype
    if pd.api.types.is_object_dtype(dtype):
        return _from_objects(column)
    if pd.api.types.is_string_dtype(dtype):
        return _from_text(column)
    if isinstance(dtype, pd.DatetimeTZDtype) or dtype.kind == "M":
        return _as_dates(column)
    match dtype.kind:
        case "m":
            return column.dt.total_seconds()
        case "b" | "i" | "u":
            is_full = pd.api.types.is_extension_array_dtype(dtype) and not column.isna().any()
            return _native(column.astype(dtype.numpy_dtype) if is_full else column)
        case "f":
            kind = getattr(dtype, "numpy_dtype", dtype).newbyteorder("=")
            values = column.to_numpy(dtype=np.dtype(np.float64) if kind.itemsize > 8 else kind, na_value=np.nan)
            return pd.Series(values, column.index).mask(np.isinf(values))
        case _:
            return None


def position_columns(columns: Sequence[str], settings: CatalogColumns, where: str) -> tuple[str, str] | None:
    """Return the names of the columns of right ascension and declination; None where there are none.

    The settings name them, or else they are found by their spelling. Letters' case and signs do not matter: RA and DEC,
    ra_deg, RAJ2000 and DEJ2000, raMean and decMean, ALPHA_J2000 and DELTA_J2000, TARGET_RA, right_ascension and the
    like. Both have the same parts around "ra" and "dec". `ra` and `dec` come first, then names without such parts, then
    the order of the columns. Other pairs are named in a warning.

    Raises
    ------
    DataError
        If a column that the settings name is not there.
    """
    if settings.ra_column is not None and settings.dec_column is not None:
        for key, name in (("ra_column", settings.ra_column), ("dec_column", settings.dec_column)):
            if name not in columns:
                near = did_you_mean(name, columns) or f"known columns: {first_few(columns, 30)}"
                raise DataError(f"{where}: no column {name!r} (survey.{key}); {near}")
        return settings.ra_column, settings.dec_column
    found = {axis: {name: parts for name in columns if (parts := _parts(name, axis))} for axis in LIMITS}
    pairs = [(ra, dec) for ra, of_ra in found["ra"].items() for dec, of_dec in found["dec"].items() if of_ra == of_dec]
    if not pairs:
        alone = [name for names in found.values() for name in names]
        if alone:
            _logger.warning("%s: no positions: %s stands alone; name both columns", where, ", ".join(alone))
        return None
    pairs.sort(key=lambda pair: ((pair[0] != "ra") + (pair[1] != "dec"), any(found["ra"][pair[0]])))
    chosen, others = pairs[0], [pair for pair in pairs[1:] if not set(pair) & set(pairs[0])]
    if others and chosen != ("ra", "dec"):
        _logger.warning(
            "%s: positions are taken from %s and %s; there are also %s: to choose, set survey.ra_column and dec_column",
            where, *chosen, first_few(f"{ra} and {dec}" for ra, dec in others),
        )  # fmt: skip
    return chosen


def with_positions(catalog: pd.DataFrame, settings: CatalogColumns, where: str) -> pd.DataFrame:
    """Return a catalogue of typed columns whose positions, if there are some, stand in `ra` and `dec`, in degrees.

    They are found by `position_columns`. Columns of other names are renamed. Text such as "12:34:56.7" (of right
    ascension: hours) is converted.

    Raises
    ------
    DataError
        If positions are named that are not there, are text that is no position, or would get the name of another
        column.
    """
    pair = position_columns([str(name) for name in catalog.columns], settings, where)
    if pair is None:
        return catalog
    new_names = dict(zip(pair, LIMITS, strict=True))
    for old, new in new_names.items():
        if new != old and new in catalog.columns and new not in pair:
            raise DataError(f"{where}: positions come from {old!r}, but there is a column {new!r} as well; rename one")
    degrees = {
        name: _degrees(catalog[name], axis, catalog, f"{where}: column {name!r}") for name, axis in new_names.items()
    }
    _logger.info("%s: positions are taken from the columns %s and %s", where, *pair)
    return catalog.assign(**degrees).rename(columns=new_names)


def is_magnitude(name: str, others: NDArray[np.floating]) -> bool:
    """Return whether a column is one of magnitudes or their errors, by its name, or as a band by its other values too.

    Parameters
    ----------
    others : ndarray
        Its values that are known and no codes. Those of a band, such as `g` or `r`, lie between 5 and 35.
    """
    if _MAGNITUDE.search(name):
        return True
    return name.lower() in _BANDS and len(others) > 0 and bool(others.min() >= 5 and others.max() <= 35)


def row_name(catalog: pd.DataFrame, place: int) -> str:
    """Return what a row, counted from 0, is called in messages: its number from 1, and its id."""
    return f"row {place + 1}" + (f", id {catalog['id_str'].iloc[place]}" if "id_str" in catalog else "")


# --- types ------------------------------------------------------------------------------------------------------------


def _plain(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """What a column of categories, of Arrow's types or of a sparse array holds."""
    dtype: Any = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _plain(pd.Series(column.to_numpy(dtype=object), column.index).infer_objects())
    if isinstance(dtype, pd.SparseDtype):
        return pd.Series(np.asarray(column.array), column.index)
    if isinstance(dtype, pd.ArrowDtype):
        import pyarrow as pa

        values: Any = column.array.__arrow_array__()
        return frame_of_arrow(pa.table({"x": values}))["x"].set_axis(column.index)
    return column


def frame_of_arrow(table: Any) -> pd.DataFrame:
    """Return an Arrow table as a frame whose integers and truth values are nullable, so that none becomes a float."""
    import pyarrow as pa

    kinds: dict[Any, Any] = {getattr(pa, f"int{n}")(): getattr(pd, f"Int{n}Dtype")() for n in (8, 16, 32, 64)}
    kinds |= {getattr(pa, f"uint{n}")(): getattr(pd, f"UInt{n}Dtype")() for n in (8, 16, 32, 64)}
    kinds[pa.bool_()] = pd.BooleanDtype()
    return table.to_pandas(types_mapper=kinds.get)


def _native(column: "pd.Series[Any]") -> "pd.Series[Any]":
    dtype: Any = column.dtype
    is_foreign = isinstance(dtype, np.dtype) and not dtype.isnative
    return column.astype(dtype.newbyteorder("=")) if is_foreign else column


def _from_objects(column: "pd.Series[Any]") -> "pd.Series[Any] | None":
    known = column[column.notna()]
    match pd.api.types.infer_dtype(known, skipna=True):
        case "empty":
            return pd.Series(np.nan, column.index, dtype=np.float64)
        case "string":
            return _from_text(column)
        case "mixed-integer" if all(isinstance(value, str | int | float) for value in known):
            return _from_text(known.astype(str).reindex(column.index))
        case "bytes":
            try:
                return _from_text(known.str.decode("utf-8").reindex(column.index))
            except UnicodeDecodeError:
                return None
        case "boolean":
            return typed_column(column.astype("boolean"))
        case "integer":
            kind = "Int64" if all(-(2**63) <= value < 2**63 for value in known) else "UInt64"
            try:
                return typed_column(column.astype(kind))
            except (OverflowError, TypeError, ValueError):
                return None
        case "floating" | "mixed-integer-float" | "decimal":
            return typed_column(known.map(float).astype(np.float64).reindex(column.index))
        case "datetime" | "datetime64" | "date" | "time":
            return _as_dates(column)
        case "timedelta" | "timedelta64":
            return pd.to_timedelta(column).dt.total_seconds()
        case _:
            return None


def _as_dates(column: "pd.Series[Any]") -> "pd.Series[Any]":
    known = column.dropna()
    texts = pd.Series([time.isoformat() for time in known], known.index, dtype="str")
    if texts.str.endswith("T00:00:00").all():
        texts = texts.str.removesuffix("T00:00:00")
    return texts.reindex(column.index)


def _from_text(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Text without blanks, or numbers or truth values where all that is not missing is such and something is."""
    text = column.astype("str").str.strip()
    text = text.mask(text.isin(MISSING_WORDS))
    numbers = text.mask(text.isin(MISSING_AMONG_NUMBERS))
    known = numbers.dropna()
    if text.isna().all():
        return pd.Series(np.nan, column.index, dtype=np.float64)
    if len(known) in (0, len(column)):
        return text
    if known.isin(["True", "False"]).all():
        return (known == "True").astype("boolean").reindex(column.index)
    values = pd.to_numeric(known, errors="coerce")
    if values.isna().any() or known.str.fullmatch(_LIKE_AN_ID).any():
        return text
    is_integer = pd.api.types.is_integer_dtype(values.dtype)
    return values.astype("Int64").reindex(column.index) if is_integer else _finite(values).reindex(column.index)


def _finite(values: "pd.Series[Any]") -> "pd.Series[Any]":
    return values.astype(np.float64).mask(np.isinf(values.to_numpy(dtype=np.float64)))


def _kind_of(column: "pd.Series[Any]") -> str:
    if not pd.api.types.is_object_dtype(column.dtype):
        return str(column.dtype)
    return type(next(value for value in column if value is not None)).__name__


# --- positions --------------------------------------------------------------------------------------------------------


def _parts(name: str, axis: str) -> tuple[str, ...] | None:
    """What stands around "ra" or "dec" in a name; None where it is not the name of such a column."""
    found = _NAMES[axis].fullmatch(re.sub(r"[^a-z0-9]", "", name.lower()))
    return None if found is None else tuple(part or "" for part in found.groups())


def _degrees(column: "pd.Series[Any]", axis: str, catalog: pd.DataFrame, where: str) -> "pd.Series[Any]":
    """A column of positions as numbers; text is converted, of which right ascensions are hours."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        is_float = pd.api.types.is_float_dtype(column.dtype)
        return column if is_float else pd.Series(column.to_numpy(np.float64, na_value=np.nan), column.index)
    known = column.dropna()
    numbers = pd.to_numeric(known, errors="coerce")
    if numbers.notna().all():
        return _finite(numbers).reindex(column.index)
    from astropy.coordinates import Angle

    unit, largest = ("hourangle", 360.0) if axis == "ra" else ("deg", 90.0)
    degrees = np.full(len(column), np.nan)
    for place in np.flatnonzero(column.notna()).tolist():
        text = column.iloc[place]
        try:
            degrees[place] = Angle(text, unit=unit).deg
        except ValueError:
            degrees[place] = np.inf
        if abs(degrees[place]) > largest:
            written = "hours as 12:34:56.7" if axis == "ra" else "degrees as -12:34:56.7"
            raise DataError(
                f"{where}: {text!r} ({row_name(catalog, place)}) is no position; write degrees as numbers, or {written}"
            )
    _logger.info("%s: converted to degrees from text such as %r", where, known.iloc[0])
    return pd.Series(degrees, column.index)


# --- codes of missing values ------------------------------------------------------------------------------------------


def _without_codes(catalog: pd.DataFrame, settings: CatalogColumns, where: str) -> Measured:
    """The catalogue without the numbers that mean "not measured", which are counted and said."""
    found: list[dict[str, Any]] = []
    columns: dict[str, pd.Series[Any]] = {}
    for name, column in catalog.items():
        if not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
            continue
        values = column.to_numpy(np.float64 if column.hasnans else None, na_value=np.nan)
        is_code = np.zeros(len(values), dtype=np.bool_)
        for code, rows in _codes(str(name), values, settings):
            is_code |= rows
            found.append({"column": name, "code": code, "n": int(rows.sum())})
        if is_code.any():
            columns[str(name)] = _nullable(column).mask(is_code)
    codes = pd.DataFrame(found, columns=["column", "code", "n"])
    codes["share"] = codes["n"] / len(catalog)
    if found:
        told = (f"{each['column']} {each['n']:,} ({each['code']:g})" for each in found)
        _logger.info("%s: not measured by their codes, of %d rows: %s", where, len(catalog), first_few(told, 20))
    shares = codes.groupby("column", sort=False)["share"].sum()
    if len(mostly := shares[shares > 0.5]):
        told = (f"{name} ({share:.0%})" for name, share in mostly.items())
        _logger.warning("%s: most values are codes of missing ones in: %s", where, first_few(told, 20))
    return Measured(catalog.assign(**columns), codes)


def _codes(name: str, values: NDArray[Any], settings: CatalogColumns) -> Iterator[tuple[float, NDArray[np.bool_]]]:
    """The codes that count in a column, each with the rows (n,) that hold it."""
    candidates = settings.missing_values
    if candidates is None:
        may_be_magnitude = name in LIMITS or _MAGNITUDE.search(name) or name.lower() in _BANDS
        candidates = (*(-nine for nine in NINES), *(NINES if may_be_magnitude else ()))
    rows = {code: values == code for code in candidates}
    rows = {code: is_code for code, is_code in rows.items() if is_code.any()}
    if not rows:
        return
    others = values[~np.logical_or.reduce(list(rows.values())) & ~np.isnan(values)]
    for code, is_code in rows.items():
        if name in LIMITS:
            counts = abs(code) > LIMITS[name]
        elif settings.missing_values is not None or code == ALWAYS_A_CODE:
            counts = True
        elif code < 0:
            counts = len(others) == 0 or others.min() > code / 2
        else:
            counts = is_magnitude(name, others) and (len(others) == 0 or others.max() < code / 2)
        if counts:
            yield code, is_code


def _nullable(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """A column of numbers in which values can be missing."""
    dtype: Any = column.dtype
    if not isinstance(dtype, np.dtype) or dtype.kind == "f":
        return column
    kind: Any = f"{'UInt' if dtype.kind == 'u' else 'Int'}{8 * dtype.itemsize}"
    return column.astype(kind)
