"""SDSS by SQL: the statements mean what the papers meant, ids stay text, pages add up, cleaning counts every row."""

import json
import re
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from io import StringIO
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest

from servers import Answer, Request, serving
from sfnetlab.errors import DataError
from sfnetlab.surveys import sdss_queries
from sfnetlab.surveys.lines import LINES
from sfnetlab.surveys.sdss_queries import QUERIES, clean, fetch_rows

SFNET = QUERIES["sfnet"]
FIRST_OBJ, FIRST_SPEC = 1237645879551066262, 299489676975171584
"""Real ids: neighbours differ by less than a float64 can tell."""


class Archive:
    """The SDSS tables in SQLite, answering as SkyServer does: TOP ... WITH TIES, CSV below a line '#Table1'."""

    def __init__(self, n: int = 60) -> None:
        self.asked: list[str] = []
        draws = np.random.default_rng(0)
        spec = FIRST_SPEC + np.arange(n)
        best = FIRST_OBJ + np.arange(n)
        photometry = {f"modelMag{err}_{band}": draws.uniform(17, 18, n) for band in "ugriz" for err in ("", "Err")}
        photometry["modelMag_u"] += 1.5
        sizes = {"petroMag_r": np.full(n, 16.0), "petroR50_r": np.full(n, 3.0), "petroR90_r": np.full(n, 6.0)}
        fluxes = {f"{line}_flux": np.full(n, 30.0) for line in (*LINES, "h_delta")}
        errors = {f"{name}_err": np.ones(n) for name in fluxes}
        physics = {"oh_p50": np.full(n, 8.9), "lgm_tot_p50": np.full(n, 10.0), "sfr_tot_p50": np.zeros(n)}
        percentiles = {f"oh_{p}": np.full(n, 8.9) for p in ("p2p5", "p16", "p84", "p97p5")}
        speed = {"velDisp": np.full(n, 100.0), "velDispErr": np.full(n, 9.0), "rChi2": np.ones(n)}
        sky = {"ra": draws.uniform(0, 360, n), "dec": draws.uniform(-9, 60, n)}
        redshift = {"z": draws.uniform(0.05, 0.2, n), "zErr": np.full(n, 1e-4)}
        self.tables = {
            "SpecObj": {"specObjID": spec, "bestObjID": best, **redshift, **speed},
            # In Galaxy, z is the z-band magnitude.
            "Galaxy": {"objID": best, **sky, "z": np.full(n, 17.0), **photometry, **sizes},
            "GalSpecLine": {"specObjID": spec, **fluxes, **errors},
            "GalSpecInfo": {"specObjID": spec, "reliable": np.ones(n, dtype=int)},
            "GalSpecExtra": {"specObjID": spec, "bptclass": np.ones(n, dtype=int), **physics, **percentiles},
            "GalSpecIndx": {"specObjID": spec, "d4000": np.full(n, 1.4), "d4000_err": np.full(n, 0.1)},
            "PhotoObjDR7": {"DR7ObjID": best - 10**15, "DR8ObjID": best},
        }

    def append(self, table: str, **values: int) -> None:
        self.tables[table] = {name: np.append(self.tables[table][name], values[name]) for name in self.tables[table]}

    @cached_property
    def base(self) -> sqlite3.Connection:
        base = sqlite3.connect(":memory:")
        weakref.finalize(self, base.close)
        for name, columns in self.tables.items():
            pd.DataFrame(columns).to_sql(name, base, index=False)
        return base

    def __call__(self, sql: str) -> str:
        self.asked.append(sql)
        top = re.search(r"TOP (\d+) WITH TIES ", sql)
        rows = pd.read_sql(sql.replace(top[0], "") if top else sql, self.base)
        if top and len(rows) > int(top[1]):
            rows = rows[rows["specObjID"].map(int) <= int(rows["specObjID"].iloc[int(top[1]) - 1])]
        return "#Table1\n" + rows.to_csv(index=False)


@pytest.mark.parametrize("name", QUERIES)
def test_sql_gives_its_columns_with_ids_as_exact_text(name: str, tmp_path: Path) -> None:
    rows = fetch_rows(QUERIES[name], tmp_path, Archive())
    assert rows.columns.tolist() == QUERIES[name].columns
    assert rows["objID"].tolist() == [str(FIRST_OBJ + i) for i in range(60)]
    assert all(pd.api.types.is_numeric_dtype(rows[column].dtype) for column in rows.columns[len(QUERIES[name].ids) :])


