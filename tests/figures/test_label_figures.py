"""Figures of many classes: what stands where."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.figures.label_scores import plot_label_confusion, plot_label_scores


@pytest.fixture
def metrics():
    rows = [
        {
            "features": features, "kind": kind, "k": k, "seed": 0, "probe": probe, "n_features_used": used,
            "target": "type", "split": split, "metric": metric, "value": value + (split != "test"),
            "low": value - 0.05, "high": value + 0.05,
        }
        for features, kind, k, probe, used, value in (
            ("vae", "vae", None, "logistic", 20, 0.8), ("vae", "vae", None, "knn", 20, 0.7),
            ("vae", "vae", None, "logistic", 2, 0.4), ("sae", "sae", 4, "logistic", 64, 0.6),
            ("sae", "sae", 4, "knn", 64, 0.5), ("sae", "sae", 2, "logistic", 64, 0.9),
            ("vae", "vae", None, "majority", 0, 0.25),
        )
        for split in ("test", "valid")
        for metric in ("balanced_accuracy", "accuracy")
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"k": "Int64"})


def test_scores_are_those_on_all_features_of_the_largest_k_best_method_first(metrics):
    fig = plot_label_scores(metrics, "type")
    (ax,) = fig.axes
    points = {line.get_label(): float(np.ravel(line.get_xdata())[0]) for line in ax.lines}
    assert points == pytest.approx(
        {"vae, logistic": 0.8, "vae, knn": 0.7, "sae, logistic": 0.6, "sae, knn": 0.5, "_chance": 0.25}
    )
    assert [label.get_text() for label in ax.get_yticklabels()] == ["VAE", "SAE"]


def test_labels_without_scores_are_named(metrics):
    with pytest.raises(ValueError, match="no balanced accuracies of 'shape'"):
        plot_label_scores(metrics, "shape")


def test_confusion_shows_shares_of_true_classes_on_all_features():
    counts = {("a", "a"): 8, ("a", "b"): 2, ("b", "a"): 0, ("b", "b"): 40}
    confusion = pd.DataFrame(
        [
            {
                "features": "vae", "probe": probe, "n_features_used": used, "target": "type",
                "y_true": true, "y_pred": predicted, "n": n if (probe, used) == ("logistic", 20) else 1,
            }
            for (true, predicted), n in counts.items()
            for probe, used in (("logistic", 20), ("logistic", 2), ("knn", 20))
        ]
    )  # fmt: skip
    fig = plot_label_confusion(confusion, "type", ["vae"])
    (image,) = fig.axes[0].get_images()
    np.testing.assert_allclose(np.asarray(image.get_array()), [[0.8, 0.2], [0, 1]])
    assert "0.90 balanced" in fig.axes[0].get_title()
    with pytest.raises(ValueError, match="'sae' has no confusion"):
        plot_label_confusion(confusion, "type", ["sae"])
