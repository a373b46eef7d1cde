"""The comparison table: one row a method and probe, over galaxies and runs, controls first."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.report import (
    class_table,
    comparison_table,
    format_classes,
    format_comparison,
    format_differences,
    format_on_seen_rows,
    latex_comparison,
    significance_line,
)


def row(features: str, kind: str, value: float, **more: object) -> dict[str, object]:
    defaults = {
        "k": None, "probe": "linear", "budget": None, "n_features_used": 8, "n_effective": 3,
        "participation": np.nan, "target": "metallicity", "column": "oh_p50",
        "metric": "rmse", "low": value - 0.01, "high": value + 0.01, "run_sd": 0.0, "galaxy_sd": 0.005, "n_seeds": 1,
        "n_dictionaries": 1, "dictionary_sd": np.nan, "n": 100,
    }  # fmt: skip
    return {"features": features, "kind": kind, "value": value} | defaults | more


def table_of(rows: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(rows).astype({"k": "Int64", "budget": "Int64"})


CHOICES = pd.DataFrame({"target": "metallicity", "features": ["sfnet"], "probe": "linear", "budget": 4, "k": 4})
"""What stands at each budget."""
FIVE_RUNS = {"n_seeds": 5, "run_sd": 0.012}
ONE_RUN = {"low": np.nan, "high": np.nan, "run_sd": np.nan}


@pytest.fixture
def methods() -> pd.DataFrame:
    rows = [
        row("sfnet", "sfnet", 0.11, k=4, probe="head", n_features_used=22, **FIVE_RUNS),
        row("sfnet", "sfnet", 0.14, k=4, budget=4, n_features_used=4, **FIVE_RUNS),
        row("mean", "mean", 0.20, n_features_used=0),
        row("oracle", "oracle", 0.06, probe="ridge", n_features_used=1),
    ]
    return table_of(rows)


def test_a_method_has_an_interval_and_both_spreads(methods):
    table = comparison_table(methods)
    head = table[table["probe"] == "head"].iloc[0]
    numbers = head[["rmse", "low", "high", "seed_sd", "galaxy_sd", "n_seeds", "n_features_used"]]
    assert numbers.tolist() == pytest.approx([0.11, 0.10, 0.12, 0.012, 0.005, 5, 22])


def test_what_has_one_run_has_no_interval_and_says_what_it_needs(methods):
    alone = table_of([row("sfnet", "sfnet", 0.11, k=4, probe="head", **ONE_RUN)])
    text = format_comparison(comparison_table(pd.concat([methods.iloc[2:], alone])))
    assert "0.1100 [needs 2 runs] (-, 0.0050)" in text
    assert "4 & 0.1100$_{3}$ \\\\" in latex_comparison(comparison_table(alone), CHOICES)


def test_the_text_has_no_columns_of_probes_that_are_off(methods):
    header = format_comparison(comparison_table(methods)).splitlines()[1]
    assert header.split() == ["features", "L0", "in", "all", "effective", "seeds", "head", "linear", "ridge"]


def test_effective_features_stand_beside_k_and_all(methods):
    methods = methods.assign(n_effective=[7.0, 2.0, 0.0, 1.0], participation=[2.85, 1.9, np.nan, np.nan])
    table = comparison_table(methods)
    assert table.set_index(["features", "probe"])["n_effective"].loc[("sfnet", "head")] == 7
    text = format_comparison(table)
    assert "sfnet *   4   22      7 (2.9)" in text
    assert "$_{2}$" in latex_comparison(table, CHOICES)


def test_a_budget_is_a_row_of_its_own(methods):
    table = comparison_table(methods)
    budget = table[(table["features"] == "sfnet") & (table["n_features_used"] == 4)].iloc[0]
    assert budget["rmse"] == pytest.approx(0.14)


def test_only_what_was_trained_on_a_label_is_supervised(methods):
    table = comparison_table(methods)
    assert set(table.loc[table["supervised"], "features"]) == {"sfnet", "oracle"}


def test_the_text_has_intervals_and_controls_first(methods):
    lines = format_comparison(comparison_table(methods)).splitlines()
    assert [line.split()[0] for line in lines[3:5]] == ["mean", "oracle"]
    assert any("sfnet *" in line and "0.1100 [0.1000, 0.1200] (0.0120, 0.0050)" in line for line in lines)


@pytest.fixture
def class_methods() -> pd.DataFrame:
    rows = []
    for features, k in (("photometry", None), ("sfnet", 4)):
        for i, metric in enumerate(("auc", "average_precision", "f1", "accuracy", "balanced_accuracy")):
            about = {"target": "agn", "column": "bptclass", "metric": metric, "k": k}
            rows.append(row(features, features, 0.5, probe="majority", budget=0, n_features_used=0, **about))
            for probe in ("logistic", "linear_svm"):
                rows.append(row(features, features, 0.9 - 0.1 * i, probe=probe, **about))
                rows.append(row(features, features, 0.8 - 0.1 * i, probe=probe, budget=2, n_features_used=2, **about))
    return table_of(rows)


def test_classes_have_a_row_a_method_and_the_majority_once(class_methods):
    table = class_table(class_methods)
    assert list(table["features"]) == ["majority"] + ["photometry"] * 4 + ["sfnet"] * 4
    best = table[(table["features"] == "sfnet") & (table["n_features_used"] == 8)].iloc[0]
    assert best[["auc", "f1", "accuracy", "balanced_accuracy"]].tolist() == pytest.approx([0.9, 0.7, 0.6, 0.5])
    assert (best["auc_low"], best["f1_high"]) == (pytest.approx(0.89), pytest.approx(0.71))


def test_the_text_of_classes_has_a_column_for_each_classifier_that_was_fitted(class_methods):
    text = format_classes(class_table(class_methods))
    assert "0.900 [0.890, 0.910] (-, 0.005) 0.800 0.70" in text
    assert text.splitlines()[1].split()[-3:] == ["seeds", "logistic", "linear_svm"]


def differences() -> pd.DataFrame:
    common = {
        "target": "metallicity", "column": "oh_p50", "metric": "rmse", "k_a": 4, "k_b": None, "probe_a": "head",
        "features_a": "sfnet", "probe_b": "ridge", "n_features_used_a": 9, "n_features_used_b": 512, "n_seeds": 3,
        "is_bound": False,
    }  # fmt: skip
    rows = [
        {"budget": None, "features_b": "pca", "difference": -0.02, "low": -0.03, "high": -0.01, "p_holm": 0.003},
        {"budget": None, "features_b": "mean", "difference": -0.1, "low": -0.2, "high": -0.1, "p_holm": 0.003},
        {"budget": 2, "features_b": "dense", "difference": 0.05, "low": 0.01, "high": 0.1, "p_holm": 0.04},
        {"budget": 2, "features_b": "pls", "difference": 0.01, "low": -0.1, "high": 0.1, "p_holm": 0.5},
    ]
    table = pd.DataFrame([common | row for row in rows]).assign(p=lambda t: t["p_holm"] / 4)
    return table.astype({"k_a": "Int64", "k_b": "Int64", "budget": "Int64"})


def test_significant_differences_are_sentences_largest_first():
    lines = format_differences(differences()).splitlines()
    assert lines[0].startswith("RMSE of oh_p50 (target metallicity): 3 of 4 differences are significant")
    assert lines[1].strip() == "all features, equal k:"
    assert lines[2].strip().startswith("sfnet k=4 (head) is better than mean (ridge) by 0.1000 [0.1000, 0.2000]")
    assert "better than pca" in lines[3]
    assert lines[4].strip() == "2 features in all:"
    assert lines[5].strip().startswith("dense (ridge) is better than sfnet k=4 (head) by 0.0500")
    assert len(lines) == 6


def test_a_difference_says_how_many_runs_it_is_of():
    assert ", 3 runs" in format_differences(differences())
    assert ", nothing random" in format_differences(differences().assign(n_seeds=1))


def test_of_auc_more_is_better():
    assert "dense (ridge) is better than" not in format_differences(differences().assign(metric="auc"))


def test_the_number_of_significant_differences_is_one_line():
    assert significance_line(differences()).startswith("3 of 4 paired differences between methods are significant")


def test_differences_to_what_is_trivial_do_not_count():
    trivial = differences()
    trivial.loc[1, "p_holm"] = None  # to the mean
    for text in (significance_line(trivial), format_differences(trivial)):
        assert "2 of 3" in text
        assert "than mean" not in text


def test_where_resamples_limit_p_it_is_at_most():
    assert "p ≤ 0.003" in format_differences(differences().assign(is_bound=True))
    assert "p = 0.003" in format_differences(differences())


def test_differences_that_need_runs_are_counted_apart():
    alone = differences().iloc[[0]].assign(features_b="vae", low=None, high=None, p=None, p_holm=None)
    together = pd.concat([differences(), alone])
    for text in (significance_line(together), format_differences(together)):
        assert "3 of 4" in text
        assert "1 more need 2 runs of each method to be tested" in text
        assert "vae" not in text


def test_latex_has_at_a_budget_the_k_that_is_best_on_valid_galaxies(methods):
    more = [row("sfnet", "sfnet", 0.13, k=16, budget=4, n_features_used=4, **FIVE_RUNS)]
    more += [row("sfnet", "sfnet", 0.12, k=16, probe="head", n_features_used=22, **FIVE_RUNS)]
    table = comparison_table(pd.concat([methods, table_of(more)]))
    assert "4 & 0.1400" in latex_comparison(table, CHOICES)
    assert "4 & 0.1300" in latex_comparison(table, CHOICES.assign(k=16))


def test_latex_has_a_row_a_k_with_intervals_over_galaxies_and_runs(methods):
    text = latex_comparison(comparison_table(methods), CHOICES)
    assert "$k$ & sfnet \\\\" in text
    assert "4 & 0.1100$_{3}$ [0.1000, 0.1200] \\\\" in text  # head
    assert "4 & 0.1400$_{3}$ [0.1300, 0.1500] \\\\" in text  # linear probe on 4 features in all
    assert "oracle: 0.0600" in text
    assert "95 \\% intervals over galaxies and runs" in text


def test_latex_escapes_names(methods):
    text = latex_comparison(comparison_table(methods.replace({"features": {"sfnet": "my_sf&net"}})), CHOICES)
    assert "my\\_sf\\&net" in text
    assert "oh\\_p50" in text


@pytest.mark.parametrize("kind", ["photometry", "encoder", "zoobot", "external", "vae"])
def test_latex_has_a_line_for_every_method_without_a_number_k(methods, kind):
    extra = pd.DataFrame([row("other", kind, 0.17, probe="ridge", n_features_used=20)])
    table = comparison_table(pd.concat([methods, extra.astype(methods.dtypes)]))
    assert "{other: 0.1700" in latex_comparison(table, CHOICES)


def test_dictionaries_have_a_spread_of_their_own_beside_that_of_encoders(methods):
    nested = {"n_seeds": 5, "n_dictionaries": 3, "run_sd": 0.012, "dictionary_sd": 0.002}
    sae = table_of([row("sae", "sae", 0.15, k=4, **nested)])
    table = comparison_table(pd.concat([methods, sae]))
    assert table.set_index("features")[["seed_sd", "dictionary_sd"]].loc["sae"].tolist() == [0.012, 0.002]
    text = format_comparison(table)
    assert "5 x 3" in text
    assert "the second between dictionaries on the same encoder" in text
    assert "0.1500 [0.1400, 0.1600] (0.0120, 0.0020, 0.0050)" in text
    assert "0.1100 [0.1000, 0.1200] (0.0120, 0.0050)" in text


def test_without_nested_dictionaries_there_is_no_word_of_them(methods):
    assert not {"dictionary_sd", "n_dictionaries"} & set(comparison_table(methods))


def test_both_numbers_stand_beside_each_other_where_rows_were_left_to_probes():
    about = {"features": "dense", "k": None, "n_features_used": 512, "target": "metallicity", "column": "oh_p50"}
    about |= {"split": "test", "metric": "rmse"}
    numbers = {"linear": (0.11, 0.13), "linear_on_seen_rows": (0.16, 0.18)}
    rows = [
        about | {"probe": probe, "seed": seed, "value": value}
        for probe, values in numbers.items()
        for seed, value in enumerate(values)
    ]
    metrics = pd.DataFrame([*rows, rows[0] | {"n_features_used": 2, "value": 9.0}])
    assert "dense, oh_p50: linear 0.1200, 0.1700" in format_on_seen_rows(metrics)
    assert format_on_seen_rows(metrics[metrics["probe"] == "linear"]) == ""
