"""The stage that probes: which galaxies are of which class, what is fitted to which rows, runs joined by id."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.errors import DataError
from sfnetlab.jobs import Job, TableSpec
from sfnetlab.plan import ProbeSpec
from sfnetlab.schema import Classes, Probes
from sfnetlab.settings import Target
from sfnetlab.stages.class_probes import _class_predictions, class_rows
from sfnetlab.stages.comparison import _test_runs
from sfnetlab.stages.fit_probes import _in_sample_predictions

N = 150
SPLIT = np.array(["train"] * 90 + ["valid"] * 30 + ["test"] * 30)
AGN = Classes(column="bptclass", positive=(4, 5), negative=(1, 2))


def spec(kind, **probes):
    table = TableSpec(features="x", kind=kind, k=None, seed=0)
    settings = Probes(budgets=(1, 2, 5, 10), **probes)
    target = {"y": Target(columns=("y",))}
    return ProbeSpec(
        experiment="e", table=table, targets=target, classes={"agn": AGN}, probes=settings, head_target=None
    )


def features(d=6, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, d))
    return X, (X[:, 3] + 0.3 * rng.normal(size=N) > 0).astype(float)


def catalog(codes):
    return pd.DataFrame({"bptclass": np.resize(np.array(codes, dtype=float), N), "split": SPLIT})


def test_codes_that_are_not_listed_and_nan_are_of_no_class():
    usable, is_positive = class_rows(catalog([1, 4, 2, 5, np.nan, -1]), "agn", AGN)
    np.testing.assert_array_equal(usable, np.resize([True] * 4 + [False] * 2, N))
    np.testing.assert_array_equal(is_positive[usable], np.resize([False, True], usable.sum()))


def test_too_few_of_a_class_are_refused_with_their_number():
    table = catalog([1])
    table.loc[:20, "bptclass"] = 4
    with pytest.raises(DataError, match=r"'agn': only 0 valid galaxies have bptclass in \[4, 5\]"):
        class_rows(table, "agn", AGN)


def test_classes_of_an_absent_column_are_refused():
    with pytest.raises(DataError, match="no numeric column 'bptclass'"):
        class_rows(catalog([1, 4]).drop(columns="bptclass"), "agn", AGN)


def test_classifiers_use_all_features_and_the_best_of_each_budget_the_rbf_machine_budgets_only():
    X, y = features()
    found = [(p.probe, p.n_features_used) for p in _class_predictions(spec("encoder"), X, y, SPLIT)]
    linear = {(name, n) for name in ("logistic", "linear_svm") for n in (6, 1, 2, 5)}
    assert len(found) == len(set(found))
    assert set(found) == linear | {("rbf_svm", n) for n in (1, 2, 5)} | {("majority", 0)}


@pytest.mark.parametrize(("kind", "finds"), [("encoder", True), ("pls", False)])
def test_the_best_feature_is_chosen_but_of_components_the_first(kind, finds):
    X, y = features()
    one = spec(kind, classifiers=("logistic",))
    (score,) = [p.values[:, 0] for p in _class_predictions(one, X, y, SPLIT) if p.n_features_used == 1]
    assert (abs(np.corrcoef(score, X[:, 3])[0, 1]) > 0.99) == finds


def test_without_features_there_is_the_majority_alone():
    _, y = features()
    assert [p.probe for p in _class_predictions(spec("mean"), np.zeros((N, 0)), y, SPLIT)] == ["majority"]


def test_in_sample_probes_are_fitted_to_the_test_rows():
    X, _ = features(d=40)
    noise = np.random.default_rng(1).normal(size=(N, 1))
    found = {p.probe: p.values[:, 0] for p in _in_sample_predictions(spec("encoder"), X, noise, SPLIT)}
    assert set(found) == {"linear_in_sample", "ridge_in_sample", "xgboost_in_sample"}
    test = SPLIT == "test"
    np.testing.assert_allclose(found["linear_in_sample"][test], noise[test, 0], atol=1e-8)
    assert np.isnan(found["linear_in_sample"][~test]).all()


def test_only_encoders_have_in_sample_probes():
    X, y = features()
    assert list(_in_sample_predictions(spec("sae"), X, y[:, None], SPLIT)) == []


def test_runs_are_joined_by_id(tmp_path):
    made = {}
    for i, order in enumerate(([0, 1, 2], [2, 0, 1])):
        ids = np.array(["a", "b", "c"])[order]
        truth = np.array([1.0, 2.0, 3.0])[order]
        rows = pd.DataFrame(
            {"id_str": ids, "column": "y", "y_true": truth, "y_pred": truth + i, "probe": "ridge", "target": "y"}
        )
        (tmp_path / str(i)).mkdir()
        rows.assign(n_features_used=3).to_parquet(tmp_path / str(i) / "predictions.parquet")
        one = spec("encoder")
        made[Job(stage="", version=1, name=str(i), spec=one, inputs={})] = tmp_path / str(i)
    runs, y_true, y_pred = _test_runs(made, "y", ("y",))
    assert len(runs) == 2
    np.testing.assert_array_equal(y_pred[:, 0] - y_true, [[0, 1]] * 3)
