"""Keys of results change when somebody means it, and then `uv run tests/pins.py` writes the new ones."""

import json

import pytest

import pins

CONFIGS = sorted((pins.ROOT / "config").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_result_of_a_configuration_has_the_key_that_it_had(path):
    assert pins.pins_of(path) == json.loads(pins.PINS.read_text())[path.name]
