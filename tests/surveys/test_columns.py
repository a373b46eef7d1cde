"""Typed columns: what is missing is missing in every format, integers keep their digits, positions are found."""

import datetime
import io
import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import MaskedColumn, Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sfnetlab.errors import DataError
from sfnetlab.settings import CatalogColumns, Target
from sfnetlab.surveys.catalog import measured_labels, read_catalog, target_rows
from sfnetlab.surveys.columns import measured, typed_columns
from sfnetlab.surveys.hub import HubSurvey, build_hub_survey

DEFAULT = CatalogColumns()
BIG = 2**62 + 1  # a float would lose the 1


def typed(values: Any, name: str = "x") -> "pd.Series[Any]":
    return typed_columns(pd.DataFrame({name: values}), "here")[name]


def without_codes(values: Any, name: str = "x", chosen: CatalogColumns = DEFAULT) -> list[Any]:
    return measured(typed_columns(pd.DataFrame({name: values}), "here"), chosen, "here").catalog[name].tolist()


def same(found: list[Any], expected: list[Any]) -> bool:
    """Whether lists are equal, None being any missing value."""
    return len(found) == len(expected) and all(
        pd.isna(a) if b is None else a == b for a, b in zip(found, expected, strict=True)
    )


# --- what is missing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "missing", [None, np.nan, pd.NA, pd.NaT, np.inf, -np.inf, "", "  ", "--", "null", "N/A", "nan"]
)
def test_all_that_means_nothing_is_missing_among_numbers(missing: Any) -> None:
    values = [1.5, missing, 2.5]
    if isinstance(missing, str):
        values = ["1.5", missing, "2.5"]
    column = typed(pd.Series(values, dtype=object))
    assert column.dtype == np.float64
    assert same(column.tolist(), [1.5, None, 2.5])


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, "", " ", "--", "nan", "NULL"])
def test_all_that_means_nothing_is_missing_among_words(missing: Any) -> None:
    column = typed(pd.Series(["E", missing, " S "], dtype=object))
    assert column.dtype == "str"
    assert same(column.tolist(), ["E", None, "S"])


def test_a_sign_is_a_word_among_words_and_missing_among_numbers() -> None:
    assert typed(["+", "-", ""]).iloc[1] == "-"
    assert same(typed(["1", "-", "3"]).tolist(), [1, None, 3])


def test_text_of_digits_stays_text_where_it_is_like_an_id() -> None:
    for digits in ("1237668331488084001", "007"):
        assert typed([digits, ""]).iloc[0] == digits
    assert typed(["1", "2"]).tolist() == ["1", "2"]


def test_an_empty_column_is_one_of_nan_whatever_its_type_was() -> None:
    for values in ([None, None], [" ", ""], pd.array([None, None], dtype="Int64"), [pd.NaT, pd.NaT]):
        assert typed(values).isna().all()


# --- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [pd.array([BIG, None], dtype="Int64"), pd.Series([BIG, None], dtype=object)])
def test_integers_with_missing_ones_keep_all_digits(values: Any) -> None:
    assert same(typed(values).tolist(), [BIG, None])


def test_unsigned_integers_above_2_63_are_kept() -> None:
    assert typed(np.array([2**64 - 1, 0], dtype=np.uint64)).tolist() == [2**64 - 1, 0]
    assert same(typed(pd.Series([2**64 - 1, None], dtype=object)).tolist(), [2**64 - 1, None])


def test_an_unknown_truth_value_stays_unknown() -> None:
    for values in (pd.array([True, None], dtype="boolean"), pd.Series([True, None], dtype=object), ["True", ""]):
        assert same(typed(values).tolist(), [True, None])
        assert typed(values).dtype == "boolean"


def test_dates_are_text_and_durations_are_seconds() -> None:
    assert typed(pd.to_datetime(["2020-01-02", None])).iloc[0] == "2020-01-02"
    assert typed([datetime.date(2020, 1, 2), None]).iloc[0] == "2020-01-02"
    assert typed(pd.to_datetime(["2020-01-02T03:04:05", "2020-01-02T00:00:00"])).iloc[0] == "2020-01-02T03:04:05"
    assert same(typed(pd.to_timedelta(["1h", None])).tolist(), [3600.0, None])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.Categorical(["E", None, "S"]), ["E", None, "S"]),
        (pd.Categorical([3, 1, 3]), [3, 1, 3]),
        ([Decimal("1.5"), None, Decimal(2)], [1.5, None, 2.0]),
        ([b"E", None, b"S"], ["E", None, "S"]),
        (pd.array([BIG, None, 3], dtype="int64[pyarrow]"), [BIG, None, 3]),
        (pd.arrays.SparseArray([0.0, np.nan, 2.0]), [0.0, None, 2.0]),
        (np.array([1, 2, 3], dtype=">i4"), [1, 2, 3]),
    ],
)
def test_other_types_become_what_they_hold(values: Any, expected: list[Any]) -> None:
    assert same(typed(values).tolist(), expected)


