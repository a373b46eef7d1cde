"""The catalogue of a survey: reading it, its ids and line columns, cuts, target rows and the split.

Every table that comes out has `id_str`, text, as its first column. Images belong to images.py and folder.py.
"""

import difflib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import assert_never

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.errors import DataError
from sfnetlab.settings import CutName, Target
from sfnetlab.surveys.lines import LINES, NOT_MEASURED
from sfnetlab.surveys.votes import vote_columns

LINE_FLUXES = dict(zip(("log_N2", "log_Ha", "log_O3", "log_Hb"), (f"{line}_flux" for line in LINES), strict=True))
"""Derived column: the MPA-JHU flux column (1e-17 erg/s/cm^2) whose log10 it is; `<flux>_err` is its error."""

LONGEST_ID_BYTES = 200
_IDS_AT_ONCE = 2**18
"""Python's strings take ten times the memory of the column."""

_FLOAT_TEXT = r"[+-]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]\d+)"

_logger = logging.getLogger(__name__)


def read_catalog(path: Path, id_column: str) -> pd.DataFrame:
    """The table of a .csv, .parquet or .fits file, with its ids as text in a first column `id_str`.

    Ids are stripped of surrounding blanks and are otherwise taken to the letter. Empty CSV cells become NaN. A FITS
    file gives its first table; its byte strings are decoded, and columns that hold arrays are left out (logged).

    Raises
    ------
    DataError
        If the file is missing, broken, of another type or without rows, or its ids are absent, floats, empty, repeated
        or unsafe as file names.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such catalogue file")
    try:
        match path.suffix.lower():
            case ".csv":
                catalog = _read_csv(path, id_column)
            case ".parquet":
                stored = pd.read_parquet(path)
                catalog = stored.reset_index(drop=all(name is None for name in stored.index.names))
            case ".fits":
                catalog = _read_fits_table(path)
            case other:
                raise DataError(f"{path}: a catalogue is a .csv, .parquet or .fits file, found {other!r}")
    except (OSError, ValueError, TypeError, NotImplementedError) as error:
        raise DataError(
            f"{path}: cannot be read as {path.suffix.lower()}, damaged or not such a file: {error}"
        ) from error
    if len(catalog) == 0:
        raise DataError(f"{path}: the catalogue has no rows")
    if id_column not in catalog.columns:
        raise DataError(f"{path}: no id column {id_column!r}; {_known_columns(id_column, catalog)}")
    if id_column != "id_str" and "id_str" in catalog.columns:
        raise DataError(
            f"{path}: ids come from {id_column!r}, but there is a column 'id_str' as well; rename or drop one"
        )
    ids = ids_as_text(catalog[id_column], f"{path}: column {id_column!r}")
    check_ids(ids, f"{path}: column {id_column!r}")
    catalog = catalog.drop(columns=id_column)
    catalog.insert(0, "id_str", ids)
    return catalog


def read_unsplit_catalog(path: Path, id_column: str) -> pd.DataFrame:
    """The table of `read_catalog`, which must not have a column `split` yet.

    Raises
    ------
    DataError
        If it has one, or `read_catalog` refuses it.
    """
    catalog = read_catalog(path, id_column)
    if "split" in catalog:
        raise DataError(f"{path}: has a column 'split', a name that is taken; rename it")
    return catalog


def check_ids(ids: pd.Series, where: str) -> None:
    """Refuse ids that do not name one galaxy each or could lead out of the images folder.

    An id is printable text of at most 200 bytes in UTF-8, without '/' and '\\', that does not begin with '.'.

    Raises
    ------
    DataError
        If an id is empty, repeated or unsafe as a file name, beginning with `where`.
    """
    n_empty = 0
    unsafe: list[str] = []
    for texts in texts_in_parts(ids):
        n_empty += sum(not text for text in texts)
        unsafe += [repr(text) for text in texts if text and not _is_file_name(text)]
    if n_empty:
        raise DataError(f"{where}: {n_empty:,} of {len(ids):,} ids are empty; drop these rows")
    if unsafe:
        raise DataError(
            f"{where}: {len(unsafe):,} ids cannot be file names: {_first(unsafe)}; an id is printable text of at most "
            f"{LONGEST_ID_BYTES} bytes without '/' and '\\' that does not begin with '.'"
        )
    is_repeated = ids.duplicated()
    if is_repeated.any():
        repeated = ids[is_repeated].unique().tolist()
        raise DataError(
            f"{where}: {len(repeated):,} ids occur more than once, {is_repeated.sum():,} rows too many: "
            f"{_first(repeated)}; keep one row a galaxy"
        )


def add_line_logs(catalog: pd.DataFrame) -> pd.DataFrame:
    """The catalogue with `log_N2, log_Ha, log_O3, log_Hb`: log10 of the raw fluxes, not dereddened (Wu 2024 targets).

    NaN where a flux is not positive and finite. Without all four flux columns the catalogue returns as it is; columns
    of these names that it already has are replaced.

    Raises
    ------
    DataError
        If a flux column is not numeric.
    """
    if not set(LINE_FLUXES.values()) <= set(catalog.columns):
        return catalog
    fluxes = columns_as_floats(catalog, tuple(LINE_FLUXES.values()), "line fluxes")
    usable = np.isfinite(fluxes) & (fluxes > 0)
    logs = np.log10(fluxes, out=np.full_like(fluxes, np.nan), where=usable)
    return catalog.assign(**dict(zip(LINE_FLUXES, logs, strict=True)))


def apply_cut(catalog: pd.DataFrame, cut: CutName) -> NDArray[np.bool_]:
    """Rows (n,) that a named cut of the SFNet paper keeps; a row with a NaN in a column of the cut is not kept.

    - "metallicity": oh_p50 > 0, lgm_tot_p50 > 0 and sfr_tot_p50 > -10.
    - "lines": in each of [NII] 6584, H-alpha, [OIII] 5007 and H-beta, flux / error > 3 and flux < 1e5 (1e-17 cgs). An
      error of zero or less marks no measurement and is not kept, where the plain quotient might keep it.

    Raises
    ------
    DataError
        If the catalogue lacks a column of the cut, or one is not numeric.
    """
    where = f'cut = "{cut}"'
    match cut:
        case "none":
            return np.ones(len(catalog), dtype=np.bool_)
        case "metallicity":
            oh, mass, sfr = columns_as_floats(catalog, ("oh_p50", "lgm_tot_p50", "sfr_tot_p50"), where)
            return (oh > 0) & (mass > 0) & (sfr > -10)
        case "lines":
            names = tuple(LINE_FLUXES.values())
            both = columns_as_floats(catalog, (*names, *(f"{name}_err" for name in names)), where)
            fluxes, errors = both[: len(names)], both[len(names) :]
            snr = np.divide(fluxes, errors, out=np.zeros_like(fluxes), where=errors > 0)
            return np.logical_and.reduce((snr > 3) & (fluxes < 1e5), axis=0)
        case _ as never:
            assert_never(never)


def target_rows(catalog: pd.DataFrame, target: Target, where: str) -> NDArray[np.bool_]:
    """Rows (n,) on which a target means something: inside its cut, with every target column measured.

    Not measured are NaN, infinity and -9999, which the MPA-JHU tables write for it.

    Raises
    ------
    DataError
        If a column is missing, not numeric, without any finite value or constant on the rows kept, or if no row is
        kept; the message begins with `where`, the target's place in the config.
    """
    values = columns_as_floats(catalog, target.columns, where)
    finite = np.isfinite(values) & (values != NOT_MEASURED)
    empty = [name for name, is_finite in zip(target.columns, finite, strict=True) if not is_finite.any()]
    if empty:
        raise DataError(f"{where}: no row has a finite value of {', '.join(map(repr, empty))}")
    try:
        in_cut = apply_cut(catalog, target.cut)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    rows = in_cut & finite.all(axis=0)
    if not rows.any():
        raise DataError(
            f'{where}: of {len(catalog):,} rows, cut = "{target.cut}" keeps {int(in_cut.sum()):,} and '
            f"{int(finite.all(axis=0).sum()):,} have every target column finite, but none both"
        )
    constant = [name for name, value in zip(target.columns, values, strict=True) if np.ptp(value[rows]) == 0]
    if constant:
        raise DataError(
            f"{where}: nothing to learn, {', '.join(map(repr, constant))} has one and the same value "
            f"on the {int(rows.sum()):,} rows kept"
        )
    return rows


def measured_labels(catalog: pd.DataFrame) -> pd.DataFrame:
    """What features may be associated with: the numeric columns, float64, NaN where a quantity was not measured.

    Left out are positions, errors, what a generator kept hidden, numbers of classes that `<column>_name` names, and
    counts of votes that are there as fractions. The MPA-JHU tables write -9999 for "not measured".
    """
    names = [name for name in catalog.columns if f"{name}_name" in catalog.columns]
    no_labels = ["ra", "dec", *names, *vote_columns(catalog.columns)]
    numeric = catalog.select_dtypes("number").drop(columns=no_labels, errors="ignore")
    chosen = [name for name in numeric.columns if not name.endswith(("_err", "_hidden"))]
    labels = numeric[chosen].astype(np.float64)
    return labels.mask(labels == NOT_MEASURED)


def noise_floor(catalog: pd.DataFrame, column: str) -> float | None:
    """The least RMSE that any image model can expect for a label, where the survey's maker knows it, else None.

    A generated catalogue says in `<column>_hidden` which part of the label was drawn after everything that the image
    shows and independently of it; its root mean square is the floor, in the label's units.
    """
    hidden = f"{column}_hidden"
    if hidden not in catalog:
        return None
    return float(np.sqrt(np.mean(np.square(catalog[hidden].to_numpy(dtype=np.float64)))))


def unit_of(column: str) -> str:
    """The unit of a known label column: "dex" for logarithms of the MPA-JHU tables and of line fluxes, else ""."""
    return "dex" if column in ("oh_p50", "lgm_tot_p50", "sfr_tot_p50", *LINE_FLUXES) else ""


def _read_csv(path: Path, id_column: str) -> pd.DataFrame:
    # Given rows longer than the header, pandas would take the first fields for an index and shift all columns.
    with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
        try:
            return pd.read_csv(path, dtype={id_column: str}, index_col=False, low_memory=False)
        except pd.errors.ParserWarning as warning:
            raise ValueError("rows hold more fields than the header names") from warning


def _read_fits_table(path: Path) -> pd.DataFrame:
    from astropy.io import fits
    from astropy.table import Table

    with fits.open(path, memmap=False) as hdus:
        hdu = next((hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)), None)
        if hdu is None:
            raise ValueError("it holds no table")
        table = Table.read(hdu, mask_invalid=False)
    arrays = [name for name in table.colnames if table[name].ndim > 1]
    if arrays:
        _logger.warning("%s: columns of arrays left out: %s", path, ", ".join(arrays))
        table.remove_columns(arrays)
    table.convert_bytestring_to_unicode()
    return table.to_pandas()


def ids_as_text(ids: pd.Series, where: str) -> pd.Series:
    if pd.api.types.is_float_dtype(ids.dtype):
        raise DataError(
            f"{where}: ids are floats ({ids.dtype}), which do not hold 64-bit ids exactly (integers with empty cells "
            "turn into floats too); write the ids as text or as integers without gaps"
        )
    if not pd.api.types.is_integer_dtype(ids.dtype) and not pd.api.types.is_string_dtype(ids.dropna()):
        raise DataError(f"{where}: ids are text or integers, found {ids.dtype}")
    text = ids.astype("string").str.strip().fillna("")
    is_float = text.str.fullmatch(_FLOAT_TEXT)
    if is_float.any():
        raise DataError(
            f"{where}: {is_float.sum():,} ids are written as floats: {_first(text[is_float].tolist())}; 64-bit "
            "ids do not survive as floats, so export them as text or integers (spreadsheets and NaN rows cause this)"
        )
    return text.astype("str")


def texts_in_parts(texts: pd.Series) -> Iterator[list[str]]:
    for start in range(0, len(texts), _IDS_AT_ONCE):
        yield texts.iloc[start : start + _IDS_AT_ONCE].tolist()


def _is_file_name(text: str) -> bool:
    return (
        text.isprintable()
        and not text.startswith(".")
        and "/" not in text
        and "\\" not in text
        and len(text.encode()) <= LONGEST_ID_BYTES
    )


def columns_as_floats(catalog: pd.DataFrame, columns: tuple[str, ...], where: str) -> NDArray[np.float64]:
    """The columns as rows of floats, (n_columns, n); empty cells are NaN."""
    missing = [name for name in columns if name not in catalog.columns]
    if missing:
        names = ", ".join(map(repr, missing))
        raise DataError(f"{where}: the catalogue has no column {names}; {_known_columns(missing[0], catalog)}")
    for name in columns:
        if not pd.api.types.is_numeric_dtype(catalog[name].dtype):
            example = catalog[name].dropna().iloc[:1].tolist()
            raise DataError(f"{where}: column {name!r} is not numeric but {catalog[name].dtype}, for example {example}")
    return np.stack([catalog[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in columns])


def _known_columns(name: str, catalog: pd.DataFrame) -> str:
    known = catalog.columns.tolist()
    near = difflib.get_close_matches(name, known)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"known columns: {_first(known, 30)}"


def _first(items: Sequence[str], n: int = 5) -> str:
    return ", ".join(items[:n]) + (", ..." if len(items) > n else "")
