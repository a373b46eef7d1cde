"""A survey that `sfnetlab download sdss` fetched: a folder survey whose pixel scale the download recorded.

The download itself is download.py's, with sdss_queries.py and cutouts.py.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.errors import DataError
from sfnetlab.settings import CatalogColumns, require_sizes
from sfnetlab.surveys.folder import FolderSurvey
from sfnetlab.surveys.protocol import Accept, as_it_is

if TYPE_CHECKING:
    import pandas as pd

    from sfnetlab.jobs import Metrics


@dataclass(frozen=True, kw_only=True)
class SDSSSurvey(CatalogColumns):
    """What `sfnetlab download sdss --to DIR` wrote: a folder survey whose pixel scale is known."""

    has_images: ClassVar[bool] = True
    is_real: ClassVar[bool] = True
    kind: Literal["sdss"] = "sdss"
    directory: Path
    """The DIR of the download: catalog.parquet, images/ and download.json."""
    resize: int | None = None
    """Resample every cutout to this side in pixels before cropping."""
    crop: int | None = None
    """Cut out the central square of this side in pixels (the SFNet paper: 160 to 144)."""
    on_bad_image: Literal["error", "drop"] = "drop"
    """What a cutout that could not be had, or one of a single colour, means: leave the galaxy out and record its id, or
    stop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes(self.resize, self.crop)

    def resolved(self) -> FolderSurvey:
        """Return the folder survey that the download is, with the pixel scale that the cutouts were asked for.

        Raises
        ------
        DataError
            If the folder is missing, or no finished download.
        """
        directory, record = self.directory, self.directory / "download.json"
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
            resize=self.resize,
            crop=self.crop,
            on_bad_image=self.on_bad_image,
            missing_values=self.missing_values,
            ra_column=self.ra_column,
            dec_column=self.dec_column,
        )

    def fingerprint(self) -> dict[str, str]:
        """Return the fingerprint of the folder survey."""
        return self.resolved().fingerprint()

    def read(self, work: Path, accept: Accept = as_it_is) -> "tuple[pd.DataFrame, Metrics]":
        """Read the folder survey."""
        return self.resolved().read(work, accept)
