"""A folder of cutouts named after a catalogue's ids; what `sfnetlab download sdss` writes is such a folder.

The store that the cutouts are decoded into is written by store.py.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd

from sfnetlab.errors import DataError
from sfnetlab.schema import FolderSurvey, SDSSSurvey
from sfnetlab.surveys.catalog import check_ids
from sfnetlab.surveys.images import read_image
from sfnetlab.surveys.store import CHUNK, Chunk, Cutout, Source, Stored, as_cutout, write_store


def build_folder_survey(
    survey: FolderSurvey, catalog: pd.DataFrame, images_path: Path, n_workers: int | None = None
) -> Stored:
    """Decode the cutout of every row, in order, into `images_path`: a .npy of (n, side, side, 3) uint8.

    Cutouts are `<images>/<id_str><extension>`. `side` is `crop`, or else `resize`, or else the commonest side among the
    readable square cutouts of the first 256 rows (at a tie the one seen first). A cutout of another size, or not
    square, is as bad as a broken one.

    Parameters
    ----------
    n_workers : int or None
        Decoding threads; None leaves the number to Python.

    Raises
    ------
    DataError
        If the images folder is missing, an id is unsafe, or cutouts are bad (with "drop": if all are). Nothing is left
        at `images_path` then.
    """
    _require_folder(survey.images)
    check_ids(catalog["id_str"], "column 'id_str'")
    ids: list[str] = catalog["id_str"].tolist()
    source = Source(
        where=str(survey.images),
        cutouts=f"cutouts <id>{survey.extension}",
        check=lambda: f"survey.images, extension and id_column{_found_instead(survey.images)}",
    )
    with ThreadPoolExecutor(n_workers) as pool:
        chunks = _read_chunks(survey, ids, pool)
        return write_store(images_path, chunks, survey.crop or survey.resize, source, survey.on_bad_image, len(ids))


def as_folder(survey: SDSSSurvey) -> FolderSurvey:
    """The folder survey that a folder of `sfnetlab download sdss` is, with the pixel scale that it was asked for.

    Raises
    ------
    DataError
        If the folder is missing, or no finished download.
    """
    directory, record = survey.directory, survey.directory / "download.json"
    again = f"`uv run sfnetlab download sdss --to {directory}`"
    if not directory.is_dir():
        raise DataError(f"{directory}: no such folder (survey.directory); make it with {again}")
    try:
        scale = json.loads(record.read_text())["pixel_scale_arcsec"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{record}: expected the record of a download with its pixel_scale_arcsec, found "
            f"{type(error).__name__}: {error}; finish it with {again}"
        ) from None
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0:
        raise DataError(f"{record}: pixel_scale_arcsec must be a positive number, found {scale!r}; repeat {again}")
    return FolderSurvey(
        catalog=directory / "catalog.parquet",
        images=directory / "images",
        pixel_scale_arcsec=float(scale),
        resize=survey.resize,
        crop=survey.crop,
        on_bad_image=survey.on_bad_image,
    )


def image_path(survey: FolderSurvey, id_str: str) -> Path:
    """Where the cutout of a galaxy lies; the id must have passed `check_ids`."""
    return survey.images / f"{id_str}{survey.extension}"


def fingerprint(survey: FolderSurvey) -> dict[str, str]:
    """What identifies the input: sha256 of the catalogue, and of name, size and mtime of every file with the extension.

    Raises
    ------
    DataError
        If the catalogue or the folder is missing, or the folder holds no file with the extension.
    """
    _require_folder(survey.images)
    with os.scandir(survey.images) as entries:
        files = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(survey.extension)]
    if not files:
        raise DataError(f"{survey.images}: no {survey.extension} files{_found_instead(survey.images)}")
    try:
        with survey.catalog.open("rb") as file:
            catalog_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{survey.catalog}: no readable catalogue file: {error.strerror}") from None
    return {"catalog_sha256": catalog_sha256, "images_sha256": hash_of_listing(files)}


def hash_of_listing(files: Iterable[tuple[str, os.stat_result]]) -> str:
    """sha256 of name, size and mtime of every file, whatever their order."""
    listing = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)
    return hashlib.sha256(repr(listing).encode()).hexdigest()


def _read_chunks(survey: FolderSurvey, ids: list[str], pool: Executor) -> Iterator[Chunk]:
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        yield list(zip(chunk, pool.map(partial(_read_cutout, survey), chunk), strict=True))


def _read_cutout(survey: FolderSurvey, id_str: str) -> Cutout | str:
    path = image_path(survey, id_str)
    try:
        image = read_image(path, fits_stretch=survey.fits_stretch, fits_q=survey.fits_q)
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")
    return as_cutout(image, survey.resize, survey.crop)


def _found_instead(folder: Path) -> str:
    names = [path.name for path in folder.iterdir()]
    return f"; the folder holds {len(names):,} entries, such as {min(names)!r}" if names else "; the folder is empty"


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images (survey.images)")
