"""Cutouts over HTTP: only whole images of the right size count, servers are asked politely, none is fetched twice."""

import errno
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from servers import Answer, Request, serving
from sfnetlab.errors import DataError
from sfnetlab.surveys import cutouts
from sfnetlab.surveys.cutouts import (
    DownloadStoppedError,
    Manners,
    Outcome,
    Pacer,
    download_cutouts,
    legacy_survey_url,
    retry_after_s,
    skyserver_url,
)

SIDE = 24


def jpeg(seed: int, side: int = SIDE) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def flat_jpeg() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (SIDE, SIDE), (128, 128, 128)).save(buffer, "JPEG")
    return buffer.getvalue()


WHOLE = jpeg(0)
GOOD = Answer(200, WHOLE)


class Sky:
    """Serves paths by script: each request takes the path's next answer, the last one for ever; None never answers."""

    def __init__(self) -> None:
        self.script: dict[str, list[Answer | None]] = {}
        self.asked: Counter[str] = Counter()
        self.times: list[float] = []
        self.agents: set[str] = set()

    def answer(self, request: Request) -> Answer | None:
        self.times.append(time.monotonic())
        self.agents.add(request.headers["User-Agent"])
        n = self.asked[request.path]
        self.asked[request.path] += 1
        answers = self.script.get(request.path, [GOOD])
        return answers[min(n, len(answers) - 1)]


@pytest.fixture
def sky() -> Iterator[Sky]:
    sky = Sky()
    with serving(sky.answer) as sky.url:
        yield sky


def download(sky: Sky, folder: Path, ids: list[str], **manners: Any) -> Outcome:
    hurried = {"rate_per_s": float("inf"), "n_workers": 4, "n_tries": 3, "backoff_s": 0.001, "timeout_s": 0.5}
    images, record = folder / "images", folder / "verified.csv"
    return download_cutouts(ids, f"{sky.url}/{{}}".format, images, record, SIDE, Manners(**(hurried | manners)))


# Each fault: what the server sends, and what the report must say of it.
PASSING: dict[str, tuple[Answer | None, str]] = {
    "error-500": (Answer(500, b"oops"), "status 500 Internal Server Error"),
    "busy-429": (Answer(429, headers={"Retry-After": "0"}), "status 429 Too Many Requests"),
    "no-answer": (None, "no answer in 0.5 s (ReadTimeout)"),
    "cut-by-server": (
        Answer(200, WHOLE[:300], {"Content-Length": str(len(WHOLE))}),
        "RemoteProtocolError: peer closed",
    ),
    "cut-silently": (Answer(200, WHOLE[:-40]), "cannot be decoded: image file is truncated"),
    "html-with-200": (Answer(200, b"<!DOCTYPE html><html>busy</html>"), "no JPEG but 32 bytes: b'<!DOCTYPE html>"),
    "zero-bytes": (Answer(200), "0 bytes"),
    "wrong-size": (Answer(200, jpeg(0, side=16)), "expected 24×24 pixels, found 16×16"),
}
FINAL: dict[str, tuple[Answer | None, str]] = {
    "not-there-404": (Answer(404), "status 404 Not Found"),
    "forbidden-403": (Answer(403), "status 403 Forbidden"),
    "one-colour": (Answer(200, flat_jpeg()), "an image of one colour: outside the survey's footprint"),
}


def test_whole_images_arrive_byte_for_byte(sky: Sky, tmp_path: Path) -> None:
    for i in range(30):
        sky.script[f"/{i}"] = [Answer(200, jpeg(i))]
    assert download(sky, tmp_path, [str(i) for i in range(30)])[:2] == (0, 30)
    assert {path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()} == {
        f"{i}.jpg": jpeg(i) for i in range(30)
    }


@pytest.mark.parametrize("name", PASSING)
def test_fault_that_passes_is_tried_again(name: str, sky: Sky, tmp_path: Path) -> None:
    sky.script["/a"] = [PASSING[name][0], GOOD]
    n_before, n_new, failed = download(sky, tmp_path, ["a"])
    assert (n_before, n_new, len(failed)) == (0, 1, 0)
    assert (tmp_path / "images/a.jpg").read_bytes() == WHOLE
    assert sky.asked["/a"] == 2


@pytest.mark.parametrize("name", PASSING)
def test_fault_that_stays_is_reported_after_all_tries_and_leaves_no_file(name: str, sky: Sky, tmp_path: Path) -> None:
    sky.script["/a"] = [PASSING[name][0]]
    failed = download(sky, tmp_path, ["a", "b"]).failed
    assert failed["id_str"].tolist() == ["a"]
    assert PASSING[name][1] in failed["reason"].item()
    assert failed["n_tries"].item() == sky.asked["/a"] == 3
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["b.jpg"]


