"""Galaxy10 as its authors publish it: an HDF5 file of cutouts and classes, checked by its hash and read in blocks.

The two Galaxy10 number their ten classes alike and mean different ones, so the variant is named and its file checked.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from sfnetlab.errors import DataError
from sfnetlab.files import sha256_of
from sfnetlab.settings import require, require_sizes
from sfnetlab.surveys.protocol import Accept, SurveyKind, as_it_is

if TYPE_CHECKING:
    import pandas as pd
    from h5py import Dataset, File

    from sfnetlab.jobs import Metrics
    from sfnetlab.surveys.store import Chunk, Stored


class Variant(NamedTuple):
    """What a published file holds. Hashes and classes are those of the authors' pages (astroNN, henrysky/Galaxy10)."""

    file: str
    sha256: str
    n_galaxies: int
    side: int
    classes: tuple[str, ...]
    """Names of the classes, in the order of their numbers. astroNN's own table calls class 3 of DECaLS "Smooth, Cigar
    shaped", which is a slip: class 4 is that."""
    columns: tuple[str, ...]
    """Datasets of the file that hold one value a galaxy, beside its class."""


VARIANTS: dict[Literal["sdss", "decals"], Variant] = {
    "sdss": Variant(
        file="Galaxy10.h5",
        sha256="969a6b1cefcc36e09fffa86febd2f699a4aa19b837ba0427f01b0bc6ded458af",
        n_galaxies=21_785,
        side=69,
        classes=(
            "Disk, Face-on, No Spiral",
            "Smooth, Completely round",
            "Smooth, in-between round",
            "Smooth, Cigar shaped",
            "Disk, Edge-on, Rounded Bulge",
            "Disk, Edge-on, Boxy Bulge",
            "Disk, Edge-on, No Bulge",
            "Disk, Face-on, Tight Spiral",
            "Disk, Face-on, Medium Spiral",
            "Disk, Face-on, Loose Spiral",
        ),
        columns=(),
    ),
    "decals": Variant(
        file="Galaxy10_DECals.h5",
        sha256="19aefc477c41bb7f77ff07599a6b82a038dc042f889a111b0d4d98bb755c1571",
        n_galaxies=17_736,
        side=256,
        classes=(
            "Disturbed Galaxies",
            "Merging Galaxies",
            "Round Smooth Galaxies",
            "In-between Round Smooth Galaxies",
            "Cigar Shaped Smooth Galaxies",
            "Barred Spiral Galaxies",
            "Unbarred Tight Spiral Galaxies",
            "Unbarred Loose Spiral Galaxies",
            "Edge-on Galaxies without Bulge",
            "Edge-on Galaxies with Bulge",
        ),
        columns=("ra", "dec", "redshift", "pxscale"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Galaxy10Survey:
    """Galaxy10, ten classes of galaxies from Galaxy Zoo votes, as an HDF5 file; columns `class` and `class_name`."""

    has_images: ClassVar[bool] = True
    is_real: ClassVar[bool] = True
    kind: Literal["galaxy10"] = "galaxy10"
    file: Path
    """Galaxy10.h5 or Galaxy10_DECals.h5."""
    variant: Literal["sdss", "decals"]
    """Which Galaxy10: 21,785 galaxies of 69 pixels, or 17,736 of 256. Their classes differ under equal numbers."""
    sha256: str | None = None
    """Of a file of your own in the same form, for example a part of Galaxy10; None: the published file's."""
    resize: int | None = None
    """Resample every cutout to this side in pixels before cropping."""
    crop: int | None = None
    """Cut out the central square of this side in pixels."""
    on_bad_image: Literal["error", "drop"] = "error"
    """What a cutout of a single colour means: stop, or leave the galaxy out and record its id."""

    def __post_init__(self) -> None:
        require(
            self.sha256 is None or (len(self.sha256) == 64 and set(self.sha256) <= set("0123456789abcdef")),
            f"sha256 must be 64 hexadecimal digits in lower case, got {self.sha256!r}",
        )
        require_sizes(self.resize, self.crop)

    def resolved(self) -> SurveyKind:
        """Return these settings."""
        return self

    def fingerprint(self) -> dict[str, str]:
        """Return the sha256 that the file must have; the file itself is not read for it."""
        return {"file_sha256": self.sha256 or VARIANTS[self.variant].sha256}

    def read(self, work: Path, accept: Accept = as_it_is) -> "tuple[pd.DataFrame, Metrics]":
        """Check the file and store its cutouts; rows left out are listed in `bad_images.csv`."""
        from sfnetlab.surveys.store import rows_with_cutouts

        catalog, stored = build_galaxy10_survey(self, work / "images.npy", accept)
        return rows_with_cutouts(catalog, stored, work, None, self.resize)


def build_galaxy10_survey(
    survey: Galaxy10Survey, images_path: Path, accept: Accept = as_it_is
) -> "tuple[pd.DataFrame, Stored]":
    """Write the cutouts into `images_path`, a .npy of (n, side, side, 3) uint8, and return the catalogue.

    Galaxy Zoo scaled each cutout to its galaxy, so that the survey has no single pixel scale.

    Returns
    -------
    catalog : DataFrame
        A row a galaxy, even if its image is bad: `id_str`, which is `galaxy10-<variant>-<row of the file>`; `class`
        (0 to 9); `class_name`; and for DECaLS `ra` and `dec` (degrees), `redshift` (NaN where unknown) and `pxscale`
        (arcsec a pixel of the published cutout).
    stored : Stored
        Which galaxies have no usable image.

    Raises
    ------
    DataError
        If the file is missing, damaged, of another hash, or not of the named variant, or images are bad (with "drop":
        if all are).
    """
    import h5py

    from sfnetlab.surveys.store import Source, write_store

    path = survey.file
    if not path.is_file():
        raise DataError(f"{path}: no such file (survey.file); fetch {VARIANTS[survey.variant].file} from its authors")
    try:
        with h5py.File(path) as file:
            images, catalog = _open(survey, file)
            catalog = accept(catalog)
            _check_hash(survey)
            source = Source(str(path), "cutouts", lambda: "survey.crop and survey.resize")
            with ThreadPoolExecutor() as pool:
                chunks = _read_chunks(survey, images, catalog["id_str"].tolist(), pool)
                side = survey.crop or survey.resize or VARIANTS[survey.variant].side
                stored = write_store(images_path, chunks, side, source, survey.on_bad_image, len(catalog))
    except OSError as error:
        raise DataError(f"{path}: cannot be read as HDF5, damaged or not such a file: {error}") from error
    return catalog, stored


def _open(survey: Galaxy10Survey, file: "File") -> "tuple[Dataset, pd.DataFrame]":
    """The images, not read yet, and the catalogue, both checked to be those of the variant."""
    import h5py
    import numpy as np
    import pandas as pd

    variant = VARIANTS[survey.variant]
    found = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
    missing = [name for name in ("images", "ans", *variant.columns) if name not in found]
    if missing:
        raise DataError(f"{_not_the_variant(survey)}: it lacks {', '.join(missing)}, it holds {', '.join(found)}")
    images, n = found["images"], len(found["ans"])
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (variant.side, variant.side, 3):
        raise DataError(f"{_not_the_variant(survey)}: images of {images.dtype} with shape {images.shape}")
    if survey.sha256 is None and len(images) != variant.n_galaxies:
        raise DataError(
            f"{_not_the_variant(survey)}: {len(images):,} images in it; of a file of your own, give survey.sha256"
        )
    columns = {name: np.asarray(found[name][()]) for name in ("ans", *variant.columns)}
    wrong = [f"{name} {values.shape}" for name, values in columns.items() if values.shape != (len(images),)]
    if wrong or n == 0:
        raise DataError(f"{survey.file}: expected a value for each of {len(images):,} images, found {', '.join(wrong)}")
    classes = columns.pop("ans")
    if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= len(variant.classes):
        raise DataError(
            f"{survey.file}: ans must hold whole numbers from 0 to {len(variant.classes) - 1}, found "
            f"{classes.dtype} from {classes.min()} to {classes.max()}"
        )
    catalog = pd.DataFrame(
        {
            "id_str": [f"galaxy10-{survey.variant}-{row:06d}" for row in range(n)],
            "class": classes.astype(np.int64),
            "class_name": [variant.classes[number] for number in classes],
            **{name: values.astype(np.float64) for name, values in columns.items()},
        }
    )
    return images, catalog


def _not_the_variant(survey: Galaxy10Survey) -> str:
    wanted = VARIANTS[survey.variant]
    return (
        f"{survey.file}: not Galaxy10 {survey.variant} ({wanted.file}: {wanted.n_galaxies:,} images of "
        f"{wanted.side}×{wanted.side}), whose classes are not those of the other variant; check survey.variant"
    )


def _check_hash(survey: Galaxy10Survey) -> None:
    expected, found = survey.sha256 or VARIANTS[survey.variant].sha256, sha256_of(survey.file)
    if found != expected:
        raise DataError(
            f"{survey.file}: sha256 {found}, expected {expected}"
            + (" (survey.sha256)" if survey.sha256 else " (the published file's); fetch it again")
        )


def _read_chunks(
    survey: Galaxy10Survey, images: "Dataset", ids: list[str], pool: ThreadPoolExecutor
) -> "Iterator[Chunk]":
    from sfnetlab.surveys.store import CHUNK, as_cutout

    fit = partial(as_cutout, resize=survey.resize, crop=survey.crop)
    for start in range(0, len(ids), CHUNK):
        block = images[start : start + CHUNK]
        yield list(zip(ids[start : start + CHUNK], pool.map(fit, block), strict=True))
