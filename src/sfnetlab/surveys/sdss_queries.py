"""SDSS galaxies by SQL: two published samples as named queries, fetched in pages, checked, and cleaned step by step.

cutouts.py fetches the cutouts; download.py knows the layout of a downloaded folder.
"""

import hashlib
import html
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pandas as pd

from sfnetlab.errors import DataError
from sfnetlab.files import replacing, write_text
from sfnetlab.surveys.cutouts import USER_AGENT, Pacer
from sfnetlab.surveys.lines import LINES

PAGE_ROWS = 50_000
"""Rows a page: a tenth of what SkyServer gives at most, so that a page needs much less than its 10 minutes too."""

LONGEST_QUERY_STRING = 2048
"""Characters of a GET's query string that SkyServer's web server accepts (IIS' default; astroquery issue 2211)."""

QUERIES_PER_S = 0.9
"""SkyServer rejects more than 60 queries a minute."""

_TIMEOUT_S = 660.0
"""SkyServer itself gives up after 600 s."""

_TRIES = 4

_SQL_FAULT = re.compile(r"(?i)invalid (column|object) name|incorrect syntax|could not be bound")
"""What SQL Server says of a statement that will never work. SkyServer may send these words with status 200."""

_logger = logging.getLogger(__name__)

Ask = Callable[[str], str]
"""Sends one SQL statement and returns the answer's text, which should be CSV. It raises a DataError if none comes."""


class Step(NamedTuple):
    """One cut of the cleaning."""

    name: str
    """Its name in the table of the sample."""
    keeps: str
    """The pandas expression that is true for rows that stay."""


class Query(NamedTuple):
    """A sample of galaxies: what is selected on the server, and how it is cleaned here.

    Attributes
    ----------
    ids
        Column: where it comes from. 64-bit integers, selected as text so that they never pass through a float.
    numbers
        The other columns as `alias.column`; the column keeps its SDSS name.
    tables, cuts
        FROM and WHERE. Pages are cut by S.specObjID.
    steps
        Cleaning after rows of repeated objIDs are gone.
    """

    ids: dict[str, str]
    numbers: tuple[str, ...]
    tables: str
    cuts: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def columns(self) -> list[str]:
        return [*self.ids, *(number.partition(".")[2] for number in self.numbers)]

    @property
    def sql(self) -> str:
        """The whole sample in one statement, as it is recorded; no server gives so many rows at once."""
        return f"SELECT {self._selected} {self._from_where}"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def count_sql(self) -> str:
        return f"SELECT COUNT(*) AS n {self._from_where}"

    def page_sql(self, n_rows: int, after: str) -> str:
        """Return the statement for the next rows by specObjID. WITH TIES keeps the rows of one spectrum on one page."""
        return (
            f"SELECT TOP {n_rows} WITH TIES {self._selected} {self._from_where} "
            f"AND S.specObjID>{after} ORDER BY S.specObjID"
        )

    @property
    def _selected(self) -> str:
        ids = (f"CAST({source} AS varchar(20)) AS {name}" for name, source in self.ids.items())
        return ",".join([*ids, *self.numbers])

    @property
    def _from_where(self) -> str:
        return f"FROM {self.tables} WHERE {' AND '.join(self.cuts)}"


_SPECTRA = (
    "SpecObj S JOIN Galaxy G ON G.objID=S.bestObjID JOIN GalSpecLine L ON L.specObjID=S.specObjID "
    "JOIN GalSpecInfo I ON I.specObjID=S.specObjID JOIN GalSpecExtra E ON E.specObjID=S.specObjID"
)
_BASICS = ("G.ra", "G.dec", "S.z", "S.zErr", "S.velDisp", "S.velDispErr")
_BANDS = "ugriz"
_MAGNITUDES = tuple(f"G.modelMag_{band}" for band in _BANDS)
_FLUXES = tuple(f"L.{line}_flux{suffix}" for line in LINES for suffix in ("", "_err"))

