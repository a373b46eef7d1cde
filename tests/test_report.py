"""The comparison table: one row a method and probe, means over seeds, controls first."""

import pandas as pd
import pytest

from sfnetlab.report import comparison_table, format_comparison


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
        row("noise floor", "noise_floor", 0.06, probe="none", n_features_used=0, seed=None),
    ]
    return pd.DataFrame(rows).astype({"k": "Int64", "seed": "Int64"})


def test_seeds_are_averaged_whatever_the_number_of_live_features(metrics):
    table = comparison_table(metrics)
    head = table[table["probe"] == "head"].iloc[0]
    assert head["rmse"] == pytest.approx(0.11)
    assert head["n_seeds"] == 2
    assert head["n_features_used"] == 22
    assert head["seed_sd"] == pytest.approx(0.01414, rel=1e-3)


def test_a_budget_is_a_row_of_its_own(metrics):
    table = comparison_table(metrics)
    budget = table[(table["features"] == "sfnet") & (table["n_features_used"] == 4)].iloc[0]
    assert budget["rmse"] == pytest.approx(0.14)


def test_only_what_was_trained_on_a_label_is_supervised(metrics):
    table = comparison_table(metrics)
    assert set(table.loc[table["supervised"], "features"]) == {"sfnet"}


def test_the_text_has_intervals_controls_first_and_the_floor_last(metrics):
    lines = format_comparison(comparison_table(metrics)).splitlines()
    assert lines[3].split()[0] == "mean"
    assert any("sfnet *" in line and "0.1100 [0.1000, 0.1200]" in line for line in lines)
    assert lines[-1].endswith("0.0600")
