"""Cutouts from image servers: their URLs, and a downloader that is polite, can be resumed and keeps only whole images.

It is given ids and URLs. download.py decides on the galaxies and on the folder.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.metadata import version
from itertools import islice
from os import scandir
from pathlib import Path
from typing import NamedTuple, TextIO
from urllib.parse import urlencode

import httpx
import pandas as pd
from tqdm import tqdm

from sfnetlab.errors import DataError
from sfnetlab.files import replacing
from sfnetlab.surveys.images import decode_image, trouble_of_one_colour

USER_AGENT = f"sfnetlab/{version('sfnetlab')} (galaxy cutouts for research) python-httpx/{httpx.__version__}"

SKYSERVER_SIZES = (64, 2048)
"""Pixels a side that SkyServer's ImgCutout gives; it silently moves others into this range."""

_LONGEST_WAIT_S = 600.0
"""A server that asks for a longer pause is left alone; the download ends and can be resumed."""

_LONGEST_BACKOFF_S = 60.0

_SAME_TROUBLE = 25
"""Cutouts in a row that fail by the server's fault before the download gives up."""

_logger = logging.getLogger(__name__)


def legacy_survey_url(ra: float, dec: float, *, layer: str, pixel_scale_arcsec: float, size: int, base: str) -> str:
    """Return the URL of a JPEG of the Legacy Survey viewer: `size` pixels a side, north up, at degrees `ra`, `dec`."""
    place = {"ra": f"{ra:.7f}", "dec": f"{dec:.7f}", "pixscale": pixel_scale_arcsec, "layer": layer, "size": size}
    return f"{base}/viewer/cutout.jpg?{urlencode(place)}"


def skyserver_url(ra: float, dec: float, *, pixel_scale_arcsec: float, size: int, base: str, data_release: int) -> str:
    """Return the URL of a JPEG of SDSS SkyServer: `size` pixels a side, north up, at degrees `ra`, `dec`.

    Raises
    ------
    ValueError
        If the server does not make this size.
    """
    smallest, largest = SKYSERVER_SIZES
    if not smallest <= size <= largest:
        raise ValueError(f"SkyServer makes cutouts of {smallest} to {largest} pixels, got {size}")
    place = {"ra": f"{ra:.7f}", "dec": f"{dec:.7f}", "scale": pixel_scale_arcsec, "width": size, "height": size}
    return f"{base}/dr{data_release}/SkyServerWS/ImgCutout/getjpeg?{urlencode(place)}"


class Pacer:
    """Lets requests of all threads begin at least 1 / `per_s` seconds apart: a token bucket with one token."""

    def __init__(self, per_s: float) -> None:
        self._gap_s = 1 / per_s
        self._free_at = 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def wait(self) -> bool:
        """Wait until a request may begin, then return True; return False at once after `stop`."""
        while True:
            with self._lock:
                now = time.monotonic()
                if now >= self._free_at:
                    self._free_at = now + self._gap_s
                    return not self._stopped.is_set()
                delay_s = self._free_at - now
            if not self.sleep(delay_s):
                return False

    def hold(self, seconds: float) -> None:
        """Let no thread begin a request for so many seconds, as a server's Retry-After asks."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> bool:
        """Wait for so many seconds, then return True; return False at once after `stop`."""
        return not self._stopped.wait(seconds)

    def stop(self) -> None:
        """Let no request begin any more, and end every wait."""
        self._stopped.set()


@dataclass(frozen=True, kw_only=True)
class Manners:
    """How a server is asked."""

    rate_per_s: float
    """Requests that begin in a second."""
    n_workers: int
    """Requests at the same time."""
    n_tries: int
    """Tries a cutout."""
    backoff_s: float
    """Pause after a first failure in seconds, doubled with each failure; at random, between a half and all of it is
    waited."""
    timeout_s: float
    """The longest that one answer may take."""


class Outcome(NamedTuple):
    """What a download achieved."""

    n_before: int
    """Cutouts that were there before."""
    n_new: int
    """Cutouts that came now."""
    failed: pd.DataFrame
    """The cutouts that did not come: `id_str, reason, n_tries, url`."""


class DownloadStoppedError(DataError):
    """The server cannot be used now; `outcome` says what came before that."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


class _Result(NamedTuple):
    id_str: str
    n_tries: int
    n_bytes: int
    trouble: "Trouble | None"