QUERIES = {
    # Wu 2024's parent sample, as agn-convnets' data/AGN_K03.sql asks for it but for one repair: its "G.z > 0.02" is
    # the z-band magnitude, which cuts nothing; S.z is the redshift. So fewer rows come than its 452,334; what is left
    # after cleaning is comparable with its 250,224.
    "sfnet": Query(
        ids={"objID": "G.objID", "DR7ObjID": "P.DR7ObjID", "specObjID": "S.specObjID"},
        numbers=(
            *_BASICS, *_MAGNITUDES, "G.petroMag_r", "G.petroR50_r", "G.petroR90_r",
            "E.bptclass", "E.oh_p50", "E.lgm_tot_p50", "E.sfr_tot_p50", *_FLUXES, "I.reliable",
        ),
        tables=f"{_SPECTRA} JOIN PhotoObjDR7 P ON P.DR8ObjID=S.bestObjID",
        cuts=("S.z>0.02", "G.petroMag_r>14", "G.petroMag_r<=17.77", *(f"L.{line}_flux>0" for line in LINES)),
        steps=(
            Step(
                "S/N of [NII] 6584, H-alpha, [OIII] 5007 and H-beta at least 3",
                " and ".join(f"{line}_flux_err > 0 and {line}_flux / {line}_flux_err >= 3" for line in LINES),
            ),
            Step("spectral measurements reliable", "reliable == 1"),
            Step("redshift above 0.02, its error below 0.01", "z > 0.02 and zErr < 0.01"),
        ),
    ),
    # Wu & Boada 2019's sample (142,186 rows, 142,145 of them with a mass), as galaxy-cnns' SDSS_sql_query.sql asks.
    "galaxy_cnns": Query(
        ids={"objID": "G.objID", "specObjID": "S.specObjID"},
        numbers=(
            *_BASICS, *_MAGNITUDES, *(f"G.modelMagErr_{band}" for band in _BANDS), "G.petroR50_r", "G.petroR90_r",
            *_FLUXES, "L.h_delta_flux", "L.h_delta_flux_err", "X.d4000", "X.d4000_err", "E.bptclass",
            "E.oh_p2p5", "E.oh_p16", "E.oh_p50", "E.oh_p84", "E.oh_p97p5", "E.lgm_tot_p50", "E.sfr_tot_p50",
        ),
        tables=f"{_SPECTRA} JOIN GalSpecIndx X ON X.specObjID=S.specObjID",
        cuts=(
            "G.petroMag_r>10", "G.petroMag_r<18", "G.modelMag_u-G.modelMag_r>0", "G.modelMag_u-G.modelMag_r<6",
            *(f"{magnitude}{limit}" for magnitude in _MAGNITUDES for limit in (">10", "<25")),
            "S.rChi2<2", "S.zErr>0", "S.zErr<0.01", "S.z>0.02", "E.oh_p50!=-9999",
        ),
        steps=(Step("stellar mass measured", "lgm_tot_p50 > 0"),),
    ),
}  # fmt: skip


