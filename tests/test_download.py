"""`sfnetlab download sdss` against a server on 127.0.0.1 that is like the real ones, with faults and a SIGKILL."""

import csv
import errno
import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from servers import Answer, Request, serving
from sfnetlab import cli, download
from sfnetlab.surveys.catalog import read_catalog
from sfnetlab.surveys.lines import LINES
from sfnetlab.surveys.sdss_queries import QUERIES

SIDE = 64
FIRST_OBJ, FIRST_SPEC = 1237645879551066262, 299489676975171584
QUERY = QUERIES["sfnet"]


def sdss_rows(n: int) -> list[dict[str, object]]:
    """Row i is of objID FIRST_OBJ + i and lies at ra = i / 100. Rows 0 to 3 do not survive the cleaning."""
    rows = []
    for i in range(n):
        row: dict[str, object] = dict.fromkeys(QUERY.columns, 1.0)
        row |= {
            "objID": FIRST_OBJ + i,
            "DR7ObjID": 5 * 10**17 + i,
            "specObjID": FIRST_SPEC + i,
            "ra": i / 100,
            "z": 0.1,
        }
        row |= {f"{line}_flux": 30.0 for line in LINES} | {"zErr": 1e-4, "oh_p50": 8.9, "reliable": 1}
        rows.append(row)
    rows[0]["objID"] = rows[1]["objID"]
    rows[2]["h_beta_flux"] = 2.0
    rows[3]["reliable"] = 0
    return rows


@cache
def jpeg(i: int, side: int = SIDE) -> bytes:
    """Another image for every galaxy."""
    pixels = np.random.default_rng(i).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(buffer, "JPEG")
    return buffer.getvalue()


FAULTS = ("500", "429", "timeout", "cut", "html", "empty", "size", "404")


