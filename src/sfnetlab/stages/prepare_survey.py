"""Stage prepare-survey: `catalog.parquet` with ids, labels and split, and `images.npy` with every cutout."""

import json
import logging
from functools import partial
from typing import assert_never

import pandas as pd

from sfnetlab.artifacts import Metrics, create_array
from sfnetlab.errors import DataError
from sfnetlab.plan import CommonSurveySpec, SurveySpec
from sfnetlab.runner import Task, stage_main
from sfnetlab.schema import EmbeddingsSurvey, FolderSurvey, Galaxy10Survey, HubSurvey, MockSurvey
from sfnetlab.surveys.catalog import add_line_logs, read_catalog
from sfnetlab.surveys.folder import build_folder_survey
from sfnetlab.surveys.galaxy10 import build_galaxy10_survey
from sfnetlab.surveys.hub import build_hub_survey
from sfnetlab.surveys.mock_population import make_population
from sfnetlab.surveys.mock_render import render_images
from sfnetlab.surveys.split import split_catalog
from sfnetlab.surveys.store import Stored
from sfnetlab.surveys.tables import common_galaxies

log = logging.getLogger(__name__)


def build(spec: SurveySpec, task: Task) -> Metrics:
    match spec.survey:
        case MockSurvey():
            catalog, facts = _mock(spec.survey, task)
        case FolderSurvey():
            catalog, facts = _folder(spec.survey, task)
        case HubSurvey():
            catalog, facts = _hub(spec.survey, task)
        case Galaxy10Survey():
            catalog, facts = _galaxy10(spec.survey, task)
        case EmbeddingsSurvey():
            catalog, facts = _embeddings(spec.survey, spec, task)
        case _ as never:
            assert_never(never)
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
    catalog = _read_catalog(survey)
    return _kept(catalog, build_folder_survey(survey, catalog, task.work / "images.npy"), survey, task)


def _read_catalog(survey: FolderSurvey | EmbeddingsSurvey) -> pd.DataFrame:
    catalog = read_catalog(survey.catalog, survey.id_column)
    if "split" in catalog:
        raise DataError(f"{survey.catalog}: has a column 'split', a name that is taken; rename it")
    return catalog


def _hub(survey: HubSurvey, task: Task) -> tuple[pd.DataFrame, Metrics]:
    catalog, stored, source = build_hub_survey(survey, task.work / "images.npy")
    (task.work / "source.json").write_text(json.dumps(source, indent=1) + "\n")
    return _kept(catalog, stored, survey, task)


def _galaxy10(survey: Galaxy10Survey, task: Task) -> tuple[pd.DataFrame, Metrics]:
    return build_galaxy10_survey(survey, task.work / "images.npy"), {}


def _kept(
    catalog: pd.DataFrame, stored: Stored, survey: FolderSurvey | HubSurvey, task: Task
) -> tuple[pd.DataFrame, Metrics]:
    """The rows that have a cutout; the others go on record."""
    bad = stored.bad()
    bad.to_csv(task.work / "bad_images.csv", index=False)
    if len(bad):
        log.warning("%d of %d galaxies dropped for their images, see bad_images.csv", len(bad), len(catalog))
    facts: dict[str, float] = {"n_bad_images": len(bad)}
    if survey.pixel_scale_arcsec is not None:
        if survey.resize is not None and stored.n_original_sides > 1:
            log.warning("cutouts of %d sizes were resized: scale bars hold for the first", stored.n_original_sides)
        enlarged = stored.original_side / survey.resize if survey.resize else 1
        facts["pixel_scale_arcsec"] = survey.pixel_scale_arcsec * enlarged
    return stored.kept(catalog), facts


def _embeddings(survey: EmbeddingsSurvey, spec: SurveySpec, task: Task) -> tuple[pd.DataFrame, Metrics]:
    catalog = _read_catalog(survey)
    if not isinstance(spec, CommonSurveySpec):
        return catalog, {}
    kept, dropped = common_galaxies(catalog, spec.required)
    dropped.to_csv(task.work / "without_embedding.csv", index=False)
    if len(dropped):
        log.warning("%d of %d galaxies dropped, see without_embedding.csv", len(dropped), len(catalog))
    return kept, {"n_without_embedding": len(dropped)}


main = partial(stage_main, "prepare-survey")

if __name__ == "__main__":
    raise SystemExit(main())
