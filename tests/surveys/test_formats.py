"""Tables of the field: every format gives what was written, and what is no table is named for what it is."""

import gzip
import logging
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.time import Time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfnetlab.errors import DataError
from sfnetlab.surveys.formats import read_table

ID = 1237668331488084001  # a float would make it ...084000


def written(tmp_path: Path, content: str | bytes, name: str = "cat.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(path: Path) -> list[tuple[object, ...]]:
    return list(read_table(path, text=("objID",)).itertuples(index=False, name=None))


# --- tables of text ---------------------------------------------------------------------------------------------------

PLAIN = f"objID,ra,dec\n{ID},10.5,-0.5\n{ID + 1},11.5,1.25\n"
SAME = [(str(ID), 10.5, -0.5), (str(ID + 1), 11.5, 1.25)]


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "#Table1\n" + PLAIN,
        "# from TOPCAT\n# today\n" + PLAIN,
        "#\n# made, by me, today\n\n" + PLAIN,
        "#" + PLAIN,
        "# " + PLAIN,
        "# made by me\n# " + PLAIN,
        "\n" + PLAIN,
        PLAIN.replace(",", ", "),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        PLAIN.replace(",", "   "),
        "# " + PLAIN.replace(",", " "),
        "# three words here\n" + PLAIN.replace(",", " "),
        PLAIN.replace(",", ";").replace(".", ","),
        PLAIN.replace(",", "\t").replace(".", ","),
        "#objID;ra;dec\n" + PLAIN.replace(",", ";").replace(".", ",").partition("\n")[2],
        "#RESOURCE\n#Column objID\nobjID\tra\tdec\n\tdeg\tdeg\n" + "---\t---\t---\n"
        + PLAIN.replace(",", "\t").partition("\n")[2] + "\n#END#\n",
        PLAIN.replace("objID", '"objID"').replace(str(ID), f'"{ID}"'),
        f"# comments\nobjID,ra,dec\n{ID},10.5,-0.5\n# half\n{ID + 1},11.5,1.25\n",
    ],
)  # fmt: skip
def test_every_layout_of_text_gives_the_same_rows(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    assert read_table(path, text=("objID",)).columns.tolist() == ["objID", "ra", "dec"]
    assert rows_of(path) == SAME


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("name", ["cat.csv", "cat.csv.gz", "cat.dat"])
def test_text_is_read_in_its_encoding_and_unpacked(encoding, pack, name, tmp_path) -> None:
    content = pack("objID,observer\n12,Müller\n".encode(encoding))
    assert rows_of(written(tmp_path, content, name)) == [("12", "Müller")]


def test_an_utf_16_mark_of_the_other_byte_order_is_known(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path, b"\xfe\xff" + PLAIN.encode("utf-16-be"))) == SAME


@pytest.mark.parametrize("cell", ["NA", "None", "007", "1e5", "nan", "null", "1.50", "+5", "#12", "true"])
def test_columns_of_text_are_read_to_the_letter(cell: str, tmp_path: Path) -> None:
    frame = read_table(written(tmp_path, f"x,objID\n1,{cell}\n2,b\n"), text=("objID",))
    assert frame["objID"].tolist() == [cell, "b"]


@given(value=st.integers(-(2**63), 2**64 - 1), missing=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_integers_of_a_csv_keep_every_digit(value: int, missing: bool, tmp_path: Path) -> None:
    column = read_table(written(tmp_path, f"objID,n\na,{value}\nb,{'' if missing else 7}\n"))["n"]
    assert column.dtype.kind in "iu"
    assert column.iloc[0] == value
    assert pd.isna(column.iloc[1]) == missing


@given(value=st.floats(allow_nan=False))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_floats_of_a_csv_are_exact(value: float, tmp_path: Path) -> None:
    assert read_table(written(tmp_path, f"id,x,y\na,0.5,{value!r}\n"))["y"].tolist() == [value]


def test_a_text_with_a_comma_is_no_decimal_comma_where_others_have_points(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path, "objID;x;flags\na;0.5;1,2\n")) == [("a", 0.5, "1,2")]


def test_a_column_that_is_called_by_the_sign_of_comments_keeps_its_name(tmp_path: Path) -> None:
    assert read_table(written(tmp_path, "#,objID\n1,a\n2,b\n")).columns.tolist() == ["#", "objID"]