def fetch_rows(
    query: Query, folder: Path, ask: Ask, *, limit: int | None = None, page_rows: int = PAGE_ROWS
) -> pd.DataFrame:
    """Fetch every row of a query, or its first `limit` rows, in the order of specObjID.

    Pages are kept in `folder`, each written at once, beside `count.txt`, the answer to COUNT(*). A fetch that was
    killed goes on after its last page, and a finished one asks the server nothing.

    Parameters
    ----------
    folder : Path
        Where pages are kept.
    ask : Ask
        How the server is asked.
    limit : int, optional
        Rows to fetch; there are a few more where the last spectrum has several rows.
    page_rows : int
        Rows a page.

    Raises
    ------
    DataError
        If no answer comes or it is an error page, if columns are missing or hold something else, if pages overlap, or
        if the rows do not number what the server counted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n_total = _count(query, folder / "count.txt", ask)
    n_wanted = n_total if limit is None else min(limit, n_total)
    pages = [_stored_page(path) for path in sorted(folder.glob("page-*.parquet"))]
    n_rows = sum(map(len, pages))
    last = pages[-1]["specObjID"].iloc[-1] if pages else "0"
    while n_rows < n_wanted:
        page = _read_page(ask(query.page_sql(min(page_rows, n_wanted - n_rows), last)), query)
        _check_page(page, last, f"{folder}, after specObjID {last}", n_total - n_rows)
        with replacing(folder / f"page-{len(pages):05}.parquet") as partial:
            page.to_parquet(partial, index=False)
        pages.append(page)
        n_rows += len(page)
        last = page["specObjID"].iloc[-1]
        _logger.info("catalogue: %d of %d rows", n_rows, n_wanted)
    rows = pd.concat(pages, ignore_index=True)
    if n_rows > n_total or rows.duplicated().any():
        raise DataError(
            f"{folder}: {n_rows:,} rows, {rows.duplicated().sum():,} of them twice, where the server counted "
            f"{n_total:,}; remove this folder and fetch again"
        )
    return rows


def clean(query: Query, rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clean the rows of a query step by step; returns the catalogue and a table that counts each step.

    First all rows of a repeated objID are removed, since nothing tells which spectrum is the galaxy's. A row with NaN
    in a column of a step is removed too.

    Returns
    -------
    catalog : DataFrame
        `id_str` (the objID) first, then the query's other columns.
    sample : DataFrame
        A row a step: `step`; `kept`, the rows left after it; `removed`, the rows that it removed; and `kept_alone`, the
        rows that it would leave if it came first after the removal of repeated objIDs.
    """
    once = rows[~rows["objID"].duplicated(keep=False)]
    counts = [("rows of the query", len(rows), 0, len(rows)), _counted("one row an objID", rows, once, len(once))]
    left = once
    for step in query.steps:
        stay = once.query(step.keeps).index
        kept = left[left.index.isin(stay)]
        counts.append(_counted(step.name, left, kept, len(stay)))
        left = kept
    catalog = left.rename(columns={"objID": "id_str"}).reset_index(drop=True)
    return catalog, pd.DataFrame(counts, columns=["step", "kept", "removed", "kept_alone"])


def skyserver(url: str, data_release: int, *, backoff_s: float = 5.0) -> Ask:
    """Return a function that asks SkyServer's SQL search, at most 54 statements a minute. No account is needed.

    astroquery only transports the statements: its parser takes an error page for a table (astroquery issue 3369), and
    its guesses of types change ids.
    """

    def send(sql: str) -> tuple[int, str]:
        from astroquery.sdss import SDSSClass, conf  # seconds, which a download that is resumed need not spend

        service = SDSSClass()
        with conf.set_temp("skyserver_baseurl", url):
            response: Any = service.query_sql_async(sql, timeout=_TIMEOUT_S, data_release=data_release, cache=False)
        return response.status_code, response.text

    return _patient(send, url, backoff_s)


def casjobs(token: str, url: str, data_release: int, *, backoff_s: float = 5.0) -> Ask:
    """Return a function that asks CasJobs by its REST interface, with a SciServer token, as SciScript-Python does."""
    endpoint = f"{url}/CasJobs/RestApi/contexts/DR{data_release}/query"
    headers = {"User-Agent": USER_AGENT, "X-Auth-Token": token, "Accept": "text/plain"}
    task = {"TaskName": "sfnetlab.download"}

    def send(sql: str) -> tuple[int, str]:
        body = {"Query": sql, **task}
        response = httpx.post(endpoint, params=task, json=body, headers=headers, timeout=_TIMEOUT_S)
        if response.status_code in (401, 403):
            raise DataError(f"{endpoint}: the SciServer token is not accepted ({response.status_code}); get a new one")
        return response.status_code, response.text

    return _patient(send, endpoint, backoff_s)


