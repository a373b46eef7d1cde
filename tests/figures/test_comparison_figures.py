"""Confusion matrices, paired differences: what is drawn is what the tables say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sfnetlab.figures.confusion_matrices import plot_confusion_matrices
from sfnetlab.figures.differences import plot_differences
from sfnetlab.figures.rmse_vs_k import plot_rmse_vs_k


def drawn_at(ax: Axes) -> list[tuple[Line2D, float]]:
    """Lines of the axes with their first x; what is only in the legend has none."""
    return [(line, float(np.asarray(line.get_xdata())[0])) for line in ax.lines if len(np.asarray(line.get_xdata()))]


def row(features, kind, probe, n, value, metric="rmse", k=np.nan, seed=0, target="metallicity"):
    return {
        "features": features, "kind": kind, "k": k, "seed": seed, "probe": probe, "n_features_used": n,
        "target": target, "column": "oh_p50", "split": "test", "metric": metric, "value": value, "low": value * 0.9,
        "high": value * 1.1,
    }  # fmt: skip


def classifiers() -> pd.DataFrame:
    counts = {"true_negative": 90, "false_positive": 10, "false_negative": 5, "true_positive": 15}
    counts |= {"f1": 0.67, "auc": 0.9}
    rows = []
    for features, k in (("photometry", np.nan), ("sfnet", 2), ("sfnet", 4)):
        for probe, n in (("logistic", 11), ("logistic", 4), ("rbf_svm", 4)):
            if features == "sfnet" or n == 11:
                scale = 2 if k == 2 else 1
                rows += [row(features, "", probe, n, v * scale, m, k, target="agn") for m, v in counts.items()]
    return pd.DataFrame(rows)


def test_cells_are_shares_of_the_true_class_of_the_largest_k() -> None:
    fig = plot_confusion_matrices(classifiers(), "agn", ["photometry", "sfnet"], 4, ("SF", "AGN"))
    panels = [ax for ax in fig.axes if ax.images]
    assert len(panels) == 4  # photometry has no budget
    np.testing.assert_allclose(panels[-1].images[0].get_array(), [[0.9, 0.1], [0.25, 0.75]])
    assert [text.get_text() for text in panels[-1].texts] == ["90 %\n90", "10 %\n10", "25 %\n5", "75 %\n15"]
    assert "RBF SVM,\nbest 4" in panels[-1].get_title()


def test_features_without_classifiers_are_refused() -> None:
    with pytest.raises(ValueError, match="'pca' has no classifiers"):
        plot_confusion_matrices(classifiers(), "agn", ["pca"], 4, ("SF", "AGN"))


def differences() -> pd.DataFrame:
    common = {"target": "metallicity", "column": "oh_p50", "metric": "rmse"}

    def pair(a, b, difference, p, budget=None, probe="ridge"):
        return common | {
            "budget": budget, "features_a": a, "k_a": 4 if a == "sfnet" else None, "features_b": b,
            "k_b": 4 if b == "sfnet" else None, "probe_a": "head" if a == "sfnet" and budget is None else probe,
            "probe_b": "head" if b == "sfnet" and budget is None else probe, "n_features_used_a": 9,
            "n_features_used_b": 9, "difference": difference, "low": difference - 0.01, "high": difference + 0.01,
            "p_holm": p,
        }  # fmt: skip

    rows = [pair("mean", "sfnet", 0.1, 0.001), pair("sfnet", "sae", 0.005, 0.7), pair("mean", "sae", 0.2, 0.001)]
    rows += [pair("sfnet", "pca", -0.03, 0.01, budget=2, probe="linear")]
    return pd.DataFrame(rows).astype({"k_a": "Int64", "k_b": "Int64", "budget": "Int64"})


def test_differences_are_those_of_the_others_to_the_reference() -> None:
    fig = plot_differences(differences(), "metallicity", "oh_p50", "dex", "sfnet")
    left, right = fig.axes
    assert sorted(x for line, x in drawn_at(left) if line.get_marker() == "o") == pytest.approx([-0.005, 0.1])
    assert [text.get_text() for text in right.get_yticklabels()] == ["$n$ = 2", "pca (linear)"]
    assert "".join(left.get_xlabel().split()) == "RMSEofoh_p50minusthatofsfnet(dex)"


def test_labels_beside_long_names_stay_on_the_page() -> None:
    longer = differences().replace({"pca": "random_dictionary", "mean": "random_dictionary"})
    fig = plot_differences(longer, "metallicity", "oh_p50", "dex", "sfnet")
    fig.draw_without_rendering()
    assert fig.get_tightbbox().x1 <= fig.get_figwidth() + 0.02


def test_only_significant_differences_are_filled() -> None:
    left = plot_differences(differences(), "metallicity", "oh_p50", "dex", "sfnet").axes[0]
    filled = {
        round(x, 6): line.get_markerfacecolor() != "white" for line, x in drawn_at(left) if line.get_marker() == "o"
    }
    assert filled == {-0.005: False, 0.1: True}


def test_a_reference_that_is_compared_with_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="'pls' is compared with nothing"):
        plot_differences(differences(), "metallicity", "oh_p50", "dex", "pls")


def test_budgets_without_their_k_are_drawn_from_the_nearest(metrics: pd.DataFrame) -> None:
    sfnet = metrics["features"] == "sfnet"
    kept = metrics[~sfnet | (metrics["k"] == 4)]
    right = plot_rmse_vs_k(kept, "metallicity", "metallicity_1", "dex").axes[1]
    (line,) = [line for line in right.lines if str(line.get_label()).startswith("SFNet")]
    expected = 0.13 + 0.1 / np.array([2, 4, 8]) + 0.01 * np.array([1, 0, 1]) + 0.0005
    np.testing.assert_allclose(np.asarray(line.get_ydata()), expected)


def test_supervised_components_and_null_arms_have_curves(metrics: pd.DataFrame) -> None:
    pls = metrics[metrics["kind"] == "pca"].assign(features="pls", kind="pls")
    null = metrics[metrics["features"] == "sae"].assign(features="frozen", kind="null_sae")
    for ax in plot_rmse_vs_k(pd.concat([metrics, pls, null]), "metallicity", "metallicity_1", "dex").axes:
        assert {"PLS†", "frozen"} <= {str(line.get_label()) for line in ax.lines}


def test_a_fit_far_worse_than_the_mean_does_not_squeeze_the_others(metrics: pd.DataFrame) -> None:
    wild = metrics["value"].where((metrics["features"] != "pca") | (metrics["n_features_used"] != 8), 50.0)
    left = plot_rmse_vs_k(metrics.assign(value=wild), "metallicity", "metallicity_1", "dex").axes[0]
    assert left.get_ylim()[1] <= 1.6 * 0.3005
    assert sum(line.get_label() == "_above" for line in left.lines) == 1
