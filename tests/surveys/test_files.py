"""Tables for other programs: exact to the last bit, with units and UCDs of the standards."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.io import fits
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from sfnetlab.descriptions import IN_ALL_TABLES, KNOWN_COLUMNS, OF_TABLE, About, about
from sfnetlab.errors import DataError
from sfnetlab.surveys.catalog import read_catalog
from sfnetlab.surveys.files import (
    FORMATS,
    TableBlocks,
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


def test_an_unknown_verdict_is_masked_in_fits_and_not_false(tmp_path):
    """Such as `is_equivariant` of features that are active in too few galaxies."""
    frame = pd.DataFrame({"is_equivariant": pd.array([True, None, False], dtype="boolean")})
    write_table(tmp_path / "t.fits", rows_of_frame(frame), "fits")
    assert Table.read(tmp_path / "t.fits")["is_equivariant"].tolist() == [1, None, 0]


BIG = 2**60 + 1
ODD = {
    "integers": (pd.array([BIG, None, -5], dtype="Int64"), [BIG, None, -5]),
    "small": (pd.array([1, None, -5], dtype="Int8"), [1, None, -5]),
    "unsigned": (np.array([2**64 - 1, 0, BIG], dtype=np.uint64), [2**64 - 1, 0, BIG]),
    "unsigned_missing": (pd.array([BIG, None, 0], dtype="UInt64"), [BIG, None, 0]),
    "of_arrow": (pd.array([BIG, None, 0], dtype="int64[pyarrow]"), [BIG, None, 0]),
    "objects": (np.array([BIG, None, 0], dtype=object), [BIG, None, 0]),
    "verdicts": (np.array([True, False, True]), [1, 0, 1]),
    "verdicts_missing": (pd.array([True, None, False], dtype="boolean"), [1, None, 0]),
    "verdicts_as_objects": (np.array([True, np.nan, False], dtype=object), [1, None, 0]),
    "numbers": (np.array([np.nan, np.inf, -np.inf]), [None, np.inf, -np.inf]),
    "halves": (np.array([np.nan, 1.5, -2], dtype=np.float16), [None, 1.5, -2]),
    "nullable": (pd.array([None, 0.1, 2], dtype="Float64"), [None, 0.1, 2]),
    "text": (np.array(["a", None, 'b,"c'], dtype=object), ["a", None, 'b,"c']),
    "bytes": (np.array([b"a", None, b"b"], dtype=object), ["a", None, "b"]),
    "classes": (pd.Categorical(["x", None, "y"]), ["x", None, "y"]),
    "decimals": (np.array([Decimal("1.50"), None, Decimal("2.25")], dtype=object), ["1.50", None, "2.25"]),
    "days": (np.array([date(2020, 1, 2), None, date(2021, 1, 2)], dtype=object), ["2020-01-02", None, "2021-01-02"]),
    "lists": (pd.Series([[1, 2], None, []]), ["[1, 2]", None, "[]"]),
    "arrays": (pd.Series([np.arange(2.0), None, np.ones((1, 1))]), ["[0.0, 1.0]", None, "[[1.0]]"]),
    "nothing": (np.array([None] * 3), [None] * 3),
    "x" * 66: ([1, 2, 3], [1, 2, 3]),
    "t01_smooth-or.a b/c": ([1, 2, 3], [1, 2, 3]),
}


def as_astropy_reads(path: Path, form: str) -> Table:
    """The table of a file, as a user of astropy opens it; CSV needs its dialect."""
    return Table.read(path, format="ascii.csv" if form == "csv" else None)


def known(values: object) -> list[object]:
    """Values as Python's own, None where masked, NaN, not a time or an empty text."""
    return [None if value is np.ma.masked or pd.isna(value) or value == "" else value for value in list(values)]  # type: ignore


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
@pytest.mark.parametrize("form", FORMATS)
def test_astropy_reads_every_type_of_column_with_its_values(form, tmp_path):
    frame = pd.DataFrame({name: values for name, (values, _) in ODD.items()})
    write_table(tmp_path / f"t.{form}", rows_of_frame(frame), form)
    table = as_astropy_reads(tmp_path / f"t.{form}", form)
    assert table.colnames == list(ODD)
    for name, (_, expected) in ODD.items():
        found = known(table[name])
        if form == "csv":  # has no types
            found = [{"True": 1, "False": 0}.get(str(value), value) for value in found]
            found, expected = ([None if each is None else str(each) for each in both] for both in (found, expected))
            numbers = [(a, b) for a, b in zip(found, expected, strict=True) if a != b]
            assert all(float(a) == float(b) for a, b in numbers), name
        elif form == "parquet" and name in ("integers", "unsigned_missing", "of_arrow", "objects"):
            stored = pq.read_table(tmp_path / "t.parquet")  # astropy has floats where some are missing
            assert stored[name].to_pylist() == expected, name
        else:
            assert found == expected, name


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
@pytest.mark.parametrize("form", FORMATS)
def test_a_table_without_rows_keeps_its_columns(form, tmp_path):
    frame = pd.DataFrame({name: values for name, (values, _) in ODD.items()}).iloc[:0]
    write_table(tmp_path / f"t.{form}", rows_of_frame(frame), form)
    assert as_astropy_reads(tmp_path / f"t.{form}", form).colnames == list(ODD)


