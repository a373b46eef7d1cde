"""Predictions that are made of several: over the symmetries of a cutout, over seeds, from masses."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sfnetlab.jobs import Job, TableSpec, Task
from sfnetlab.plan import ComparisonSpec, ProbeSpec
from sfnetlab.schema import Probes
from sfnetlab.settings import Target
from sfnetlab.stages.comparison import ENSEMBLE, _combined, _mass_metallicity
from sfnetlab.stages.fit_probes import _predictions
from sfnetlab.stages.predictions import AUGMENTED

N = 240
SPLIT = np.array(["train", "valid", "test"]).repeat(80)
TARGETS = {"both": Target(columns=("lgm_tot_p50", "oh_p50"), cut="metallicity")}
IDS = np.array([f"g{i:03d}" for i in range(N)])


def spec(seed=0):
    return ProbeSpec(
        experiment="e",
        table=TableSpec(features="net", kind="sfnet", k=4, seed=seed),
        targets=TARGETS,
        classes={},
        labels={},
        probes=Probes(kinds=("linear",), budgets=(2,), n_bootstrap=100),
        head_target="both",
    )


@pytest.fixture
def catalog():
    rng = np.random.default_rng(0)
    mass = rng.uniform(9, 11, N)
    metallicity = 8.9 + 0.2 * (mass - 10) + 0.02 * rng.normal(size=N)
    sfr = mass - 10 + rng.normal(size=N)
    columns = {"id_str": IDS, "split": SPLIT, "lgm_tot_p50": mass, "oh_p50": metallicity, "sfr_tot_p50": sfr}
    return pd.DataFrame(columns)


@pytest.fixture
def task(tmp_path, catalog):
    """Two seeds whose heads err by +0.1 and -0.1 dex, augmented by half of that."""
    inputs, paths = {}, {}
    test = catalog[catalog["split"] == "test"]
    for seed, error in ((0, 0.1), (1, -0.1)):
        rows = [
            pd.DataFrame(
                {
                    "id_str": test["id_str"],
                    "column": column,
                    "y_true": test[column],
                    "y_pred": test[column] + share * error,
                    "probe": probe,
                    "n_features_used": 9,
                    "target": "both",
                }
            )
            for column in TARGETS["both"].columns
            for probe, share in (("head", 1), (f"head{AUGMENTED}", 0.5))
        ]
        path = tmp_path / str(seed)
        path.mkdir()
        pd.concat(rows).sample(frac=1, random_state=seed).to_parquet(path / "predictions.parquet")
        job = Job(stage="fit-probes", version=1, name=str(seed), spec=spec(seed), inputs={})
        inputs[str(seed)], paths[str(seed)] = job, path
    paths["survey"] = tmp_path
    job = Job(stage="fit-probes", version=1, name="comparison", spec=None, inputs=inputs)
    return Task(inputs=paths, work=tmp_path, device="cpu", job=job)


def test_with_turned_cutouts_head_and_probes_are_means_over_them_on_test_galaxies_alone():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 5))
    y = X[:, :1] + 0.1 * rng.normal(size=(N, 1))
    test = SPLIT == "test"
    turned = [X[test] + shift for shift in (-0.3, 0.5)]
    one = replace(spec(), head_target=None)
    found = {(p.probe, p.n_features_used): p.values for p in _predictions(one, X, y, SPLIT, None, turned)}
    assert set(found) == {("linear", 5), (f"linear{AUGMENTED}", 5), ("linear", 2)}
    augmented = found[f"linear{AUGMENTED}", 5]
    assert np.isnan(augmented[~test]).all()
    slope = np.linalg.lstsq(np.c_[X, np.ones(N)][SPLIT == "train"], y[SPLIT == "train"], rcond=None)[0]
    np.testing.assert_allclose(augmented[test], np.c_[X[test] + 0.1, np.ones(test.sum())] @ slope, rtol=1e-6)


def test_errors_of_opposite_seeds_cancel_in_their_ensemble(task):
    metrics, gained = _combined(task)
    rows = pd.concat(metrics)
    rmse = rows[(rows["metric"] == "rmse") & (rows["column"] == "oh_p50")]
    assert rmse["probe"].tolist() == [f"head{ENSEMBLE}"]
    assert rmse["value"].iloc[0] == pytest.approx(0, abs=1e-12)
    assert rmse["seed"].isna().all()
    gains = pd.concat(gained).set_index(["column", "gain"])
    assert gains.loc[("oh_p50", "augmentation"), "rmse"] == pytest.approx(0.05)
    assert gains.loc[("oh_p50", "ensemble"), "difference"] == pytest.approx(-0.1)
    assert (gains["n_seeds"] == 2).all()


def test_metallicity_from_predicted_mass_errs_by_the_slope_times_the_error_of_the_mass(task, catalog):
    comparison = ComparisonSpec(experiment="e", targets=TARGETS, classes={}, labels={})
    metrics, tables = _mass_metallicity(comparison, task, catalog)
    rows = pd.concat(metrics)
    bias = rows[(rows["metric"] == "bias") & (rows["probe"] == "head_mass_fitted_relation")].set_index("seed")["value"]
    assert bias[0] - bias[1] == pytest.approx(2 * 0.2 * 0.1, rel=0.3)
    assert set(rows["probe"]) == {"head_mass_fitted_relation", "head_mass_tremonti_2004"}
    assert set(tables["mass_metallicity_bins"]["features"]) == {"true", "net"}
    assert set(tables["mass_metallicity_residuals"]["quantity"]) == {"log SFR", "log sSFR"}


def test_without_masses_there_is_no_relation(task, catalog):
    comparison = ComparisonSpec(experiment="e", targets=TARGETS, classes={}, labels={})
    assert _mass_metallicity(comparison, task, catalog.drop(columns="lgm_tot_p50")) == ([], {})
