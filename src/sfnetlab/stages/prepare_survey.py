"""Stage prepare-survey: `catalog.parquet` with ids, labels and split, and `images.npy` with every cutout."""

import logging
from functools import partial

import pandas as pd

from sfnetlab.artifacts import Metrics, create_array
from sfnetlab.plan import SurveySpec
from sfnetlab.runner import Task, stage_main
from sfnetlab.schema import FolderSurvey, MockSurvey
from sfnetlab.surveys.catalog import add_line_logs, read_catalog, split_catalog
from sfnetlab.surveys.folder import build_folder_survey, image_path
from sfnetlab.surveys.images import read_image
from sfnetlab.surveys.mock_population import make_population
from sfnetlab.surveys.mock_render import render_images

log = logging.getLogger(__name__)


def build(spec: SurveySpec, task: Task) -> Metrics:
    match spec.survey:
        case MockSurvey():
            catalog, facts = _mock(spec.survey, task)
        case FolderSurvey():
            catalog, facts = _folder(spec.survey, task)
    catalog = add_line_logs(catalog)
    catalog.insert(1, "split", split_catalog(catalog, spec.split))
    catalog.to_parquet(task.work / "catalog.parquet", index=False)
    counts = {f"n_{part}": int((catalog["split"] == part).sum()) for part in ("train", "valid", "test")}
    log.info("%d galaxies: %s", len(catalog), ", ".join(f"{n} {part[2:]}" for part, n in counts.items()))
    return {"n_galaxies": len(catalog), **counts, **facts}


def _mock(survey: MockSurvey, task: Task) -> tuple[pd.DataFrame, Metrics]:
    catalog = make_population(survey.n_galaxies, survey.seed, survey.field_arcsec)
    size = survey.image_size
    images = create_array(task.work / "images.npy", (len(catalog), size, size, 3), "uint8")
    render_images(catalog, size, survey.field_arcsec, survey.seed, images)
    return catalog, {"pixel_scale_arcsec": survey.field_arcsec / size}


def _folder(survey: FolderSurvey, task: Task) -> tuple[pd.DataFrame, Metrics]:
    catalog = read_catalog(survey.catalog, survey.id_column)
    kept, bad = build_folder_survey(survey, catalog, task.work / "images.npy")
    bad.to_csv(task.work / "bad_images.csv", index=False)
    if len(bad):
        log.warning("%d of %d galaxies dropped for their images, see bad_images.csv", len(bad), len(catalog))
    facts: dict[str, float] = {"n_bad_images": len(bad)}
    if survey.pixel_scale_arcsec is not None:
        original = read_image(
            image_path(survey, kept["id_str"].iloc[0]), fits_stretch=survey.fits_stretch, fits_q=survey.fits_q
        )
        n_pixels = original.shape[0]
        facts["pixel_scale_arcsec"] = survey.pixel_scale_arcsec * n_pixels / (survey.resize or n_pixels)
    return kept, facts


main = partial(stage_main, "prepare-survey")

if __name__ == "__main__":
    raise SystemExit(main())