def _patient(send: Callable[[str], tuple[int, str]], where: str, backoff_s: float) -> Ask:
    pacer = Pacer(QUERIES_PER_S)

    def ask(sql: str) -> str:
        trouble = ""
        for n_tries in range(_TRIES):
            if n_tries:
                _logger.warning("%s: %s; trying again", where, trouble)
                time.sleep(backoff_s * 2 ** (n_tries - 1))
            pacer.wait()
            try:
                status, text = send(sql)
            except (OSError, httpx.TransportError) as error:  # requests' errors are OSErrors
                trouble = f"no answer ({error})"
                continue
            if status < 400 and not text.lstrip().startswith(("<", "{")):
                return text
            trouble = f"no table but status {status}: {_plain(text) or 'nothing'}"
            if _SQL_FAULT.search(trouble) or (400 <= status < 500 and status != 429):
                raise DataError(f"{where}: the server refuses the query, {trouble}; try another --data-release")
        raise DataError(
            f"{where}: {trouble}, {_TRIES} times; check the network, or wait, and run the same command again: "
            "finished pages are kept"
        )

    return ask


def _count(query: Query, path: Path, ask: Ask) -> int:
    if not path.exists():
        answer = ask(query.count_sql)
        cells = _read_csv(answer).to_numpy().ravel().tolist()
        if len(cells) != 1 or not str(cells[0]).isdecimal():
            raise DataError(f"the server was asked for a number of rows and sent {answer[:200]!r}")
        write_text(path, f"{cells[0]}\n")
    n = int(path.read_text())
    if n == 0:
        raise DataError(f"{path}: the server counts no rows; remove this file, try another data release")
    return n


def _stored_page(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}); remove it and all later pages, and fetch again") from None


def _read_page(text: str, query: Query) -> pd.DataFrame:
    page = _read_csv(text)
    spelt = {name.lower(): name for name in query.columns}
    page = page.rename(columns={name: spelt.get(name.lower(), name) for name in page.columns})
    if page.columns.tolist() != query.columns:
        raise DataError(f"the server's table has columns {page.columns.tolist()}, expected {query.columns}")
    for name in query.ids:
        wrong = page[name][~page[name].str.fullmatch(r"\d{1,20}", na=False)]
        if len(wrong):
            raise DataError(f"column {name}: {len(wrong):,} ids of the server are no integers, first {wrong.iloc[0]!r}")
    for name in query.columns[len(query.ids) :]:
        try:
            page[name] = pd.to_numeric(page[name])
        except ValueError as error:
            raise DataError(f"column {name}: expected numbers, the server sent others: {error}") from None
    return page


def _check_page(page: pd.DataFrame, last: str, where: str, n_left: int) -> None:
    if page.empty:
        raise DataError(
            f"{where}: the server has no more rows, but counted {n_left:,} more; remove this folder and fetch again"
        )
    keys = [int(last), *map(int, page["specObjID"])]
    if keys[1] <= keys[0] or keys != sorted(keys):
        raise DataError(f"{where}: the next page is not in order or overlaps the last; its first row is {keys[1]}")


def _read_csv(text: str) -> pd.DataFrame:
    """The table of an answer, every column as text. SkyServer puts a line "#Table1" above it, CasJobs does not."""
    body = text.lstrip("\ufeff \r\n")
    if body.startswith("#"):
        body = body.partition("\n")[2]
    try:
        return pd.read_csv(StringIO(body), dtype="str", index_col=False)
    except ValueError as error:
        raise DataError(f"the server's table cannot be read ({error}); it begins {body[:200]!r}") from None


def _plain(text: str, longest: int = 500) -> str:
    """The text of an error page: the message of a JSON answer, or HTML without its tags."""
    try:
        text = " ".join(_messages(json.loads(text)))
    except json.JSONDecodeError:
        text = re.sub(r"(?is)<(script|style|title).*?</\1>|<[^>]*>", " ", text)
    plain = " ".join(html.unescape(text).split())
    return plain if len(plain) <= longest else f"{plain[:longest]}..."


def _messages(answer: object) -> Iterator[str]:
    if isinstance(answer, dict):
        yield from (str(value) for name, value in answer.items() if "message" in name.lower())
    else:
        yield str(answer)


def _counted(name: str, before: pd.DataFrame, after: pd.DataFrame, alone: int) -> tuple[str, int, int, int]:
    return name, len(after), len(before) - len(after), alone
