"""Changes of features under changed pictures, against a slow loop and on planted cases."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sfnetlab.interpret.equivariance import MAX_CHANGE, feature_changes, summarise_changes

TRANSFORMS = pd.DataFrame(
    [
        ("identity", 0.0, "identity", True),
        ("rotation", 90.0, "rotation 90°", True),
        ("shift", 1.0, "shift 1 px", True),
        ("noise", 2.0, "noise 2/255", False),
        ("noise", 5.0, "noise 5/255", False),
    ],
    columns=["name", "level", "label", "is_symmetry"],
)


def activations(n: int = 300, d: int = 5, seed: int = 0) -> list[np.ndarray]:
    """Feature 0 never changes, 1 is drawn anew by the rotation, 2 is rare, 3 is never active, 4 is noisy."""
    rng = np.random.default_rng(seed)
    a = np.maximum(rng.normal(size=(n, d)), 0)
    a[:, 2] = 0
    a[:3, 2] = 1
    a[:, 3] = 0
    views = [a.copy() for _ in range(len(TRANSFORMS))]
    views[1][:, 1] = rng.permutation(a[:, 1])
    for level, view in ((0.1, views[3]), (0.5, views[4])):
        view[:, 4] = np.maximum(a[:, 4] + level * rng.normal(size=n), 0)
    return views


def test_numbers_equal_a_slow_loop() -> None:
    views = activations()
    changes = feature_changes(views, TRANSFORMS, n_resamples=20)
    assert len(changes) == 5 * 4
    measured = changes.dropna(subset="change")
    assert set(measured["feature"]) == {0, 1, 4}
    for row in measured.to_dict("records"):
        place = TRANSFORMS.index[TRANSFORMS["label"] == row["label"]][0]
        a, b = views[0][:, row["feature"]], views[place][:, row["feature"]]
        assert row["change"] == pytest.approx(np.sqrt(np.mean((b - a) ** 2)) / np.std(a), abs=1e-12)
        assert row["mean_change"] == pytest.approx((b.mean() - a.mean()) / np.std(a), abs=1e-12)
        assert row["correlation"] == pytest.approx(np.corrcoef(a, b)[0, 1])
        assert row["jaccard"] == pytest.approx(np.sum((a > 0) & (b > 0)) / np.sum((a > 0) | (b > 0)))
        assert row["n_active"] == np.count_nonzero(a)


def test_interval_is_that_of_resampled_galaxies() -> None:
    views = activations()
    changes = feature_changes(views, TRANSFORMS, n_resamples=300, seed=1).set_index(["feature", "label"])
    a, b = views[0][:, 4], views[4][:, 4]
    rng = np.random.default_rng(5)
    rows = rng.integers(300, size=(2000, 300))
    resampled = np.sqrt(np.mean((b - a)[rows] ** 2, axis=1)) / a[rows].std(axis=1)
    row = changes.loc[(4, "noise 5/255")]
    np.testing.assert_allclose([row["low"], row["high"]], np.quantile(resampled, [0.025, 0.975]), rtol=0.05)


def test_csr_and_dense_activations_give_the_same_table() -> None:
    views = activations()
    dense = feature_changes(views, TRANSFORMS)
    pd.testing.assert_frame_equal(dense, feature_changes([sparse.csr_array(view) for view in views], TRANSFORMS))


def test_dense_features_far_from_zero_are_measured_about_their_mean() -> None:
    views = [view[:, [0, 1, 4]] for view in activations()]
    near = feature_changes(views, TRANSFORMS)
    far = feature_changes([1000 + view for view in views], TRANSFORMS)
    for column in ("change", "low", "high", "correlation", "mean_change"):
        np.testing.assert_allclose(near[column], far[column], atol=1e-6)


def test_unrelated_galaxies_change_by_root_two() -> None:
    rng = np.random.default_rng(0)
    views = [rng.normal(size=(5000, 1)) for _ in range(2)]
    changes = feature_changes(views, TRANSFORMS[:2])
    assert changes["change"].iloc[0] == pytest.approx(np.sqrt(2), abs=0.05)


def test_only_the_feature_that_a_symmetry_changes_is_flagged() -> None:
    summary = summarise_changes(feature_changes(activations(), TRANSFORMS)).set_index("feature")
    assert summary["is_equivariant"].tolist() == [True, False, pd.NA, pd.NA, True]
    assert summary.loc[1, "worst_symmetry"] == "rotation 90°"
    assert summary.loc[1, "low"] > MAX_CHANGE
    assert "rotation 90°" in summary.loc[1, "warning"]
    assert (summary["warning"].drop(1) == "").all()


def test_change_under_worse_pictures_is_the_largest_over_levels_and_no_reason_for_a_warning() -> None:
    changes = feature_changes(activations(), TRANSFORMS)
    summary = summarise_changes(changes).set_index("feature")
    noise = changes[(changes["feature"] == 4) & (changes["name"] == "noise")]["change"]
    assert summary.loc[4, "change_noise"] == noise.max()
    assert summary.loc[4, "is_equivariant"]


def test_change_that_the_sample_cannot_place_is_neither() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(30, 1))
    views = [a, a + rng.normal(size=(30, 1)) * a.std()]
    summary = summarise_changes(feature_changes(views, TRANSFORMS[:2]))
    assert summary["low"].iloc[0] < MAX_CHANGE < summary["high"].iloc[0]
    assert summary["is_equivariant"].isna().all()


def test_unusable_activations_are_refused() -> None:
    views = activations()
    with pytest.raises(ValueError, match="one array for each"):
        feature_changes(views[:2], TRANSFORMS)
    with pytest.raises(ValueError, match="identity first"):
        feature_changes(views, TRANSFORMS[::-1])
    with pytest.raises(ValueError, match="one shape"):
        feature_changes([*views[:4], views[4][:9]], TRANSFORMS)