class Sky:
    """SkyServer and the Legacy Survey viewer in one; `fault_of(galaxy, n_asked_before)` names a fault or is None."""

    def __init__(self, n: int) -> None:
        self.rows = sdss_rows(n)
        self.queries: list[str] = []
        self.asked: Counter[int] = Counter()
        self.had: Counter[int] = Counter()
        self.layers: set[str] = set()

    def fault_of(self, i: int, n_before: int) -> str | None:
        return None

    def answer(self, request: Request) -> Answer | None:
        match request.path:
            case "/dr17/en/tools/search/x_results.aspx":
                return Answer(200, self.table(request.fields["cmd"]).encode())
            case "/viewer/cutout.jpg":
                layer = request.fields["layer"]
            case "/dr17/SkyServerWS/ImgCutout/getjpeg":
                layer = "skyserver"
            case _:
                return Answer(404)
        self.layers.add(layer)
        return self.cutout(round(float(request.fields["ra"]) * 100))

    def table(self, sql: str) -> str:
        self.queries.append(sql)
        if "COUNT" in sql:
            return f"#Table1\nn\n{len(self.rows)}\n"
        (top,), (after,) = re.findall(r"TOP (\d+)", sql), re.findall(r"specObjID>(\d+)", sql)
        text = StringIO()
        writer = csv.DictWriter(text, QUERY.columns)
        writer.writeheader()
        writer.writerows([row for row in self.rows if int(str(row["specObjID"])) > int(after)][: int(top)])
        return "#Table1\n" + text.getvalue()

    def cutout(self, i: int) -> Answer | None:
        n_before = self.asked[i]
        self.asked[i] += 1
        match self.fault_of(i, n_before):
            case "500":
                return Answer(500, b"Internal Server Error")
            case "429":
                return Answer(429, headers={"Retry-After": "0"})
            case "timeout":
                return None
            case "cut":
                return Answer(200, jpeg(i)[:-200], {"Content-Length": str(len(jpeg(i)))})
            case "html":
                return Answer(200, b"<!DOCTYPE html><html><body>Please try again later</body></html>")
            case "empty":
                return Answer(200)
            case "size":
                return Answer(200, jpeg(i, side=SIDE // 2))
            case "404":
                return Answer(404)
            case _:
                self.had[i] += 1
                return Answer(200, jpeg(i))


class Rough(Sky):
    """One answer in ten fails, drawn for each request; galaxies 10 to 17 fail for ever, each in its own way."""

    def fault_of(self, i: int, n_before: int) -> str | None:
        if 10 <= i < 10 + len(FAULTS):
            return FAULTS[i - 10]
        draw = int(hashlib.sha256(f"{i} {n_before}".encode()).hexdigest(), 16)
        return FAULTS[draw // 10 % 7] if draw % 10 == 0 and n_before < 3 else None


@pytest.fixture
def sky(request: pytest.FixtureRequest) -> Iterator[Sky]:
    kind, n = getattr(request, "param", (Sky, 40))
    sky = kind(n)
    with serving(sky.answer) as sky.url:
        yield sky


def command(sky: Sky, to: Path, *more: str) -> list[str]:
    servers = ["--skyserver", sky.url, "--legacy-survey", sky.url]
    hurry = ["--rate", "inf", "--workers", "16", "--backoff", "0.001", "--timeout", "1.5", "--tries", "5"]
    return ["download", "sdss", "--to", str(to), "--size", str(SIDE), *servers, *hurry, *more]


def images_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "images").iterdir() if path.suffix == ".jpg"}


# --- what a download gives --------------------------------------------------------------------------------------------


def test_folder_holds_catalogue_images_sample_failures_and_receipt(sky: Sky, tmp_path: Path) -> None:
    assert cli.main(command(sky, tmp_path)) == 0
    ids = [str(FIRST_OBJ + i) for i in range(4, 40)]
    catalog = read_catalog(tmp_path / "catalog.parquet", "id_str")
    assert catalog["id_str"].tolist() == ids
    assert catalog["oh_p50"].tolist() == [8.9] * 36
    assert images_of(tmp_path) == {f"{FIRST_OBJ + i}.jpg": jpeg(i) for i in range(4, 40)}
    assert pd.read_csv(tmp_path / "sample.csv")["kept"].tolist() == [40, 38, 37, 36, 36]
    assert (tmp_path / "failed.csv").read_text() == "id_str,reason,n_tries,url\n"
    receipt = json.loads((tmp_path / "download.json").read_text())
    assert receipt["counts"] == {"rows": 40, "sample": 36, "cutouts": 36, "failed": 0}
    assert (receipt["query"], receipt["layer"], receipt["pixel_scale_arcsec"], receipt["size"]) == (
        *("sfnet", "sdss", 0.262, SIDE),
    )
    assert hashlib.sha256(receipt["sql"].encode()).hexdigest() == receipt["sql_sha256"] == QUERY.sha256
    assert receipt["finished"] >= receipt["started"]


def test_sample_table_and_outcome_are_printed(sky: Sky, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(command(sky, tmp_path))
    printed = capsys.readouterr().out
    assert re.search(r"step +kept +removed +kept_alone", printed)
    assert re.search(r"one row an objID +38 +2 +38", printed)
    assert "36 of 36 cutouts" in printed


def test_second_run_asks_nothing(sky: Sky, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(command(sky, tmp_path))
    n_asked = len(sky.queries), sky.asked.total()
    assert cli.main(command(sky, tmp_path)) == 0
    assert (len(sky.queries), sky.asked.total()) == n_asked
    assert "36 of 36 cutouts" in capsys.readouterr().out


def test_trial_of_a_few_rows_grows_into_the_whole(sky: Sky, tmp_path: Path) -> None:
    assert cli.main(command(sky, tmp_path, "--limit", "10")) == 0
    assert len(images_of(tmp_path)) == 6
    before = sky.asked.copy()
    assert cli.main(command(sky, tmp_path)) == 0
    assert len(images_of(tmp_path)) == 36
    assert all(sky.asked[place] == n for place, n in before.items()), "nothing is fetched twice"


def test_other_sources_and_layers_are_asked_for(sky: Sky, tmp_path: Path) -> None:
    assert cli.main(command(sky, tmp_path / "a", "--layer", "ls-dr10")) == 0
    assert cli.main(command(sky, tmp_path / "b", "--images-from", "skyserver")) == 0
    assert sky.layers == {"ls-dr10", "skyserver"}
    assert json.loads((tmp_path / "b/download.json").read_text())["layer"] is None


def test_queries_to_choose_from_are_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["download", "sdss", "--help"])
    assert "{" + ",".join(QUERIES) + "}" in capsys.readouterr().out


# --- what goes wrong --------------------------------------------------------------------------------------------------


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one message of a command that ends with status 2."""
    assert cli.main(arguments) == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sfnetlab: ")]
    return message


@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        (["--layer", "ls-dr10"], "layer is 'sdss' there, 'ls-dr10' here"),
        (["--pixel-scale", "0.3"], "pixel_scale_arcsec is 0.262 there, 0.3 here"),
        (["--query", "galaxy_cnns"], "query is 'sfnet' there, 'galaxy_cnns' here"),
    ],
)
def test_folder_never_mixes_two_downloads(
    flags: list[str], difference: str, sky: Sky, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(command(sky, tmp_path, "--limit", "5"))
    message = refused(command(sky, tmp_path, *flags), capsys)
    assert difference in message
    assert "choose another folder with --to" in message


def test_two_downloads_into_one_folder_are_refused(
    sky: Sky, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)  # as a download of another process holds it
    try:
        assert "another process downloads into it" in refused(command(sky, tmp_path), capsys)
    finally:
        os.close(other)


def test_folder_that_cannot_be_made_is_one_message(
    sky: Sky, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    message = refused(command(sky, tmp_path / "file/data"), capsys)
    assert re.search(r"file/data: Not a directory; mend this, or choose another folder with --to", message)


def test_full_disk_is_one_message(
    sky: Sky, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    message = refused(command(sky, tmp_path), capsys)
    assert re.search(r"images/.*\.jpg: No space left on device; mend this, or choose another folder with --to", message)


def test_casjobs_without_token_is_refused(
    sky: Sky, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(download.CASJOBS_TOKEN, raising=False)
    assert "SCISERVER_TOKEN is empty" in refused(command(sky, tmp_path, "--casjobs"), capsys)


def test_size_that_skyserver_does_not_make_is_refused(
    sky: Sky, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(command(sky, tmp_path, "--images-from", "skyserver", "--size", "32"), capsys)
    assert message == "sfnetlab: --size: SkyServer makes cutouts of 64 to 2048 pixels, got 32"


@pytest.mark.parametrize("flag", ["--rate", "--pixel-scale", "--workers", "--limit"])
@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_impossible_numbers_are_refused(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["download", "sdss", "--to", "x", flag, value])
    assert f"argument {flag}: " in capsys.readouterr().err


def test_server_that_is_down_ends_the_download_with_what_there_is(
    sky: Sky, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sky, "fault_of", lambda self, i, n_before: "html" if i >= 8 else None)
    message = refused(command(sky, tmp_path), capsys)
    assert "given up after 25 cutouts in a row" in message
    assert len(images_of(tmp_path)) == 4
    assert 25 <= len(pd.read_csv(tmp_path / "failed.csv")) <= 32
    assert json.loads((tmp_path / "download.json").read_text())["finished"] is None


# --- the rough night --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sky", [(Rough, 604)], indirect=True)
def test_all_cutouts_that_can_be_had_are_had_whatever_fails(sky: Sky, tmp_path: Path) -> None:
    arguments = command(sky, tmp_path)
    killed = subprocess.Popen([sys.executable, "-m", "sfnetlab", *arguments], stderr=subprocess.DEVNULL)
    while sky.had.total() < 200:
        assert killed.poll() is None
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()

    can_be_had = {f"{FIRST_OBJ + i}.jpg": jpeg(i) for i in range(4, 604) if not 10 <= i < 10 + len(FAULTS)}
    left = images_of(tmp_path)
    whole = {name: image for name, image in left.items() if not name.startswith(".")}
    assert 150 < len(whole) < len(can_be_had), "killed in the middle"
    assert whole.items() <= can_be_had.items()

    assert cli.main(arguments) == 0
    assert images_of(tmp_path) == can_be_had
    failed = pd.read_csv(tmp_path / "failed.csv", dtype={"id_str": "str"}).set_index("id_str")
    reasons = [
        "status 500 Internal Server Error",
        "status 429 Too Many Requests",
        "no answer in 1.5 s (ReadTimeout)",
        "RemoteProtocolError: peer closed connection",
        "no JPEG but 63 bytes: b'<!DOCTYPE html>",
        "0 bytes",
        f"expected {SIDE}×{SIDE} pixels, found {SIDE // 2}×{SIDE // 2}",
        "status 404 Not Found",
    ]
    assert sorted(failed.index) == [str(FIRST_OBJ + i) for i in range(10, 18)]
    for i, reason in enumerate(reasons):
        assert failed.loc[str(FIRST_OBJ + 10 + i), "reason"].startswith(reason)
    assert failed["n_tries"].tolist().count(5) == 7
    # The kill lost nothing: only what was in the air, on 16 connections, came twice.
    assert sum(n - 1 for n in sky.had.values()) <= 2 * 16
    assert json.loads((tmp_path / "download.json").read_text())["counts"]["cutouts"] == 592
