"""The comparison table: one row a method and probe, means over seeds, controls first."""

import pandas as pd
import pytest

from sfnetlab.report import (
    class_table,
    comparison_table,
    format_classes,
    format_comparison,
    format_differences,
    latex_comparison,
    significance_line,
)


def row(features: str, kind: str, value: float, **more: object) -> dict[str, object]:
    defaults = {
        "experiment": "test", "k": None, "seed": 0, "probe": "linear", "n_features_used": 8, "target": "metallicity",
        "column": "oh_p50", "split": "test", "metric": "rmse", "low": value - 0.01, "high": value + 0.01, "n": 100,
    }  # fmt: skip
    return {"features": features, "kind": kind, "value": value} | defaults | more


@pytest.fixture
def metrics() -> pd.DataFrame:
    rows = [
        row("sfnet", "sfnet", 0.10, k=4, probe="head", seed=0, n_features_used=20),
        row("sfnet", "sfnet", 0.12, k=4, probe="head", seed=1, n_features_used=24),
        row("sfnet", "sfnet", 0.13, k=4, seed=0, n_features_used=4),
        row("sfnet", "sfnet", 0.15, k=4, seed=1, n_features_used=4),
        row("sfnet", "sfnet", 0.50, k=4, seed=0, split="valid"),
        row("mean", "mean", 0.20, n_features_used=0, seed=None),
        row("oracle", "oracle", 0.06, probe="ridge", n_features_used=1, seed=None),
    ]
    return pd.DataFrame(rows).astype({"k": "Int64", "seed": "Int64"})


def test_seeds_are_averaged_whatever_the_number_of_live_features(metrics):
    table = comparison_table(metrics)
    head = table[table["probe"] == "head"].iloc[0]
    assert head["rmse"] == pytest.approx(0.11)
    assert head["n_seeds"] == 2
    assert head["n_features_used"] == 22
    assert head["seed_sd"] == pytest.approx(0.01414, rel=1e-3)


def test_the_text_has_no_columns_of_probes_that_are_off(metrics):
    header = format_comparison(comparison_table(metrics)).splitlines()[1]
    assert header.split() == ["features", "L0", "in", "all", "seeds", "head", "linear", "ridge"]


def test_a_budget_is_a_row_of_its_own(metrics):
    table = comparison_table(metrics)
    budget = table[(table["features"] == "sfnet") & (table["n_features_used"] == 4)].iloc[0]
    assert budget["rmse"] == pytest.approx(0.14)


def test_only_what_was_trained_on_a_label_is_supervised(metrics):
    table = comparison_table(metrics)
    assert set(table.loc[table["supervised"], "features"]) == {"sfnet", "oracle"}


def test_the_text_has_intervals_and_controls_first(metrics):
    lines = format_comparison(comparison_table(metrics)).splitlines()
    assert [line.split()[0] for line in lines[3:5]] == ["mean", "oracle"]
    assert any("sfnet *" in line and "0.1100 [0.1000, 0.1200]" in line for line in lines)


def test_fits_to_the_test_rows_are_no_method(metrics):
    cheating = pd.DataFrame([row("dense", "encoder", 0.0, probe="linear_in_sample")])
    together = pd.concat([metrics, cheating.astype({"k": "Int64", "seed": "Int64"})])
    pd.testing.assert_frame_equal(comparison_table(together), comparison_table(metrics))


@pytest.fixture
def class_metrics() -> pd.DataFrame:
    rows = []
    for features, k in (("photometry", None), ("sfnet", 4)):
        for i, metric in enumerate(("auc", "f1", "accuracy", "balanced_accuracy")):
            about = {"target": "agn", "column": "bptclass", "metric": metric, "k": k}
            rows.append(row(features, features, 0.5, probe="majority", n_features_used=0, **about))
            for probe in ("logistic", "linear_svm"):
                rows.append(row(features, features, 0.9 - 0.1 * i, probe=probe, **about))
                rows.append(row(features, features, 0.8 - 0.1 * i, probe=probe, n_features_used=2, **about))
    return pd.DataFrame(rows).astype({"k": "Int64", "seed": "Int64"})