@pytest.mark.parametrize("name", FINAL)
def test_final_fault_is_reported_after_one_try(name: str, sky: Sky, tmp_path: Path) -> None:
    sky.script["/a"] = [FINAL[name][0]]
    failed = download(sky, tmp_path, ["a", "b"]).failed
    assert failed[["id_str", "reason", "n_tries"]].to_numpy().tolist() == [["a", FINAL[name][1], 1]]
    assert failed["url"].item() == f"{sky.url}/a"


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_holds_every_thread(as_date: bool, sky: Sky, tmp_path: Path) -> None:
    until = datetime.now(UTC) + timedelta(seconds=3)  # dates have whole seconds: 2 to 3 s from now
    after = format_datetime(until, usegmt=True) if as_date else "1"
    sky.script["/0"] = [Answer(429, headers={"Retry-After": after}), GOOD]
    outcome = download(sky, tmp_path, [str(i) for i in range(12)], n_workers=2, rate_per_s=50.0)
    assert outcome.n_new == 12
    assert np.diff(sky.times).max() > 0.9


def test_server_that_asks_for_an_hour_is_left_alone(sky: Sky, tmp_path: Path) -> None:
    sky.script["/a"] = [Answer(503, headers={"Retry-After": "3600"})]
    with pytest.raises(DownloadStoppedError, match=r"status 503 .*run the same command again") as caught:
        download(sky, tmp_path, ["a"])
    assert sky.asked["/a"] == 1
    assert caught.value.outcome.failed["id_str"].tolist() == ["a"]


@given(seconds=st.integers(0, 10**6))
def test_retry_after_reads_seconds_and_dates_alike(seconds: int) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    date = format_datetime(now + timedelta(seconds=seconds), usegmt=True)
    assert retry_after_s(str(seconds), now) == retry_after_s(date, now) == seconds
    assert retry_after_s(format_datetime(now - timedelta(seconds=seconds + 1), usegmt=True), now) == 0


@pytest.mark.parametrize("header", [None, "", "soon", "-3"])
def test_no_usable_retry_after_is_none(header: str | None) -> None:
    assert retry_after_s(header, datetime.now(UTC)) is None


def test_requests_keep_to_the_rate(sky: Sky, tmp_path: Path) -> None:
    download(sky, tmp_path, [str(i) for i in range(16)], rate_per_s=25.0)
    assert sky.times[-1] - sky.times[0] > 15 / 25 - 0.03


def test_pacer_lets_nobody_begin_early_after_a_pause() -> None:
    pacer = Pacer(20.0)
    pacer.wait()
    time.sleep(0.2)
    begun = []
    for _ in range(3):
        pacer.wait()
        begun.append(time.monotonic())
    assert np.diff(begun).min() > 0.045


def test_requests_say_who_asks(sky: Sky, tmp_path: Path) -> None:
    download(sky, tmp_path, ["a"])
    assert [agent.split("/")[0] for agent in sky.agents] == ["sfnetlab"]


def test_what_is_there_is_neither_fetched_nor_decoded_again(sky: Sky, tmp_path: Path) -> None:
    ids = [str(i) for i in range(3000)]
    (tmp_path / "images").mkdir()
    for id_str in ids:
        (tmp_path / f"images/{id_str}.jpg").write_bytes(b"xyz")  # decoding would refuse it
    (tmp_path / "verified.csv").write_text("id_str,bytes\n" + "".join(f"{id_str},3\n" for id_str in ids))
    assert download(sky, tmp_path, ids)[:2] == (3000, 0)
    assert not sky.asked


def test_file_of_another_size_than_recorded_is_fetched_again(sky: Sky, tmp_path: Path) -> None:
    download(sky, tmp_path, ["a", "b", "c"])
    (tmp_path / "images/a.jpg").write_bytes(b"")
    (tmp_path / "images/b.jpg").unlink()
    assert download(sky, tmp_path, ["a", "b", "c"])[:2] == (1, 2)
    assert (tmp_path / "images/a.jpg").read_bytes() == WHOLE
    assert sky.asked == {"/a": 2, "/b": 2, "/c": 1}


@pytest.mark.parametrize("torn", ["b", "b,", "b,1"])
def test_line_torn_by_a_kill_costs_one_cutout_and_no_other(torn: str, sky: Sky, tmp_path: Path) -> None:
    download(sky, tmp_path, ["a", "b"])
    (tmp_path / "verified.csv").write_text(f"id_str,bytes\na,{len(WHOLE)}\n{torn}")
    (tmp_path / "images/.partial-c.jpg").write_bytes(WHOLE[:50])
    assert download(sky, tmp_path, ["a", "b", "c"])[:2] == (1, 2)
    assert download(sky, tmp_path, ["a", "b", "c"])[:2] == (3, 0)
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["a.jpg", "b.jpg", "c.jpg"]