def test_a_quoted_separator_parts_no_columns(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path, 'objID,"flux; total",z\n"a;b",1,2\n')) == [("a;b", 1, 2)]


def test_text_in_quotes_between_white_space_is_one_value(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path, 'objID name z\n1 "NGC 1" 0.5\n2 M31 0.25\n')) == [
        ("1", "NGC 1", 0.5),
        ("2", "M31", 0.25),
    ]


def test_blanks_in_the_one_column_of_a_csv_part_nothing(tmp_path: Path) -> None:
    assert read_table(written(tmp_path, "galaxy name\nNGC one\nNGC two\n")).columns.tolist() == ["galaxy name"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objID ra dec\n1 10 0\n2 11\n3 12 0\n", "line 3 holds 2 values between white space, but there are 3 names"),
        ("#Table1\nobjID,ra\n1,2\n#Table2\nid,x\n1,2\n", r"another table \(#Table2\) begins in line 4"),
        ("# made by me\n1,2,3\n4,5,6\n", "no header: line 2 holds numbers, and the comment above it names 1 columns"),
        ("# only\n# comments\n", "comment lines and no table"),
        ("a,b\n1,2\n".encode("utf-16").decode("latin-1"), "which is no text"),
    ],
)
def test_text_that_is_no_one_table_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_table(written(tmp_path, text))


# --- FITS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cat.fits", "cat.fit", "cat.fits.gz", "cat.fits.fz", "cat.FITS", "catalogue"])
def test_a_fits_table_is_known_by_its_content(name: str, tmp_path: Path) -> None:
    Table({"objID": [ID, ID + 1], "ra": [10.5, 11.5], "dec": [-0.5, 1.25]}).write(tmp_path / "t.fits")
    content = (tmp_path / "t.fits").read_bytes()
    path = written(tmp_path, gzip.compress(content) if name.endswith(".gz") else content, name)
    assert [(str(i), *rest) for i, *rest in rows_of(path)] == SAME


def test_unsigned_nullable_logical_and_padded_columns_of_fits_keep_their_values(tmp_path: Path) -> None:
    path = tmp_path / "cat.fits"
    columns = [
        fits.Column("big", format="K", bzero=2**63, array=np.array([2**64 - 1, 5], dtype=np.uint64)),
        fits.Column("n", format="K", null=-99, array=np.array([-99, ID])),
        fits.Column("flag", format="L", array=np.array([True, False])),
        fits.Column("name", format="8A", array=np.array(["a ", "#"])),
    ]
    table = fits.BinTableHDU.from_columns(columns)
    table.header["TNULL1"] = 5 - 2**63
    table.writeto(path)
    content = bytearray(path.read_bytes())
    with fits.open(path) as hdus:
        start = hdus[1].header["NAXIS1"] + hdus[1].fileinfo()["datLoc"] + 16
    assert content[start : start + 1] == b"F"
    content[start] = 0  # neither true nor false
    path.write_bytes(content.replace(b"#\0", "Ü".encode("cp1252") + b" "))
    frame = read_table(path)
    assert frame["big"].tolist() == [2**64 - 1, pd.NA]
    assert frame["n"].tolist() == [pd.NA, ID]
    assert frame["flag"].tolist() == [True, pd.NA]
    assert frame["name"].tolist() == ["a", "Ü"]


def test_text_of_fits_ends_at_its_first_nul(tmp_path: Path) -> None:
    path = tmp_path / "cat.fits"
    Table({"name": np.array([b"spiral", b"ring#x"])}).write(path)
    path.write_bytes(path.read_bytes().replace(b"ring#x", b"ring\0x"))
    assert read_table(path)["name"].tolist() == ["spiral", "ring"]


def test_the_table_that_has_the_ids_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "ldac.fits"
    header = fits.BinTableHDU(Table({"Field Header Card": ["x" * 80]}), name="LDAC_IMHEAD")
    objects = fits.BinTableHDU(Table({"objID": [1, 2]}), name="LDAC_OBJECTS")
    fits.HDUList([fits.PrimaryHDU(), header, objects]).writeto(path)
    assert read_table(path, text=("objID",))["objID"].tolist() == [1, 2]
    assert "extension 2 (LDAC_OBJECTS) is read, not extension 1 (LDAC_IMHEAD)" in caplog.text


