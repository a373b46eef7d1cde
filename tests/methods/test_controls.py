"""Controls: pixel statistics, mass and colour, and what the true factors tell."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.artifacts import read_features
from sfnetlab.config import load
from sfnetlab.errors import ConfigError, DataError
from sfnetlab.jobs import Job, Task
from sfnetlab.methods.controls import MassAndColour
from sfnetlab.methods.oracle import Oracle
from sfnetlab.methods.pixel_statistics import PixelStatistics
from sfnetlab.metrics.pixel_statistics import NAMES, pixel_statistics
from sfnetlab.settings import Target
from sfnetlab.surveys.mock_population import HIDDEN_SCATTER_DEX, make_population

METALLICITY = Target(columns=("oh_p50",), cut="metallicity")
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


def built(settings, survey, tmp_path, target=None):
    """The features that a control makes of the survey, and the survey's catalogue."""
    task = Task(
        job=Job("fit-baselines", settings.name, settings, {}, 1), work=tmp_path, inputs={"survey": survey}, device="cpu"
    )
    metrics = settings.build(target, task)
    return read_features(tmp_path).values, pd.read_parquet(survey / "catalog.parquet"), metrics


def test_pixel_statistics_are_those_of_the_cutouts_in_their_order(survey, tmp_path):
    found, _, metrics = built(PixelStatistics(), survey, tmp_path)
    np.testing.assert_array_equal(found, pixel_statistics(np.load(survey / "images.npy")))
    assert metrics == {"n_features": len(NAMES)}


def test_mass_and_colour_are_no_magnitudes(survey, tmp_path):
    found, catalog, _ = built(MassAndColour(), survey, tmp_path)
    columns = [
        catalog["lgm_tot_p50"],
        catalog["modelMag_g"] - catalog["modelMag_r"],
        catalog["modelMag_r"] - catalog["modelMag_i"],
    ]
    np.testing.assert_allclose(found, np.column_stack(columns), rtol=1e-5)


def test_the_oracle_knows_all_but_what_is_hidden(survey, tmp_path):
    found, catalog, metrics = built(Oracle(target="metallicity", n_galaxies=4000), survey, tmp_path, METALLICITY)
    is_measured = catalog["oh_p50"] > 0
    error = found[is_measured, 0] - catalog.loc[is_measured, "oh_p50"]
    rmse = np.sqrt(np.mean(error**2))
    assert HIDDEN_SCATTER_DEX < rmse < 0.7 * catalog.loc[is_measured, "oh_p50"].std()
    assert metrics["n_features"] == 1


def test_the_oracle_learns_of_no_galaxy_of_the_survey(survey, tmp_path):
    with pytest.raises(DataError, match="seed 0 is that of the survey; choose another one"):
        built(Oracle(target="metallicity", n_galaxies=400, seed=0), survey, tmp_path, METALLICITY)


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
        (("folder", FOLDER, "z", "oracle", 'target = "label"'), "nobody knows the true factors of real galaxies"),
        (
            ("mock", "n_galaxies = 100", "z", "oracle", 'target = "mass"'),
            r"target must be one of \['label'\], got 'mass'",
        ),
        (("embeddings", EMBEDDINGS, "z", "pixel_statistics", 'name = "p"'), "has no images, which these"),
        (("folder", FOLDER, "lgm_tot_p50", "mass_and_colour", 'name = "m"'), r"its mass 'lgm_tot_p50' is a column of"),
        (("folder", FOLDER, "z", "mass_and_colour", 'magnitudes = ["g"]'), "name at least two magnitude columns"),
    ],
)
def test_a_control_that_cannot_be_is_refused_by_the_configuration(tmp_path, values, problem):
    (tmp_path / "c.toml").write_text(CONFIG % values)
    with pytest.raises(ConfigError, match=problem):
        load(tmp_path / "c.toml")
