"""Catalogue: ids to the letter, every fault refused, cuts and splits that mean what the paper says."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from sfnetlab.errors import DataError
from sfnetlab.settings import Target
from sfnetlab.surveys import catalog as catalog_module
from sfnetlab.surveys.catalog import (
    LINE_FLUXES,
    add_line_logs,
    apply_cut,
    check_ids,
    measured_labels,
    read_catalog,
    target_rows,
)
from sfnetlab.surveys.split import HashSplit, split_catalog

ID = 1237648704043942146  # a float would make it ...942208
SDSS = Path(__file__).resolve().parents[2] / "../shared/data/sdss_metallicity"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "galaxies.csv"
    path.write_text(text)
    return path


def written(tmp_path: Path, frame: pd.DataFrame, extension: str) -> Path:
    path = tmp_path / f"galaxies{extension}"
    match extension:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".parquet":
            frame.to_parquet(path)
        case ".fits":
            Table.from_pandas(frame).write(path)
    return path


@pytest.mark.parametrize("extension", [".csv", ".parquet", ".fits"])
@pytest.mark.parametrize("ids", [[ID, ID + 1], [str(ID), str(ID + 1)]], ids=["integers", "text"])
def test_64_bit_ids_survive_every_format(tmp_path: Path, extension: str, ids: list[Any]) -> None:
    path = written(tmp_path, pd.DataFrame({"oh_p50": [8.7, 9.0], "objID": ids}), extension)
    catalog = read_catalog(path, "objID")
    assert catalog.columns.tolist() == ["id_str", "oh_p50"]
    assert catalog["id_str"].tolist() == [str(ID), str(ID + 1)]
    assert catalog["id_str"].dtype == "str"
    assert catalog["oh_p50"].tolist() == [8.7, 9.0]


def test_leading_zeros_and_signs_of_ids_are_kept(tmp_path: Path) -> None:
    catalog = read_catalog(write(tmp_path, "id_str,x\n007,1\n-102_-5,2\n"), "id_str")
    assert catalog["id_str"].tolist() == ["007", "-102_-5"]


def test_blanks_around_ids_are_stripped(tmp_path: Path) -> None:
    assert read_catalog(write(tmp_path, "id_str,x\n 12 ,1\n13,2\n"), "id_str")["id_str"].tolist() == ["12", "13"]


def test_fits_columns_are_native_and_nan_stays_nan(tmp_path: Path) -> None:
    path = tmp_path / "galaxies.fits"
    Table({"objID": np.array([b"a1", b"b2"]), "z": np.array([0.1, np.nan], dtype=">f4")}).write(path)
    catalog = read_catalog(path, "objID")
    assert catalog["id_str"].tolist() == ["a1", "b2"]
    assert catalog["z"].dtype == np.dtype("=f4")
    assert catalog["z"].isna().tolist() == [False, True]


def test_fits_columns_of_arrays_are_left_out_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "galaxies.fits"
    Table({"objID": np.array([1, 2]), "flux": np.ones((2, 5))}).write(path)
    assert read_catalog(path, "objID").columns.tolist() == ["id_str"]
    assert "flux" in caplog.text


def test_parquet_index_counts_as_columns(tmp_path: Path) -> None:
    path = tmp_path / "galaxies.parquet"
    pd.DataFrame({"x": [1, 2]}, index=pd.Index([ID, ID + 1], name="objID")).to_parquet(path)
    assert read_catalog(path, "objID")["id_str"].tolist() == [str(ID), str(ID + 1)]


@pytest.mark.parametrize("extension", [".parquet", ".fits"])
def test_float_ids_are_refused_with_the_reason(tmp_path: Path, extension: str) -> None:
    path = written(tmp_path, pd.DataFrame({"objID": [float(ID), 1.0]}), extension)
    with pytest.raises(DataError, match=r"column 'objID': ids are floats \(float64\).*64-bit"):
        read_catalog(path, "objID")


@pytest.mark.parametrize("text", ["1.2377e+18", "1.23765E18", "1237648704043942146.0", "1e+18", "-12.", ".5"])
def test_ids_written_as_floats_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"1 ids are written as floats: .*64-bit"):
        read_catalog(write(tmp_path, f"objID,x\n12,1\n{text},2\n"), "objID")


@pytest.mark.parametrize("text", ["J1234.5+67", "12e45", "1.2.3", "NGC1.0", "1237648704043942146"])
def test_text_that_only_resembles_a_float_is_an_id(tmp_path: Path, text: str) -> None:
    assert read_catalog(write(tmp_path, f"objID,x\n{text},2\n"), "objID")["id_str"].tolist() == [text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objID,x\n1,2\n,3\n ,4\n", "2 of 3 ids are empty"),
        ("objID,x\n7,1\n8,2\n7,3\n7,4\n", "1 ids occur more than once, 2 rows too many: 7"),
        ("objID,x\n", "no rows"),
        ("", "cannot be read as .csv"),
        ("objid,x\n1,2\n", "no id column 'objID'; did you mean 'objid'"),
        ("a,b\n1,2\n", "no id column 'objID'; known columns: a, b"),
        ("objID,x\n0,2,3\n1,5,6\n", "more fields than the header"),
        ("objID,id_str\n1,2\n", "a column 'id_str' as well"),
        ("objID,x\n1,2\n1,2,3,4\n", "cannot be read as .csv"),
    ],
)
def test_a_faulty_csv_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        read_catalog(path, "objID")
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["galaxies.csv", "galaxies.parquet", "galaxies.fits"])
def test_garbage_is_refused_in_every_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xff\xfe\x00garbage" * 50)
    with pytest.raises(DataError, match="cannot be read as"):
        read_catalog(path, "objID")


@pytest.mark.filterwarnings("ignore:File may have been truncated")
@pytest.mark.parametrize("extension", [".parquet", ".fits"])
def test_a_truncated_catalogue_is_refused(tmp_path: Path, extension: str) -> None:
    path = written(tmp_path, pd.DataFrame({"objID": np.arange(5000)}), extension)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(DataError, match="cannot be read as"):
        read_catalog(path, "objID")


def test_a_fits_file_without_a_table_is_refused(tmp_path: Path) -> None:
    from astropy.io import fits

    path = tmp_path / "galaxies.fits"
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(path)
    with pytest.raises(DataError, match="holds no table"):
        read_catalog(path, "objID")


@pytest.mark.parametrize(
    ("name", "message"), [("none.csv", "no such catalogue"), ("x.xlsx", "read as .xlsx, .* is empty")]
)
def test_a_missing_or_foreign_file_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "x.xlsx").touch()
    with pytest.raises(DataError, match=message):
        read_catalog(tmp_path / name, "objID")


@pytest.mark.parametrize(
    "bad", ["../../etc/passwd", "a/b", "a\\b", "a\0b", ".hidden", "..", "a\nb", "x" * 201, "\ud800"]
)
def test_ids_unsafe_as_file_names_are_refused_by_repr(bad: str) -> None:
    with pytest.raises(DataError, match="1 ids cannot be file names") as caught:
        check_ids(pd.Series(["12", bad], dtype=object), "here")
    assert repr(bad) in str(caught.value)


@given(st.text(min_size=1, max_size=60))
def test_an_accepted_id_stays_inside_its_folder(id_str: str) -> None:
    try:
        check_ids(pd.Series([id_str], dtype=object), "here")
    except DataError:
        return
    folder = Path("/images")
    assert (folder / f"{id_str}.jpg").parent == folder
    assert (folder / f"{id_str}.jpg").resolve().parent == folder.resolve()


@pytest.mark.parametrize("bad", ["", "a/b", "12"])
def test_bad_ids_are_found_in_every_part_of_a_long_catalogue(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setattr(catalog_module, "IDS_AT_ONCE", 4)
    with pytest.raises(DataError, match=r"1 of 21 ids are empty|1 ids cannot be file names|1 ids occur more than once"):
        check_ids(pd.Series([*map(str, range(20)), bad], dtype="str"), "here")


def line_catalog(**columns: list[float]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    frame = pd.DataFrame({"id_str": [str(i) for i in range(n)]})
    for flux in LINE_FLUXES.values():
        frame[flux], frame[f"{flux}_err"] = 100.0, 1.0
    return frame.assign(**columns)


def test_line_logs_are_log10_of_positive_finite_fluxes_and_else_nan() -> None:
    logs = add_line_logs(line_catalog(h_alpha_flux=[1000.0, 0.0, -3.0, np.nan, np.inf]))
    np.testing.assert_array_equal(logs["log_Ha"], [3.0, np.nan, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(logs["log_N2"], np.full(5, 2.0))
    assert logs.columns.tolist()[-4:] == ["log_N2", "log_Ha", "log_O3", "log_Hb"]


def test_line_logs_need_all_four_fluxes() -> None:
    without = line_catalog(x=[1.0]).drop(columns="h_beta_flux")
    assert add_line_logs(without).columns.equals(without.columns)


def test_metallicity_cut_is_the_papers() -> None:
    catalog = pd.DataFrame(
        {
            "oh_p50": [8.7, 0.0, 8.7, 8.7, np.nan, -9999],
            "lgm_tot_p50": [10.0, 10.0, 0.0, 10.0, 10.0, 10.0],
            "sfr_tot_p50": [0.0, 0.0, 0.0, -10.0, 0.0, 0.0],
        }
    )
    assert apply_cut(catalog, "metallicity").tolist() == [True, False, False, False, False, False]


@given(
    st.lists(
        st.tuples(
            *[st.sampled_from([-5.0, 0.0, 1.0, 3.0, 3.1, 99999.0, 1e5, np.nan])] * 4, st.sampled_from([0.1, 1.0, 2])
        ),
        min_size=1,
    )
)
def test_lines_cut_agrees_with_a_slow_loop(rows: list[tuple[float, ...]]) -> None:
    table = np.array(rows)
    names = list(LINE_FLUXES.values())
    catalog = pd.DataFrame(dict(zip(names, table[:, :4].T, strict=True)))
    for name in names:
        catalog[f"{name}_err"] = table[:, 4]
    slow = [all(flux / error > 3 and flux < 1e5 for flux in fluxes) for *fluxes, error in rows]
    assert apply_cut(catalog, "lines").tolist() == slow


def test_a_flux_without_a_measured_error_fails_the_lines_cut() -> None:
    catalog = line_catalog(h_beta_flux_err=[1.0, 0.0, -1.0, np.nan], h_beta_flux=[100.0, 100.0, -100.0, 100.0])
    assert apply_cut(catalog, "lines").tolist() == [True, False, False, False]


def test_no_cut_keeps_every_row() -> None:
    assert apply_cut(pd.DataFrame({"x": [np.nan, 1.0]}), "none").all()


def test_a_cut_names_the_columns_it_lacks() -> None:
    with pytest.raises(DataError, match=r"cut = .metallicity.: .* no column 'lgm_tot_p50', 'sfr_tot_p50'"):
        apply_cut(pd.DataFrame({"oh_p50": [8.7]}), "metallicity")


def test_target_rows_are_in_the_cut_and_finite() -> None:
    catalog = pd.DataFrame({"a": [1.0, 2.0, np.nan, 4.0, np.inf], "b": [1, 2, 3, None, 5]})
    rows = target_rows(catalog, Target(columns=("a", "b")), "targets.t")
    assert rows.tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("columns", "cut", "message"),
    [
        (("metalicity",), "none", "no column 'metalicity'; did you mean 'metallicity'"),
        (("name",), "none", r"column 'name' is text: 'x' \(row 1\) is no number, nor are 1 others; write numbers"),
        (("nothing",), "none", "no row has a finite value of 'nothing'"),
        (("constant",), "none", "nothing to learn, 'constant' has one and the same value on the 2 rows"),
        (("half", "other_half"), "none", "of 2 rows, .* but none both"),
        (("metallicity",), "lines", 'cut = "lines": the catalogue has no column'),
    ],
)
def test_a_target_without_meaning_is_refused(columns: tuple[str, ...], cut: Any, message: str) -> None:
    catalog = pd.DataFrame(
        {
            "metallicity": [8.7, 9.0],
            "name": ["x", "y"],
            "nothing": [np.nan, np.inf],
            "constant": [1.0, 1.0],
            "half": [1.0, np.nan],
            "other_half": [np.nan, 1.0],
        }
    )
    with pytest.raises(DataError, match=f"^targets.t: .*{message}"):
        target_rows(catalog, Target(columns=columns, cut=cut), "targets.t")


@pytest.mark.skipif(not SDSS.is_dir(), reason="the SDSS metallicity sample is not beside the checkout")
def test_the_sdss_sample_reads_and_splits() -> None:
    catalog = read_catalog(SDSS / "galaxies.csv", "objID")
    assert len(catalog) == 400
    assert catalog["id_str"].iloc[0] == str(ID)
    rows = target_rows(catalog, Target(columns=("oh_p50",)), "targets.metallicity")
    assert rows.all()
    assert catalog["oh_p50"].mean() == pytest.approx(8.90, abs=0.01)
    parts = split_catalog(catalog, HashSplit())
    assert (parts == "train").mean() == pytest.approx(0.7, abs=0.06)


def test_measured_labels_leave_out_what_is_no_label() -> None:
    catalog = pd.DataFrame(
        {
            "id_str": ["a", "b"],
            "ra": [1.0, 2.0],
            "dec": [1.0, 2.0],
            "oh_p50": [8.9, np.nan],
            "oh_p50_hidden": [0.1, 0.2],
            "h_alpha_flux_err": [1.0, 1.0],
            "n_arms": [2, 0],
        }
    )
    labels = measured_labels(catalog)
    assert list(labels.columns) == ["oh_p50", "n_arms"]
    coded = measured_labels(catalog.assign(**{"class": [4, 5], "class_name": ["edge-on", "face-on"]}))
    assert list(coded.columns) == ["oh_p50", "n_arms"]
    np.testing.assert_array_equal(labels["oh_p50"], [8.9, np.nan])