def test_of_two_tables_with_ids_it_is_said_which_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "two.fits"
    tables = [fits.BinTableHDU(Table({"objID": [i]}), name=name) for i, name in enumerate(("A", "B"))]
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 2))), *tables]).writeto(path)
    assert read_table(path, text=("objID",))["objID"].tolist() == [0]
    assert "holds 2 tables; extension 2 (A) is read, not extension 3 (B)" in caplog.text


def test_arrays_of_fixed_and_variable_length_are_left_out_by_name(tmp_path, caplog) -> None:
    path = tmp_path / "cat.fits"
    columns = [
        fits.Column("objID", format="J", array=[1, 2]),
        fits.Column("flux", format="3E", array=np.ones((2, 3))),
        fits.Column("spectrum", format="PE()", array=np.array([np.ones(2), np.ones(3)], dtype=object)),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(path)
    assert read_table(path).columns.tolist() == ["objID"]
    assert "columns of arrays left out: flux, spectrum" in caplog.text


@pytest.mark.parametrize("name", ["cat.fits", "cat.ecsv"])
def test_mixin_columns_of_astropy_become_plain_ones(name: str, tmp_path: Path) -> None:
    sky = SkyCoord([1.5, 2.5], [-0.5, 0.5], unit="deg")
    time = Time(["2020-01-01T00:00:00", "2021-06-01T12:00:00"])
    QTable({"id_str": ["a", "b"], "pos": sky, "size": [1, 2] * u.kpc, "seen": time}).write(tmp_path / name)
    frame = read_table(tmp_path / name)
    assert frame.columns.tolist() == ["id_str", "pos.ra", "pos.dec", "size", "seen"]
    assert frame[["pos.ra", "pos.dec", "size"]].to_numpy().tolist() == [[1.5, -0.5, 1], [2.5, 0.5, 2]]
    assert frame["seen"].tolist() == ["2020-01-01T00:00:00.000", "2021-06-01T12:00:00.000"]


def test_blank_numbers_of_an_ascii_table_are_missing_and_not_zero(tmp_path: Path) -> None:
    path = tmp_path / "vizier.fits"
    columns = [
        fits.Column("n", format="I8", array=np.array([7, 5555]), ascii=True),
        fits.Column("Jmag", format="F8.3", array=np.array([7777.25, 12.5]), ascii=True, null="NaN"),
        fits.Column("name", format="A6", array=np.array(["a", "b"]), ascii=True),
    ]
    fits.TableHDU.from_columns(columns).writeto(path)
    content = path.read_bytes()
    assert b"    5555" in content
    assert b"7777.250" in content
    path.write_bytes(content.replace(b"    5555", b"        ").replace(b"7777.250", b"     NaN"))
    frame = read_table(path)
    assert frame["n"].tolist() == [7, pd.NA]
    assert frame["Jmag"].isna().tolist() == [True, False]
    assert frame["Jmag"][1] == 12.5
    assert frame["name"].tolist() == ["a", "b"]


def test_an_array_of_one_value_is_that_value(tmp_path: Path) -> None:
    Table({"objID": [1, 2], "z": np.array([[0.5], [0.25]])}).write(tmp_path / "cat.fits")
    assert read_table(tmp_path / "cat.fits")["z"].tolist() == [0.5, 0.25]


def test_a_table_that_fpack_compressed_is_refused_with_the_remedy(tmp_path: Path) -> None:
    table = fits.BinTableHDU(Table({"objID": [1]}))
    table.header["ZTABLE"] = True
    table.writeto(tmp_path / "cat.fits.fz")
    with pytest.raises(DataError, match="compressed by fpack; unpack it with funpack"):
        read_table(tmp_path / "cat.fits.fz")


# --- VOTable, ECSV, parquet, Feather ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("c.vot", "votable"),
        ("c.xml", "votable"),
        ("c.ecsv", "ascii.ecsv"),
        ("c.txt", "ascii.mrt"),
        ("c.tbl", "ascii.ipac"),
    ],
)
@pytest.mark.parametrize("is_packed", [False, True])
def test_tables_that_describe_themselves_keep_digits_and_missing_values(name, form, is_packed, tmp_path) -> None:
    path = tmp_path / name
    numbers = np.ma.array([ID, 5], mask=[False, True])
    Table({"objID": ["007", "b"], "n": numbers, "z": [0.1, 0.25]}).write(path, format=form)
    if is_packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    frame = read_table(path, text=("objID",))
    assert frame["objID"].tolist() == ["007", "b"]
    assert frame["n"].tolist() == [ID, pd.NA]
    assert frame["z"].tolist() == [0.1, 0.25]


