"""Tables for other programs: parquet, CSV and FITS, written in blocks, exact to the last bit.

Units, UCDs and descriptions of known columns stand in one table here. TOPCAT and astropy show them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.errors import DataError

if TYPE_CHECKING:
    from astropy.io import fits

Format = Literal["parquet", "csv", "fits"]
FORMATS: tuple[Format, ...] = ("parquet", "csv", "fits")

_MOST_FITS_COLUMNS = 999
_FITS_RECORD = 2880
_NO_INTEGER = -(2**63)
"""Stands in FITS for a missing integer, and its header says so."""


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
    """Return a table that is in memory, as one block to be written."""
    return TableBlocks(len(frame), [frame], text_widths(frame), described=described or {})


def text_widths(frame: pd.DataFrame) -> dict[str, int]:
    """Return the bytes of the longest text of each column that is neither numeric nor boolean."""
    return {
        str(name): max((len(text.encode()) for text in _texts(frame[name])), default=0)
        for name in frame
        if not _is_number(frame[name])
    }


def write_table(path: Path, table: TableBlocks, form: Format) -> None:
    """Write a table to a file from which the same values can be read.

    Parquet fields and FITS columns carry unit, UCD and description. CSV has no place for them.

    Raises
    ------
    DataError
        If the form is FITS, and a name or text is not ASCII, or there are too many columns.
    """
    match form:
        case "parquet":
            _write_parquet(path, table)
        case "csv":
            for i, block in enumerate(table.blocks):
                block.to_csv(path, mode="w" if i == 0 else "a", header=i == 0, index=False)
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

    blocks = iter(table.blocks)
    first = pa.Table.from_pandas(next(blocks), preserve_index=False)
    fields = []
    for each in first.schema:
        known = _described(each.name, table)._asdict()
        fields.append(each.with_metadata({name: text for name, text in known.items() if text}))
    schema = pa.schema(fields, first.schema.metadata)
    texts = [each.name for each in schema if not pa.types.is_primitive(each.type)]
    with pq.ParquetWriter(path, schema, use_dictionary=texts) as writer:
        writer.write_table(first.cast(schema))
        for block in blocks:
            writer.write_table(pa.Table.from_pandas(block, schema=schema, preserve_index=False))


def _described(column: str, table: TableBlocks) -> About:
    known = about(column)
    return known._replace(description=table.described.get(column, known.description))


# --- FITS -------------------------------------------------------------------------------------------------------------


class _Field(NamedTuple):
    """A FITS column: its format, its big-endian type, and what stands for a missing value."""

    name: str
    tform: str
    dtype: str
    null: int | None = None
    vector: tuple[str, ...] = ()
    """Columns of the block that it holds side by side, where it is a vector."""

    def of(self, block: pd.DataFrame) -> "NDArray[Any]":
        """Return the values of the column in a block."""
        if self.vector:
            return block[list(self.vector)].to_numpy(np.float32)
        column = block[self.name]
        match self.tform[-1]:
            case "A":
                return _ascii(self.name, column)
            case "L":
                verdict = np.where(column.to_numpy(bool, na_value=False), b"T", b"F")
                return np.where(column.isna(), b"\0", verdict)
            case "E" | "D":
                return column.to_numpy(np.float64, na_value=np.nan)
            case _:
                return column.to_numpy() if self.null is None else column.to_numpy(np.int64, na_value=self.null)


def _write_fits(path: Path, table: TableBlocks) -> None:
    from astropy.io import fits

    blocks = iter(table.blocks)
    first = next(blocks)
    columns = list(_fields(first, table))
    try:
        header = _header(columns, table)
    except ValueError as error:
        raise DataError(f"{path}: FITS cannot hold a column's name: {error}; rename it or use parquet") from error
    dtype = np.dtype([(each.name, each.dtype, (len(each.vector),) if each.vector else ()) for each in columns])
    with path.open("wb") as file:
        file.write(fits.PrimaryHDU().header.tostring().encode("ascii"))
        file.write(header.tostring().encode("ascii"))
        for block in chain([first], blocks):
            records = np.zeros(len(block), dtype=dtype)
            for each in columns:
                records[each.name] = each.of(block)
            file.write(records.tobytes())
        file.write(b"\0" * (-file.tell() % _FITS_RECORD))


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
    if not _is_number(column):
        return _Field(name, f"{width}A", f"S{width}")
    dtype: Any = column.dtype
    kind, size = dtype.kind, dtype.itemsize
    if kind == "b":
        return _Field(name, "L", "S1")
    if kind == "f":
        return _Field(name, "E", ">f4") if size <= 4 else _Field(name, "D", ">f8")
    if pd.api.types.is_extension_array_dtype(column.dtype):
        return _Field(name, "K", ">i8", _NO_INTEGER)
    n_bytes = size if kind == "i" else 2 * size  # FITS has no unsigned integers
    if n_bytes <= 4:
        return _Field(name, "I", ">i2") if n_bytes <= 2 else _Field(name, "J", ">i4")
    return _Field(name, "K", ">i8")


def _header(columns: list[_Field], table: TableBlocks) -> "fits.Header":
    from astropy.io import fits

    empty = [fits.Column(name=each.name, format=each.tform, null=each.null) for each in columns]
    header = fits.BinTableHDU.from_columns(empty, nrows=0).header
    header["NAXIS2"] = table.n
    for i, each in enumerate(columns, 1):
        known = _described(each.name, table)
        for keyword, text in (("TUNIT", known.unit), ("TUCD", known.ucd), ("TCOMM", known.description)):
            if text:
                header[f"{keyword}{i}"] = text
    return header


def _is_number(column: "pd.Series[Any]") -> bool:
    return pd.api.types.is_numeric_dtype(column.dtype)


def _texts(column: "pd.Series[Any]") -> list[str]:
    return ["" if pd.isna(value) else str(value) for value in column]


def _ascii(name: str, column: "pd.Series[Any]") -> NDArray[np.bytes_]:
    texts = _texts(column)
    try:
        return np.array([text.encode("ascii") for text in texts])
    except UnicodeEncodeError:
        odd = next(text for text in texts if not text.isascii())
        raise DataError(f"column {name!r}: FITS holds ASCII text alone, found {odd!r}; use parquet") from None


# --- what is there ----------------------------------------------------------------------------------------------------


def column_list(frames: Iterable[Iterable[str]]) -> pd.DataFrame:
    """Return a table `column, unit, ucd, description` of the known columns of some tables, to go with CSV files."""
    names = dict.fromkeys(str(name) for frame in frames for name in frame)
    known = {name: about(name) for name in names}
    return pd.DataFrame([{"column": name, **each._asdict()} for name, each in known.items() if any(each)])


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON; NaN and infinity, which JSON does not know, raise a ValueError."""
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
