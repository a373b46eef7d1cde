"""The table of methods: a row a method and metric, over its runs and the same galaxies."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from sfnetlab.jobs import Run
from sfnetlab.metrics.method_scores import (
    MANY_CLASSES,
    TWO_CLASSES,
    VALUES,
    method_scores,
    with_method_intervals,
)
from sfnetlab.metrics.regression import pooled_rmse, rmse

N = 60
TRUTH = np.random.default_rng(0).normal(size=(N, 2))
HOW = {"n_resamples": 100, "seed": 0}


def predicted(values, seed=0, features="sfnet", k=4, probe="head", n_features_used=9, truth=TRUTH, shuffled=False):
    """Predictions (N, 2) of the columns a and b by one run."""
    ids = [f"g{i:03d}" for i in range(len(truth))]
    parts = [
        pd.DataFrame({"id_str": ids, "column": name, "y_true": truth[:, i], "y_pred": values[:, i]})
        for i, name in enumerate("ab"[: truth.shape[1]])
    ]
    about = {
        "features": features, "kind": features, "k": k, "seed": seed, "family": features, "training": seed,
        "probe": probe, "n_features_used": n_features_used, "target": "t", "n_effective": 5 + seed if seed else 5,
        "participation": 2.5,
    }  # fmt: skip
    rows = pd.concat(parts).assign(**about)
    rows = rows.sample(frac=1, random_state=1) if shuffled else rows
    return rows.astype({"k": "Int64", "seed": "Int64", "training": "Int64"})


def noisy(spread, seed):
    return TRUTH + spread * np.random.default_rng(seed + 1).normal(size=TRUTH.shape)


def test_a_score_is_the_mean_over_runs_of_each_column_and_of_all_pooled():
    runs = [noisy(spread, seed) for seed, spread in enumerate((0.1, 0.2, 0.3))]
    table = method_scores(
        pd.concat([predicted(run, seed, n_features_used=9 + seed) for seed, run in enumerate(runs)]),
        {"t": ("a", "b")}, VALUES, **HOW,
    ).set_index("column")  # fmt: skip
    assert table.loc["a", "value"] == pytest.approx(np.mean([rmse(TRUTH[:, 0], run[:, 0]) for run in runs]))
    assert table.loc["pooled", "value"] == pytest.approx(np.mean([pooled_rmse(TRUTH, run) for run in runs]))
    assert (table["n_seeds"] == 3).all()
    assert (table["n_features_used"] == 10).all()
    assert (table["n_effective"] == 6).all()
    assert (table["low"] < table["value"]).all()
    assert table.loc["a", "run_sd"] == pytest.approx(np.std([rmse(TRUTH[:, 0], r[:, 0]) for r in runs], ddof=1))


def test_runs_are_joined_by_id():
    runs = [predicted(noisy(0.1, 0), 0), predicted(noisy(0.2, 1), 1, shuffled=True)]
    table = method_scores(pd.concat(runs), {"t": ("a",)}, VALUES, **HOW)
    expected = np.mean([rmse(TRUTH[:, 0], noisy(spread, seed)[:, 0]) for seed, spread in enumerate((0.1, 0.2))])
    assert table["value"].tolist() == pytest.approx([expected])


def test_runs_of_different_galaxies_are_refused():
    runs = [predicted(noisy(0.1, 0), 0), predicted(noisy(0.2, 1), 1).query("id_str != 'g003'")]
    with pytest.raises(ValueError, match="runs predict different galaxies"):
        method_scores(pd.concat(runs), {"t": ("a", "b")}, VALUES, **HOW)


def test_of_one_run_there_is_a_value_and_no_interval_of_the_method():
    table = method_scores(predicted(noisy(0.1, 0)), {"t": ("a", "b")}, VALUES, **HOW)
    assert table["value"].notna().all()
    assert table[["low", "high", "run_sd"]].isna().all(axis=None)


def test_dictionaries_within_one_encoder_are_one_training():
    runs = [predicted(noisy(0.1 + seed, seed), seed).assign(training=0) for seed in (0, 1, 2)]
    table = method_scores(pd.concat(runs).astype({"training": "Int64"}), {"t": ("a",)}, VALUES, **HOW)
    assert table["low"].isna().all()
    assert table[["n_seeds", "n_dictionaries"]].to_numpy().tolist() == [[1, 3]]


def test_spread_between_encoders_is_told_from_that_between_their_dictionaries():
    numbers = {(0, 0): 0.1, (0, 1): 0.2, (1, 0): 0.3, (1, 1): 0.5}
    runs = [
        predicted(TRUTH + error, Run(*run).seed).assign(training=run[0], n_effective=5)
        for run, error in numbers.items()
    ]
    (row,) = method_scores(
        pd.concat(runs).astype({"training": "Int64"}), {"t": ("a",)}, VALUES, **HOW
    ).to_dict("records")  # fmt: skip
    assert row["value"] == pytest.approx((0.15 + 0.4) / 2)
    assert row["run_sd"] == pytest.approx(np.std([0.15, 0.4], ddof=1))
    assert row["dictionary_sd"] == pytest.approx(np.sqrt((0.005 + 0.02) / 2))
    assert (row["n_seeds"], row["n_dictionaries"]) == (2, 2)


def test_without_dictionaries_there_is_no_spread_between_them():
    runs = [predicted(noisy(0.1, seed), seed) for seed in (0, 1)]
    table = method_scores(pd.concat(runs), {"t": ("a",)}, VALUES, **HOW)
    assert table["dictionary_sd"].isna().all()
    assert (table["n_dictionaries"] == 1).all()


def test_what_has_no_seed_has_an_interval_over_galaxies():
    one = predicted(noisy(0.1, 0), seed=None, features="photometry", k=None, probe="ridge")
    table = method_scores(one, {"t": ("a", "b")}, VALUES, **HOW)
    assert (table["low"] < table["value"]).all()
    assert (table["run_sd"] == 0).all()


def test_a_budget_is_a_method_of_its_own():
    runs = [
        predicted(noisy(0.1, seed), seed, probe="linear", n_features_used=n) for seed in (0, 1) for n in (4, 9 + seed)
    ]
    table = method_scores(pd.concat(runs), {"t": ("a",)}, VALUES, **HOW)
    assert table["budget"].astype(object).where(table["budget"].notna(), None).tolist() == [4, None]


def test_classes_have_their_scores_over_runs():
    labels = np.arange(N) % 3.0
    called = [np.where(np.arange(N) % (4 + seed), labels, 0.0) for seed in (0, 1)]
    rows = [predicted(values[:, None], seed, truth=labels[:, None]) for seed, values in enumerate(called)]
    table = method_scores(pd.concat(rows), {"t": ("a",)}, MANY_CLASSES, are_classes_many=True, **HOW)
    expected = np.mean([balanced_accuracy_score(labels, values) for values in called])
    assert table.set_index("metric").loc["balanced_accuracy", "value"] == pytest.approx(expected)
    is_first = (labels == 0).astype(float)
    scores = [is_first + np.random.default_rng(seed).normal(size=N) for seed in (0, 1)]
    rows = [predicted(values[:, None], seed, truth=is_first[:, None]) for seed, values in enumerate(scores)]
    table = method_scores(pd.concat(rows), {"t": ("a",)}, TWO_CLASSES, **HOW).set_index("metric")
    assert table.loc["auc", "value"] == pytest.approx(np.mean([roc_auc_score(is_first, each) for each in scores]))
    assert set(table.index) == set(TWO_CLASSES)


def test_no_score_of_classes_has_an_interval_beyond_all():
    labels = (np.arange(N) % 2)[:, None].astype(float)
    flaws = [labels + 0.8 * (seed > 1) * np.random.default_rng(seed).normal(size=labels.shape) for seed in range(3)]
    rows = pd.concat([predicted(values, seed, truth=labels) for seed, values in enumerate(flaws)])
    table = method_scores(rows, {"t": ("a",)}, TWO_CLASSES, **HOW)
    assert table["high"].between(0.9, 1).all()


def test_test_rows_get_the_interval_of_their_method_and_others_keep_their_own():
    rows = pd.concat([predicted(noisy(0.1 + 0.05 * seed, seed), seed) for seed in (0, 1)])
    rows = pd.concat([rows, predicted(noisy(0.1, 5), features="vae", k=None)])
    methods = method_scores(rows, {"t": ("a", "b")}, VALUES, **HOW)
    about = {"kind": "sfnet", "k": 4, "probe": "head", "n_features_used": 9, "target": "t", "column": "a", "n": N}
    metrics = pd.DataFrame(
        about
        | {"features": name, "seed": seed, "split": split, "metric": metric, "value": 0.5, "low": 0.4, "high": 0.6}
        for name, seed in (("sfnet", 0), ("sfnet", 1), ("vae", 0))
        for split in ("valid", "test")
        for metric in ("rmse", "r2")
    ).astype({"k": "Int64", "seed": "Int64"})
    metrics.loc[metrics["features"] == "vae", "k"] = pd.NA
    found = with_method_intervals(metrics, methods)
    pd.testing.assert_frame_equal(found[found["split"] == "valid"], metrics[metrics["split"] == "valid"])
    test = found[found["split"] == "test"].set_index(["features", "metric"])
    expected = methods.set_index(["features", "column"]).loc[("sfnet", "a"), ["low", "high"]].astype(float)
    assert (test.loc[("sfnet", "rmse"), ["low", "high"]] == expected.to_numpy()).all(axis=None)
    assert test.loc["vae", ["low", "high"]].isna().all(axis=None)
    # R2 is no score of methods: equal runs have the interval that each has
    assert np.allclose(test.loc[("sfnet", "r2"), ["low", "high"]].astype(float), [0.4, 0.6])