def votable(status: str, rows: str = "") -> str:
    return (
        '<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
        f'<RESOURCE type="results"><INFO name="QUERY_STATUS" value="{status}">no such table: gaia</INFO>{rows}'
        "</RESOURCE></VOTABLE>"
    )


def test_an_error_of_a_service_is_shown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the service answered with an error: no such table: gaia"):
        read_table(written(tmp_path, votable("ERROR"), "cat.vot"))


def test_columns_of_a_votable_are_called_by_their_names_not_their_identifiers(tmp_path: Path) -> None:
    fields = '<FIELD ID="col_1" name="objID" datatype="long"/><FIELD ID="1251" name="PI name" datatype="int"/>'
    rows = f"<TABLE>{fields}<DATA><TABLEDATA><TR><TD>7</TD><TD>3</TD></TR></TABLEDATA></DATA></TABLE>"
    assert read_table(written(tmp_path, votable("OK", rows), "cat.vot")).columns.tolist() == ["objID", "PI name"]


def test_a_table_that_a_service_cut_off_is_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = '<TABLE><FIELD name="objID" datatype="long"/><DATA><TABLEDATA><TR><TD>7</TD></TR></TABLEDATA></DATA></TABLE>'
    assert read_table(written(tmp_path, votable("OVERFLOW", rows), "cat.vot"))["objID"].tolist() == [7]
    assert "the service cut this table off" in caplog.text


def test_integers_and_booleans_of_parquet_keep_digits_and_missing_values(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([ID, None]),
            "big": pa.array([2**64 - 1, None], type=pa.uint64()),
            "flag": pa.array([True, None]),
            "whole": pa.array([1, 2], type=pa.int16()),
            "name": pa.array([b"a", None]),
            "kind": pa.array(["x", None]).dictionary_encode(),
            "price": pa.array([1, 2], type=pa.decimal128(10, 0)),
            "vector": pa.array([[1.0], [2.0]]),
        }
    )
    pq.write_table(table, tmp_path / "cat.parquet")
    frame = read_table(tmp_path / "cat.parquet")
    assert frame["n"].tolist() == [ID, pd.NA]
    assert frame["big"].tolist() == [2**64 - 1, pd.NA]
    assert frame["flag"].tolist() == [True, pd.NA]
    assert frame["whole"].dtype == np.int16
    assert frame["name"].dropna().tolist() == ["a"]
    assert frame["kind"].dropna().tolist() == ["x"]
    assert frame["price"].tolist() == [1, 2]
    assert "vector" not in frame


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather_and_arrow_streams_are_read(compression: str, tmp_path: Path) -> None:
    from pyarrow import feather

    table = pa.table({"objID": ["a"], "n": [ID]})
    feather.write_feather(table, str(tmp_path / "c.feather"), compression=compression)
    with pa.ipc.new_stream(str(tmp_path / "c.arrow"), table.schema) as stream:
        stream.write_table(table)
    assert rows_of(tmp_path / "c.feather") == rows_of(tmp_path / "c.arrow") == [("a", ID)]


def test_lines_of_json_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, f'{{"objID": "007", "n": {ID}}}\n{{"objID": "b", "n": null}}\n', "c.jsonl")
    assert read_table(path)["n"].tolist() == [ID, pd.NA]


def hats(folder: Path) -> Path:
    """A catalogue as LSDB writes it: pixels, their list, a map, a thumbnail of some rows."""
    parts = {1: ["a", "b"], 2: ["c"]}
    for pixel, ids in parts.items():
        place = folder / "dataset" / "Norder=1" / "Dir=0" / f"Npix={pixel}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"objID": ids}), place)
    pq.write_table(pa.table({"objID": ["a"]}), folder / "dataset" / "data_thumbnail.parquet")
    pq.write_metadata(pa.schema({"objID": pa.string()}), folder / "dataset" / "_common_metadata")
    (folder / "partition_info.csv").write_text("Norder,Npix\n1,1\n1,2\n")
    (folder / "properties").write_text("obs_collection=x\n")
    fits.PrimaryHDU(np.zeros(12)).writeto(folder / "point_map.fits")
    return folder


