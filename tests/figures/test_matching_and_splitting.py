"""Figures of matching and splitting: what is drawn is what stands in the tables."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.figures import style
from sfnetlab.figures.matching import plot_matching_matrix
from sfnetlab.figures.splitting import plot_splitting

SUMMARY = pd.DataFrame(
    [("sfnet k=4", "sae", 0.4, 0.03), ("sfnet k=4", "pca", 0.3, 0.02), ("pca", "sae", 0.2, 0.01)],
    columns=["table_a", "table_b", "share_alike", "untrained_alike"],
).assign(permuted_alike=0.005)
SPLIT = pd.DataFrame(
    {
        "decoder_cosine": [0.9, 0.8, 0.2],
        "is_child": [True, True, False],
        "within": [1.0, 0.7, 0.1],
        "within_chance": [0.1, 0.2, 0.3],
    }
)
CHILDREN = pd.DataFrame({"n_children": range(9), "n_latents": [1, 4, 2, 0, 0, 0, 1, 1, 1]})


def test_matched_stand_beneath_the_diagonal_and_their_null_above():
    fig = plot_matching_matrix(SUMMARY)
    shown = np.asarray(fig.axes[0].images[0].get_array())
    expected = [[np.nan, 0.02, 0.03], [0.3, np.nan, 0.01], [0.4, 0.2, np.nan]]
    names = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert names == ["sfnet k=4", "pca", "sae"]
    np.testing.assert_allclose(np.where(np.isnan(expected), 0, shown), np.nan_to_num(expected))


def test_without_an_untrained_network_permuted_galaxies_stand_above_the_diagonal():
    fig = plot_matching_matrix(SUMMARY.assign(untrained_alike=np.nan))
    assert np.asarray(fig.axes[0].images[0].get_array())[0, 1] == 0.005
    assert "permuted" in fig.axes[0].get_title()


def test_two_tables_that_appear_twice_are_refused():
    with pytest.raises(ValueError, match="appear twice"):
        plot_matching_matrix(pd.concat([SUMMARY, SUMMARY]))


def test_bars_are_shares_of_the_small_dictionary_with_many_children_together():
    left, right = plot_splitting(SPLIT, CHILDREN, "sae-512", "sae-2048").axes
    heights = [bar.get_height() for bar in left.patches]
    np.testing.assert_allclose(heights, np.array([1, 4, 2, 0, 0, 0, 3]) / 10)
    assert "sae-512" in left.get_ylabel()
    children, others, chance = right.lines
    np.testing.assert_allclose(children.get_xydata(), [[0.9, 1.0], [0.8, 0.7]])
    np.testing.assert_allclose(others.get_xydata(), [[0.2, 0.1]])
    assert chance.get_ydata()[0] == pytest.approx(0.2)


def test_figures_fit_a_page():
    for fig in (plot_matching_matrix(SUMMARY), plot_splitting(SPLIT, CHILDREN, "a", "b")):
        assert fig.get_figwidth() <= style.PAGE_WIDTH_IN


def test_the_seed_that_all_tables_have_is_not_named():
    names = {"sfnet k=4": "sfnet-k4-seed0", "sae": "sae-k4-seed0", "pca": "pca-seed0"}
    table = SUMMARY.assign(table_a=SUMMARY["table_a"].map(names), table_b=SUMMARY["table_b"].map(names))
    labels = [label.get_text() for label in plot_matching_matrix(table).axes[0].get_yticklabels()]
    assert labels == ["sfnet-k4", "pca", "sae-k4"]
