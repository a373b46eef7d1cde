"""The comparison of fit-probes on a few made-up predictions: which tables it writes."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.jobs import Job, TableSpec, Task
from sfnetlab.metrics.predictions import Prediction, prediction_rows, value_scores
from sfnetlab.plan import ComparisonSpec, ProbeSpec
from sfnetlab.results import with_identity
from sfnetlab.schema import Probes
from sfnetlab.settings import Target
from sfnetlab.stages import fit_probes
from sfnetlab.stages.comparison import judged

N = 240
TARGETS = {"both": Target(columns=("lgm_tot_p50", "oh_p50"))}


@pytest.fixture
def catalog():
    rng = np.random.default_rng(0)
    mass = rng.uniform(9, 11, N)
    columns = {"id_str": [f"g{i:03d}" for i in range(N)], "split": np.repeat(["train", "valid", "test"], N // 3)}
    measured = {"lgm_tot_p50": mass, "oh_p50": 8.9 + 0.2 * (mass - 10) + 0.02 * rng.normal(size=N)}
    return pd.DataFrame(columns | measured | {"sfr_tot_p50": mass - 10 + rng.normal(size=N)})


def compared(root, catalog):
    """The comparison of the heads of two seeds that err by +0.1 and -0.1 dex."""
    (root / "survey").mkdir()
    catalog.to_parquet(root / "survey/catalog.parquet")
    (root / "survey/metrics.json").write_text("{}")
    columns, split = TARGETS["both"].columns, catalog["split"].to_numpy()
    Y = catalog[list(columns)].to_numpy()
    jobs, paths = {}, {"survey": root / "survey"}
    for seed, error in ((0, 0.1), (1, -0.1)):
        table = TableSpec(features="net", kind="sfnet", k=4, seed=seed)
        probes = Probes(kinds=("linear",), budgets=(2,), n_bootstrap=100)
        spec = ProbeSpec(table=table, targets=TARGETS, classes={}, probes=probes, head_target="both")
        path = root / f"seed{seed}"
        path.mkdir()
        head = Prediction("head", 9, Y + error)
        told = prediction_rows(columns, catalog["id_str"], Y, head, split).assign(target="both")
        told.to_parquet(path / "predictions.parquet")
        scores = with_identity(value_scores(columns, Y, head, split, n_resamples=100, seed=0), table)
        scores.assign(target="both").to_parquet(path / "metrics.parquet")
        features = Job(stage="embed-images", version=1, name=table.name, spec=table, inputs={})
        inputs = {"features": features}
        jobs[str(seed)] = Job(stage="fit-probes", version=1, name=table.name, spec=spec, inputs=inputs)
        paths[str(seed)] = path
    (root / "work").mkdir()
    spec = ComparisonSpec(targets=TARGETS, classes={})
    job = Job(stage="fit-probes", version=1, name="comparison", spec=spec, inputs=jobs)
    fit_probes.build(spec, Task(inputs=paths, work=root / "work", device="cpu", job=job))
    return root / "work"


def test_heads_have_an_ensemble_and_a_mass_metallicity_relation_in_the_comparison(tmp_path, catalog):
    made = compared(tmp_path, catalog)
    metrics = pd.read_parquet(made / "metrics.parquet")
    relations = {"head_mass_fitted_relation", "head_mass_tremonti_2004"}
    assert set(metrics["probe"]) == {"head", "head_ensemble"} | relations
    assert set(pd.read_parquet(made / "gains.parquet")["gain"]) == {"ensemble"}
    assert set(pd.read_parquet(made / "mass_metallicity_bins.parquet")["features"]) == {"true", "net"}
    assert "predicting more than once" in (made / "comparison.txt").read_text()


def test_without_star_formation_rates_there_is_no_relation(tmp_path, catalog):
    made = compared(tmp_path, catalog.drop(columns="sfr_tot_p50"))
    assert not (made / "mass_metallicity_bins.parquet").exists()
    assert set(pd.read_parquet(made / "metrics.parquet")["probe"]) == {"head", "head_ensemble"}


def test_no_method_is_judged_against_the_oracle():
    predictions = pd.DataFrame({"features": ["net", "truth", "photometry"], "kind": ["sfnet", "oracle", "photometry"]})
    assert judged(predictions)["features"].tolist() == ["net", "photometry"]


def test_oracles_alone_are_compared_with_each_other():
    predictions = pd.DataFrame({"features": ["a", "b"], "kind": ["oracle", "oracle"]})
    assert len(judged(predictions)) == 2
