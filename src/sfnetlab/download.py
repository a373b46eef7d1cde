"""`sfnetlab download SURVEY`: download a real survey into a folder; a killed download goes on where it was.

`DOWNLOADS` holds the flags of each survey and what it does. The modules in `surveys/` do the network and the tables.
"""

import argparse
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sfnetlab.errors import DataError
from sfnetlab.files import locked, path_argument, replacing, write_text

if TYPE_CHECKING:
    import pandas as pd

    from sfnetlab.surveys import cutouts, sdss_queries

FORMAT = 1
CASJOBS_TOKEN = "SCISERVER_TOKEN"
"""Environment variable that holds the token, because secrets do not belong on a command line."""

_logger = logging.getLogger(__name__)


class Download(NamedTuple):
    """What `sfnetlab download NAME` takes and does."""

    summary: str
    """One line for the help."""
    add_flags: Callable[[argparse.ArgumentParser], None]
    """Adds the survey's flags to its parser."""
    download: Callable[[argparse.Namespace], str]
    """Downloads what the parsed flags ask for, and returns the report to print."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a sub-command for each survey."""
    surveys = parser.add_subparsers(dest="survey", required=True, metavar="SURVEY")
    for name, survey in DOWNLOADS.items():
        survey.add_flags(surveys.add_parser(name, help=survey.summary, description=survey.summary))


def download(arguments: argparse.Namespace) -> str:
    """Download what the arguments ask for, as parsed with the flags of `add_flags`, and return the report to print.

    Raises
    ------
    DataError
        If a flag cannot work, the folder belongs to another download, or the network or the disk fails for good.
    """
    return DOWNLOADS[arguments.survey].download(arguments)


def _add_sdss_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--query", choices=("sfnet", "galaxy_cnns"), default="sfnet", help="which published sample")
    parser.add_argument("--to", type=path_argument, required=True, metavar="DIR", help="folder that gets everything")
    parser.add_argument("--limit", type=_positive_int, metavar="N", help="only the query's first N rows: a trial")
    parser.add_argument("--data-release", type=_positive_int, default=17, metavar="N", help="SDSS release (default 17)")
    parser.add_argument(
        "--casjobs", action="store_true", help=f"ask CasJobs, with the SciServer token in ${CASJOBS_TOKEN}"
    )
    parser.add_argument(
        "--images-from", choices=("legacy-survey", "skyserver"), default="legacy-survey", help="who makes the cutouts"
    )
    parser.add_argument("--layer", default="sdss", help="layer of the Legacy Survey viewer: sdss, ls-dr10, ...")
    parser.add_argument(
        "--pixel-scale", type=_positive, default=0.262, metavar="ARCSEC", help="arcsec a pixel (default 0.262)"
    )
    parser.add_argument("--size", type=_positive_int, default=160, metavar="PX", help="side in pixels (default 160)")
    _add_manners(parser)
    parser.add_argument("--skyserver", default="https://skyserver.sdss.org", metavar="URL", help="or a mirror of it")
    parser.add_argument("--legacy-survey", default="https://www.legacysurvey.org", metavar="URL", help="likewise")


