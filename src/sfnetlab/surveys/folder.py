"""A folder of cutouts named after a catalogue's ids, decoded into one memory-mappable array.

What a galaxy without a usable cutout means is the user's choice: an error, or a row left out on record. Never zeros.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from sfnetlab.errors import DataError
from sfnetlab.schema import FolderSurvey
from sfnetlab.surveys.catalog import check_ids
from sfnetlab.surveys.images import fit_to_size, read_image

_CHUNK = 256
"""Cutouts decoded at a time; no more than these are in memory."""


def build_folder_survey(
    survey: FolderSurvey, catalog: pd.DataFrame, images_path: Path, n_workers: int | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode the cutout of every row, in order, into `images_path`: a .npy of (n, side, side, 3) uint8.

    Cutouts are `<images>/<id_str><extension>`. `side` is `crop`, or else `resize`, or else the commonest side among the
    readable square cutouts of the first 256 rows (at a tie the one seen first). A cutout of another size, or not
    square, is as bad as a broken one.

    Parameters
    ----------
    n_workers : int or None
        Decoding threads; None leaves the number to Python.

    Returns
    -------
    kept : DataFrame
        The catalogue's rows of the n images, in the same order, index 0..n-1.
    bad : DataFrame
        `id_str` and `reason` of the rows left out; empty unless `on_bad_image` is "drop".

    Raises
    ------
    DataError
        If the images folder is missing, an id is unsafe, or cutouts are bad (with "drop": if all are). Nothing is left
        at `images_path` then.
    """
    _require_folder(survey.images)
    check_ids(catalog["id_str"], "column 'id_str'")
    ids: list[str] = catalog["id_str"].tolist()
    reasons: dict[str, str] = {}
    with ThreadPoolExecutor(n_workers) as pool:
        side = survey.crop or survey.resize or _commonest_side(_read_chunks(survey, ids, pool))
        with images_path.open("wb") as file, tqdm(total=len(ids), desc="cutouts", unit="image", disable=None) as bar:
            _write_header(file, (len(ids), side, side, 3))
            for chunk in _read_chunks(survey, ids, pool):
                for id_str, cutout in chunk:
                    if isinstance(cutout, str):
                        reasons[id_str] = cutout
                    elif len(cutout) != side:
                        reasons[id_str] = f"expected {side}×{side} pixels, found {len(cutout)}×{len(cutout)}"
                    else:
                        file.write(cutout.tobytes())
                bar.update(len(chunk))
            file.seek(0)
            _write_header(file, (len(ids) - len(reasons), side, side, 3))
    if len(reasons) == len(ids) or (reasons and survey.on_bad_image == "error"):
        images_path.unlink()
        raise DataError(_complaint(survey, reasons, len(ids)))
    kept = catalog[~catalog["id_str"].isin(list(reasons))].reset_index(drop=True)
    bad = pd.DataFrame({"id_str": list(reasons.keys()), "reason": list(reasons.values())}, dtype="str")
    return kept, bad


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
        files = sorted(
            (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
            for entry in entries
            if entry.name.endswith(survey.extension)
        )
    if not files:
        raise DataError(f"{survey.images}: no {survey.extension} files{_found_instead(survey.images)}")
    try:
        with survey.catalog.open("rb") as file:
            catalog_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{survey.catalog}: no readable catalogue file: {error.strerror}") from None
    return {"catalog_sha256": catalog_sha256, "images_sha256": hashlib.sha256(repr(files).encode()).hexdigest()}


def _read_chunks(
    survey: FolderSurvey, ids: list[str], pool: Executor
) -> Iterator[list[tuple[str, NDArray[np.uint8] | str]]]:
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        yield list(zip(chunk, pool.map(partial(_read_cutout, survey), chunk), strict=True))


def _read_cutout(survey: FolderSurvey, id_str: str) -> NDArray[np.uint8] | str:
    """The square cutout, or the reason why there is none."""
    path = image_path(survey, id_str)
    try:
        image = read_image(path, fits_stretch=survey.fits_stretch, fits_q=survey.fits_q)
        cutout = fit_to_size(image, survey.resize, survey.crop)
    except (DataError, ValueError) as error:
        return str(error).removeprefix(f"{path}: ")
    height, width, _ = cutout.shape
    return cutout if height == width else f"{width}×{height} pixels: not square, set survey.crop"


def _commonest_side(chunks: Iterator[list[tuple[str, NDArray[np.uint8] | str]]]) -> int:
    """Of the first chunk with a usable cutout; 0 if there is none."""
    for chunk in chunks:
        sides = Counter(len(cutout) for _, cutout in chunk if not isinstance(cutout, str))
        if sides:
            return sides.most_common(1)[0][0]
    return 0


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """NumPy pads its header so that a change of the first axis leaves its length as it is."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _complaint(survey: FolderSurvey, reasons: dict[str, str], n_rows: int) -> str:
    n_shown = 10
    lines = [f"{survey.images}: {len(reasons):,} of {n_rows:,} cutouts <id>{survey.extension} cannot be used:"]
    lines += [f"  {id_str}: {reason}" for id_str, reason in list(reasons.items())[:n_shown]]
    if len(reasons) > n_shown:
        lines.append(f"  ... and {len(reasons) - n_shown:,} more")
    if len(reasons) == n_rows:
        lines.append(f"None is left: check survey.images, extension and id_column{_found_instead(survey.images)}")
    else:
        lines.append('Mend them, or leave these galaxies out, on record, with survey.on_bad_image = "drop"')
    return "\n".join(lines)


def _found_instead(folder: Path) -> str:
    names = [path.name for path in folder.iterdir()]
    return f"; the folder holds {len(names):,} entries, such as {min(names)!r}" if names else "; the folder is empty"


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images (survey.images)")
