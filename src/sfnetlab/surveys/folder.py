"""A survey of the user's own: a catalogue, and a folder of cutouts named after its ids.

The cutouts are decoded here; store.py writes them into one file.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.errors import DataError
from sfnetlab.settings import CatalogColumns, require, require_scale, require_sizes
from sfnetlab.surveys.fingerprints import hash_of_listing

if TYPE_CHECKING:
    import pandas as pd

    from sfnetlab.jobs import Metrics
    from sfnetlab.surveys.protocol import Accept, SurveyKind
    from sfnetlab.surveys.store import Chunk, Cutout, Stored


@dataclass(frozen=True, kw_only=True)
class FolderSurvey(CatalogColumns):
    """A catalogue (CSV, parquet or FITS) and a folder of cutouts (JPEG, PNG or FITS) named after its ids."""

    has_images: ClassVar[bool] = True
    is_real: ClassVar[bool] = True
    kind: Literal["folder"] = "folder"
    catalog: Path
    """Catalogue: CSV and other text, ECSV, VOTable, FITS, Feather or parquet, which may be a folder (HATS too)."""
    images: Path
    """Folder of cutouts, `<id><extension>`."""
    id_column: str = "id_str"
    """Catalogue column that names the cutouts; read as text, for 64-bit ids do not survive as floats."""
    extension: Literal[".jpg", ".jpeg", ".png", ".fits"] = ".jpg"
    """File type of the cutouts."""
    pixel_scale_arcsec: float | None = None
    """Arcseconds a pixel of the original cutouts; scale bars need it."""
    resize: int | None = None
    """Resample every cutout to this side in pixels before cropping."""
    crop: int | None = None
    """Cut out the central square of this side in pixels (the SFNet paper: 160 to 144)."""
    on_bad_image: Literal["error", "drop"] = "error"
    """What a missing, truncated or unreadable cutout means: stop, or leave the galaxy out and record its id."""
    fits_stretch: float = 0.5
    """FITS cutouts only: linear stretch of the Lupton asinh scaling, in units of the pixel values."""
    fits_q: float = 8.0
    """FITS cutouts only: asinh softening of the Lupton scaling."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(self.resize, self.crop)
        for name in ("fits_stretch", "fits_q"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        require_scale(self.pixel_scale_arcsec)

    def resolved(self) -> "SurveyKind":
        """Return these settings."""
        return self

    def fingerprint(self) -> dict[str, str]:
        """Return the sha256 of the catalogue, and of name, size and time of change of every file with the extension.

        Raises
        ------
        DataError
            If the catalogue or the folder is missing, or the folder holds no file with the extension.
        """
        _require_folder(self.images)
        with os.scandir(self.images) as entries:
            files = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(self.extension)]
        if not files:
            raise DataError(f"{self.images}: no {self.extension} files{_found_instead(self.images)}")
        try:
            with self.catalog.open("rb") as file:
                catalog_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{self.catalog}: no readable catalogue file: {error.strerror}") from None
        return {"catalog_sha256": catalog_sha256, "images_sha256": hash_of_listing(files)}

    def read(self, work: Path, accept: "Accept") -> "tuple[pd.DataFrame, Metrics]":
        """Read the catalogue and decode the cutout of every row; rows left out are listed in `bad_images.csv`."""
        from sfnetlab.surveys.catalog import read_unsplit_catalog
        from sfnetlab.surveys.store import rows_with_cutouts

        catalog = accept(read_unsplit_catalog(self.catalog, self.id_column))
        stored = build_folder_survey(self, catalog, work / "images.npy")
        return rows_with_cutouts(catalog, stored, work, self.pixel_scale_arcsec, self.resize)


def build_folder_survey(
    survey: FolderSurvey, catalog: "pd.DataFrame", images_path: Path, n_workers: int | None = None
) -> "Stored":
    """Decode the cutout of every row, in order, into `images_path`: a .npy of (n, side, side, 3) uint8.

    Cutouts are `<images>/<id_str><extension>`. `side` is `crop`, or else `resize`, or else the commonest side among the
    readable square cutouts of the first 256 rows (at a tie the one seen first). A cutout of another size, or one that
    is not square, counts as broken.

    Parameters
    ----------
    catalog : DataFrame
        With `id_str`.
    n_workers : int or None
        Decoding threads; None leaves the number to Python.

    Raises
    ------
    DataError
        If the images folder is missing, an id is unsafe, or cutouts are bad (with "drop": if all are). Nothing is left
        at `images_path` then.
    """
    from sfnetlab.surveys.catalog import check_ids
    from sfnetlab.surveys.store import Source, write_store

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


def image_path(survey: FolderSurvey, id_str: str) -> Path:
    """Return the file of a galaxy's cutout. The id must have passed `check_ids`."""
    return survey.images / f"{id_str}{survey.extension}"


def _read_chunks(survey: FolderSurvey, ids: list[str], pool: Executor) -> "Iterator[Chunk]":
    from sfnetlab.surveys.store import CHUNK

    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        yield list(zip(chunk, pool.map(partial(_read_cutout, survey), chunk), strict=True))


def _read_cutout(survey: FolderSurvey, id_str: str) -> "Cutout | str":
    from sfnetlab.surveys.images import read_image
    from sfnetlab.surveys.store import as_cutout

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
