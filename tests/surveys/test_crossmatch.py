"""Cross-match: against brute force on the sphere, one to one, at poles and across RA 0; ambiguity is counted."""

import numpy as np
import pandas as pd
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from sfnetlab.errors import DataError
from sfnetlab.surveys.crossmatch import joined_table, match_by_id, match_by_position

CENTRES = {
    "the equator": (180.0, 0.0),
    "RA 0": (0.0, 20.0),
    "the north pole": (90.0, 90.0),
    "the south": (10.0, -89.999),
}


def catalog(ra, dec, letter: str = "g") -> pd.DataFrame:
    return pd.DataFrame({"id_str": [f"{letter}{i}" for i in range(len(ra))], "ra": ra, "dec": dec})


def scattered(centre: tuple[float, float], n: int, side_arcsec: float, seed: int) -> SkyCoord:
    rng = np.random.default_rng(seed)
    at = SkyCoord(*centre, unit="deg")
    return at.directional_offset_by(
        rng.uniform(0, 360, n) * units.deg, side_arcsec * np.sqrt(rng.random(n)) * units.arcsec
    )


def crowded(centre: tuple[float, float], seed: int, n: int = 60) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fields so dense that many have several candidates within 2 arcsec."""
    sides = [scattered(centre, n + 7 * i, 12, 2 * seed + i) for i in range(2)]
    return tuple(catalog(side.ra.deg, side.dec.deg, letter) for side, letter in zip(sides, "ab", strict=True))


def by_brute_force(left: pd.DataFrame, right: pd.DataFrame, radius: float) -> list[tuple[int, int]]:
    a, b = (SkyCoord(each["ra"], each["dec"], unit="deg") for each in (left, right))
    distances = a[:, None].separation(b[None, :]).arcsec
    return [
        (i, j)
        for i in range(len(left))
        if distances[i, j := int(distances[i].argmin())] <= radius and distances[:, j].argmin() == i
    ]


@pytest.mark.parametrize("where", CENTRES)
@pytest.mark.parametrize("radius", [0.5, 2.0, 30.0])
def test_pairs_are_those_of_brute_force(where, radius):
    left, right = crowded(CENTRES[where], seed=len(where))
    match = match_by_position(left, right, radius)
    assert list(zip(match.left, match.right, strict=True)) == by_brute_force(left, right, radius)


@given(seed=st.integers(0, 10_000), where=st.sampled_from(sorted(CENTRES)))
def test_matching_is_symmetric_and_one_to_one(seed, where):
    left, right = crowded(CENTRES[where], seed, n=30)
    there, back = match_by_position(left, right, 3), match_by_position(right, left, 3)
    assert set(zip(there.left, there.right, strict=True)) == set(zip(back.right, back.left, strict=True))
    assert len(set(there.left)) == len(set(there.right)) == len(there.left)


def test_the_order_of_rows_does_not_matter():
    left, right = crowded(CENTRES["RA 0"], seed=3)
    order = np.random.default_rng(0).permutation(len(right))
    whole, shuffled = match_by_position(left, right, 2), match_by_position(left, right.iloc[order], 2)
    assert whole.right.tolist() == order[shuffled.right].tolist()


def test_separations_and_candidates_are_those_of_the_sphere():
    left, right = crowded(CENTRES["the north pole"], seed=1)
    match = match_by_position(left, right, 2)
    a, b = (SkyCoord(each["ra"], each["dec"], unit="deg") for each in (left, right))
    distances = a[:, None].separation(b[None, :]).arcsec
    pairs = match.pairs
    np.testing.assert_allclose(pairs["separation_arcsec"], distances[match.left, match.right], rtol=1e-9)
    assert pairs["n_right_within"].tolist() == (distances[match.left] <= 2).sum(axis=1).tolist()
    assert pairs["n_left_within"].tolist() == (distances[:, match.right] <= 2).sum(axis=0).tolist()


def test_the_report_counts_what_happened():
    # a0 - b0 alone; a1 and a2 both want b1, a2 is nearer; a3 has nobody
    left = catalog(np.array([10.0, 20.0, 20.0, 50.0]), np.array([0.0, 0.0, 0.3 / 3600, 0.0]), "a")
    right = catalog(np.array([10.0, 20.0]), np.array([0.5 / 3600, 0.5 / 3600]), "b")
    match = match_by_position(left, right, 1.0)
    assert list(zip(match.left, match.right, strict=True)) == [(0, 0), (2, 1)]
    assert match.report.startswith("2 pairs within 1 arcsec of 4 left and 2 right galaxies; 1 of them ambiguous")
    assert "1 left galaxies lost theirs to a nearer one; separation: median 0.35, largest 0.5 arcsec" in match.report


def test_a_pair_at_the_radius_counts_and_one_beyond_does_not():
    left, right = catalog([30.0], [0.0]), catalog([30.0], [1.0 / 3600], "b")
    assert len(match_by_position(left, right, 1.0 + 1e-9).left) == 1
    with pytest.raises(DataError, match=r"no two galaxies within 0\.999 arcsec"):
        match_by_position(left, right, 0.999)


def test_positions_that_are_missing_are_refused():
    left = catalog([1.0, np.nan, 3.0], [0.0, 0.0, 0.0])
    with pytest.raises(DataError, match="left: 1 of 3 galaxies have no position: g1; leave them out"):
        match_by_position(left, left.dropna(), 1)
    with pytest.raises(DataError, match=r"right: 1 of 1 galaxies have positions that are no degrees: g0"):
        match_by_position(left.dropna(), catalog([1.0], [95.0]), 1)
    with pytest.raises(DataError, match="left: no column dec; it has id_str, ra"):
        match_by_position(left.drop(columns="dec"), left, 1)


def test_ids_match_one_to_one():
    left = catalog([1.0, 2.0, 3.0], [0.0] * 3)
    right = catalog([3.0, 9.0], [0.0] * 2).assign(id_str=["g2", "x"], z=[0.1, 0.2])
    match = match_by_id(left, right)
    assert match.report.startswith("1 galaxies are in both by id, 2 only in the left catalogue, 1 only in the right")
    assert joined_table(left, right, match).to_dict("records") == [
        {"id_str": "g2", "ra": 3.0, "dec": 0.0, "ra_right": 3.0, "dec_right": 0.0, "z": 0.1}
    ]
    with pytest.raises(DataError, match="right: 1 rows repeat an id: x"):
        match_by_id(left, pd.concat([right, right.iloc[1:]]))
    with pytest.raises(DataError, match="no id is in both: g0, g1, g2 against x"):
        match_by_id(left, right.iloc[1:])


def test_a_joined_table_names_both_ids_and_the_separation():
    left, right = crowded(CENTRES["RA 0"], seed=5)
    match = match_by_position(left, right, 2)
    table = joined_table(left, right, match)
    assert table.columns.tolist() == [
        "id_str", "ra", "dec", "separation_arcsec", "n_right_within", "n_left_within", "id_str_right", "ra_right",
        "dec_right",
    ]  # fmt: skip
    assert table["id_str_right"].tolist() == right["id_str"].iloc[match.right].tolist()
    with pytest.raises(DataError, match="two columns would be called dec_right, id_str_right"):
        joined_table(table, right, match_by_position(table, right, 2))


@pytest.mark.slow
def test_a_million_against_a_million_takes_seconds():
    rng = np.random.default_rng(0)
    n = 1_000_000
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    order = rng.permutation(n)
    left = catalog(ra, dec)
    right = catalog((ra + 1e-5 * rng.standard_normal(n))[order] % 360, dec[order], "b")
    match = match_by_position(left, right, 1.0)
    assert np.mean(order[match.right] == match.left) > 0.999
    assert len(match.left) > 0.999 * n
