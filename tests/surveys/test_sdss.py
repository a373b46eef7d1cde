"""A download of SDSS: it is a folder survey with the pixel scale of its record, and an unfinished one is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sfnetlab.errors import DataError
from sfnetlab.surveys.catalog import read_catalog
from sfnetlab.surveys.folder import build_folder_survey
from sfnetlab.surveys.sdss import SDSSSurvey


def pixels_of(i: int, side: int = 20) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)


def make_download(tmp_path: Path) -> Path:
    """A folder as `sfnetlab download sdss` leaves it; the last galaxy's cutout could not be had."""
    (tmp_path / "images").mkdir()
    for i in range(3):
        Image.fromarray(pixels_of(i)).save(tmp_path / f"images/{2**60 + i}.jpg")
    ids = [str(2**60 + i) for i in range(4)]
    pd.DataFrame({"id_str": ids, "oh_p50": 8.9}).to_parquet(tmp_path / "catalog.parquet")
    (tmp_path / "download.json").write_text(json.dumps({"layer": "sdss", "pixel_scale_arcsec": 0.262, "size_px": 20}))
    return tmp_path


def test_a_download_of_sdss_is_a_folder_survey_with_its_pixel_scale(tmp_path: Path) -> None:
    survey = SDSSSurvey(directory=make_download(tmp_path), crop=16).resolved()
    assert survey.pixel_scale_arcsec == 0.262
    catalog = read_catalog(survey.catalog, survey.id_column)
    stored = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    kept, bad = stored.kept(catalog), stored.bad()
    assert kept["id_str"].tolist() == [str(2**60 + i) for i in range(3)]
    assert bad.to_numpy().tolist() == [[str(2**60 + 3), "missing"]]
    assert np.load(tmp_path / "images.npy", mmap_mode="r").shape == (3, 16, 16, 3)


def test_without_the_folder_of_a_download_the_message_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder .*uv run sfnetlab download sdss --to .*none"):
        SDSSSurvey(directory=tmp_path / "none").resolved()


@pytest.mark.parametrize(
    "record", [None, "{}", "{", "[]", '{"pixel_scale_arcsec": "0.262"}', '{"pixel_scale_arcsec": 0}']
)
def test_a_download_without_a_record_of_its_pixel_scale_is_refused(tmp_path: Path, record: str | None) -> None:
    path = make_download(tmp_path) / "download.json"
    path.unlink()
    if record is not None:
        path.write_text(record)
    with pytest.raises(DataError, match=r"download.json: .*pixel_scale_arcsec.*sfnetlab download sdss"):
        SDSSSurvey(directory=tmp_path).resolved()
