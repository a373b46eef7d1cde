"""Tables for other programs: exact to the last bit, with units and UCDs of the standards."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.io import fits
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table

from sfnetlab.errors import DataError
from sfnetlab.surveys.catalog import read_catalog
from sfnetlab.surveys.files import (
    FORMATS,
    KNOWN_COLUMNS,
    TableBlocks,
    about,
    column_list,
    form_of,
    rows_of_frame,
    text_widths,
    write_table,
)

N = 40


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id_str": [f"1237648720{i:09d}" for i in range(N)],
            "split": ["train", "test"] * (N // 2),
            "ra": rng.uniform(0, 360, N),
            "oh_p50": np.where(np.arange(N) == 3, np.nan, rng.normal(8.9, 0.2, N)),
            "h_alpha_flux": rng.lognormal(5, 1, N).astype(np.float32),
            "modelMag_r": rng.normal(16, 1, N),
            "bptclass": rng.integers(-1, 6, N).astype(np.int16),
            "n": rng.integers(0, 2**60, N),
            "small": np.arange(N, dtype=np.int8),
            "is_agn": rng.random(N) > 0.5,
            "smooth_fraction": rng.random(N),
        }
    )


@pytest.mark.parametrize("form", FORMATS)
def test_a_catalogue_reads_back_to_the_same_bits(form, frame, tmp_path):
    path = tmp_path / f"t.{form}"
    write_table(path, rows_of_frame(frame), form)
    back = read_catalog(path, "id_str")
    assert back.columns.tolist() == frame.columns.tolist()
    for name in frame:
        expected = frame[name].to_numpy()
        np.testing.assert_array_equal(back[name].to_numpy(expected.dtype), expected)


@pytest.mark.parametrize("form", FORMATS)
def test_blocks_and_a_whole_table_give_one_file(form, frame, tmp_path):
    blocks = (frame.iloc[start : start + 7] for start in range(0, N, 7))
    write_table(tmp_path / "blocks", TableBlocks(N, blocks, text_widths(frame)), form)
    write_table(tmp_path / "whole", rows_of_frame(frame), form)
    if form == "parquet":
        assert pq.read_table(tmp_path / "blocks").equals(pq.read_table(tmp_path / "whole"))
    else:
        assert (tmp_path / "blocks").read_bytes() == (tmp_path / "whole").read_bytes()


def test_fits_names_units_ucds_and_descriptions(frame, tmp_path):
    write_table(tmp_path / "t.fits", rows_of_frame(frame, {"n": "a number"}), "fits")
    with fits.open(tmp_path / "t.fits") as hdus:
        hdus.verify("exception")
        header, columns = hdus[1].header, hdus[1].columns
    number = {name: i for i, name in enumerate(columns.names, 1)}
    assert header[f"TUCD{number['ra']}"] == "pos.eq.ra;meta.main"
    assert header[f"TUNIT{number['h_alpha_flux']}"] == "10**-17 erg s-1 cm-2"
    assert header[f"TUCD{number['smooth_fraction']}"] == "src.morph.param"
    assert header[f"TCOMM{number['n']}"] == "a number"
    assert columns["id_str"].format == "19A"
    table = Table.read(tmp_path / "t.fits")
    assert table["ra"].unit == units.deg
    assert table["modelMag_r"].unit == units.mag
    assert (tmp_path / "t.fits").stat().st_size % 2880 == 0


def test_parquet_fields_carry_the_same(frame, tmp_path):
    write_table(tmp_path / "t.parquet", rows_of_frame(frame), "parquet")
    assert pq.read_schema(tmp_path / "t.parquet").field("ra").metadata == {
        b"unit": b"deg",
        b"ucd": b"pos.eq.ra;meta.main",
        b"description": b"right ascension (ICRS)",
    }


def test_missing_integers_and_texts_are_missing_in_fits(tmp_path):
    frame = pd.DataFrame({"id_str": ["a", "bb"], "k": pd.array([4, None], dtype="Int64"), "note": ["x", None]})
    write_table(tmp_path / "t.fits", rows_of_frame(frame), "fits")
    table = Table.read(tmp_path / "t.fits")
    assert table["k"].mask.tolist() == [False, True]
    assert table["k"][0] == 4
    assert table["note"].filled("").tolist() == ["x", ""]


def test_missing_verdicts_are_the_null_of_the_standard_in_fits(tmp_path):
    """Such as `is_equivariant` of features that are active in too few galaxies: a byte of zero."""
    frame = pd.DataFrame({"is_equivariant": pd.array([True, None, False], dtype="boolean")})
    write_table(tmp_path / "t.fits", rows_of_frame(frame), "fits")
    with fits.open(tmp_path / "t.fits", logical_as_bytes=True) as opened:
        assert opened[1].data["is_equivariant"].tobytes() == b"T\0F"


def test_more_columns_than_fits_has_become_a_vector(tmp_path):
    values = np.random.default_rng(0).standard_normal((5, 1200)).astype(np.float32)
    features = pd.DataFrame(values, columns=[f"feature_{i}" for i in range(1200)])
    frame = pd.concat([pd.DataFrame({"id_str": list("abcde")}), features], axis=1)
    write_table(tmp_path / "t.fits", TableBlocks(5, [frame], {"id_str": 1}, n_scalars=1), "fits")
    np.testing.assert_array_equal(Table.read(tmp_path / "t.fits")["features"], values)
    with pytest.raises(DataError, match="at most 999 columns, got 1,201; use parquet"):
        write_table(tmp_path / "t.fits", rows_of_frame(frame), "fits")


def test_text_beyond_ascii_is_refused_by_name(tmp_path):
    frame = pd.DataFrame({"id_str": ["a"], "name": ["Überlingen"]})
    with pytest.raises(DataError, match="column 'name': FITS holds ASCII text alone, found 'Überlingen'"):
        write_table(tmp_path / "t.fits", rows_of_frame(frame), "fits")


@pytest.mark.parametrize("name", KNOWN_COLUMNS)
def test_units_and_ucds_are_those_of_the_standards(name):
    known = KNOWN_COLUMNS[name]
    if known.unit:
        units.Unit(known.unit, format="fits")
    if known.ucd:
        parse_ucd(known.ucd, check_controlled_vocabulary=True)
    assert len(known.description) <= 68  # of a FITS card


def test_names_and_patterns_find_what_is_known():
    assert about("oh_p50").ucd == "phys.abund"
    assert about("factor_effective_radius_arcsec").unit == "arcsec"
    assert about("smooth-or-featured_smooth_fraction").ucd == "src.morph.param"
    assert about("nothing") == ("", "", "")
    listed = column_list([["id_str", "nothing"], ["id_str", "ra"]])
    assert listed["column"].tolist() == ["id_str", "ra"]


def test_a_file_name_says_the_format():
    assert form_of(Path("a.fits")) == "fits"
    with pytest.raises(DataError, match=r"\.parquet, \.csv or \.fits, got '\.xlsx'"):
        form_of(Path("a.xlsx"))
