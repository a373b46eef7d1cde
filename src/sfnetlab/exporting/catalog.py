"""The catalogue of a survey, and its cutouts with a catalogue for Zoobot."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sfnetlab.artifacts import SurveyTable
from sfnetlab.descriptions import about
from sfnetlab.errors import DataError
from sfnetlab.exporting.items import Item
from sfnetlab.results import Record, Results
from sfnetlab.surveys.files import Format, rows_of_frame, write_table
from sfnetlab.surveys.folder import FolderSurvey, find_cutouts

log = logging.getLogger(__name__)

Cutouts = Literal["jpg", "png"]
_THEIRS = "as in the catalogue that the survey was made of"


def catalog_items(results: Results, form: Format, cutouts: Cutouts | None, to: Path) -> Iterator[Item]:
    """Yield the catalogue, and if there are files of cutouts a catalogue for Zoobot.

    Parameters
    ----------
    cutouts
        Write them as such files; None: Zoobot reads the user's own JPEG or PNG files, if the survey has any.
    to
        Where the export will be: Zoobot finds cutouts by whole paths.

    Raises
    ------
    DataError
        If cutouts are asked for of a survey without images.
    """
    source, survey = results.record("prepare-survey"), results.survey
    theirs = {str(name): _THEIRS for name in survey.catalog if not any(about(str(name)))}
    catalog = rows_of_frame(survey.catalog, theirs)
    yield Item(f"catalog.{form}", source, partial(write_table, table=catalog, form=form))
    if cutouts is not None:
        if survey.images is None:
            raise DataError("--cutouts: a survey of embeddings has no images")
        yield Item("cutouts", None, partial(_write_cutouts, survey=survey, suffix=cutouts))
        places = [str(to.resolve() / "cutouts" / f"{id_str}.{cutouts}") for id_str in survey.catalog["id_str"]]
    elif (places := _own_files(source, survey)) is None:
        log.info("no catalogue for Zoobot: the survey has no JPEG or PNG files; --cutouts jpg writes them")
        return
    zoobot = survey.catalog.drop(columns="file_loc", errors="ignore")
    zoobot.insert(1, "file_loc", places)
    read_by_zoobot: Format = "csv" if form == "csv" else "parquet"
    write = partial(write_table, table=rows_of_frame(zoobot, theirs), form=read_by_zoobot)
    yield Item(f"zoobot.{read_by_zoobot}", source, write)


def _own_files(source: Record, survey: SurveyTable) -> list[str] | None:
    """The user's own files of the cutouts, if Zoobot can read them."""
    assert source.job is not None, "an export knows the plan"
    folder = source.job.spec.survey
    if not isinstance(folder, FolderSurvey):
        return None
    files = [Path(place) for place in find_cutouts(folder, survey.catalog) if isinstance(place, str)]
    if len(files) < len(survey.catalog) or {file.suffix.lower() for file in files} - {".jpg", ".jpeg", ".png"}:
        return None
    return [str(file.resolve()) for file in files]


def _write_cutouts(folder: Path, survey: SurveyTable, suffix: Cutouts) -> None:
    """Write a file a galaxy, called after its id."""
    from PIL import Image

    folder.mkdir()
    settings: dict[str, Any] = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    for id_str, image in zip(survey.catalog["id_str"], survey.cutouts, strict=True):
        Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{id_str}.{suffix}", **settings)
