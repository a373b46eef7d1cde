"""What a survey can be asked, whatever its kind. Each kind answers in a file of its own, `surveys/<kind>.py`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import pandas as pd

    from sfnetlab.jobs import Metrics


Accept = Callable[["pd.DataFrame"], "pd.DataFrame"]
"""Takes a catalogue of typed columns, and returns it with its positions and missing values known. It refuses one that
the experiment cannot use, with a DataError."""


def as_it_is(catalog: "pd.DataFrame") -> "pd.DataFrame":
    """Return the catalogue: what accepts every one."""
    return catalog


class SurveyKind(Protocol):
    """The settings of one kind of survey: a frozen dataclass, filled from `[survey]` of a configuration."""

    has_images: ClassVar[bool]
    """Whether it has cutouts. Without them, features that need images are refused."""
    is_real: ClassVar[bool]
    """Whether there are galaxies in the sky where the catalogue says so."""

    @property
    def kind(self) -> str:
        """The name of the kind in configurations."""
        ...

    def resolved(self) -> "SurveyKind":
        """Return the settings that stand in the recipe of the survey and by which it is read.

        These are the settings themselves, unless one kind is a short way to write another.

        Raises
        ------
        DataError
            If what the settings name is missing or not of this kind.
        """
        ...

    def fingerprint(self) -> dict[str, str]:
        """Return what identifies the user's files, by name: hashes, or a revision; empty where there are no files.

        Raises
        ------
        DataError
            If a file or folder is missing.
        """
        ...

    def read(self, work: Path, accept: Accept = as_it_is) -> "tuple[pd.DataFrame, Metrics]":
        """Write the cutouts into `work/images.npy` and return the catalogue that belongs to them.

        Parameters
        ----------
        work : Path
            The folder of the result. Cutouts are (n, side, side, 3) uint8. Records, such as the list of galaxies that
            were left out, go here too.
        accept : callable
            To be called with the catalogue before cutouts are decoded, which may take long. What it returns is the
            catalogue from there on.

        Returns
        -------
        catalog : DataFrame of n rows
            `id_str`, text, first; a row a cutout, in the same order.
        facts : mapping
            Numbers for the result's `metrics.json`, such as `pixel_scale_arcsec` where it is known.

        Raises
        ------
        DataError
            If the catalogue or the images cannot be used.
        """
        ...
