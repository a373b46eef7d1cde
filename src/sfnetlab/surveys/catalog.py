"""The catalogue of a survey: reading it, checking its ids, logarithms of lines, cuts, and the rows of a target.

Every catalogue that is read here has `id_str`, text, as its first column. images.py and store.py know about images.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import assert_never

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.errors import DataError
from sfnetlab.settings import CutName, Target
from sfnetlab.surveys.columns import row_name, typed_columns
from sfnetlab.surveys.formats import read_table
from sfnetlab.surveys.lines import LINES
from sfnetlab.surveys.messages import did_you_mean, first_few
from sfnetlab.surveys.outliers import plausible_rows
from sfnetlab.surveys.votes import vote_columns

LINE_FLUXES = dict(zip(("log_N2", "log_Ha", "log_O3", "log_Hb"), (f"{line}_flux" for line in LINES), strict=True))
"""Each derived column, and the MPA-JHU flux column (1e-17 erg/s/cm^2) of which it is the log10. The error of a flux
stands in `<flux>_err`."""

LONGEST_ID_BYTES = 200
IDS_AT_ONCE = 2**18
"""Ids that are Python strings at a time: these take ten times the memory of the column."""

_FLOAT_TEXT = r"[+-]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]\d+)"


def read_catalog(path: Path, id_column: str) -> pd.DataFrame:
    """Read a table of any format that `formats.read_table` knows, as typed columns, with its ids as text in `id_str`.

    Blanks around an id are removed; otherwise ids are taken to the letter.

    Parameters
    ----------
    id_column : str
        The column of ids in the file. It becomes `id_str`.

    Raises
    ------
    DataError
        If the file is missing, broken, no table or without rows, or its ids are absent, floats, empty, repeated or
        unsafe as file names.
    """
    catalog = read_table(path, text=(id_column,))
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
    return typed_columns(catalog, str(path))


def read_unsplit_catalog(path: Path, id_column: str) -> pd.DataFrame:
    """Read a catalogue by `read_catalog`, and refuse one that has a column `split` already.

    Raises
    ------
    DataError
        If it has that column, or `read_catalog` refuses it.
    """
    catalog = read_catalog(path, id_column)
    for name in ("split", FOR_PROBES):
        if name in catalog:
            raise DataError(f"{path}: has a column {name!r}, a name that is taken; rename it")
    return catalog


def check_ids(ids: pd.Series, where: str) -> None:
    """Refuse ids that do not name one galaxy each, or that could lead out of the folder of images.

    An id is printable text of at most 200 bytes in UTF-8, without '/' and '\\', that does not begin with '.'.

    Parameters
    ----------
    ids : Series of str
    where : str
        The place of the ids, with which messages begin.

    Raises
    ------
    DataError
        If an id is empty, repeated or unsafe as a file name.
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
            f"{where}: {len(unsafe):,} ids cannot be file names: {first_few(unsafe)}; an id is printable text of at "
            f"most {LONGEST_ID_BYTES} bytes without '/' and '\\' that does not begin with '.'"
        )
    is_repeated = ids.duplicated()
    if is_repeated.any():
        repeated = ids[is_repeated].unique().tolist()
        raise DataError(
            f"{where}: {len(repeated):,} ids occur more than once, {is_repeated.sum():,} rows too many: "
            f"{first_few(repeated)}; keep one row a galaxy"
        )


def add_line_logs(catalog: pd.DataFrame) -> pd.DataFrame:
    """Return the catalogue with the columns `log_N2, log_Ha, log_O3, log_Hb`, the log10 of the line fluxes.

    Fluxes are taken as they are measured, not dereddened, as the targets of Wu 2024. A logarithm is NaN where its flux
    is not positive and finite. Columns of these names that the catalogue has already are replaced. A catalogue that
    lacks one of the four flux columns is returned as it is.

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
    """Return the rows, bool (n,), that a cut of the SFNet paper keeps: none with NaN in a column of the cut.

    - "none": every row.
    - "metallicity": oh_p50 > 0, lgm_tot_p50 > 0 and sfr_tot_p50 > -10.
    - "lines": in each of [NII] 6584, H-alpha, [OIII] 5007 and H-beta, flux / error > 3 and flux < 1e5 (1e-17 cgs). An
      error of zero or less marks a line that was not measured. Such a row is not kept, though the quotient might be
      large.

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


FOR_PROBES = "is_for_probes"
"""Column of a prepared catalogue, if `split.probe_share` is not 0: train galaxies that are left to probes."""


def taught_rows(catalog: pd.DataFrame) -> NDArray[np.bool_]:
    """Return the train rows, bool (n,), whose labels features may be learnt from: all but those left to probes."""
    is_train = (catalog["split"] == "train").to_numpy()
    return is_train & ~catalog[FOR_PROBES].to_numpy() if FOR_PROBES in catalog else is_train


