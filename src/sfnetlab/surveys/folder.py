"""A survey of the user's own: a catalogue, and a folder of cutouts named after its ids.

The cutouts are decoded here; store.py writes them into one file.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.errors import DataError
from sfnetlab.settings import CatalogColumns, require, require_scale, require_sizes
from sfnetlab.surveys.fingerprints import hash_of, hash_of_files, hash_of_texts
from sfnetlab.surveys.places import EXTENSIONS, NoFile, Place, listing, places_of_ids, places_of_paths
from sfnetlab.surveys.protocol import Accept, SurveyKind, as_it_is

if TYPE_CHECKING:
    import pandas as pd

    from sfnetlab.jobs import Metrics
    from sfnetlab.surveys.store import Chunk, Cutout, Stored


@dataclass(frozen=True, kw_only=True)
class FolderSurvey(CatalogColumns):
    """A catalogue and a folder of cutouts (JPEG, PNG, TIFF, FITS ...) named after its ids."""

    has_images: ClassVar[bool] = True
    is_real: ClassVar[bool] = True
    kind: Literal["folder"] = "folder"
    catalog: Path
    """Catalogue: CSV and other text, ECSV, VOTable, FITS, Feather or parquet, which may be a folder (HATS too)."""
    images: Path
    """Folder of cutouts, `<id><extension>`, in it or in its sub-folders."""
    id_column: str = "id_str"
    """Catalogue column that names the cutouts; read as text, for 64-bit ids do not survive as floats."""
    image_column: str | None = None
    """Catalogue column with the path of each cutout, absolute or relative to `images`, for example "file_loc" (Zoobot);
    left out: cutouts are named after their ids."""
    extension: str | None = None
    """File type of the cutouts, such as ".jpg", ".png" or ".fits.gz", in small letters or capitals; left out: the one
    that is found, and .jpg where an id has several."""
    pixel_scale_arcsec: float | None = None
    """Arcseconds a pixel of the original cutouts; scale bars need it."""
    resize: int | None = None
    """Resample every cutout to this side in pixels before cropping."""
    crop: int | None = None
    """Cut out the central square of this side in pixels (the SFNet paper: 160 to 144)."""
    on_bad_image: Literal["error", "drop"] = "error"
    """What a missing, truncated or unreadable cutout, or one of a single colour, means: stop, or leave the galaxy out
    and record its id."""
    fits_bands: tuple[int | str, ...] = ()
    """FITS cutouts only: what becomes red, green and blue: numbers of the planes, from 0, for example [2, 1, 0], or
    names of extensions, for example ["I", "R", "G"]; one band is grey. Left out: one plane, or three as g, r, i."""
    fits_hdu: int | str | None = None
    """FITS cutouts only: number (0: the primary one) or name of the extension that holds the image, for example "SCI";
    left out: the only one, apart from weights, errors and masks."""
    fits_scaling: Literal["lupton", "asinh", "linear", "percentile"] = "lupton"
    """FITS cutouts only: how pixel values become levels; contact_sheet.png shows what comes of it. "lupton": by
    fits_stretch and fits_q; "linear" and "asinh" (softened by fits_q): between fits_limits; "percentile": linear
    between percentiles of each image, which hides from a network how bright a galaxy is."""
    fits_stretch: float = 0.5
    """FITS cutouts only: linear stretch of the Lupton asinh scaling, in units of the pixel values."""
    fits_q: float = 8.0
    """FITS cutouts only: asinh softening of the Lupton and asinh scalings."""
    fits_limits: tuple[float, ...] = ()
    """FITS cutouts only: the pixel values that become black and white, for fits_scaling "asinh" and "linear"."""
    fits_percentiles: tuple[float, ...] = (0.5, 99.5)
    """FITS cutouts only: the percentiles that become black and white, for fits_scaling "percentile"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(self.resize, self.crop)
        for name in ("fits_stretch", "fits_q"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        require_scale(self.pixel_scale_arcsec)
        require(
            self.extension is None or self.extension.lower() in EXTENSIONS,
            f"extension must be one of {', '.join(EXTENSIONS)}, got {self.extension!r}",
        )
        bands = list(self.fits_bands)
        numbers = [band for band in bands if isinstance(band, int)]
        require(
            len(bands) in (0, 1, 3) and len(numbers) in (0, len(bands)) and min(numbers, default=0) >= 0,
            f'fits_bands must be one or three numbers from 0, or names such as ["I", "R", "G"], got {bands}',
        )
        require(numbers == bands or self.fits_hdu is None, "fits_hdu and names in fits_bands cannot both be given")
        needs_limits, limits = self.fits_scaling in ("asinh", "linear"), list(self.fits_limits)
        require(
            len(limits) == 2 and limits[0] < limits[1] if needs_limits else not limits,
            f"fits_limits must be [black, white] in pixel values for fits_scaling asinh and linear, and for no other, "
            f"got {limits} for {self.fits_scaling}",
        )
        low_high = list(self.fits_percentiles)
        require(
            len(low_high) == 2 and 0 <= low_high[0] < low_high[1] <= 100,
            f"fits_percentiles must be two, rising, in [0, 100], got {low_high}",
        )

    def resolved(self) -> SurveyKind:
        """Return these settings."""
        return self

    def fingerprint(self) -> dict[str, str]:
        """Return the sha256 of the catalogue's content, and of the contents of the cutouts that its rows ask for.

        Raises
        ------
        DataError
            If the catalogue or the folder is missing or cannot be used, or there is no cutout for any row.
        """
        _require_folder(self.images)
        catalog_sha256 = hash_of(self.catalog, "survey.catalog")
        # All that decides which file is whose. The names in the folder count only where files are found by them.
        names = listing(self.images) if self.image_column is None else ()
        settings = repr((self.id_column, self.image_column, self.extension))
        return {
            "catalog_sha256": catalog_sha256,
            "images_sha256": hash_of_files(
                partial(_named_files, self), hash_of_texts([catalog_sha256, settings, *names]), self.images
            ),
        }

    def read(self, work: Path, accept: Accept = as_it_is) -> "tuple[pd.DataFrame, Metrics]":
        """Read the catalogue and decode the cutout of every row; rows left out are listed in `bad_images.csv`."""
        from sfnetlab.surveys.catalog import read_unsplit_catalog
        from sfnetlab.surveys.store import rows_with_cutouts

        catalog = accept(read_unsplit_catalog(self.catalog, self.id_column))
        stored = build_folder_survey(self, catalog, work / "images.npy")
        return rows_with_cutouts(catalog, stored, work, self.pixel_scale_arcsec, self.resize)


def _named_files(survey: FolderSurvey) -> list[tuple[str, str | None]]:
    """The id of each row and its cutout's file, or None; raises DataError if no row has one."""
    catalog = _read_quietly(survey)
    places, ids = find_cutouts(survey, catalog), catalog["id_str"].tolist()
    if all(isinstance(place, NoFile) for place in places):
        raise DataError(
            f"{survey.images}: no cutout of the catalogue's {len(ids):,} ids, such as {ids[0]!r}"
            f"{survey.extension or ''}{_found_instead(survey.images)}"
        )
    return [(name, None if isinstance(place, NoFile) else place) for name, place in zip(ids, places, strict=True)]


def build_folder_survey(
    survey: FolderSurvey, catalog: "pd.DataFrame", images_path: Path, n_workers: int | None = None
) -> "Stored":
    """Decode the cutout of every row, in order, into `images_path`: a .npy of (n, side, side, 3) uint8.

    Cutouts lie where `find_cutouts` says. `side` is `crop`, or else `resize`, or else the commonest side among the
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

    check_ids(catalog["id_str"], "column 'id_str'")
    ids: list[str] = catalog["id_str"].tolist()
    places = find_cutouts(survey, catalog)
    named, naming = (f"<id>{survey.extension or ''}", "id_column")
    if survey.image_column is not None:
        named, naming = f"of column {survey.image_column!r}", "image_column"
    source = Source(
        where=str(survey.images),
        cutouts=f"cutouts {named}",
        check=lambda: f"survey.images, extension and {naming}{_found_instead(survey.images)}",
    )
    with ThreadPoolExecutor(n_workers) as pool:
        chunks = _read_chunks(survey, ids, places, pool)
        return write_store(images_path, chunks, survey.crop or survey.resize, source, survey.on_bad_image, len(ids))


def find_cutouts(survey: FolderSurvey, catalog: "pd.DataFrame") -> list[Place]:
    """Return the file of each row's cutout, or why there is none, in the order of the catalogue.

    It is what `image_column` names, or else the file that is called after the id (places.py).

    Raises
    ------
    DataError
        If the images folder is missing, or the catalogue lacks the column.
    """
    from sfnetlab.surveys.messages import did_you_mean, first_few

    _require_folder(survey.images)
    column = survey.image_column
    if column is None:
        return places_of_ids(survey.images, catalog["id_str"].tolist(), survey.extension)
    if column not in catalog:
        known = catalog.columns.tolist()
        advice = did_you_mean(column, known) or f"known columns: {first_few(known, 30)}"
        raise DataError(f"{survey.catalog}: no column {column!r} (survey.image_column); {advice}")
    return places_of_paths(survey.images, catalog[column].tolist(), column)


def _read_quietly(survey: FolderSurvey) -> "pd.DataFrame":
    """The catalogue, without the warnings that are told when the survey is made of it."""
    from sfnetlab.surveys.catalog import read_unsplit_catalog

    logger, silent = logging.getLogger("sfnetlab.surveys"), logging.NullHandler()
    was_heard, logger.propagate = logger.propagate, False
    logger.addHandler(silent)  # without any, Python would write warnings to standard error
    try:
        return read_unsplit_catalog(survey.catalog, survey.id_column)
    finally:
        logger.removeHandler(silent)
        logger.propagate = was_heard


def _read_chunks(survey: FolderSurvey, ids: list[str], places: Sequence[Place], pool: Executor) -> "Iterator[Chunk]":
    from sfnetlab.surveys.store import CHUNK

    for start in range(0, len(ids), CHUNK):
        part = slice(start, start + CHUNK)
        yield list(zip(ids[part], pool.map(partial(_read_cutout, survey), places[part]), strict=True))


def _read_cutout(survey: FolderSurvey, place: Place) -> "Cutout | str":
    from sfnetlab.surveys.images import read_image
    from sfnetlab.surveys.store import as_cutout

    if isinstance(place, NoFile):
        return place.reason
    path = Path(place)
    try:
        image = read_image(
            path,
            fits_stretch=survey.fits_stretch,
            fits_q=survey.fits_q,
            fits_scaling=survey.fits_scaling,
            fits_limits=survey.fits_limits,
            fits_percentiles=survey.fits_percentiles,
            fits_bands=survey.fits_bands,
            fits_hdu=survey.fits_hdu,
        )
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")
    return as_cutout(image, survey.resize, survey.crop)


def _found_instead(folder: Path) -> str:
    names = [path.name for path in folder.iterdir()]
    return f"; the folder holds {len(names):,} entries, such as {min(names)!r}" if names else "; the folder is empty"


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images (survey.images)")
