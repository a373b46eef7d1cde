"""Tables for other programs: parquet, CSV and FITS, written in blocks, exact to the last bit.

What such tables have no type for becomes text that holds as much: lists are JSON, dates ISO 8601, bytes the text that
they encode; a missing text is an empty one. FITS holds printable ASCII alone: other characters are written as Python's
escapes, which `text.encode().decode("unicode_escape")` undoes.

Units, UCDs and descriptions of known columns stand in one table here. TOPCAT and astropy show them.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.errors import DataError
from sfnetlab.surveys.messages import first_few

if TYPE_CHECKING:
    from astropy.io import fits

Format = Literal["parquet", "csv", "fits"]
FORMATS: tuple[Format, ...] = ("parquet", "csv", "fits")

log = logging.getLogger(__name__)

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


class About(NamedTuple):
    """What is known of a column. A logarithm has no unit in FITS; its description says of what it is one."""

    unit: str
    ucd: str
    description: str


_LINE_FLUX = "10**-17 erg s-1 cm-2"

KNOWN_COLUMNS: dict[str, About] = {
    "id_str": About("", "meta.id;meta.main", "identifier of the galaxy, as text"),
    "split": About("", "meta.code", "part of the split: train, valid or test"),
    "ra": About("deg", "pos.eq.ra;meta.main", "right ascension (ICRS)"),
    "dec": About("deg", "pos.eq.dec;meta.main", "declination (ICRS)"),
    "z": About("", "src.redshift", "redshift"),
    "zErr": About("", "stat.error;src.redshift", "error of the redshift"),
    "redshift": About("", "src.redshift", "redshift"),
    "velDisp": About("km s-1", "phys.veloc.dispersion", "velocity dispersion"),
    "velDispErr": About("km s-1", "stat.error;phys.veloc.dispersion", "error of the velocity dispersion"),
    "modelMag_u": About("mag", "phot.mag;em.opt.U", "SDSS model magnitude in u"),
    "modelMag_g": About("mag", "phot.mag;em.opt.B", "SDSS model magnitude in g"),
    "modelMag_r": About("mag", "phot.mag;em.opt.R", "SDSS model magnitude in r"),
    "modelMag_i": About("mag", "phot.mag;em.opt.I", "SDSS model magnitude in i"),
    "modelMag_z": About("mag", "phot.mag;em.opt.I", "SDSS model magnitude in z"),
    "modelMagErr_?": About("mag", "stat.error;phot.mag", "error of the model magnitude"),
    "petroMag_r": About("mag", "phot.mag;em.opt.R", "SDSS Petrosian magnitude in r"),
    "petroR50_r": About("arcsec", "phys.angSize", "radius that holds half of the Petrosian flux in r"),
    "petroR90_r": About("arcsec", "phys.angSize", "radius that holds 90 % of the Petrosian flux in r"),
    "oh_p*": About("", "phys.abund", "12 + log10(O/H) of the gas, in dex (MPA-JHU)"),
    "lgm_tot_p*": About("", "phys.mass", "log10 of the stellar mass in solar masses (MPA-JHU)"),
    "sfr_tot_p*": About("", "phys.SFR", "log10 of the star formation rate in solar masses a year (MPA-JHU)"),
    "h_alpha_flux": About(_LINE_FLUX, "phot.flux;em.line.Halpha", "flux of H-alpha"),
    "h_beta_flux": About(_LINE_FLUX, "phot.flux;em.line.Hbeta", "flux of H-beta"),
    "oiii_5007_flux": About(_LINE_FLUX, "phot.flux;em.line.OIII", "flux of [OIII] 5007"),
    "nii_6584_flux": About(_LINE_FLUX, "phot.flux;em.line", "flux of [NII] 6584"),
    "h_alpha_flux_err": About(_LINE_FLUX, "stat.error;phot.flux;em.line.Halpha", "error of the flux of H-alpha"),
    "h_beta_flux_err": About(_LINE_FLUX, "stat.error;phot.flux;em.line.Hbeta", "error of the flux of H-beta"),
    "oiii_5007_flux_err": About(_LINE_FLUX, "stat.error;phot.flux;em.line.OIII", "error of the flux of [OIII] 5007"),
    "nii_6584_flux_err": About(_LINE_FLUX, "stat.error;phot.flux;em.line", "error of the flux of [NII] 6584"),
    "log_Ha": About("", "phot.flux;em.line.Halpha", "log10 of the flux of H-alpha in 1e-17 erg/s/cm2"),
    "log_Hb": About("", "phot.flux;em.line.Hbeta", "log10 of the flux of H-beta in 1e-17 erg/s/cm2"),
    "log_O3": About("", "phot.flux;em.line.OIII", "log10 of the flux of [OIII] 5007 in 1e-17 erg/s/cm2"),
    "log_N2": About("", "phot.flux;em.line", "log10 of the flux of [NII] 6584 in 1e-17 erg/s/cm2"),
    "bptclass": About("", "src.class", "BPT class (MPA-JHU): 1 and 2 star forming, 3 composite, 4 and 5 AGN"),
    "*_fraction": About("", "src.morph.param", "share of the votes"),
    "separation_arcsec": About("arcsec", "pos.angDistance", "distance of the pair on the sky"),
    "n_right_within": About("", "meta.number", "right galaxies within the radius of the left one"),
    "n_left_within": About("", "meta.number", "left galaxies within the radius of the right one"),
    "*_arcsec": About("arcsec", "", ""),
    "*_deg": About("deg", "", ""),
    "feature": About("", "meta.id", "number of the feature: its column in the feature table, from 0"),
    "activation": About("", "", "activation of the feature in this galaxy"),
    "frequency": About("", "stat.probability", "share of test galaxies in which the feature is active"),
    "best_label": About("", "", "label of largest |Spearman rho| with the feature"),
    "rho": About("", "stat.correlation", "Spearman correlation with best_label"),
}
"""Columns by name or pattern; of several patterns that match, the first counts. Names are those of SDSS, MPA-JHU,
Galaxy Zoo and this lab."""


def about(column: str) -> About:
    """Return what is known of a column of this name; empty texts where nothing is known."""
    if column in KNOWN_COLUMNS:
        return KNOWN_COLUMNS[column]
    return next((each for name, each in KNOWN_COLUMNS.items() if fnmatchcase(column, name)), About("", "", ""))


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


def rows_of_frame(frame: pd.DataFrame, described: Mapping[str, str] | None = None) -> TableBlocks:
    """Return a table that is in memory, as one block to be written.

    Columns of objects that are all numbers or all verdicts, but for missing ones, become such columns.
    """
    named = frame.set_axis([str(name) for name in frame], axis=1)
    better: dict[str, Any] = {str(name): _better_type(named[name]) for name in named}
    typed = named.astype({name: dtype for name, dtype in better.items() if dtype is not None})
    return TableBlocks(len(typed), [typed], text_widths(typed), described=described or {})


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


def write_table(path: Path, table: TableBlocks, form: Format) -> None:
    """Write a table to a file from which the same values can be read.

    Parquet fields and FITS columns carry unit, UCD and description. CSV has no place for them. Parquet keeps lists,
    dates and durations, in FITS a duration is an integer with its unit. A text in FITS that is not printable ASCII is
    escaped, which the log says.

    Raises
    ------
    DataError
        If the form is FITS and there are too many columns, or an integer that stands there for a missing one.
    """
    match form:
        case "parquet":
            _write_parquet(path, table)
        case "csv":
            for i, block in enumerate(table.blocks):
                _with_texts(block).to_csv(path, mode="w" if i == 0 else "a", header=i == 0, index=False)
        case "fits":
            _write_fits(path, table)


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


def _write_parquet(path: Path, table: TableBlocks) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    blocks = (_with_texts(block, keeps_lists=True) for block in table.blocks)
    first = pa.Table.from_pandas(next(blocks), preserve_index=False)
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
        for block in blocks:
            writer.write_table(pa.Table.from_pandas(block, schema=schema, preserve_index=False))


def _described(column: str, table: TableBlocks) -> About:
    known = about(column)
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


def _write_fits(path: Path, table: TableBlocks) -> None:
    from astropy.io import fits

    blocks = iter(table.blocks)
    first = next(blocks)
    columns = list(_fields(first, table))
    shapes = [(len(each.vector),) if each.vector else () for each in columns]
    dtype = np.dtype([(str(i), each.dtype, shape) for i, (each, shape) in enumerate(zip(columns, shapes, strict=True))])
    escaped: dict[str, None] = {}
    with path.open("wb") as file:
        file.write(fits.PrimaryHDU().header.tostring().encode("ascii"))
        file.write(_header(columns, table).tostring().encode("ascii"))
        for block in chain([first], blocks):
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


def column_list(frames: Iterable[Iterable[str]]) -> pd.DataFrame:
    """Return a table `column, unit, ucd, description` of the known columns of some tables, to go with CSV files."""
    names = dict.fromkeys(str(name) for frame in frames for name in frame)
    known = {name: about(name) for name in names}
    return pd.DataFrame([{"column": name, **each._asdict()} for name, each in known.items() if any(each)])


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON; NaN and infinity, which JSON does not know, raise a ValueError."""
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