@pytest.mark.parametrize("name", QUERIES)
def test_sql_cuts_on_the_redshift_not_on_the_z_band_magnitude(name: str, tmp_path: Path) -> None:
    archive = Archive()
    archive.tables["SpecObj"]["z"][7] = 0.001
    rows = fetch_rows(QUERIES[name], tmp_path, archive)
    assert len(rows) == 59
    assert str(FIRST_OBJ + 7) not in set(rows["objID"])
    assert rows["z"].max() < 1


def test_galaxy_cnns_takes_what_its_paper_takes(tmp_path: Path) -> None:
    archive = Archive()
    archive.tables["Galaxy"]["petroMag_r"][0] = 18.5
    archive.tables["Galaxy"]["modelMag_u"][1] = archive.tables["Galaxy"]["modelMag_r"][1] - 0.1
    archive.tables["Galaxy"]["modelMag_i"][2] = 25.5
    archive.tables["SpecObj"]["rChi2"][3] = 2.5
    archive.tables["SpecObj"]["zErr"][4] = 0.0
    archive.tables["GalSpecExtra"]["oh_p50"][5] = -9999
    rows = fetch_rows(QUERIES["galaxy_cnns"], tmp_path, archive)
    assert rows["objID"].tolist() == [str(FIRST_OBJ + i) for i in range(6, 60)]


@pytest.mark.parametrize("name", QUERIES)
def test_statements_fit_into_a_url_that_skyserver_accepts(name: str) -> None:
    sql = QUERIES[name].page_sql(sdss_queries.PAGE_ROWS, "9" * 19)
    assert len(urlencode({"cmd": sql, "format": "csv", "searchtool": "SQL"})) < sdss_queries.LONGEST_QUERY_STRING


@pytest.mark.parametrize("page_rows", [1, 5, 12, 13])
def test_pages_add_up_to_the_whole_however_large_they_are(page_rows: int, tmp_path: Path) -> None:
    whole = fetch_rows(SFNET, tmp_path / "whole", Archive(12))
    paged = fetch_rows(SFNET, tmp_path / "paged", Archive(12), page_rows=page_rows)
    pd.testing.assert_frame_equal(paged, whole)


@pytest.mark.parametrize("page_rows", [1, 2, 3, 14])
def test_rows_of_one_spectrum_are_never_lost_between_pages(page_rows: int, tmp_path: Path) -> None:
    archive = Archive(12)
    for i in (2, 3, 11):
        archive.append("PhotoObjDR7", DR7ObjID=5 + i, DR8ObjID=FIRST_OBJ + i)
    rows = fetch_rows(SFNET, tmp_path, archive, page_rows=page_rows)
    assert len(rows) == 15
    assert rows["objID"].value_counts().head(3).tolist() == [2, 2, 2]


def test_killed_fetch_goes_on_after_its_last_page(tmp_path: Path) -> None:
    archive = Archive()

    def dying(sql: str) -> str:
        if len(archive.asked) == 4:
            raise KeyboardInterrupt
        return archive(sql)

    with pytest.raises(KeyboardInterrupt):
        fetch_rows(SFNET, tmp_path, dying, page_rows=10)
    rows = fetch_rows(SFNET, tmp_path, archive, page_rows=10)
    pd.testing.assert_frame_equal(rows, fetch_rows(SFNET, tmp_path / "whole", Archive()))
    assert len(archive.asked) == 1 + 6  # the count and each page once


def test_finished_fetch_asks_nothing(tmp_path: Path) -> None:
    rows = fetch_rows(SFNET, tmp_path, Archive(), page_rows=25)

    def silent(sql: str) -> str:
        raise AssertionError(sql)

    pd.testing.assert_frame_equal(fetch_rows(SFNET, tmp_path, silent), rows)


def test_limit_gives_the_first_rows_and_a_later_fetch_the_rest(tmp_path: Path) -> None:
    archive = Archive()
    assert len(fetch_rows(SFNET, tmp_path, archive, limit=10)) == 10
    assert len(fetch_rows(SFNET, tmp_path, archive)) == 60
    assert len([sql for sql in archive.asked if "COUNT" in sql]) == 1


