"""Matching over all pairs of tables: names stand beside what metrics.matching gives."""

import numpy as np
import pytest
import scipy.sparse as sp

from sfnetlab.interpret.matching import match_tables
from sfnetlab.metrics.matching import match_features, summarise_match


def tables():
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((90, 4))
    codes = sp.csr_array(np.maximum(dense[:, [1, 0, 3, 2]] - 0.5, 0))
    return {
        name: (values[:60], values[60:])
        for name, values in (("pca", dense), ("sae", codes), ("noise", rng.standard_normal((90, 6))))
    }


def test_every_two_tables_are_matched_as_by_match_features():
    matched = match_tables(tables(), 20, 3)
    assert list(zip(matched.summary["table_a"], matched.summary["table_b"], strict=True)) == [
        ("pca", "sae"), ("pca", "noise"), ("sae", "noise"),
    ]  # fmt: skip
    (a_fit, a_test), (b_fit, b_test) = tables()["pca"], tables()["sae"]
    match = match_features(a_fit, b_fit, a_test, b_test, 20, 3)
    own = matched.pairs[(matched.pairs["table_a"] == "pca") & (matched.pairs["table_b"] == "sae")]
    np.testing.assert_array_equal(own[match.pairs.columns], match.pairs)
    summary = matched.summary.iloc[0].drop(["table_a", "table_b"]).to_dict()
    assert summary == pytest.approx(summarise_match(match))
    assert summary["share_above_null"] == 1


def test_null_quantiles_rise_to_the_strongest_of_the_permuted_pairs():
    null = match_tables(tables(), 5, 0).null
    for _, own in null.groupby(["table_a", "table_b"]):
        assert own["correlation"].is_monotonic_increasing
        assert own["level"].iloc[[0, -1]].tolist() == [0, 1]


def test_tables_that_cannot_be_matched_are_named():
    silent = {**tables(), "dead": (np.zeros((60, 2)), np.zeros((30, 2)))}
    with pytest.raises(ValueError, match=r"pca \(a\) and dead \(b\): none of the 2"):
        match_tables(silent, 5, 0)
