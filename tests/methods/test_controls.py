"""Controls: pixel statistics, mass and colour, and what the true factors tell."""

import json

import numpy as np
import pandas as pd
import pytest

from sfnetlab.artifacts import SurveyTable, read_features
from sfnetlab.config import load
from sfnetlab.errors import ConfigError, DataError
from sfnetlab.jobs import Job, Task
from sfnetlab.methods.controls import MassAndColour
from sfnetlab.methods.oracle import Oracle, OracleSpec
from sfnetlab.methods.pixel_statistics import PixelStatistics
from sfnetlab.metrics.pixel_statistics import NAMES, pixel_statistics
from sfnetlab.settings import Target
from sfnetlab.surveys.mock_population import HIDDEN_SCATTER_DEX, make_population

METALLICITY = Target(columns=("oh_p50",), cut="metallicity")
MASS = Target(columns=("lgm_tot_p50",))
SIDE, FIELD_ARCSEC = 16, 38.0


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """A prepared mock survey whose images are noise."""
    folder = tmp_path_factory.mktemp("survey")
    catalog = make_population(400, 0, FIELD_ARCSEC)
    catalog.insert(1, "split", np.resize(["train", "train", "valid", "test"], len(catalog)))
    catalog.to_parquet(folder / "catalog.parquet")
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 256, (400, SIDE, SIDE, 3), dtype=np.uint8))
    (folder / "metrics.json").write_text(f'{{"pixel_scale_arcsec": {FIELD_ARCSEC / SIDE}}}')
    return folder


def built(settings, survey, tmp_path, spec=None):
    """The features that a control makes of the survey, the survey's catalogue, and numbers about them."""
    job = Job(stage="fit-baselines", version=1, name=settings.name, spec=spec, inputs={})
    metrics = settings.build(None, Task(job=job, work=tmp_path, inputs={"survey": survey}, device="cpu"))
    return read_features(tmp_path).values, pd.read_parquet(survey / "catalog.parquet"), metrics


def test_pixel_statistics_are_those_of_the_cutouts_in_their_order(survey, tmp_path):
    found, _, metrics = built(PixelStatistics(), survey, tmp_path)
    np.testing.assert_array_equal(found, pixel_statistics(np.load(survey / "images.npy")))
    assert metrics == {"n_features": len(NAMES)}


@pytest.mark.parametrize(
    ("shape", "found"), [((12, 12), "12 x 12 px"), ((15, 15), "15 x 15 px"), ((64, 32), "32 x 64 px")]
)
def test_cutouts_too_small_for_pixel_statistics_or_not_square_are_told_at_once(shape, found):
    survey = SurveyTable(pd.DataFrame(), np.zeros((1, *shape, 3), np.uint8), None)
    (problem,) = PixelStatistics().lacking(survey, lambda _: None)
    assert problem.startswith("features 'pixel_statistics': cutouts must be square, of at least 16 px a side")
    assert found in problem


def test_the_stage_refuses_cutouts_that_are_too_small_for_pixel_statistics(survey, tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((400, 12, 12, 3), np.uint8))
    for name in ("catalog.parquet", "metrics.json"):
        (tmp_path / name).write_bytes((survey / name).read_bytes())
    with pytest.raises(DataError, match="of at least 16 px a side; these have 12 x 12 px"):
        built(PixelStatistics(), tmp_path, tmp_path)


def test_cutouts_of_sixteen_pixels_are_large_enough(survey):
    assert not [*PixelStatistics().lacking(SurveyTable(pd.DataFrame(), np.load(survey / "images.npy"), None), len)]


def test_mass_and_colour_are_no_magnitudes(survey, tmp_path):
    found, catalog, _ = built(MassAndColour(), survey, tmp_path)
    columns = [
        catalog["lgm_tot_p50"],
        catalog["modelMag_g"] - catalog["modelMag_r"],
        catalog["modelMag_r"] - catalog["modelMag_i"],
    ]
    np.testing.assert_allclose(found, np.column_stack(columns), rtol=1e-5)


def test_the_oracle_knows_all_but_what_is_hidden(survey, tmp_path):
    oracle = Oracle(n_galaxies=4000)
    spec = OracleSpec(baseline=oracle, targets={"metallicity": METALLICITY})
    found, catalog, metrics = built(oracle, survey, tmp_path, spec)
    is_measured = catalog["oh_p50"] > 0
    error = found[is_measured, 0] - catalog.loc[is_measured, "oh_p50"]
    rmse = np.sqrt(np.mean(error**2))
    assert HIDDEN_SCATTER_DEX < rmse < 0.7 * catalog.loc[is_measured, "oh_p50"].std()
    assert metrics["n_features"] == 1


def test_the_oracle_predicts_each_label_of_each_target_once(survey, tmp_path):
    oracle = Oracle(n_galaxies=1000)
    both = Target(columns=("oh_p50", "sfr_tot_p50"), cut="metallicity")
    targets = {"metallicity": METALLICITY, "mass": MASS, "both": both}
    found, catalog, metrics = built(oracle, survey, tmp_path, OracleSpec(baseline=oracle, targets=targets))
    columns = json.loads((tmp_path / "model.json").read_text())["columns"]
    assert columns == ["metallicity: oh_p50", "mass: lgm_tot_p50", "both: sfr_tot_p50"]
    assert metrics["n_train_mass"] == 1000 > metrics["n_train_metallicity"] == metrics["n_train_both"]
    assert np.corrcoef(found[:, 1], catalog["lgm_tot_p50"])[0, 1] > 0.8


def test_the_oracle_predicts_the_same_each_time(survey, tmp_path):
    oracle = Oracle(n_galaxies=300)
    spec = OracleSpec(baseline=oracle, targets={"mass": MASS})
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    first, second = (built(oracle, survey, folder, spec)[0] for folder in folders)
    np.testing.assert_array_equal(first, second)


def test_the_oracle_learns_of_no_galaxy_of_the_survey(survey, tmp_path):
    oracle = Oracle(n_galaxies=400, seed=0)
    with pytest.raises(DataError, match="seed 0 is that of the survey; choose another one"):
        built(oracle, survey, tmp_path, OracleSpec(baseline=oracle, targets={"metallicity": METALLICITY}))


CONFIG = """\
name = "controls"
seeds = [0]
survey = {kind = "%s", %s}
targets.label = {columns = ["%s"]}
features = [{kind = "%s", %s}]
"""
FOLDER, EMBEDDINGS = 'catalog = "c.csv", images = "i"', 'catalog = "c.csv"'


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (("folder", FOLDER, "z", "oracle", 'name = "o"'), "nobody knows the true factors of real galaxies"),
        (("embeddings", EMBEDDINGS, "z", "pixel_statistics", 'name = "p"'), "has no images, which these"),
        (("folder", FOLDER, "lgm_tot_p50", "mass_and_colour", 'name = "m"'), r"its mass 'lgm_tot_p50' is a column of"),
        (("folder", FOLDER, "z", "mass_and_colour", 'magnitudes = ["g"]'), "name at least two magnitude columns"),
    ],
)
def test_a_control_that_cannot_be_is_refused_by_the_configuration(tmp_path, values, problem):
    (tmp_path / "c.toml").write_text(CONFIG % values)
    with pytest.raises(ConfigError, match=problem):
        load(tmp_path / "c.toml")
