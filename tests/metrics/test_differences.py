"""Which pairs of methods are compared, over which seeds, and with what correction."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.metrics.bootstrap import holm
from sfnetlab.metrics.differences import COLUMNS, compared_runs, difference_table, paired_runs
from sfnetlab.metrics.regression import rmse

VALUES = ("ridge", "linear", "xgboost"), ("linear",)
"""Probes that stand for tables on all features, and on budgets."""


def choices(sfnet_at_2=2, sfnet_at_5=8):
    """What valid galaxies say of the k at each budget."""
    of_sfnet = [{"features": "sfnet", "budget": n, "k": k} for n, k in ((2, sfnet_at_2), (5, sfnet_at_5))]
    others = [{"features": name, "budget": n, "k": None} for name in ("pca", "vae") for n in (2, 5)]
    return pd.DataFrame([*of_sfnet, *others]).assign(probe="linear").astype({"k": "Int64"})


def run(features, kind, probe, n_features_used, k=None, seed=0, family=None):
    return {
        "features": features, "kind": kind, "k": k, "seed": seed, "probe": probe, "n_features_used": n_features_used,
        "family": family or f"{features} {k}", "training": seed,
    }  # fmt: skip


@pytest.fixture
def runs():
    rows = [run("mean", "mean", probe, 0, seed=None) for probe in ("linear", "ridge")]
    rows += [run("photometry", "photometry", probe, 11, seed=None) for probe in ("ridge", "xgboost")]
    for seed in (0, 1):
        for k in (2, 8):
            rows += [run("sfnet", "sfnet", probe, 20 + seed, k, seed) for probe in ("head", "linear", "ridge")]
            rows += [run("sfnet", "sfnet", "linear", budget, k, seed) for budget in (2, 5)]
        rows += [run("pca", "pca", "ridge", 10, seed=seed)]
        rows += [run("pca", "pca", "linear", budget, seed=seed) for budget in (2, 5, 10)]
    return pd.DataFrame(rows).astype({"k": "Int64", "seed": "Int64", "training": "Int64"})


def table_of(runs, n=80, n_resamples=100, seed=0, truth=None):
    rng = np.random.default_rng(seed)
    chosen = compared_runs(runs, *VALUES, choices())
    truth = rng.normal(size=n) if truth is None else truth
    predictions = truth[:, None] + rng.normal(size=(n, len(chosen))) * np.linspace(0.1, 2, len(chosen))
    return chosen, truth, predictions, difference_table(chosen, truth, predictions, "rmse", n_resamples=100, seed=0)


def test_a_table_stands_with_its_head_ridge_on_all_and_linear_on_budgets(runs):
    chosen = compared_runs(runs, *VALUES, choices())
    own = chosen[(chosen["features"] == "sfnet") & (chosen["seed"] == 0)]
    found = {(row["k"], row["probe"], row["budget"]) for row in own.astype(object).fillna(0).to_dict("records")}
    assert found == {
        (2, "head", 0),
        (2, "ridge", 0),
        (8, "head", 0),
        (8, "ridge", 0),
        (2, "linear", 2),
        (8, "linear", 5),
    }
    (eight,) = set(
        compared_runs(runs, *VALUES, choices(sfnet_at_2=8)).query("features == 'sfnet' and budget == 2")["k"]
    )
    assert eight == 8
    assert set(chosen.loc[chosen["features"] == "photometry", "probe"]) == {"ridge", "xgboost"}
    assert set(chosen.loc[chosen["features"] == "mean", "probe"]) == {"ridge"}


def test_pairs_have_an_equal_k_or_an_equal_budget(runs):
    *_, table = table_of(runs)
    assert list(table.columns) == COLUMNS
    on_all = table[table["budget"].isna()]
    assert ((on_all["k_a"] == on_all["k_b"]) | on_all["k_a"].isna() | on_all["k_b"].isna()).all()
    on_budget = table[table["budget"].notna()]
    assert (on_budget["n_features_used_a"] == on_budget["n_features_used_b"]).all()
    assert {2, 5} == set(on_budget["budget"])
    # all: C(4, 2) controls, 2 x (C(2, 2) + 2 x 4) of sfnet
    assert len(on_all) == 6 + 2 * (1 + 2 * 4)


def test_a_difference_is_that_of_the_means_over_shared_seeds(runs):
    chosen, truth, predictions, table = table_of(runs)
    errors = chosen.assign(error=[rmse(truth, column) for column in predictions.T])

    def mean_of(features, probe, k=None):
        own = errors[(errors["features"] == features) & (errors["probe"] == probe) & errors["budget"].isna()]
        return own[own["k"].isna() if k is None else own["k"] == k]["error"].mean()

    (row,) = table[
        (table["features_a"] == "mean") & (table["probe_b"] == "head") & (table["k_b"] == 2)
    ].to_dict("records")  # fmt: skip
    assert row["difference"] == pytest.approx(mean_of("mean", "ridge") - mean_of("sfnet", "head", 2))
    assert row["n_seeds"] == 2
    assert row["n_features_used_b"] == 20


def one_pair(seeds_a, seeds_b, family_a="dense", family_b="dense"):
    """The difference between ridge on two methods of the same quality, whose encoders make most of their errors."""
    rows = [run("pca", "pca", "ridge", 10, seed=seed, family=family_a) for seed in seeds_a]
    rows += [run("vae", "vae", "ridge", 10, seed=seed, family=family_b) for seed in seeds_b]
    runs = pd.DataFrame(rows).astype({"k": "Int64", "seed": "Int64", "training": "Int64"})
    rng, quality = np.random.default_rng(0), {0: 0.5, 1: 1.0, 2: 2.0, 3: 1.5}
    error = rng.normal(size=200)
    columns = [quality[row["seed"]] * error + 0.01 * rng.normal(size=200) for row in rows]
    return difference_table(
        compared_runs(runs, *VALUES, choices()),
        np.zeros(200),
        np.stack(columns, axis=1),
        "rmse",
        n_resamples=200,
        seed=0,
    )


def test_methods_that_decompose_no_common_encoder_of_their_family_are_not_compared():
    assert one_pair([0, 1], [2, 3]).empty
    assert len(one_pair([0, 1], [2, 3], family_b="another")) == 1


def test_methods_on_the_same_encoders_are_paired_on_these_alone():
    (row,) = one_pair([0, 1, 2], [1, 2, 3]).to_dict("records")
    assert row["n_seeds"] == 2
    assert abs(row["difference"]) < 0.01
    assert row["run_sd"] < 0.01
    (apart,) = one_pair([0, 1, 2], [1, 2, 3], family_b="another").to_dict("records")
    assert apart["n_seeds"] == 3
    assert apart["high"] - apart["low"] > 1


def test_of_a_single_run_there_is_a_difference_and_no_verdict():
    (row,) = one_pair([0], [1], family_b="another").to_dict("records")
    assert row["difference"] == pytest.approx(-0.5, rel=0.2)
    assert np.isnan([row["low"], row["high"], row["p"], row["p_holm"]]).all()
    assert row["n_seeds"] == 1


def test_p_values_are_corrected_over_all_differences_and_can_pass(runs):
    *_, table = table_of(runs)
    np.testing.assert_allclose(table["p_holm"], holm(table["p"].to_numpy()))
    assert table["p"].notna().all()
    assert (table["p_holm"] < 0.05).any()


def test_differences_to_what_is_trivial_are_listed_but_not_tested_with_the_others(runs):
    chosen, truth, predictions, every = table_of(runs)
    trivial = ("mean", "photometry")
    table = difference_table(chosen, truth, predictions, "rmse", trivial, n_resamples=100, seed=0)
    is_trivial = table[["features_a", "features_b"]].isin(trivial).any(axis=1)
    pd.testing.assert_series_equal(table["p"], every["p"])
    assert 0 < is_trivial.sum() < len(table)
    assert table.loc[is_trivial, "p_holm"].isna().all()
    np.testing.assert_allclose(table.loc[~is_trivial, "p_holm"], holm(table.loc[~is_trivial, "p"].to_numpy()))


def test_p_that_the_number_of_resamples_limits_is_marked(runs):
    *_, table = table_of(runs)
    assert table["is_bound"].any()
    assert not table["is_bound"].all()
    assert len(set(table.loc[table["is_bound"], "p"])) == 1
    assert table.loc[~table["is_bound"], "p"].min() > table.loc[table["is_bound"], "p"].max()


def test_one_method_alone_has_no_differences(runs):
    *_, table = table_of(runs[runs["features"] == "mean"])
    assert list(table.columns) == COLUMNS
    assert table.empty


def test_classes_are_compared_by_logistic_regression():
    rows = [run(name, "sfnet", probe, n, 4) for name in "ab" for probe in ("logistic", "rbf_svm") for n in (2, 9)]
    rows += [run("a", "sfnet", "majority", 0, 4)]
    chosen = compared_runs(
        pd.DataFrame(rows).astype({"k": "Int64", "seed": "Int64", "training": "Int64"}),
        ("logistic", "linear_svm"),
        ("logistic", "linear_svm"),
        pd.DataFrame({"features": ["a", "b"], "budget": 2, "probe": "logistic", "k": 4}),
    )
    assert set(chosen["probe"]) == {"logistic"}
    assert len(chosen) == 4


def test_runs_are_joined_by_id():
    parts = []
    for seed, order in enumerate(([0, 1, 2], [2, 0, 1])):
        ids, truth = np.array(["a", "b", "c"])[order], np.array([1.0, 2.0, 3.0])[order]
        rows = pd.DataFrame({"id_str": ids, "column": "y", "y_true": truth, "y_pred": truth + seed})
        parts.append(rows.assign(**run("x", "encoder", "ridge", 3, seed=seed)))
    predictions = pd.concat(parts).astype({"k": "Int64", "seed": "Int64", "training": "Int64"})
    runs, y_true, y_pred = paired_runs(predictions, ("y",), *VALUES, choices())
    assert runs["seed"].tolist() == [0, 1]
    np.testing.assert_array_equal(y_pred[:, 0] - y_true, [[0, 1]] * 3)
