"""Which features networks of other views find again."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.interpret.views import Seen, surviving_features, view_scores


def tables(seed=0):
    """A reference of three features; a view that keeps the first, exactly, and another seed that keeps all."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(300, 3)).clip(0) for _ in range(2)]
    noise = [rng.normal(size=(300, 2)).clip(0) for _ in range(2)]
    keeps_one = tuple(np.hstack([other, x[:, :1]]) for x, other in zip(parts, noise, strict=True))
    return {
        Seen("net", 4, "full", 0): tuple(parts),
        Seen("net", 4, "full", 1): tuple(x[:, ::-1] for x in parts),
        Seen("net", 4, "px1", 0): keeps_one,
    }


def test_what_survives_is_found_again_and_nothing_else():
    found = surviving_features(tables(), n_permutations=20, seed=0)
    by_view = {key: own.set_index("feature")["correlation"] for key, own in found.groupby(["view", "seed"])}
    np.testing.assert_allclose(by_view["full", 1], 1.0)
    np.testing.assert_allclose(by_view["px1", 0][0], 1.0)
    null = found["null_95"].max()
    assert (by_view["px1", 0][[1, 2]] < 2 * null).all()


def test_in_a_network_that_has_collapsed_nothing_survives():
    collapsed = tables() | {Seen("net", 4, "px1", 0): (np.ones((300, 3)), np.ones((300, 3)))}
    found = surviving_features(collapsed, n_permutations=20, seed=0)
    own = found[found["view"] == "px1"]
    assert (own["correlation"] == 0).all()
    assert (own["p"] == 1).all()


def test_networks_of_different_k_are_not_compared():
    one = {Seen("net", k, "full", 0): tables()[Seen("net", 4, "full", 0)] for k in (2, 4)}
    with pytest.raises(ValueError, match="nothing can survive"):
        surviving_features(one, n_permutations=20, seed=0)


def test_scores_of_views_are_those_of_heads_on_test_galaxies():
    rows = [
        {"features": "net-px1", "kind": "sfnet", "k": 4, "seed": 0, "probe": probe, "target": "z", "column": "z",
         "split": split, "metric": "rmse", "value": value, "low": 0.0, "high": 1.0, "n": 9}
        for probe, split, value in (("head", "test", 0.1), ("head", "valid", 0.2), ("ridge", "test", 0.3))
    ]  # fmt: skip
    views = [{"features": "net-px1", "method": "net", "view": "px1", "side_px": 1, "is_degraded": True}]
    (score,) = view_scores(pd.DataFrame(rows), pd.DataFrame(views)).to_dict("records")
    assert (score["value"], score["method"], score["side_px"]) == (0.1, "net", 1)
    rows.append(rows[0] | {"probe": "head_augmented", "value": 0.05})
    (score,) = view_scores(pd.DataFrame(rows), pd.DataFrame(views)).to_dict("records")
    assert (score["value"], score["probe"]) == (0.05, "head_augmented")