def altered(pattern: str, replacement: str, only_page: int = 1) -> Callable[[str], str]:
    """An archive whose n-th page is tampered with."""
    archive = Archive()

    def ask(sql: str) -> str:
        text = archive(sql)
        return re.sub(pattern, replacement, text) if len(archive.asked) == only_page + 1 else text

    return ask


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (altered("zErr", "zError"), r"the server's table has columns .*zError.*, expected .*zErr"),
        (altered(rf"\n{FIRST_OBJ}\b", "\n1.2376458795510663e+18"), r"column objID: 1 ids .* no integers, first '1\.2"),
        (altered(rf"\n{FIRST_OBJ}\b", "\n"), r"column objID: 1 ids of the server are no integers, first nan"),
        (altered(r",16\.0,", ",faint,"), r"column petroMag_r: expected numbers, the server sent others: .*faint"),
        (altered(r"\n60\b", "\nmany", only_page=0), r"asked for a number of rows and sent '#Table1\\nn\\nmany"),
        (altered(r"(?s)(#Table1\n[^\n]*\n).*", r"\1", 3), r"no more rows, but counted 40 more"),
        (altered(str(FIRST_SPEC + 10), str(FIRST_SPEC + 9), 2), r"not in order or overlaps the last"),
    ],
)
def test_wrong_answers_are_refused(ask: Callable[[str], str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        fetch_rows(SFNET, tmp_path, ask, page_rows=10)


def test_more_rows_than_counted_are_refused(tmp_path: Path) -> None:
    archive = Archive()
    fetch_rows(SFNET, tmp_path, archive, limit=30)
    (tmp_path / "count.txt").write_text("20\n")
    with pytest.raises(DataError, match=r"30 rows, 0 of them twice, where the server counted 20; remove this folder"):
        fetch_rows(SFNET, tmp_path, archive)


def test_case_of_the_servers_column_names_does_not_matter(tmp_path: Path) -> None:
    rows = fetch_rows(SFNET, tmp_path, altered("DR7ObjID", "dr7objid"))
    assert "DR7ObjID" in rows


def test_null_is_a_missing_number(tmp_path: Path) -> None:
    rows = fetch_rows(SFNET, tmp_path, altered(r",8\.9,", ",null,"))
    assert rows["oh_p50"].isna().all()


# --- cleaning ---------------------------------------------------------------------------------------------------------


def messy_rows() -> pd.DataFrame:
    table = Archive(20)(SFNET.page_sql(99, "0")).removeprefix("#Table1\n")
    rows = pd.read_csv(StringIO(table), dtype=dict.fromkeys(SFNET.ids, "str"))
    rows.loc[1, "objID"] = rows.loc[0, "objID"]
    rows.loc[2, "h_beta_flux"] = 2.9
    rows.loc[3, "h_alpha_flux_err"] = 0.0
    rows.loc[4, "oiii_5007_flux"] = np.nan
    rows.loc[5, "reliable"] = 0
    rows.loc[[4, 6], "zErr"] = 0.02
    return rows


def test_sample_table_counts_each_step_after_the_others_and_alone() -> None:
    catalog, sample = clean(SFNET, messy_rows())
    assert sample[["kept", "removed", "kept_alone"]].to_numpy().tolist() == [
        [20, 0, 20],
        [18, 2, 18],
        [15, 3, 15],
        [14, 1, 17],
        [13, 1, 16],
    ]
    assert sample["step"].iloc[1] == "one row an objID"
    assert len(catalog) == 13


def test_every_row_of_a_repeated_id_goes() -> None:
    rows = messy_rows()
    catalog, _ = clean(SFNET, rows)
    assert rows.loc[0, "objID"] not in set(catalog["id_str"])
    assert catalog["id_str"].is_unique


def test_catalogue_begins_with_the_id_and_keeps_the_label_columns() -> None:
    catalog, _ = clean(SFNET, messy_rows())
    assert catalog.columns[0] == "id_str"
    assert {"oh_p50", "lgm_tot_p50", "sfr_tot_p50", "bptclass", "h_alpha_flux", "h_alpha_flux_err"} <= {
        *catalog.columns
    }
    assert catalog.index.tolist() == list(range(13))


def test_a_cut_at_its_limit_keeps_signal_to_noise_of_three() -> None:
    rows = messy_rows().assign(h_beta_flux=3.0)
    _, sample = clean(SFNET, rows)
    assert sample["kept"].iloc[2] == 16


# --- transport --------------------------------------------------------------------------------------------------------

ERROR_PAGE = (
    "<html><head>\n<title>Skyserver Error</title>\n</head><body bgcolor=white>\n<h2>An error occured</h2>"
    "<H3 BGCOLOR=pink><font color=red><br>{}</font></H3></BODY></HTML>\n"
)
TABLE = "#Table1\nn\n452334\n"


class Script:
    """Gives the answers (status, body) in turn and keeps the requests and their times."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []
        self.times: list[float] = []

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        self.times.append(time.monotonic())
        status, text = self.answers.pop(0)
        return Answer(status, text.encode())


@contextmanager
def telling(*answers: tuple[int, str]) -> Iterator[Script]:
    """A server of the script, at `url`."""
    script = Script(*answers)
    with serving(script.answer) as script.url:
        yield script


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdss_queries, "QUERIES_PER_S", 1000.0)


def test_skyserver_is_asked_for_csv_of_the_release() -> None:
    with telling((200, TABLE)) as server:
        assert sdss_queries.skyserver(server.url, 17)("SELECT COUNT(*) AS n FROM SpecObj S WHERE S.z>0.02") == TABLE
    (asked,) = server.requests
    assert asked.path == "/dr17/en/tools/search/x_results.aspx"
    assert asked.fields["format"] == "csv"
    assert asked.fields["cmd"] == " SELECT COUNT(*) AS n FROM SpecObj S WHERE S.z>0.02"
    assert "astroquery" in asked.headers["User-Agent"]


def test_trouble_that_passes_is_waited_out() -> None:
    troubles = [(503, "<html><h1>503 Service Unavailable</h1></html>"), (429, ""), (200, "<html>busy</html>")]
    with telling(*troubles, (200, TABLE)) as server:
        assert sdss_queries.skyserver(server.url, 17, backoff_s=0.01)("SELECT 1") == TABLE


@pytest.mark.parametrize(
    ("status", "page"),
    [
        (200, ERROR_PAGE.format("Incorrect syntax near the keyword &#39;FROM&#39;.")),
        (500, json.dumps({"Error Code": 500, "Error Message": "Incorrect syntax near the keyword 'FROM'."})),
    ],
)
def test_wrong_query_is_refused_at_once_with_the_servers_words(status: int, page: str) -> None:
    with telling((status, page)) as server, pytest.raises(DataError) as caught:
        sdss_queries.skyserver(server.url, 17)("SELECT FROM")
    assert "refuses the query" in str(caught.value)
    assert "Incorrect syntax near the keyword 'FROM'." in str(caught.value)
    assert "<" not in str(caught.value)


def test_lasting_trouble_is_one_message_that_says_what_to_do() -> None:
    with (
        telling(*[(500, ERROR_PAGE.format("Timeout expired."))] * 4) as server,
        pytest.raises(DataError, match=r"status 500: An error occured Timeout expired\., 4 times; check the network"),
    ):
        sdss_queries.skyserver(server.url, 17, backoff_s=0.01)("SELECT 1")


@pytest.mark.parametrize("connect", [sdss_queries.skyserver, lambda *a, **k: sdss_queries.casjobs("token", *a, **k)])
def test_no_network_is_one_message_that_says_what_to_do(connect: Callable[..., sdss_queries.Ask]) -> None:
    with pytest.raises(DataError, match=r"no answer \(.*\), 4 times; check the network, or wait, and run the same"):
        connect("http://127.0.0.1:1", 17, backoff_s=0.01)("SELECT 1")


def test_queries_keep_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdss_queries, "QUERIES_PER_S", 10.0)
    with telling(*[(200, TABLE)] * 4) as server:
        ask = sdss_queries.skyserver(server.url, 17)
        ask("SELECT 1")  # loads astroquery on its way
        begun = time.monotonic()
        for _ in range(3):
            ask("SELECT 1")
    assert server.times[-1] - begun > 0.19


def test_casjobs_gets_the_token_and_the_query_as_json() -> None:
    with telling((200, "n\n452334\n")) as server:
        assert sdss_queries.casjobs("secret", server.url, 17)("SELECT 1") == "n\n452334\n"
    (asked,) = server.requests
    assert asked.path == "/CasJobs/RestApi/contexts/DR17/query"
    assert asked.headers["X-Auth-Token"] == "secret"
    assert json.loads(asked.body)["Query"] == "SELECT 1"


def test_refused_token_is_said_to_be_one_and_not_shown() -> None:
    with telling((401, "denied")) as server, pytest.raises(DataError, match="token is not accepted") as caught:
        sdss_queries.casjobs("secret", server.url, 17)("SELECT 1")
    assert "secret" not in str(caught.value)
