"""Figures of recovery, yields and localisation: what is drawn is what stands in the tables."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.figures.localisation import plot_localisation
from sfnetlab.figures.recovery import plot_absorption, plot_recovery_matrix, plot_recovery_scores
from sfnetlab.figures.style import EmptyFigureError
from sfnetlab.figures.yields import SEARCH, plot_yields

R2 = {("sfnet", "dust"): 0.2, ("sfnet", "arms"): 0.9, ("pca", "dust"): -0.3, ("pca", "arms"): 0.5}
RECOVERY = pd.DataFrame(
    [
        {
            "features": name, "kind": name, "seed": seed, "factor": factor, "metric": "r2", "k": k,
            "value": v + 0.02 * seed,
        }
        for (name, factor), v in R2.items()
        for seed in (0, 1)
        for k in (1, 5)
    ]
    + [
        {
            "features": name, "kind": name, "seed": seed, "factor": "all", "metric": "correlation", "k": np.nan,
            "n_drawn": n, "value": value + 0.02 * seed, "low": value - 0.1, "high": value + 0.1, "untrained": 0.25,
            "permuted": 0.05,
        }
        for name, n, value in (("sfnet", 16, 0.6), ("pca", 16, 0.3), ("pca", 64, 0.4))
        for seed in (0, 1)
    ]
).assign(apart="")  # fmt: skip
YIELDS = pd.DataFrame(
    [
        {
            "rare": rare, "method": method, "kind": kind, "seed": seed, "n_inspected": n, "metric": metric,
            "value": value / (1 + n / 50), "low": 0.0, "high": 1.0, "n_rare": 20, "n": 800,
        }
        for rare in ("mergers", "rings")
        for method, kind, value in (("sae", "sae", 0.9), ("pca", "pca", 0.6), ("random order", SEARCH, 0.1))
        for seed in (0, 1)
        for n in (10, 20, 50)
        for metric in ("purity", "recall")
    ]
)  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8)
MASKS = np.zeros((2, 3, 16, 16), dtype=bool)
MASKS[..., 4:8, 4:12] = True
INSIDE = np.array([[0.5, 0.4, np.nan], [0.3, 0.2, 0.1]])
LOCALISATION = {
    "images": IMAGES, "maps": np.random.default_rng(1).random((2, 3, 16, 16)), "masks": MASKS, "inside": INSIDE,
    "area": np.full((2, 3), 0.125), "names": ["bulge\nsfnet 61", "arms"], "pixel_scale_arcsec": 38 / 16,
}  # fmt: skip


def test_factors_stand_in_order_of_their_best_r2_and_seeds_are_averaged():
    ax = plot_recovery_matrix(RECOVERY, 1).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["arms", "dust"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["SFNet", "PCA"]
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), [[0.91, 0.51], [0.21, 0.0]])


def test_recovery_without_that_k_is_refused():
    with pytest.raises(ValueError, match=r"no r2 at k = 2; it has k = \[1, 5\]"):
        plot_recovery_matrix(RECOVERY, 2)


def test_factors_apart_stand_beneath_the_others_whatever_their_r2():
    apart = RECOVERY.assign(apart=np.where(RECOVERY["factor"] == "arms", "repeats dust", ""))
    ax = plot_recovery_matrix(apart, 1).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dust", "arms"]
    assert [float(line.get_ydata()[0]) for line in ax.lines] == [0.5]


def test_scores_are_drawn_at_equal_numbers_with_their_nulls_best_on_top():
    axes = plot_recovery_scores(RECOVERY).axes
    assert [ax.get_xlabel() for ax in axes] == ["MCC of 16 features", "MCC of 64 features"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["PCA", "SFNet"]
    drawn = {line.get_label(): line for line in axes[0].lines}
    assert drawn["sfnet"].get_xdata()[0] == pytest.approx(0.61)
    assert (drawn["_untrained"].get_xdata()[0], drawn["_permuted"].get_xdata()[0]) == (0.25, 0.05)
    assert [line.get_label() for line in axes[0].lines].count("_interval") == 2
    assert {line.get_label() for line in axes[1].lines if not line.get_label().startswith("_")} == {"pca"}


def test_without_enough_features_there_is_no_figure_of_scores():
    with pytest.raises(EmptyFigureError, match="enough features"):
        plot_recovery_scores(RECOVERY[RECOVERY["n_drawn"].isna()])


def test_each_kind_of_rare_galaxy_has_a_panel_with_all_methods():
    fig = plot_yields(YIELDS)
    assert [ax.get_title() for ax in fig.axes] == ["mergers: 20 of 800", "rings: 20 of 800"]
    for ax in fig.axes:
        lines = {line.get_label(): line for line in ax.lines}
        assert {"SAE", "PCA", "random order"} <= set(lines)
        np.testing.assert_allclose(lines["SAE"].get_xydata(), [[n, 0.9 / (1 + n / 50)] for n in (10, 20, 50)])


def test_no_search_is_purer_than_all_rare_galaxies_first():
    ax = plot_yields(YIELDS).axes[0]
    (best,) = [line for line in ax.lines if line.get_label() == "no search is purer"]
    budgets, purity = best.get_xydata().T
    np.testing.assert_allclose(purity, np.minimum(1, 20 / budgets))


def test_purity_that_appears_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        plot_yields(pd.concat([YIELDS, YIELDS]))


def test_cutouts_have_map_outline_and_numbers_and_nan_leaves_the_place_empty():
    (ax,) = plot_localisation(**LOCALISATION).axes
    assert len(ax.images) == 5
    texts = [text.get_text() for text in ax.texts]
    assert [text for text in texts if " in " in text] == [
        "50 % in 12 %", "40 % in 12 %", "30 % in 12 %", "20 % in 12 %", "10 % in 12 %",
    ]  # fmt: skip
    assert {"bulge", "arms", "N", "E", "10″"} <= set(texts)
    assert len(ax.collections) == 10


def test_outline_lies_on_the_border_of_the_mask():
    (ax,) = plot_localisation(**LOCALISATION).axes
    left, _, _, top = ax.images[0].get_extent()
    outline = ax.collections[1].get_paths()[0].vertices - [left, top]
    np.testing.assert_allclose(outline.min(axis=0), [4 / 16, 4 / 16], atol=1e-6)
    np.testing.assert_allclose(outline.max(axis=0), [12 / 16, 8 / 16], atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"maps": MASKS[:1].astype(float)}, "maps and masks"),
        ({"names": ["one"]}, "2 entries"),
        ({"inside": np.full((2, 3), np.nan)}, "no galaxy"),
    ],
)
def test_unusable_localisation_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        plot_localisation(**(LOCALISATION | changed))


def test_absorption_is_the_mean_over_seeds_and_missing_ones_are_left_out():
    values = {"sfnet": (0.1, np.nan), "sae": (0.4, 0.2)}
    table = pd.DataFrame(
        [
            {
                "features": name,
                "kind": name,
                "seed": seed,
                "parent": "disc",
                "child": child,
                "absorption": v + 0.1 * seed,
                "low": v + 0.1 * seed - 0.2,
                "high": v + 0.1 * seed + 0.3,
            }
            for name, pair in values.items()
            for child, v in zip(("barred", "edge_on"), pair, strict=True)
            for seed in (0, 1)
        ]
    )
    (ax,) = plot_absorption(table).axes
    drawn = {str(bar.get_label()): bar for bar in ax.containers}
    np.testing.assert_allclose(drawn["SFNet"].lines[0].get_xdata(), [0.15])
    np.testing.assert_allclose(drawn["SAE"].lines[0].get_xdata(), [0.45, 0.25])
    reaches = [segment[:, 0] for segment in drawn["SAE"].lines[2][0].get_segments()]
    np.testing.assert_allclose(reaches, [(0.25, 0.75), (0.05, 0.55)])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["barred in disc", "edge on in disc"]


def test_absorption_without_a_number_is_refused():
    table = pd.DataFrame({"features": ["a"], "kind": "sae", "parent": "disc", "child": "barred"}).assign(
        absorption=np.nan, low=np.nan, high=np.nan
    )
    with pytest.raises(ValueError, match="no number"):
        plot_absorption(table)
