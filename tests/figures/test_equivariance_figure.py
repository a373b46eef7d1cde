"""How features change under transforms: boxes a method, and the worst features."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.figures.equivariance import plot_equivariance

LABELS = {"rotation 90°": True, "noise 5/255": False, "shift 1 px": True}


def changes() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = []
    for features, kind, n in (("sfnet", "sfnet", 40), ("pca", "pca", 16)):
        for label, is_symmetry in LABELS.items():
            change = rng.uniform(0.1, 1.2, n)
            change[0] = np.nan
            parts.append(
                pd.DataFrame(
                    {
                        "features": features, "kind": kind, "feature": np.arange(n), "label": label,
                        "is_symmetry": is_symmetry, "change": change,
                    }
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_boxes_are_quartiles_of_each_method_under_each_transform() -> None:
    table = changes()
    ax = plot_equivariance(table, 1.0).axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["rotation 90°", "shift 1 px", "noise 5/255"]
    medians = {
        round(float(np.mean(line.get_xdata())), 3): float(np.asarray(line.get_ydata())[0])
        for line in ax.lines
        if line.get_color() == "white"
    }
    assert len(medians) == 6
    for rank, method in enumerate(("sfnet", "pca")):
        for i, label in enumerate(("rotation 90°", "shift 1 px", "noise 5/255")):
            own = table[(table["features"] == method) & (table["label"] == label)]["change"]
            assert medians[round(i + 0.4 * (rank - 0.5), 3)] == pytest.approx(own.median())


def test_rule_is_drawn_and_measured_features_are_counted() -> None:
    fig = plot_equivariance(changes(), 0.9)
    assert any(np.allclose(np.asarray(line.get_ydata()), 0.9) for line in fig.axes[0].lines)
    assert [text.get_text() for text in fig.legends[0].texts] == ["SFNet (39 features)", "PCA (15 features)"]
    assert "sd between galaxies" in fig.axes[0].get_ylabel()


def test_tables_without_measured_changes_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        plot_equivariance(changes().assign(change=np.nan), 1.0)
    with pytest.raises(ValueError, match="lacks"):
        plot_equivariance(changes().drop(columns="label"), 1.0)
