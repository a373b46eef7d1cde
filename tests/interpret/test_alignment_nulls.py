"""How many features align with morphology beyond an untrained network, on planted features."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.interpret.alignment_nulls import ask

N = 900
RNG = np.random.default_rng(0)
SIZE, SMOOTH = RNG.normal(size=N), RNG.normal(size=N)
LABELS = pd.DataFrame(
    {
        "size": SIZE,
        "smooth_fraction": SMOOTH,
        "large_fraction": SIZE + 0.3 * RNG.normal(size=N),
        "z": RNG.normal(size=N),
    }
)


def copies(of, d, seed):
    return np.asarray(of)[:, None] + 0.4 * np.random.default_rng(seed).normal(size=(N, d))


UNTRAINED = np.hstack([copies(SIZE, 20, 1), np.random.default_rng(2).normal(size=(N, 20))])
"""Half of its features see the size, as those of any network do."""


def told(described, values, **more):
    ids = pd.Index([f"{i:04d}" for i in range(N)])
    settings = {"trivial": ("size",), "untrained": lambda of: UNTRAINED[ids.get_indexer(of)]} | more
    return ask(described(LABELS, values, **settings)).tables["alignment_nulls"].iloc[-1].to_dict()


def test_features_of_what_images_show_align_beyond_an_untrained_network(described):
    row = told(described, copies(SMOOTH, 8, 3))
    assert (row["n_features"], row["share_alike"], row["permuted_share_alike"]) == (8, 1, 0)
    assert 0.2 < row["untrained_share_alike"] < 0.8
    assert row["excess_share_alike"] == pytest.approx(1 - row["untrained_share_alike"])
    assert row["held_fixed_share_alike"] == 1
    assert row["excess_score"] > 0.3


def test_features_of_what_is_trivial_align_with_labels_that_follow_it_and_not_at_fixed_size(described):
    row = told(described, copies(SIZE, 8, 4))
    assert row["share_alike"] == 1
    assert row["held_fixed_share_alike"] == 0


def test_at_fixed_size_a_rare_feature_of_nothing_goes_with_no_label(described):
    """It is active in large galaxies more often, and says no more than this."""
    rare = np.where(np.random.default_rng(5).random((N, 8)) < 0.02 + 0.04 * (SIZE[:, None] > 0), 1.0, 0.0)
    assert told(described, rare)["held_fixed_score"] < 0.12


def test_an_untrained_network_has_no_excess(described):
    row = told(described, UNTRAINED)
    assert row["excess_share_alike"] == pytest.approx(0)
    assert row["excess_score"] == pytest.approx(0)


def test_without_an_untrained_network_and_known_columns_these_nulls_are_missing(described):
    row = told(described, copies(SMOOTH, 8, 3), untrained=None, trivial=("absent",))
    assert np.isnan([row["untrained_share_alike"], row["excess_score"], row["held_fixed_share_alike"]]).all()
    assert row["permuted_share_alike"] == 0


def test_methods_of_many_and_of_few_features_are_scored_at_equal_numbers_the_most_frequent(described):
    """The first 16 of 40 follow a label, the others are rare and follow none."""
    follows = np.maximum(copies(SMOOTH, 16, 5), 0)
    rare = np.random.default_rng(6).random((N, 24)) * (np.random.default_rng(7).random((N, 24)) < 0.1)
    table = ask(described(LABELS, np.hstack([rare, follows]))).tables["alignment_nulls"].set_index("n_features")
    assert table.index.tolist() == [16, 40]
    assert table.loc[16, "score"] > 0.8
    assert table.loc[40, "score"] < 0.5
    assert (table["low"] < table["score"]).all()
    assert (table["high"] > table["score"]).all()
    assert (table["permuted_score"].abs() < 0.3).all()


@pytest.mark.parametrize("values", [np.zeros((N, 3)), np.zeros((N, 0))])
def test_features_that_do_not_vary_have_no_row(described, values):
    assert ask(described(LABELS, values)).tables == {}


def test_more_features_than_are_compared_are_a_row_for_each_number(described):
    table = ask(described(LABELS, copies(SMOOTH, 300, 8))).tables["alignment_nulls"]
    assert table["n_features"].tolist() == [16, 64, 256]


def test_permuted_galaxies_align_with_nothing_where_all_features_share_their_galaxies(described):
    """One permutation of copies scores them all alike, by the few galaxies in which they are strongest."""
    assert abs(told(described, copies(SMOOTH, 16, 9))["permuted_score"]) < 0.1