def test_columns_that_cannot_be_kept_are_left_out_by_name(caplog: pytest.LogCaptureFixture) -> None:
    table = pd.DataFrame({"id_str": ["a"], "y": [1.0], "e": [1 + 1j], "spectrum": [[1, 2]], "about": [{"a": 1}]})
    assert typed_columns(table, "cat").columns.tolist() == ["id_str", "y"]
    assert "left out columns that cannot be kept: e (complex128), spectrum (list), about (dict)" in caplog.text


def test_durations_of_a_parquet_file_are_labels(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    pd.DataFrame({"id_str": ["a", "b"], "exposure": pd.to_timedelta(["1h", "2h"])}).to_parquet(path)
    assert measured_labels(read_catalog(path, "id_str"))["exposure"].tolist() == [3600.0, 7200.0]


# --- codes of missing values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [-9999, -999, -99, -99.9, -9999.0, -999.99])
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_a_code_far_below_all_else_is_missing(code: float, kind: Any) -> None:
    assert same(without_codes(np.array([1.0, code, 20.0], dtype=kind)), [1.0, None, 20.0])


def test_a_code_among_integers_is_missing_and_the_others_keep_their_digits() -> None:
    assert same(without_codes([BIG, -9999, 3]), [BIG, None, 3])


def test_a_number_like_a_code_among_such_numbers_is_a_number() -> None:
    assert without_codes([-300.0, -99.0, 250.0]) == [-300.0, -99.0, 250.0]
    assert without_codes(list(range(-99, 100))) == list(range(-99, 100))


@pytest.mark.parametrize("name", ["mag_g", "modelMag_r", "MAG_AUTO", "gmag", "modelMagErr_r", "g", "W1"])
def test_99_is_missing_in_magnitudes(name: str) -> None:
    assert same(without_codes([17.0, 99.0, 18.5], name), [17.0, None, 18.5])


@pytest.mark.parametrize("name", ["n_votes", "image_quality", "magnification"])
def test_99_is_a_number_elsewhere(name: str) -> None:
    assert without_codes([17.0, 99.0, 18.5], name) == [17.0, 99.0, 18.5]


def test_99_is_a_number_in_a_band_whose_other_values_are_no_magnitudes() -> None:
    assert without_codes([0.1, 99.0, 0.2], "z") == [0.1, 99.0, 0.2]


def test_codes_that_the_user_names_are_the_only_ones() -> None:
    chosen = CatalogColumns(missing_values=(-1.0,))
    assert same(without_codes([-9999, -1, 2], chosen=chosen), [-9999, None, 2])
    assert without_codes([-9999, 2], chosen=CatalogColumns(missing_values=())) == [-9999, 2]


def test_ids_and_positions_are_no_codes() -> None:
    table = pd.DataFrame({"id_str": ["-99", "-9999"], "ra": [-99.0, -9999.0], "dec": [10.0, -99.0]})
    catalog = measured(table, DEFAULT, "here").catalog
    assert catalog["id_str"].tolist() == ["-99", "-9999"]
    assert same(catalog["ra"].tolist(), [-99.0, None])
    assert same(catalog["dec"].tolist(), [10.0, None])


def test_codes_are_counted_and_a_column_of_codes_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    codes = measured(pd.DataFrame({"a": [1.0, -99, 2, -9999], "b": [-99.0, -99, -99, 4]}), DEFAULT, "cat").codes
    assert codes.to_dict("records") == [
        {"column": "a", "code": -99.0, "n": 1, "share": 0.25},
        {"column": "a", "code": -9999.0, "n": 1, "share": 0.25},
        {"column": "b", "code": -99.0, "n": 3, "share": 0.75},
    ]
    assert "a 1 (-99), a 1 (-9999), b 3 (-99)" in caplog.text
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "most values are codes of missing ones in: b (75%)" in warning.getMessage()


def test_a_code_is_no_value_of_a_target() -> None:
    catalog = measured(pd.DataFrame({"oh_p50": [8.5, -9999.0, 9.0, np.nan]}), DEFAULT, "here").catalog
    assert target_rows(catalog, Target(columns=("oh_p50",)), "x").tolist() == [True, False, True, False]


# --- positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ra", "dec"),
    [
        *[("ra", "dec"), ("RA", "DEC"), ("ra_deg", "dec_deg"), ("RAdeg", "DEdeg"), ("RAJ2000", "DEJ2000")],
        *[("_RAJ2000", "_DEJ2000"), ("RA_ICRS", "DE_ICRS"), ("raMean", "decMean"), ("ALPHA_J2000", "DELTA_J2000")],
        *[("ALPHAWIN_J2000", "DELTAWIN_J2000"), ("RIGHT_ASCENSION", "DECLINATION"), ("TARGET_RA", "TARGET_DEC")],
        *[("coord_ra", "coord_dec"), ("pos.ra", "pos.dec"), ("ra_1", "dec_1"), ("right_ascension", "declination")],
    ],
)
def test_positions_are_found_in_the_spellings_of_the_field(ra: str, dec: str) -> None:
    catalog = measured(pd.DataFrame({"x": [1], ra: [10.5], dec: [-3.5]}), DEFAULT, "here").catalog
    assert catalog[["ra", "dec"]].to_numpy().tolist() == [[10.5, -3.5]]
    assert catalog.shape == (1, 3)