def target_rows(catalog: pd.DataFrame, target: Target, where: str) -> NDArray[np.bool_]:
    """Return the rows, bool (n,), that can teach a target: those inside its cut with every target column measured.

    Parameters
    ----------
    where : str
        The target's place in the configuration, with which messages begin.

    Raises
    ------
    DataError
        If a column is missing, not numeric, without any finite value or constant on the rows kept, if no row is kept,
        or as `plausible_rows`.
    """
    values = columns_as_floats(catalog, target.columns, where)
    finite = np.isfinite(values)
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
    rows = plausible_rows(catalog, target, values, rows, where)
    constant = [name for name, value in zip(target.columns, values, strict=True) if np.ptp(value[rows]) == 0]
    if constant:
        raise DataError(
            f"{where}: nothing to learn, {', '.join(map(repr, constant))} has one and the same value "
            f"on the {int(rows.sum()):,} rows kept"
        )
    return rows


def measured_labels(catalog: pd.DataFrame) -> pd.DataFrame:
    """Return the columns with which features may be associated: the numeric ones, float64, NaN where not measured.

    These columns are no labels: positions, errors, what a mock survey hides from its images (`<column>_hidden`),
    numbers of classes whose names stand in `<column>_name`, and counts of votes that are there as fractions too.
    """
    names = [name for name in catalog.columns if f"{name}_name" in catalog.columns]
    no_labels = ["ra", "dec", *names, *vote_columns(catalog.columns)]
    numeric = catalog.select_dtypes("number").drop(columns=no_labels, errors="ignore")
    chosen = [name for name in numeric.columns if not name.endswith(("_err", "_hidden"))]
    return numeric[chosen].astype(np.float64)


def labels_and_targets(catalog: pd.DataFrame, targets: Iterable[str]) -> pd.DataFrame:
    """Return `measured_labels`, and the columns that targets name, though these be called like no label."""
    labels = measured_labels(catalog)
    more = [name for name in dict.fromkeys(targets) if name not in labels]
    return labels.assign(**{name: catalog[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in more})


def unit_of(column: str) -> str:
    """Return the unit of a label column: "dex" for the logarithms of the MPA-JHU tables and of line fluxes, else ""."""
    return "dex" if column in ("oh_p50", "lgm_tot_p50", "sfr_tot_p50", *LINE_FLUXES) else ""


def ids_as_text(ids: pd.Series, where: str) -> pd.Series:
    """Return ids as text without surrounding blanks; an empty cell becomes "".

    Parameters
    ----------
    ids : Series
        Text or integers.
    where : str
        The place of the ids, with which messages begin.

    Raises
    ------
    DataError
        If ids are floats, text that is written like floats, or of another type: 64-bit ids do not survive as floats.
    """
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
            f"{where}: {is_float.sum():,} ids are written as floats: {first_few(text[is_float].tolist())}; 64-bit "
            "ids do not survive as floats, so export them as text or integers (spreadsheets and NaN rows cause this)"
        )
    return text.astype("str")


def texts_in_parts(texts: pd.Series) -> Iterator[list[str]]:
    """Yield the values of a column of text as lists, some at a time: all of them at once take much memory."""
    for start in range(0, len(texts), IDS_AT_ONCE):
        yield texts.iloc[start : start + IDS_AT_ONCE].tolist()


def _is_file_name(text: str) -> bool:
    return (
        text.isprintable()
        and not text.startswith(".")
        and "/" not in text
        and "\\" not in text
        and len(text.encode()) <= LONGEST_ID_BYTES
    )


def columns_as_floats(catalog: pd.DataFrame, columns: tuple[str, ...], where: str) -> NDArray[np.float64]:
    """Return the values of columns as float64 of shape (n_columns, n); empty cells are NaN.

    Raises
    ------
    DataError
        If a column is missing or not numeric; the message begins with `where`.
    """
    missing = [name for name in columns if name not in catalog.columns]
    if missing:
        names = ", ".join(map(repr, missing))
        raise DataError(f"{where}: the catalogue has no column {names}; {_known_columns(missing[0], catalog)}")
    for name in columns:
        if not pd.api.types.is_numeric_dtype(catalog[name].dtype):
            raise DataError(f"{where}: column {name!r} is text: {_first_word(catalog, name)}")
    return np.stack([catalog[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in columns])


def _first_word(catalog: pd.DataFrame, name: str) -> str:
    """What is the first value of a column of text that keeps it from being one of numbers, and what to write."""
    column = catalog[name]
    is_word = pd.to_numeric(column, errors="coerce").isna() & column.notna()
    if not is_word.any():
        return f"its values are numbers, such as {column.dropna().iloc[0]!r}, but stored as text; store them as numbers"
    place, n_more = int(np.flatnonzero(is_word)[0]), int(is_word.sum()) - 1
    others = f", nor are {n_more:,} others" if n_more else ""
    return (
        f"{column.iloc[place]!r} ({row_name(catalog, place)}) is no number{others}; write numbers, and leave unknown "
        f"ones empty"
    )


def _known_columns(name: str, catalog: pd.DataFrame) -> str:
    known = catalog.columns.tolist()
    return did_you_mean(name, known) or f"known columns: {first_few(known, 30)}"
