"""Votes: fractions of the votes for a question, NaN where the tree did not lead volunteers to it."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfnetlab.surveys.catalog import measured_labels
from sfnetlab.surveys.votes import with_vote_fractions

SMOOTH, BAR = "smooth-or-featured-gz2", "bar-gz2"


def tree() -> pd.DataFrame:
    """Counts alone: 40 volunteers, of which 30, 20, 19 and none were asked for a bar; a fifth galaxy without votes."""
    return pd.DataFrame(
        {
            "id_str": list("abcde"),
            f"{SMOOTH}_smooth": [10, 20, 21, 40, 0],
            f"{SMOOTH}_featured-or-disk": [30, 20, 19, 0, 0],
            f"{BAR}_yes": [24, 5, 19, 0, 0],
            f"{BAR}_no": [6, 15, 0, 0, 0],
        }
    )


def test_counts_become_fractions_where_half_of_the_volunteers_were_asked() -> None:
    catalog = with_vote_fractions(tree(), min_asked=0.5)
    np.testing.assert_allclose(catalog[f"{SMOOTH}_smooth_fraction"], [0.25, 0.5, 0.525, 1.0, np.nan])
    np.testing.assert_allclose(catalog[f"{BAR}_yes_fraction"], [0.8, 0.25, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(catalog[f"{BAR}_no_fraction"], [0.2, 0.75, np.nan, np.nan, np.nan])


def test_with_min_asked_0_only_what_nobody_was_asked_is_left_out() -> None:
    catalog = with_vote_fractions(tree(), min_asked=0)
    np.testing.assert_allclose(catalog[f"{BAR}_yes_fraction"], [0.8, 0.25, 1.0, np.nan, np.nan])


def test_published_fractions_and_totals_are_taken_and_held_to_the_rule() -> None:
    published = pd.DataFrame(
        {
            f"{SMOOTH}_smooth_fraction": np.float32([0.2, 0.3, np.nan]),
            f"{SMOOTH}_total-votes": [40, 40, 0],
            f"{BAR}_yes_fraction": np.float32([0.7, 0.9, np.nan]),
            f"{BAR}_no_fraction": np.float32([0.3, 0.1, np.nan]),
            f"{SMOOTH}_featured-or-disk_fraction": np.float32([0.8, 0.7, np.nan]),
            f"{BAR}_total-votes": [32, 8, 0],
        }
    )
    catalog = with_vote_fractions(published, min_asked=0.5)
    assert sorted(catalog.columns) == sorted(published.columns)
    np.testing.assert_array_equal(catalog[f"{BAR}_yes_fraction"], np.array([np.float32(0.7), np.nan, np.nan]))
    np.testing.assert_array_equal(
        catalog[f"{SMOOTH}_smooth_fraction"], np.array([np.float32(0.2), np.float32(0.3), np.nan])
    )


def test_a_total_may_count_votes_for_answers_that_have_no_column() -> None:
    counts = tree().assign(**{f"{BAR}_total-votes": [60, 20, 40, 0, 0]})
    assert with_vote_fractions(counts, min_asked=0)[f"{BAR}_yes_fraction"].iloc[0] == pytest.approx(24 / 60)


def test_a_galaxy_in_two_campaigns_is_judged_within_each() -> None:
    both = tree().rename(columns=lambda name: name.replace("gz2", "dr5"))
    few = both.select_dtypes("number") // 10
    catalog = with_vote_fractions(pd.concat([tree(), few], axis=1), min_asked=0.5)
    assert catalog["bar-dr5_yes_fraction"].notna().tolist() == [True, False, False, False, False]
    assert catalog["smooth-or-featured-dr5_smooth_fraction"].iloc[0] == pytest.approx(1 / 4)


def test_fractions_without_votes_stay_and_are_named(caplog: pytest.LogCaptureFixture) -> None:
    catalog = pd.DataFrame({"agn_fraction": [0.1, np.nan], "n_stars": [1, 2], "n_pixels": [3, 4]})
    pd.testing.assert_frame_equal(with_vote_fractions(catalog, 0.5), catalog)
    assert "min_asked = 0.5 cannot be applied to 1 columns" in caplog.text
    assert "agn_fraction" in caplog.text


def test_labels_are_fractions_and_not_the_counts_behind_them() -> None:
    catalog = with_vote_fractions(tree().assign(oh_p50=8.9, **{f"{BAR}_total-votes": 40}), min_asked=0.5)
    assert sorted(measured_labels(catalog).columns) == sorted(
        [
            "oh_p50",
            *(f"{SMOOTH}_{answer}_fraction" for answer in ("smooth", "featured-or-disk")),
            *(f"{BAR}_{answer}_fraction" for answer in ("yes", "no")),
        ]
    )


@given(
    st.lists(st.tuples(*[st.integers(0, 40)] * 4), min_size=1, max_size=20),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_fractions_agree_with_a_slow_loop(votes: list[tuple[int, ...]], min_asked: float) -> None:
    names = [f"{SMOOTH}_smooth", f"{SMOOTH}_featured-or-disk", f"{BAR}_yes", f"{BAR}_no"]
    catalog = with_vote_fractions(pd.DataFrame(votes, columns=names), min_asked)
    for (smooth, featured, yes, no), found in zip(votes, catalog[f"{BAR}_yes_fraction"], strict=True):
        everybody = max(smooth + featured, yes + no)
        if yes + no == 0 or yes + no < min_asked * everybody:
            assert np.isnan(found)
        else:
            assert found == yes / (yes + no)