@pytest.mark.parametrize("names", [("ra_err", "dec_err"), ("alpha", "delta"), ("era", "dec"), ("RA", "z")])
def test_other_names_are_no_positions(names: tuple[str, str]) -> None:
    catalog = measured(pd.DataFrame({name: [1.0] for name in names}), DEFAULT, "here").catalog
    assert catalog.columns.tolist() == list(names)


def test_of_several_pairs_the_plain_names_come_first_and_others_are_said(caplog: pytest.LogCaptureFixture) -> None:
    table = pd.DataFrame({"TARGET_RA": [1.0], "TARGET_DEC": [1.0], "RA": [2.0], "DEC": [2.0]})
    assert measured(table, DEFAULT, "cat").catalog["ra"].tolist() == [2.0]
    assert "positions are taken from RA and DEC; there are also TARGET_RA and TARGET_DEC" in caplog.text
    chosen = CatalogColumns(ra_column="TARGET_RA", dec_column="TARGET_DEC")
    assert measured(table, chosen, "cat").catalog["ra"].tolist() == [1.0]


def test_hours_as_text_become_degrees() -> None:
    table = pd.DataFrame({"RA": ["12:30:00", "00 00 04", None], "DEC": ["-00:30:00", "+10 00 36", None]})
    catalog = measured(typed_columns(table, "here"), DEFAULT, "here").catalog
    np.testing.assert_allclose(catalog["ra"], [187.5, 1 / 60, np.nan])
    np.testing.assert_allclose(catalog["dec"], [-0.5, 10.01, np.nan])


@pytest.mark.parametrize("text", ["150:12:30", "somewhere"])
def test_text_that_is_no_position_is_refused_with_its_row(text: str) -> None:
    table = pd.DataFrame({"id_str": ["a", "b"], "ra": ["12:30:00", text], "dec": ["1:00:00", "2:00:00"]})
    with pytest.raises(DataError, match=rf"column 'ra': '{text}' \(row 2, id b\) is no position; write degrees"):
        measured(table, DEFAULT, "here")


def test_positions_that_are_named_and_not_there_are_refused() -> None:
    with pytest.raises(DataError, match=r"no column 'RA_x' \(survey.ra_column\); did you mean 'RA_X'"):
        measured(pd.DataFrame({"RA_X": [1.0]}), CatalogColumns(ra_column="RA_x", dec_column="d"), "here")


# --- every format -----------------------------------------------------------------------------------------------------

