"""What two tables share beyond what any two networks share, on planted features."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sfnetlab.interpret.shared import at_fixed_labels, shares_alike

N, N_TRAIN = 900, 600
Z = np.random.default_rng(0).normal(size=(N, 2))
"""Brightness and colour, which any network sees."""
HIDDEN = np.random.default_rng(1).normal(size=(N, 6))
"""What only trained networks find."""


def halves(values):
    return values[:N_TRAIN], values[N_TRAIN:]


def untrained(seed, d=24):
    """Features that mix what is trivial in a few ways, as random filters do."""
    rng = np.random.default_rng(100 + seed)
    angle = rng.uniform(0, 2 * np.pi, d)
    mixed = Z @ np.stack([np.cos(angle), np.sin(angle)])
    return halves(np.maximum(mixed + 0.2 * rng.normal(size=(N, d)), 0))


def trained(seed, noise=0.3):
    """Sparse features of the hidden factors, in an order of their own."""
    rng = np.random.default_rng(200 + seed)
    values = np.maximum(HIDDEN[:, rng.permutation(6)] + noise * rng.normal(size=HIDDEN.shape), 0)
    return tuple(sparse.csr_array(part) for part in halves(values))


def of(table, a, b):
    (row,) = table[(table["table_a"] == a) & (table["table_b"] == b)].to_dict("records")
    return row


TABLES = {"u0": untrained(0), "u1": untrained(1), "s0": trained(0), "s1": trained(1)}


def test_two_untrained_networks_share_much_and_nothing_beyond_an_untrained_network():
    found = of(shares_alike(TABLES, ["u0", "u1"], 0), "u0", "u1")
    assert found["share_alike"] > 0.5
    assert found["excess_alike"] <= 0


def test_trained_networks_share_what_no_untrained_one_has():
    found = of(shares_alike(TABLES, ["u0", "u1"], 0), "s0", "s1")
    assert found["share_alike"] == 1
    assert found["untrained_alike"] == 0
    assert found["excess_alike"] == 1


def test_features_of_what_is_trivial_pass_no_null():
    """Two trainings that find brightness and colour alone: alike, and alike with an untrained network."""
    copies = {"s0": untrained(7, 8), "s1": untrained(8, 8)}
    found = of(shares_alike(TABLES | copies, ["u0"], 0), "s0", "s1")
    assert found["share_alike"] > 0.2
    assert found["excess_alike"] < 0.2


def test_a_wide_untrained_network_stands_with_as_many_features():
    wide = {"u0": untrained(0, 200), "s0": untrained(5, 6), "s1": untrained(6, 6)}
    narrow = of(shares_alike(wide, ["u0"], 0), "s0", "s1")["untrained_alike"]
    every = of(shares_alike(wide, ["u0"], 0), "u0", "s0")["share_alike"]
    assert narrow < every


def test_at_fixed_brightness_and_colour_only_what_is_hidden_is_shared():
    labels = pd.DataFrame(Z, columns=["brightness", "colour"])
    left = at_fixed_labels(TABLES, [labels[:N_TRAIN], labels[N_TRAIN:]])
    found = shares_alike(left, ["u0", "u1"], 0)
    assert of(found, "u0", "u1")["share_alike"] < 0.1
    assert of(found, "s0", "s1")["excess_alike"] > 0.9


def test_without_an_untrained_network_the_null_is_not_known():
    found = shares_alike(TABLES, [], 0)
    assert found["untrained_alike"].isna().all()
    assert found["share_alike"].notna().all()


@pytest.mark.parametrize("labels", [pd.DataFrame(index=range(N)), pd.DataFrame({"z": np.full(N, np.nan)})])
def test_without_labels_nothing_is_projected_out(labels, caplog):
    with caplog.at_level("INFO"):
        assert at_fixed_labels(TABLES, [labels[:N_TRAIN], labels[N_TRAIN:]]) is None
    assert "nothing is projected out" in caplog.text
