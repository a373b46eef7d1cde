"""Whatever a valid experiment consists of, it runs to its end, and all of its tables can be exported."""

import pytest
import tomli

from random_experiments import experiment, run
from sfnetlab import config
from sfnetlab.methods import METHODS

DOWNLOADED = {"zoobot"}
"""Kinds that need a network from elsewhere, or a package that not everybody has."""


def test_a_draw_is_the_same_whenever_it_is_drawn():
    assert [experiment(seed) for seed in range(5)] == [experiment(seed) for seed in range(5)]
    assert len({experiment(seed) for seed in range(20)}) == 20


def test_draws_have_every_kind_of_features_that_needs_no_download():
    drawn = [tomli.loads(experiment(seed)) for seed in range(120)]
    assert {feature["kind"] for each in drawn for feature in each["features"]} == {*METHODS} - DOWNLOADED
    assert {each["survey"]["kind"] for each in drawn} == {"mock", "folder", "embeddings"}


@pytest.mark.parametrize("seed", range(40))
def test_draws_are_valid(seed, tmp_path):
    (tmp_path / "draw.toml").write_text(experiment(seed))
    assert config.load(tmp_path / "draw.toml").name == f"draw{seed}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_random_experiment_runs_to_its_end(seed, tmp_path):
    assert run(seed, tmp_path) == 0
