"""Figures of scores at equal numbers, correlations, ablation and confounders."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from sfnetlab.figures import style
from sfnetlab.figures.ablation import plot_ablation
from sfnetlab.figures.confounders import plot_confounders
from sfnetlab.figures.correlation_matrix import plot_correlation_matrix
from sfnetlab.figures.equal_numbers import plot_at_equal_numbers

LONG = "sae-on-the-dense-network-of-a-very-long-survey-name-with-many-words-and-a-half"


def scores(name: str = "sae") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "features": features, "kind": kind, "seed": seed, "n": n, "value": value + 0.02 * seed,
                "low": value - 0.1, "high": value + 0.1, "untrained": 0.25, "permuted": 0.05,
            }
            for features, kind, n, value in (("sfnet",) * 2 + (16, 0.3), (name, "sae", 16, 0.6), (name, "sae", 64, 0.7))
            for seed in (0, 1)
        ]
    )  # fmt: skip


def ablation_table(column: str = "oh_p50") -> pd.DataFrame:
    rows = [
        {"rule": "most_frequent", "threshold": n, "n_kept": n, "fill": fill, "rmse": 1 / n, "low": 0, "high": 2 / n}
        for n in (1, 2, 4, 8)
        for fill in ("zero", "train_mean")
    ]  # fmt: skip
    rows += [{**rows[0], "rule": "min_galaxies", "threshold": t, "n_kept": n} for t, n in ((1, 8), (10, 8), (1000, 2))]
    return pd.DataFrame(rows).assign(column=column, seed=0)


def confounder_tables(name: str = "z") -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    features = pd.DataFrame(
        {"feature": [0, 1, 2], "r2_nuisances": [0.9, 0.1, np.nan], "is_confounded": [True, False, False]}
    )
    nuisances = pd.DataFrame(
        {"feature": np.repeat([0, 1, 2], 2), "nuisance": [name, "dec"] * 3, "rho": [0.9, 0, 0.1, 0, np.nan, np.nan]}
    )
    target = {"rho": 0.3, "low": 0.2, "high": 0.4, "partial_rho": 0.1, "partial_low": 0.0, "partial_high": 0.2}
    return features, nuisances, pd.DataFrame({"feature": [0, 1, 2], "target": "oh_p50", **target})


FIGURES = {
    "equal numbers": lambda name: plot_at_equal_numbers(scores(name), "a score with a name of many words, indeed"),
    "correlation": lambda name: plot_correlation_matrix(np.eye(12), [name[:20]] * 12, is_clustered=True),
    "ablation": lambda name: plot_ablation(pd.concat([ablation_table(name), ablation_table("b")]), "dex"),
    "confounders": lambda name: plot_confounders(*confounder_tables(name[:30]), {0: name[:20], 2: "Z2"}, "colour"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["other", LONG])
@pytest.mark.parametrize("which", FIGURES)
def test_text_is_readable_and_nothing_is_cut_off(which: str, name: str) -> None:
    fig = FIGURES[which](name)
    fig.draw_without_rendering()
    shown = [text for text in fig.findobj(Text) if isinstance(text, Text) and text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in shown) >= 7
    assert fig.get_figwidth() <= style.PAGE_WIDTH_IN + 1e-9
    box = fig.get_tightbbox()
    assert box.x0 >= -0.02
    assert box.y0 >= -0.02
    assert box.x1 <= fig.get_figwidth() + 0.02
    assert box.y1 <= fig.get_figheight() + 0.02


def curves(fig: Figure, place: int) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_xydata()) for line in fig.axes[place].lines}


def test_scores_are_drawn_at_equal_numbers_with_their_nulls_best_on_top() -> None:
    axes = plot_at_equal_numbers(scores(), "MCC").axes
    assert [ax.get_title() for ax in axes] == ["16 features", "64 features"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["SFNet", "SAE"]
    drawn = {str(line.get_label()): line for line in axes[0].lines}
    assert drawn["sfnet"].get_xdata()[0] == pytest.approx(0.31)
    assert (drawn["_untrained"].get_xdata()[0], drawn["_permuted"].get_xdata()[0]) == (0.25, 0.05)
    assert [str(line.get_label()) for line in axes[0].lines].count("_interval") == 2
    assert {str(line.get_label()) for line in axes[1].lines if not str(line.get_label()).startswith("_")} == {"sae"}


def test_correlations_are_printed_where_they_fit() -> None:
    correlation = np.array([[1, -0.25, np.nan], [-0.25, 1, np.nan], [np.nan] * 3])
    small = plot_correlation_matrix(correlation, list("abc"), is_clustered=False)
    assert sorted(text.get_text() for text in small.axes[0].texts) == ["1.00", "1.00", "−.25", "−.25"]
    large = plot_correlation_matrix(np.eye(60), [f"Z{i}" for i in range(60)], is_clustered=False)
    assert len(large.axes[0].texts) == 0


def test_clustering_puts_correlated_features_beside_each_other() -> None:
    correlation = np.eye(4)
    correlation[0, 3] = correlation[3, 0] = -0.9
    fig = plot_correlation_matrix(correlation, list("abcd"), is_clustered=True)
    names = [text.get_text() for text in fig.axes[0].get_xticklabels()]
    assert abs(names.index("a") - names.index("d")) == 1
    shown = np.asarray(fig.axes[0].images[0].get_array())
    assert shown[names.index("a"), names.index("d")] == -0.9


@pytest.mark.parametrize("correlation", [np.eye(2), np.full((3, 3), 2.0)])
def test_what_is_no_correlation_matrix_is_refused(correlation: np.ndarray) -> None:
    with pytest.raises(ValueError, match="correlation"):
        plot_correlation_matrix(correlation, list("abc"), is_clustered=False)


def test_ablation_has_a_curve_a_fill_and_marks_the_numbers_of_galaxies() -> None:
    fig = plot_ablation(ablation_table(), "dex")
    (ax,) = fig.axes
    np.testing.assert_allclose(curves(fig, 0)["others zero"], [[n, 1 / n] for n in (1, 2, 4, 8)])
    assert ax.get_ylabel() == "test RMSE (dex)"
    (top,) = ax.child_axes
    assert [text.get_text() for text in top.get_xticklabels()] == ["1,000", "10"]
    with pytest.raises(ValueError, match="no rows of the rule"):
        plot_ablation(ablation_table().assign(rule="min_galaxies"), "dex")


def test_confounded_features_are_marked_in_the_callers_order() -> None:
    fig = plot_confounders(*confounder_tables(), {2: "Z2", 0: "Z0"}, "mass")
    heat, _, target = fig.axes[:3]
    assert [text.get_text() for text in heat.get_yticklabels()] == ["Z2", "Z0 *"]
    np.testing.assert_allclose(np.ma.filled(heat.images[0].get_array(), np.nan)[1], [0.9, 0])
    assert target.get_legend_handles_labels()[1] == ["plain", "at fixed mass"]


def test_confounders_without_targets_or_with_unknown_features() -> None:
    features, nuisances, targets = confounder_tables()
    assert len(plot_confounders(features, nuisances, targets[:0], {0: "Z0"}, "mass").axes) == 3
    with pytest.raises(ValueError, match="not all in the table"):
        plot_confounders(features, nuisances, targets, {7: "Z7"}, "mass")
