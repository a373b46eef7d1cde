"""Many classes in fit-probes: which galaxies, which classes, what is fitted, what is written."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.artifacts import write_dense_features, write_rows
from sfnetlab.errors import DataError
from sfnetlab.files import create_array
from sfnetlab.jobs import Job, TableSpec, Task
from sfnetlab.plan import ComparisonSpec, ProbeSpec
from sfnetlab.schema import Classes, Probes
from sfnetlab.settings import Target
from sfnetlab.stages import fit_probes
from sfnetlab.stages.class_probes import class_numbers

N = 300
SPLIT = np.array(["train"] * 180 + ["valid"] * 60 + ["test"] * 60)
SHAPE = Classes(column="shape")


def catalog(values):
    shapes = pd.Series(np.resize(np.array(values, dtype=object), N)).infer_objects()
    ids = [f"g{i}" for i in range(N)]
    return pd.DataFrame({"id_str": ids, "split": SPLIT, "shape": shapes, "y": np.arange(N) % 7 + 0.5})


def test_every_value_is_a_class_and_galaxies_without_one_are_left_out():
    numbers, names = class_numbers(catalog(["spiral", "ring", None]), "shape", SHAPE)
    assert names == ["ring", "spiral"]
    np.testing.assert_array_equal(numbers, np.resize([1, 0, -1], N))


def test_codes_are_ordered_as_numbers_and_written_without_a_point():
    assert class_numbers(catalog([10.0, 2.0, np.nan]), "shape", SHAPE)[1] == ["2", "10"]


def test_values_name_the_classes_to_keep_and_their_order():
    numbers, names = class_numbers(catalog(["a", "b", "c"]), "shape", Classes(column="shape", values=("c", "a")))
    assert names == ["c", "a"]
    np.testing.assert_array_equal(numbers, np.resize([1, -1, 0], N))


def test_a_class_with_too_few_galaxies_is_refused_with_their_number_and_the_remedy():
    table = catalog(["a", "b"])
    table.loc[0, "shape"] = "odd"
    with pytest.raises(DataError, match=r"too few are of odd \(1\); name the classes to keep with values"):
        class_numbers(table, "shape", SHAPE)


def test_columns_that_are_absent_or_measured_are_refused():
    with pytest.raises(DataError, match="no column 'colour'"):
        class_numbers(catalog(["a", "b"]), "shape", Classes(column="colour"))
    with pytest.raises(DataError, match="not whole"):
        class_numbers(catalog(["a", "b"]), "shape", Classes(column="y"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A table of features that know the shape, probed; and the comparison of two such tables."""
    root = tmp_path_factory.mktemp("labels")
    table = catalog(["ring", "spiral", "spiral", "edge-on", None])
    (root / "survey").mkdir()
    table.to_parquet(root / "survey/catalog.parquet")
    create_array(root / "survey/images.npy", (N, 2, 2, 3), "uint8")
    (root / "survey/metrics.json").write_text("{}")
    rng = np.random.default_rng(0)
    codes = table["shape"].map({"ring": 0, "spiral": 1, "edge-on": 2}).fillna(3).astype(int)
    shared = {
        "targets": {"y": Target(columns=("y",))}, "classes": {"shape": SHAPE},
    }  # fmt: skip
    inputs, jobs = {"survey": root / "survey"}, {}
    for name, noise in (("good", 0.3), ("poor", 30.0)):
        directory = root / f"features-{name}"
        directory.mkdir()
        write_rows(directory, table)
        write_dense_features(directory, np.eye(4)[codes] + noise * rng.normal(size=(N, 4)))
        spec = ProbeSpec(
            **shared, table=TableSpec(features=name, kind="vae", k=None, seed=0),
            probes=Probes(kinds=("ridge",), budgets=(2,), n_bootstrap=100), head_target=None,
        )  # fmt: skip
        features = Job(stage="embed-images", version=1, name=name, spec=spec.table, inputs={})
        job = Job(stage="fit-probes", version=1, name=name, spec=spec, inputs={"features": features})
        work = root / name
        work.mkdir()
        fit_probes.build(
            spec, Task(inputs={"survey": root / "survey", "features": directory}, work=work, device="cpu", job=job)
        )
        inputs[name], jobs[name] = work, job
    spec = ComparisonSpec(**shared)
    job = Job(stage="fit-probes", version=1, name="comparison", spec=spec, inputs=jobs)
    (root / "comparison").mkdir()
    fit_probes.build(spec, Task(inputs=inputs, work=root / "comparison", device="cpu", job=job))
    return root


def test_balanced_accuracy_has_an_interval_for_every_classifier_and_budget(made):
    metrics = pd.read_parquet(made / "good/metrics.parquet")
    own = metrics[(metrics["target"] == "shape") & (metrics["metric"] == "balanced_accuracy")]
    test = own[own["split"] == "test"].set_index(["probe", "n_features_used"])
    assert set(test.index) == {("majority", 0), ("logistic", 4), ("knn", 4), ("logistic", 2), ("knn", 2)}
    assert test.loc[("majority", 0), "value"] == pytest.approx(1 / 3)
    assert test.loc[("logistic", 4), "value"] > 0.9
    assert (test["low"] <= test["value"]).all()
    assert (test["value"] <= test["high"]).all()
    assert set(test["n"]) == {48}


def test_the_confusion_table_counts_every_test_galaxy_once(made):
    confusion = pd.read_parquet(made / "good/confusion.parquet")
    assert set(confusion.groupby(["probe", "n_features_used"])["n"].sum()) == {48}
    own = confusion[(confusion["probe"] == "logistic") & (confusion["n_features_used"] == 4)]
    right = own.loc[own["y_true"] == own["y_pred"], "n"].sum()
    assert right > 0.9 * 48


def test_the_comparison_tells_good_features_from_poor_ones_and_has_the_majority_once(made):
    table = pd.read_csv(made / "comparison/labels.csv")
    assert (table["features"] == "majority").sum() == 1
    scores = table[table["probe"] == "logistic"].groupby("features")["balanced_accuracy"].max()
    assert scores["good"] > scores["poor"] + 0.3
    text = (made / "comparison/comparison.txt").read_text()
    assert "classes shape (shape): test balanced accuracy" in text