UNSIGNED = {"unsigned": pa.uint64()}
FORMATS = ("csv", "ecsv", "fits", "vot", "parquet", "hub")
CANNOT_HOLD = {
    "csv": {"duration"},  # numbers and text alone
    "ecsv": {"duration"},  # astropy writes no durations but as objects of its own
    "fits": {"duration", "flag_or_none"},  # astropy writes an unknown truth value as false
    "vot": {"duration", "unsigned"},  # the largest integers are signed ones of 64 bits
}
"""Columns that a format cannot hold, or that what writes it spoils."""
TEXT = st.one_of(st.none(), st.sampled_from(["E", "S0", "ring", "3 arms", "x-y"]))
DATE = st.one_of(st.none(), st.dates(datetime.date(1990, 1, 1), datetime.date(2030, 1, 1)))
HOURS = st.one_of(st.none(), st.integers(0, 1000).map(lambda n: datetime.timedelta(hours=n)))
INTEGER = st.integers(-(2**62), 2**62)
FLOAT = st.one_of(st.none(), st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6))


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[Any]]:
    n = draw(st.integers(4, 8))

    def column(values: st.SearchStrategy[Any], known: Any) -> list[Any]:
        return [known, *draw(st.lists(values, min_size=n - 1, max_size=n - 1))]

    return {
        "id_str": [f"g{i}" for i in range(n)],
        "RA": column(st.floats(0, 359), 1.5),
        "DEC": column(st.floats(-89, 89), 2.5),
        "whole": column(INTEGER, BIG),
        "whole_or_none": column(st.one_of(st.none(), INTEGER), BIG),
        "unsigned": column(st.integers(0, 2**64 - 1), 2**64 - 1),
        "real": column(FLOAT, 0.1),
        "flag": column(st.booleans(), True),
        "flag_or_none": column(st.one_of(st.none(), st.booleans()), True),
        "word": column(TEXT, "E"),
        "date": column(DATE, datetime.date(2020, 1, 2)),
        "duration": column(HOURS, datetime.timedelta(hours=1)),
        "coded": column(st.sampled_from([-9999.0, -99.0, 3.5]), 3.5),
        "nothing": [None] * n,
    }


def as_astropy(table: dict[str, list[Any]]) -> Table:
    """The table with masked values, as archives give it; dates are text, for want of a type."""
    made = Table()
    for name, values in table.items():
        mask = [value is None for value in values]
        filler: Any = next((value for value in values if value is not None), 0.0)
        filled = [filler if value is None else value for value in values]
        texts = [str(value) for value in filled] if name == "date" else filled
        made[name] = MaskedColumn(np.array(texts, dtype=np.uint64 if name == "unsigned" else None), mask=mask)
    return made


def as_arrow(table: dict[str, list[Any]]) -> pa.Table:
    return pa.table({name: pa.array(values, UNSIGNED.get(name)) for name, values in table.items()})


def written(folder: Path, table: dict[str, list[Any]], form: str) -> pd.DataFrame:
    """Write a table in a format, and read it back as a survey does."""
    path = folder / f"t.{form}"
    match form:
        case "csv":
            pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in table.items()}).to_csv(
                path, index=False
            )
        case "ecsv" | "fits" | "vot":
            kind = {"ecsv": "ascii.ecsv", "fits": "fits", "vot": "votable"}[form]
            as_astropy(table).write(path, format=kind, overwrite=True)
        case "parquet":
            pq.write_table(as_arrow(table), path)
        case _:
            image = io.BytesIO()
            Image.effect_noise((16, 16), 50).convert("RGB").save(image, "PNG")
            images = [{"bytes": image.getvalue(), "path": None}] * len(table["id_str"])
            directory = folder / f"hub{len(list(folder.iterdir()))}"
            datasets.Dataset(as_arrow(table | {"image": images})).save_to_disk(directory)
            catalog, _, _ = build_hub_survey(HubSurvey(directory=directory), folder / "images.npy")
            return catalog.drop(columns="dataset_split")
    return read_catalog(path, "id_str")


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(table=tables())
def test_every_format_gives_the_same_columns(tmp_path: Path, table: dict[str, list[Any]]) -> None:
    datasets.disable_progress_bars()
    expected = {{"RA": "ra", "DEC": "dec"}.get(name, name): values for name, values in table.items()}
    expected["coded"] = [None if value != 3.5 else value for value in table["coded"]]
    expected["date"] = [value and str(value) for value in table["date"]]
    expected["duration"] = [None if value is None else value.total_seconds() for value in table["duration"]]
    kinds = {"whole": "i", "unsigned": "u", "real": "f", "flag": "b", "word": "O", "nothing": "f"}
    for form in FORMATS:
        lacks = CANNOT_HOLD.get(form, set())
        held = {name: values for name, values in table.items() if name not in lacks}
        catalog, codes = measured(written(tmp_path, held, form), DEFAULT, form)
        assert sorted(catalog.columns) == sorted(expected.keys() - lacks), form
        for name in catalog.columns:
            assert same(catalog[name].tolist(), expected[name]), (form, name)
        assert codes.loc[codes["column"] == "coded", "n"].sum() == expected["coded"].count(None), form
        assert all(catalog[name].dtype.kind == kind for name, kind in kinds.items() if name not in lacks), form
