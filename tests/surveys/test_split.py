"""The split: neighbours stay together, galaxies elsewhere change nothing, no part is empty."""

import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfnetlab.errors import DataError
from sfnetlab.surveys.split import HashSplit, RandomSplit, split_catalog

ID = 1237648704043942146


def sky(n: int, seed: int, side_deg: float = 0.5) -> pd.DataFrame:
    """A patch across ra = 0 at dec 60, dense enough for chains of neighbours."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id_str": [f"{number}" for number in rng.permutation(10 * n)[:n]],
            "ra": (rng.uniform(-side_deg, side_deg, n)) % 360,
            "dec": 60 + rng.uniform(-side_deg, side_deg, n) / 2,
        }
    )


def slow_separation_arcsec(catalog: pd.DataFrame) -> np.ndarray:
    ra, dec = np.radians(catalog["ra"].to_numpy()), np.radians(catalog["dec"].to_numpy())
    haversine = (
        np.sin((dec[:, None] - dec) / 2) ** 2 + np.cos(dec[:, None]) * np.cos(dec) * np.sin((ra[:, None] - ra) / 2) ** 2
    )
    return np.degrees(2 * np.arcsin(np.sqrt(haversine))) * 3600


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1, 60))
def test_neighbours_on_the_sky_are_never_separated(seed: int, radius_arcsec: float) -> None:
    catalog = sky(300, seed)
    parts = split_catalog(catalog, HashSplit(neighbour_radius_arcsec=radius_arcsec))
    near = slow_separation_arcsec(catalog) < radius_arcsec * (1 - 1e-6)
    assert (parts[:, None] == parts)[near].all()


@pytest.mark.parametrize(("side_arcsec", "apart_arcsec"), [(38, 53), (100, 141), (10, 14)])
def test_galaxies_whose_square_cutouts_share_a_corner_are_not_separated(side_arcsec, apart_arcsec) -> None:
    """Each galaxy has a neighbour to the north-east, of which a cutout shows a corner."""
    first = sky(200, 1, side_deg=40)
    step = apart_arcsec / 3600 / np.sqrt(2)
    shifted = first.assign(id_str="x" + first["id_str"], dec=first["dec"] + step)
    shifted["ra"] = (first["ra"] + step / np.cos(np.radians(first["dec"] + step / 2))) % 360
    parts = split_catalog(pd.concat([first, shifted], ignore_index=True), HashSplit(), side_arcsec)
    assert (parts[:200] == parts[200:]).all()


@pytest.mark.parametrize("kind", [HashSplit, RandomSplit])
def test_probes_get_a_share_of_the_train_galaxies_and_of_no_others(kind) -> None:
    catalog = sky(2000, 3, side_deg=20)
    every, apart = split_catalog(catalog, kind()), split_catalog(catalog, kind(probe_share=0.3))
    assert set(every[apart == "probe"]) == {"train"}
    assert (every == apart)[apart != "probe"].all()
    assert 0.26 < (apart == "probe").sum() / (every == "train").sum() < 0.34


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_neighbours_are_not_separated_by_the_share_of_probes_either(seed: int, probe_share: float) -> None:
    catalog = sky(300, seed)
    parts = split_catalog(catalog, HashSplit(probe_share=probe_share, neighbour_radius_arcsec=20))
    near = slow_separation_arcsec(catalog) < 20 * (1 - 1e-6)
    assert (parts[:, None] == parts)[near].all()


@pytest.mark.parametrize("probe_share", [-0.1, 1.0, 1.5])
def test_a_share_of_probes_that_is_none_is_refused(probe_share) -> None:
    for kind in (HashSplit, RandomSplit):
        with pytest.raises(ValueError, match="probe_share must lie in"):
            kind(probe_share=probe_share)


def test_galaxies_farther_than_the_radius_are_split_alone() -> None:
    catalog = sky(400, 0)
    alone = split_catalog(catalog.drop(columns=["ra", "dec"]), HashSplit(neighbour_radius_arcsec=0))
    apart = (slow_separation_arcsec(catalog) + np.eye(400) * 1e9 > 38 * np.sqrt(2)).all(axis=0)
    assert 0 < apart.sum() < 400
    assert (split_catalog(catalog, HashSplit())[apart] == alone[apart]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.text(string.ascii_letters))
def test_hash_split_does_not_depend_on_the_order_of_rows(seed: int, salt: str) -> None:
    catalog = sky(300, seed)
    shuffled = catalog.sample(frac=1, random_state=np.random.default_rng(seed))
    by_id = dict(zip(catalog["id_str"], split_catalog(catalog, HashSplit(salt=salt)), strict=True))
    assert by_id == dict(zip(shuffled["id_str"], split_catalog(shuffled, HashSplit(salt=salt)), strict=True))


def test_galaxies_elsewhere_do_not_change_a_hash_split() -> None:
    catalog = sky(300, 1)
    elsewhere = sky(300, 2).assign(id_str=lambda frame: "x" + frame["id_str"], dec=lambda frame: frame["dec"] - 90)
    both = pd.concat([elsewhere, catalog], ignore_index=True)
    assert (split_catalog(both, HashSplit())[300:] == split_catalog(catalog, HashSplit())).all()


def test_hash_split_has_about_the_fractions_asked_for() -> None:
    catalog = pd.DataFrame({"id_str": [str(ID + i) for i in range(20_000)]})
    parts = split_catalog(catalog, HashSplit(fractions=(0.6, 0.15, 0.25), neighbour_radius_arcsec=0))
    shares = [(parts == part).mean() for part in ("train", "valid", "test")]
    np.testing.assert_allclose(shares, [0.6, 0.15, 0.25], atol=0.015)


def test_another_salt_is_another_split() -> None:
    catalog = pd.DataFrame({"id_str": [str(i) for i in range(500)]})
    first, second = (split_catalog(catalog, HashSplit(salt=s, neighbour_radius_arcsec=0)) for s in ("a", "b"))
    assert 0.3 < (first == second).mean() < 0.8


def test_hash_split_of_known_ids_is_pinned() -> None:
    catalog = pd.DataFrame({"id_str": [str(ID + i) for i in range(12)]})
    parts = split_catalog(catalog, HashSplit(neighbour_radius_arcsec=0))
    assert "".join(part[1] for part in parts) == "rrreerarrrrr"


def test_galaxies_without_a_position_stand_alone() -> None:
    catalog = sky(300, 3).assign(ra=np.nan)
    alone = split_catalog(catalog, HashSplit(neighbour_radius_arcsec=0))
    assert (split_catalog(catalog, HashSplit()) == alone).all()


def test_a_catalogue_without_positions_is_split_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    split_catalog(sky(300, 3).drop(columns="dec"), HashSplit())
    assert "no columns 'ra' and 'dec'" in caplog.text


def test_positions_that_are_not_degrees_are_refused() -> None:
    catalog = sky(50, 0)
    catalog.loc[7, "dec"] = -9999.0
    with pytest.raises(DataError, match=r"1 positions are not degrees.*dec -9999"):
        split_catalog(catalog, HashSplit())


def test_random_split_is_fastais() -> None:
    n = 117_223
    with torch.random.fork_rng():
        torch.manual_seed(256)
        order = torch.randperm(n).numpy()
    catalog = pd.DataFrame({"id_str": np.arange(n).astype(str)})
    parts = split_catalog(catalog, RandomSplit(seed=256))
    assert np.flatnonzero(parts == "test").tolist() == sorted(order[:23_444])
    assert (parts == "valid").sum() == 11_722


@pytest.mark.parametrize("split", [HashSplit(neighbour_radius_arcsec=0), RandomSplit()])
def test_an_empty_part_is_refused(split: HashSplit | RandomSplit) -> None:
    with pytest.raises(DataError, match="got none of 1 galaxies"):
        split_catalog(pd.DataFrame({"id_str": ["1"]}), split)


_READ_AND_SPLIT = """
import sys
from pathlib import Path
from sfnetlab import runtime
from sfnetlab.surveys.catalog import read_catalog
from sfnetlab.surveys.split import HashSplit, split_catalog
parts = split_catalog(read_catalog(Path(sys.argv[1]), "objID"), HashSplit())
print(len(parts), runtime.peak_memory_bytes())
"""


@pytest.mark.slow
def test_ten_million_galaxies_are_read_and_split_in_4_gb(tmp_path: Path) -> None:
    n, path = 10_000_000, tmp_path / "galaxies.parquet"
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "objID": ID + 128 * np.arange(n) + rng.integers(0, 100, n),
            "ra": rng.uniform(0, 360, n),
            "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, n))),
            "oh_p50": rng.normal(8.9, 0.2, n).astype(np.float32),
        }
    )
    pq.write_table(table, path)
    del table
    done = subprocess.run(
        ["nice", "-n", "15", sys.executable, "-c", _READ_AND_SPLIT, str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    n_split, peak_bytes = map(int, done.stdout.split())
    assert n_split == n
    assert peak_bytes < 4e9