def test_the_rows_of_a_hats_folder_are_those_of_its_pixels(tmp_path: Path) -> None:
    assert rows_of(hats(tmp_path / "cat")) == [("a",), ("b",), ("c",)]


def test_a_hats_collection_is_its_primary_table(tmp_path: Path) -> None:
    hats(tmp_path / "cat" / "main")
    hats(tmp_path / "cat" / "margin_10arcs")
    (tmp_path / "cat" / "collection.properties").write_text("obs_collection=x\nhats_primary_table_url=main\n")
    assert rows_of(tmp_path / "cat") == [("a",), ("b",), ("c",)]


def test_files_of_a_folder_are_one_table_in_the_order_of_their_names(tmp_path: Path) -> None:
    pq.write_table(pa.table({"objID": ["b"], "n": pa.array([None], type=pa.int64())}), tmp_path / "part-1.parquet")
    pq.write_table(pa.table({"objID": ["a"], "n": [ID]}), tmp_path / "part-0.parquet")
    (tmp_path / "_SUCCESS").touch()
    assert rows_of(tmp_path) == [("a", ID), ("b", pd.NA)]


# --- what is no table -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html>\n<html><body>Log in</body></html>", "is a web page .* fetch the file again"),
        (b"  <HTML><title>404</title>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS .*`git lfs pull`"),
        (pickle.dumps({"a": 1}), "is a pickle, .* write the table as parquet or CSV"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file; write its table as parquet or FITS"),
        (b"\x93NUMPY\x01\x00", "is an array of numpy without names of columns"),
        (gzip.compress(b"<html>", mtime=0), "is a web page"),
        (gzip.compress(PLAIN.encode(), mtime=0)[:-12], "damaged"),
    ],
)
@pytest.mark.parametrize("name", ["cat.csv", "cat.parquet", "cat.fits"])
def test_what_is_no_table_is_named_for_what_it_is(content: bytes, message: str, name: str, tmp_path: Path) -> None:
    path = written(tmp_path, content, name)
    with pytest.raises(DataError, match=message) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_an_archive_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cat.zip", "w") as archive:
        archive.writestr("cat.csv", PLAIN)
    with pytest.raises(DataError, match=r"ZIP archive .* unpack it"):
        read_table(tmp_path / "cat.zip")


def test_links_that_lead_nowhere_or_in_a_circle_are_said_to(tmp_path: Path) -> None:
    (tmp_path / "broken.csv").symlink_to(tmp_path / "gone.csv")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    with pytest.raises(DataError, match=r"broken\.csv: .* is a link that leads to .*gone\.csv, which is not there"):
        read_table(tmp_path / "broken.csv")
    with pytest.raises(DataError, match="is a link that leads in a circle"):
        read_table(tmp_path / "loop.csv")


def test_a_folder_without_parquet_files_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    written(tmp_path, PLAIN)
    with pytest.raises(DataError, match=r"is a folder without parquet files, .* it holds cat\.csv"):
        read_table(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cat.csv")
    with pytest.raises(DataError, match="no regular file"):
        read_table(tmp_path / "cat.csv")


def test_the_whole_path_of_a_relative_one_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"no such catalogue file: .* whole path is {tmp_path}/data/cat.csv"):
        read_table(Path("data/cat.csv"))


def test_embeddings_in_a_hats_catalogue_are_not_read_with_its_columns(tmp_path: Path, monkeypatch, caplog) -> None:
    """Their column stands between two others, in every pixel."""
    read = []
    whole = pq.ParquetFile.read
    monkeypatch.setattr(
        pq.ParquetFile, "read", lambda file, columns=None: read.append(columns) or whole(file, columns=columns)
    )
    for pixel in (1, 2):
        place = tmp_path / "cat" / "dataset" / "Norder=1" / "Dir=0" / f"Npix={pixel}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(8, dtype=np.float32)), 4)
        pq.write_table(pa.table({"objID": [f"{pixel}a", f"{pixel}b"], "vector": vectors, "z": [0.1, 0.2]}), place)
    table = read_table(tmp_path / "cat")
    assert table.to_dict("list") == {"objID": ["1a", "1b", "2a", "2b"], "z": [0.1, 0.2, 0.1, 0.2]}
    assert read == [["objID", "z"]] * 2
    assert "columns of arrays left out: vector" in caplog.text