class Trouble(NamedTuple):
    """Why a try failed."""

    reason: str
    is_final: bool = False
    """Whether another try would fail too."""
    is_servers: bool = True
    """Whether the fault is the server's, and says nothing about this galaxy."""
    retry_after_s: float | None = None
    """How long the server asks to wait."""


def download_cutouts(
    ids: Sequence[str], url_of: Callable[[str], str], folder: Path, record: Path, side: int, manners: Manners
) -> Outcome:
    """Download the cutout of every id as `<folder>/<id>.jpg`, each a whole JPEG of `side` × `side` pixels.

    An image is decoded whole before it takes its place by renaming; then it gets a line `id,bytes` in `record`. A file
    of its recorded size counts as downloaded, so that a download that goes on decodes nothing again. The few files that
    a kill left without a line are fetched again. Status 404 and 410, and images of one colour (outside a survey's
    footprint), are final, and so are other client errors except 408, 425 and 429. Everything else is tried again.

    Raises
    ------
    DownloadStoppedError
        If 25 cutouts in a row fail by the server's fault, or it asks for a pause of more than 10 minutes.
    DataError
        If the folder has images but there is no record: another program's, of unknown layer and scale.
    OSError
        If the disk is full or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    had = _had_before(folder, record).intersection(ids)
    failed: list[_Result] = []
    n_new = in_a_row = 0
    pacer = Pacer(manners.rate_per_s)
    _logger.info("cutouts: %d of %d are there", len(had), len(ids))
    with (
        _recording(record) as lines,
        tqdm(total=len(ids), initial=len(had), desc="cutouts", unit="image", disable=None, smoothing=0.02) as bar,
        httpx.Client(
            headers={"User-Agent": USER_AGENT},
            timeout=manners.timeout_s,
            limits=httpx.Limits(max_connections=manners.n_workers, max_keepalive_connections=manners.n_workers),
            follow_redirects=True,
        ) as client,
        ExitStack() as stack,
    ):
        fetch = partial(_fetch, client=client, pacer=pacer, manners=manners, folder=folder, side=side)
        todo = ((id_str, url_of(id_str)) for id_str in ids if id_str not in had)
        finished = stack.enter_context(closing(_in_threads(fetch, todo, pacer, manners.n_workers)))
        for result in finished:
            if result.trouble is None:
                lines.write(f"{result.id_str},{result.n_bytes}\n")
                n_new += 1
            else:
                failed.append(result)
                bar.set_postfix(failed=len(failed), refresh=False)
            bar.update()
            in_a_row = in_a_row + 1 if result.trouble is not None and result.trouble.is_servers else 0
            if result.trouble is not None and (in_a_row == _SAME_TROUBLE or _asks_too_long(result.trouble)):
                raise DownloadStoppedError(
                    f"{httpx.URL(url_of(result.id_str)).host}: given up after {in_a_row} cutouts in a row without an "
                    f"image, last: {result.trouble.reason}; check the network, or wait, and run the same command "
                    f"again: the {len(had) + n_new:,} cutouts that are there are kept",
                    Outcome(len(had), n_new, _failures(failed, url_of)),
                )
    return Outcome(len(had), n_new, _failures(failed, url_of))


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks to wait, never negative; None without a readable header.

    The header holds a number of seconds or an HTTP date.
    """
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        then = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())


def _in_threads(
    fetch: "partial[_Result]", todo: Iterator[tuple[str, str]], pacer: Pacer, n_workers: int
) -> Generator[_Result, None, None]:
    """Results in the order in which they come. Few cutouts are queued, so that leaving the loop stops the rest soon."""
    with ThreadPoolExecutor(n_workers) as pool:
        pending = {pool.submit(fetch, *item) for item in islice(todo, 4 * n_workers)}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                pending |= {pool.submit(fetch, *item) for item in islice(todo, len(done))}
                ready = deque(done)
                while ready:
                    yield ready.popleft().result()
        finally:
            pacer.stop()
            pool.shutdown(cancel_futures=True)


