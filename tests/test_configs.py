"""The experiments that ship load, and say in their first line how to run them."""

from pathlib import Path

import pytest

from sfnetlab import config

CONFIGS = sorted((Path(__file__).parents[1] / "config").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_loads_and_its_first_comment_is_its_command(path):
    assert config.load(path).name == path.stem
    assert path.read_text().startswith(f"# uv run sfnetlab run config/{path.name} ")


def test_there_are_experiments_to_load():
    assert {"demo.toml", "mock.toml"} <= {path.name for path in CONFIGS}