def test_classes_have_a_row_a_method_and_the_majority_once(class_metrics):
    table = class_table(class_metrics)
    assert list(table["features"]) == ["majority"] + ["photometry"] * 4 + ["sfnet"] * 4
    best = table[(table["features"] == "sfnet") & (table["n_features_used"] == 8)].iloc[0]
    assert best[["auc", "f1", "accuracy", "balanced_accuracy"]].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert (best["auc_low"], best["f1_high"]) == (pytest.approx(0.89), pytest.approx(0.81))


def test_the_text_of_classes_has_a_column_for_each_classifier_that_was_fitted(class_metrics):
    text = format_classes(class_table(class_metrics))
    assert "0.900 [0.890, 0.910] 0.80 0.70" in text
    assert text.splitlines()[1].split()[-3:] == ["seeds", "logistic", "linear_svm"]


def differences() -> pd.DataFrame:
    common = {
        "target": "metallicity", "column": "oh_p50", "metric": "rmse", "k_a": 4, "k_b": None, "probe_a": "head",
        "features_a": "sfnet", "probe_b": "ridge", "n_features_used_a": 9, "n_features_used_b": 512, "n_seeds": 3,
    }  # fmt: skip
    rows = [
        {"budget": None, "features_b": "pca", "difference": -0.02, "low": -0.03, "high": -0.01, "p_holm": 0.003},
        {"budget": None, "features_b": "mean", "difference": -0.1, "low": -0.2, "high": -0.1, "p_holm": 0.003},
        {"budget": 2, "features_b": "dense", "difference": 0.05, "low": 0.01, "high": 0.1, "p_holm": 0.04},
        {"budget": 2, "features_b": "pls", "difference": 0.01, "low": -0.1, "high": 0.1, "p_holm": 0.5},
    ]
    return pd.DataFrame([common | row for row in rows]).astype({"k_a": "Int64", "k_b": "Int64", "budget": "Int64"})


def test_significant_differences_are_sentences_largest_first():
    lines = format_differences(differences()).splitlines()
    assert lines[0].startswith("RMSE of oh_p50 (target metallicity): 3 of 4 differences are significant")
    assert lines[1].strip() == "all features, equal k:"
    assert lines[2].strip().startswith("sfnet k=4 (head) is better than mean (ridge) by 0.1000 [0.1000, 0.2000]")
    assert "better than pca" in lines[3]
    assert lines[4].strip() == "2 features in all:"
    assert lines[5].strip().startswith("dense (ridge) is better than sfnet k=4 (head) by 0.0500")
    assert len(lines) == 6


def test_of_auc_more_is_better():
    assert "dense (ridge) is better than" not in format_differences(differences().assign(metric="auc"))


def test_the_number_of_significant_differences_is_one_line():
    assert significance_line(differences()).startswith("3 of 4 paired differences between methods are significant")


def test_latex_has_a_row_a_k_with_standard_errors_over_seeds(metrics):
    text = latex_comparison(comparison_table(metrics))
    assert "$k$ & sfnet \\\\" in text
    assert "4 & $0.1100 \\pm 0.0100$ \\\\" in text  # head: 0.10 and 0.12
    assert "4 & $0.1400 \\pm 0.0100$ \\\\" in text  # linear probe on 4 features in all
    assert "oracle: 0.0600" in text


def test_latex_of_one_seed_has_the_interval_and_escapes_names(metrics):
    alone = metrics[(metrics["seed"] == 0) | metrics["seed"].isna()].replace({"features": {"sfnet": "my_sf&net"}})
    text = latex_comparison(comparison_table(alone))
    assert "my\\_sf\\&net" in text
    assert "oh\\_p50" in text
    assert "4 & 0.1000 [0.0900, 0.1100] \\\\" in text


@pytest.mark.parametrize("kind", ["photometry", "encoder", "zoobot", "external", "vae"])
def test_latex_has_a_line_for_every_method_without_a_number_k(metrics, kind):
    extra = pd.DataFrame([row("other", kind, 0.17, probe="ridge", n_features_used=20)])
    table = comparison_table(pd.concat([metrics, extra.astype(metrics.dtypes)]))
    assert "{other: 0.1700" in latex_comparison(table)
