"""The benchmark of the atlas: a row a demand, whatever the size."""

import shutil

import pytest

from sfnetlab import bench
from sfnetlab.bench import atlas


@pytest.mark.slow
def test_the_atlas_is_held_against_each_demand(monkeypatch):
    for name, value in {"N_GALAXIES": 120, "N_SAE": 64, "K_SFNET": 4, "K_SAE": 6, "N_BROWSED": 30}.items():
        monkeypatch.setattr(atlas, name, value)
    rows = list(bench.run(["atlas"], "cpu"))
    has_browser = any(shutil.which(name) for name in atlas.CHROMIUM)
    assert [row.unit for row in rows] == (["s", "MB", "s", "s", "s", ""] if has_browser else ["s", "MB"])
    assert rows[1].ours < 5
    for row in rows:
        assert row.ratio == row.ours / row.reference