def test_images_of_unknown_origin_are_refused(sky: Sky, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(WHOLE)
    with pytest.raises(DataError, match=r"holds 1 images, such as a\.jpg.* layer and scale are unknown"):
        download(sky, tmp_path, ["a"])


def test_server_that_fails_everything_is_given_up(sky: Sky, tmp_path: Path) -> None:
    for i in range(500):
        sky.script[f"/{i}"] = [Answer(200, b"<html>maintenance</html>")] if i >= 40 else [GOOD]
    with pytest.raises(DownloadStoppedError, match=r"127\.0\.0\.1: given up after 25 .*no JPEG.*40 cutouts") as caught:
        download(sky, tmp_path, [str(i) for i in range(500)], n_tries=1)
    assert caught.value.outcome.n_new == 40
    assert len(sky.asked) < 150


def test_galaxies_off_the_footprint_do_not_stop_the_download(sky: Sky, tmp_path: Path) -> None:
    for i in range(100):
        sky.script[f"/{i}"] = [Answer(404)]
    outcome = download(sky, tmp_path, [str(i) for i in range(101)])
    assert (outcome.n_new, len(outcome.failed)) == (1, 100)


def test_no_network_is_said_once(tmp_path: Path) -> None:
    ids = [str(i) for i in range(100)]
    manners = Manners(rate_per_s=1e6, n_workers=4, n_tries=2, backoff_s=0.001, timeout_s=1)
    with pytest.raises(DownloadStoppedError, match=r"ConnectError.*check the network, or wait, and run the same"):
        download_cutouts(ids, "http://127.0.0.1:1/{}".format, tmp_path, tmp_path / "verified.csv", SIDE, manners)


def test_full_disk_stops_the_download_and_keeps_what_was_written(
    sky: Sky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Path.write_bytes

    def filling(path: Path, data: bytes) -> int:
        if path.name == ".partial-7.jpg":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", filling)
    ids = [str(i) for i in range(60)]
    with pytest.raises(OSError, match="No space left"):
        download(sky, tmp_path, ids, n_workers=1)
    assert len(sky.asked) < 30
    monkeypatch.undo()
    assert download(sky, tmp_path, ids).n_before >= 7


def test_slow_drip_ends_at_the_timeout(sky: Sky, tmp_path: Path) -> None:
    def drip() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.05)
            yield b"\xff"

    sky.script["/a"] = [Answer(200, drip(), {"Content-Length": "100000"})]
    failed = download(sky, tmp_path, ["a"], n_tries=1).failed
    assert "not finished after 0.5 s" in failed["reason"].item()


@pytest.mark.parametrize("side", [SIDE, 160])
@given(data=st.data())
def test_no_part_of_a_jpeg_passes_for_the_whole(side: int, data: st.DataObject) -> None:
    whole = jpeg(0, side)
    assert cutouts.trouble_with(whole, side) is None
    n_bytes = data.draw(st.integers(0, len(whole) - 1) | st.integers(len(whole) - 20, len(whole) - 1))
    assert cutouts.trouble_with(whole[:n_bytes], side) is not None


def test_jpeg_that_lacks_only_its_end_marker_is_cut_off() -> None:
    trouble = cutouts.trouble_with(jpeg(0, 160)[:-2], 160)  # Pillow alone decodes it
    assert trouble is not None
    assert "without the end marker" in trouble.reason


def test_legacy_survey_url_is_the_viewers() -> None:
    url = legacy_survey_url(150.1, -0.25, layer="ls-dr10", pixel_scale_arcsec=0.262, size=160, base="https://there")
    assert urlparse(url).path == "/viewer/cutout.jpg"
    assert {name: value for name, (value,) in parse_qs(urlparse(url).query).items()} == {
        "ra": "150.1000000",
        "dec": "-0.2500000",
        "pixscale": "0.262",
        "layer": "ls-dr10",
        "size": "160",
    }


def test_skyserver_url_is_img_cutouts() -> None:
    url = skyserver_url(150.1, -0.25, pixel_scale_arcsec=0.396, size=128, base="https://there", data_release=17)
    assert urlparse(url).path == "/dr17/SkyServerWS/ImgCutout/getjpeg"
    fields = {name: value for name, (value,) in parse_qs(urlparse(url).query).items()}
    assert fields == {"ra": "150.1000000", "dec": "-0.2500000", "scale": "0.396", "width": "128", "height": "128"}


def test_skyserver_makes_no_small_cutouts() -> None:
    with pytest.raises(ValueError, match="64 to 2048 pixels, got 32"):
        skyserver_url(0, 0, pixel_scale_arcsec=0.396, size=32, base="https://there", data_release=17)