def _fetch(
    id_str: str, url: str, *, client: httpx.Client, pacer: Pacer, manners: Manners, folder: Path, side: int
) -> _Result:
    n_tries, trouble = 0, Trouble("stopped")
    while pacer.wait():
        n_tries += 1
        content, trouble = _try_once(url, client, side, manners.timeout_s)
        if trouble is None:
            with replacing(folder / f"{id_str}.jpg") as partial_path:
                partial_path.write_bytes(content)
            return _Result(id_str, n_tries, len(content), None)
        if trouble.is_final or n_tries == manners.n_tries or _asks_too_long(trouble):
            break
        if trouble.retry_after_s is not None:
            pacer.hold(trouble.retry_after_s)
        else:
            pause_s = manners.backoff_s * 2 ** (n_tries - 1) * random.uniform(0.5, 1)
            pacer.sleep(min(pause_s, _LONGEST_BACKOFF_S))
    return _Result(id_str, n_tries, 0, trouble)


def _try_once(url: str, client: httpx.Client, side: int, timeout_s: float) -> tuple[bytes, Trouble | None]:
    deadline = time.monotonic() + timeout_s
    content = bytearray()
    try:
        with client.stream("GET", url) as response:
            if response.status_code != 200:
                return b"", _trouble_of(response)
            for chunk in response.iter_bytes():
                content += chunk
                # httpx's own timeout starts anew with every packet.
                if time.monotonic() > deadline:
                    return b"", Trouble(f"not finished after {timeout_s:g} s, {len(content):,} bytes had come")
    except httpx.TimeoutException as error:
        return b"", Trouble(f"no answer in {timeout_s:g} s ({type(error).__name__})")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return b"", Trouble(f"{type(error).__name__}: {error}")
    return bytes(content), trouble_with(content, side)


def _trouble_of(response: httpx.Response) -> Trouble:
    status = response.status_code
    return Trouble(
        f"status {status} {response.reason_phrase}",
        is_final=status < 500 and status not in (408, 425, 429),
        is_servers=status not in (404, 410),
        retry_after_s=retry_after_s(response.headers.get("Retry-After"), datetime.now(UTC)),
    )


def trouble_with(content: bytes | bytearray, side: int) -> Trouble | None:
    """What is wrong with an image; None for a whole colour JPEG of `side` × `side` pixels."""
    if not content.startswith(b"\xff\xd8\xff"):
        return Trouble(f"no JPEG but {len(content):,} bytes: {bytes(content[:40])!r}" if content else "0 bytes")
    try:
        image = decode_image(bytes(content))
    except ValueError as error:
        return Trouble(str(error))
    height, width, _ = image.shape
    if (width, height) != (side, side):
        return Trouble(f"expected {side}×{side} pixels, found {width}×{height}")
    if why := trouble_of_one_colour(image):
        return Trouble(why, is_final=True, is_servers=False)
    return None


def _asks_too_long(trouble: Trouble) -> bool:
    return trouble.retry_after_s is not None and trouble.retry_after_s > _LONGEST_WAIT_S


def _had_before(folder: Path, record: Path) -> set[str]:
    """The ids whose file has its recorded size. Files that a kill left half-written are removed."""
    sizes: dict[str, int] = {}
    with scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".jpg"):
                if entry.name.startswith(".partial-"):
                    Path(entry).unlink()
                else:
                    sizes[entry.name.removesuffix(".jpg")] = entry.stat().st_size
    if sizes and not record.exists():
        raise DataError(
            f"{folder}: holds {len(sizes):,} images, such as {min(sizes)}.jpg, but there is no {record}: this command "
            "did not download them, so their layer and scale are unknown; choose another folder"
        )
    had: set[str] = set()
    if record.exists():
        for line in record.read_text().splitlines():
            id_str, _, n_bytes = line.rpartition(",")
            if str(sizes.get(id_str)) == n_bytes:
                had.add(id_str)
    return had


@contextmanager
def _recording(record: Path) -> Iterator[TextIO]:
    """The record, opened for more lines. A line that a kill left half-written is ended first.

    Lines are not fsynced: a lost line costs one cutout, which is fetched again.
    """
    with record.open("a", buffering=1) as lines:
        if lines.tell() == 0:
            lines.write("id_str,bytes\n")
        elif not record.read_bytes().endswith(b"\n"):
            lines.write("\n")
        yield lines


def _failures(failed: list[_Result], url_of: Callable[[str], str]) -> pd.DataFrame:
    rows = [(id_str, trouble.reason, n_tries, url_of(id_str)) for id_str, n_tries, _, trouble in failed if trouble]
    return pd.DataFrame(rows, columns=["id_str", "reason", "n_tries", "url"])