def test_dates_and_durations_keep_their_fractions_in_fits(tmp_path):
    times = pd.to_datetime(["2020-01-02T03:04:05.000000007", None])
    spent = pd.to_timedelta([1500, None], unit="ms")
    frame = pd.DataFrame({"time": times, "utc": times.tz_localize("UTC"), "spent": spent})
    write_table(tmp_path / "t.fits", rows_of_frame(frame), "fits")
    table = Table.read(tmp_path / "t.fits")
    assert table["time"].tolist() == ["2020-01-02T03:04:05.000000007", ""]
    assert table["utc"].tolist() == ["2020-01-02T03:04:05.000000007+00:00", ""]
    assert table["spent"].quantity[0].to_value("s") == 1.5
    assert table["spent"].mask.tolist() == [False, True]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_any_text_is_found_again_in_fits_by_undoing_escapes(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("text") / "t.fits"
    write_table(path, rows_of_frame(pd.DataFrame({"note": texts}, dtype=object)), "fits")
    for stored, text in zip(Table.read(path, mask_invalid=False)["note"].tolist(), texts, strict=True):
        is_plain = all(" " <= character <= "~" for character in text)
        undone = stored if is_plain else stored.encode().decode("unicode_escape")
        assert undone == text.rstrip(" "), text


def test_names_that_fits_cannot_hold_are_shortened_and_stand_in_the_description(tmp_path, caplog):
    long = "a" * 80
    write_table(tmp_path / "t.fits", rows_of_frame(pd.DataFrame({long: [1], long + "b": [2], "Größe": [3]})), "fits")
    table = Table.read(tmp_path / "t.fits")
    assert [table[0][i] for i in range(3)] == [1, 2, 3]
    header = fits.getheader(tmp_path / "t.fits", 1)
    assert [header["TCOMM1"], header["TCOMM2"]] == [long, long + "b"]
    assert table.colnames[2] == "Gr\\xf6\\xdfe"
    assert "escaped" in caplog.text


def test_more_columns_than_fits_has_become_a_vector(tmp_path):
    values = np.random.default_rng(0).standard_normal((5, 1200)).astype(np.float32)
    features = pd.DataFrame(values, columns=[f"feature_{i}" for i in range(1200)])
    frame = pd.concat([pd.DataFrame({"id_str": list("abcde")}), features], axis=1)
    write_table(tmp_path / "t.fits", TableBlocks(5, [frame], {"id_str": 1}, n_scalars=1), "fits")
    np.testing.assert_array_equal(Table.read(tmp_path / "t.fits")["features"], values)
    with pytest.raises(DataError, match="at most 999 columns, got 1,201; use parquet"):
        write_table(tmp_path / "t.fits", rows_of_frame(frame), "fits")


def test_text_beyond_ascii_is_escaped_in_fits_and_named(tmp_path, caplog):
    frame = pd.DataFrame({"id_str": ["a", "b"], "name": ["Überlingen", "M 31"]})
    write_table(tmp_path / "t.fits", rows_of_frame(frame), "fits")
    assert Table.read(tmp_path / "t.fits")["name"].tolist() == ["\\xdcberlingen", "M 31"]
    assert "t.fits: FITS has ASCII text" in caplog.text
    assert "shortened: name\n" in caplog.text


def test_the_integer_that_stands_for_a_missing_one_is_refused_in_fits(tmp_path):
    frame = pd.DataFrame({"n": pd.array([-(2**63), None], dtype="Int64")})
    with pytest.raises(DataError, match="column 'n': holds -9223372036854775808, in FITS a missing value; use parquet"):
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


@pytest.mark.parametrize(
    ("column", "description"),
    [
        ("oh_p50", "12 + log10(O/H) of the gas, dex (MPA-JHU)"),
        ("oh_p50_hidden", "part of oh_p50 that nothing in the mock image shows, dex"),
        ("oh_pattern", ""),
        ("smooth-or-featured_smooth_fraction", "share of the votes on the question that this answer got"),
        ("factor_agn_fraction", "share of the light that an active nucleus adds (mock)"),
        ("gas_fraction", ""),
        ("rho", ""),
        ("feature", ""),
    ],
)
def test_a_column_of_a_catalogue_has_its_own_meaning_or_none(column, description):
    assert about(column).description == description


def test_a_column_of_a_table_of_the_lab_has_that_table_s_meaning():
    assert about("rho", "features").description == "Spearman correlation with best_label"
    assert about("rho", "nuisances").description == "Spearman correlation with it on test galaxies"
    assert about("weight_oh_p50", "features").description.startswith("weight of the head")
    assert about("seed_sd", "comparison").description == "standard deviation of the RMSE between runs"


def test_descriptions_fit_on_a_card_of_fits():
    texts = [text for known in (IN_ALL_TABLES, *OF_TABLE.values()) for text in known.values()]
    assert [text for text in texts if len(text) > 68 or not text.isascii()] == []


def test_the_list_of_columns_has_a_row_a_meaning_and_the_words_of_tables():
    z = about("z")
    of_dense = {"feature_1": About("", "", "x"), "feature_12": About("", "", "y")}
    listed = column_list({"catalog.csv": {"z": z}, "zoobot.csv": {"z": z}, "features/*.csv": of_dense})
    assert listed["column"].tolist()[:2] == ["z", "feature_<i>"]
    assert listed["tables"].tolist()[:2] == ["catalog.csv, zoobot.csv", "features/*.csv"]
    assert "nmad" in listed["column"].tolist()


def test_a_file_name_says_the_format():
    assert form_of(Path("a.fits")) == "fits"
    with pytest.raises(DataError, match=r"\.parquet, \.csv or \.fits, got '\.xlsx'"):
        form_of(Path("a.xlsx"))