def _add_manners(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how gently the server is asked."""
    parser.add_argument("--rate", type=_positive, default=10.0, help="cutouts a second at most (default 10)")
    parser.add_argument("--workers", type=_positive_int, default=8, help="cutouts at once (default 8)")
    parser.add_argument("--tries", type=_positive_int, default=5, help="tries a cutout (default 5)")
    parser.add_argument(
        "--backoff", type=_positive, default=1.0, metavar="S", help="pause after a first failure, then doubled"
    )
    parser.add_argument("--timeout", type=_positive, default=30.0, metavar="S", help="longest answer (default 30 s)")


def _download_sdss(arguments: argparse.Namespace) -> str:
    """Download the catalogue of a query and a cutout for each of its galaxies, and return the report to print."""
    from sfnetlab.surveys import cutouts, sdss_queries

    directory: Path = arguments.to
    query = sdss_queries.QUERIES[arguments.query]
    make_url = _url_maker(arguments)
    settings = {
        "survey": "sdss",
        "query": arguments.query,
        "sql_sha256": query.sha256,
        "data_release": arguments.data_release,
        "images_from": arguments.images_from,
        "layer": arguments.layer if arguments.images_from == "legacy-survey" else None,
        "pixel_scale_arcsec": arguments.pixel_scale,
        "size": arguments.size,
    }
    with _own_folder(directory):
        receipt = _open_receipt(directory, settings) | {"sql": query.sql}
        rows = sdss_queries.fetch_rows(query, directory / "pages", _ask(arguments), limit=arguments.limit)
        catalog, sample = sdss_queries.clean(query, rows)
        table = sample.to_string(index=False, formatters={"step": "{:<64}".format}, justify="right")
        _logger.info("sample:\n%s", table)
        with replacing(directory / "catalog.parquet") as partial_path:
            catalog.to_parquet(partial_path, index=False)
        _write_csv(sample, directory / "sample.csv")
        places = dict(zip(catalog["id_str"], zip(catalog["ra"], catalog["dec"], strict=True), strict=True))
        manners = cutouts.Manners(
            rate_per_s=arguments.rate,
            n_workers=arguments.workers,
            n_tries=arguments.tries,
            backoff_s=arguments.backoff,
            timeout_s=arguments.timeout,
        )
        try:
            outcome = cutouts.download_cutouts(
                list(places),
                lambda id_str: make_url(*places[id_str]),
                directory / "images",
                directory / "verified.csv",
                arguments.size,
                manners,
            )
        except cutouts.DownloadStoppedError as stopped:
            _write_csv(stopped.outcome.failed, directory / "failed.csv")
            raise
        _write_csv(outcome.failed, directory / "failed.csv")
        n_there = outcome.n_before + outcome.n_new
        counts = {"rows": len(rows), "sample": len(catalog), "cutouts": n_there, "failed": len(outcome.failed)}
        _write_receipt(directory, receipt | {"counts": counts, "finished": _now()})
    return "\n".join([table, _describe(outcome, directory)])


def _ask(arguments: argparse.Namespace) -> "sdss_queries.Ask":
    """Return the function that sends SQL to SkyServer, or to CasJobs with --casjobs."""
    from sfnetlab.surveys import sdss_queries

    if not arguments.casjobs:
        return sdss_queries.skyserver(arguments.skyserver, arguments.data_release)
    token = os.environ.get(CASJOBS_TOKEN, "")
    if not token:
        raise DataError(
            f"--casjobs: the environment variable {CASJOBS_TOKEN} is empty; put the token there that "
            "SciServer.Authentication.login returns, or leave --casjobs out"
        )
    return sdss_queries.casjobs(token, arguments.skyserver, arguments.data_release)


def _url_maker(arguments: argparse.Namespace) -> Callable[[float, float], str]:
    """Return the function that makes the URL of a cutout from right ascension and declination in degrees."""
    from sfnetlab.surveys.cutouts import legacy_survey_url, skyserver_url

    shape = {"pixel_scale_arcsec": arguments.pixel_scale, "size": arguments.size}
    if arguments.images_from == "legacy-survey":
        return partial(legacy_survey_url, layer=arguments.layer, base=arguments.legacy_survey, **shape)
    make_url = partial(skyserver_url, base=arguments.skyserver, data_release=arguments.data_release, **shape)
    try:
        make_url(0, 0)
    except ValueError as error:
        raise DataError(f"--size: {error}") from None
    return make_url


def _describe(outcome: "cutouts.Outcome", directory: Path) -> str:
    """Return the report: how many cutouts are there, how many are new, and why the others failed."""
    n_failed = len(outcome.failed)
    n_all = outcome.n_before + outcome.n_new + n_failed
    lines = [
        f"{n_all - n_failed:,} of {n_all:,} cutouts in {directory / 'images'}, {outcome.n_new:,} of them new; "
        f"{n_failed:,} failed: {directory / 'failed.csv'}"
    ]
    reasons = outcome.failed["reason"].value_counts()
    lines += [f"{n:>8,}  {reason}" for reason, n in reasons.head(10).items()]
    if n_failed:
        lines.append("The same command tries these again and nothing else.")
    return "\n".join(lines)


def _open_receipt(directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Write download.json, and return it; the time of the start stays that of the first try.

    Raises
    ------
    DataError
        If the file that is there is damaged or has other settings: a folder never mixes two samples, layers, scales or
        sizes.
    """
    path = directory / "download.json"
    started = _now()
    if path.exists():
        try:
            old: dict[str, Any] = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: not readable ({error}); choose another folder with --to") from None
        differences = [
            f"{name} is {old.get(name)!r} there, {value!r} here"
            for name, value in {"format": FORMAT, **settings}.items()
            if old.get(name) != value
        ]
        if differences:
            raise DataError(f"{path}: another download's: {'; '.join(differences)}; choose another folder with --to")
        started = old["started"]
    receipt = {"format": FORMAT, **settings, "sfnetlab": version("sfnetlab"), "started": started, "finished": None}
    _write_receipt(directory, receipt)
    return receipt


def _write_receipt(directory: Path, receipt: dict[str, Any]) -> None:
    write_text(directory / "download.json", json.dumps(receipt, indent=1, allow_nan=False) + "\n")


def _write_csv(table: "pd.DataFrame", path: Path) -> None:
    with replacing(path) as partial_path:
        table.to_csv(partial_path, index=False)


@contextmanager
def _own_folder(directory: Path) -> Iterator[None]:
    """Make the folder and lock it against other downloads.

    Raises
    ------
    DataError
        If another process holds the lock, or the disk refuses something inside the block.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory):
            yield
    except BlockingIOError:
        raise DataError(f"{directory}: another process downloads into it; wait for it or stop it") from None
    except OSError as error:
        raise DataError(
            f"{error.filename or directory}: {error.strerror or error}; mend this, or choose another folder with --to; "
            "the same command then goes on where it was"
        ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


DOWNLOADS = {"sdss": Download("SDSS galaxies: catalogue by SQL, cutouts by name", _add_sdss_flags, _download_sdss)}
