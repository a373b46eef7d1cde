"""The mock survey, of whose galaxies every factor is known: mock_population.py draws them, mock_render.py pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.settings import require
from sfnetlab.surveys.protocol import Accept, SurveyKind, as_it_is

if TYPE_CHECKING:
    import pandas as pd

    from sfnetlab.jobs import Metrics


@dataclass(frozen=True, kw_only=True)
class MockSurvey:
    """Rendered galaxies with known factors: the embedded default, no download."""

    has_images: ClassVar[bool] = True
    is_real: ClassVar[bool] = False
    kind: Literal["mock"] = "mock"
    n_galaxies: int = 4000
    """How many galaxies to draw."""
    image_size: int = 64
    """Side of a cutout in pixels."""
    field_arcsec: float = 38.0
    """Side of a cutout on the sky, in arcseconds (144 px at 0.262 arcsec/px is 37.7)."""
    seed: int = 0
    """Seed of the population and of every galaxy's image."""

    def __post_init__(self) -> None:
        require(self.n_galaxies >= 10, f"n_galaxies must be at least 10, got {self.n_galaxies}")
        require(self.image_size >= 16, f"image_size must be at least 16, got {self.image_size}")
        require(self.field_arcsec > 0, f"field_arcsec must be positive, got {self.field_arcsec}")

    def resolved(self) -> SurveyKind:
        """Return these settings."""
        return self

    def fingerprint(self) -> dict[str, str]:
        """Return the number of the law that makes galaxies: there are no files, and the settings say all else."""
        return {"law": "2"}

    def read(self, work: Path, accept: Accept = as_it_is) -> "tuple[pd.DataFrame, Metrics]":
        """Draw the population and render the cutout of every galaxy."""
        from sfnetlab.files import create_array, finish_array
        from sfnetlab.surveys.mock_population import make_population
        from sfnetlab.surveys.mock_render import render_images

        population = make_population(self.n_galaxies, self.seed, self.field_arcsec)
        catalog = accept(population)
        images = create_array(work / "images.npy", (len(catalog), self.image_size, self.image_size, 3), "uint8")
        render_images(population, self.image_size, self.field_arcsec, self.seed, images)
        finish_array(work / "images.npy", images)
        return catalog, {"pixel_scale_arcsec": self.field_arcsec / self.image_size}
