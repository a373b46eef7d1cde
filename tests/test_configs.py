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


def test_the_config_in_the_readme_loads_with_the_features_of_the_demo(tmp_path):
    root = CONFIGS[0].parents[1]
    own_data = (root / "README.md").read_text().split("```toml\n")[1].split("```")[0]
    features = (root / "config/demo.toml").read_text().partition("[[features]]")
    path = tmp_path / "mine.toml"
    path.write_text(own_data + "".join(features[1:]))
    assert config.load(path).survey.kind == "folder"


def test_the_python_in_the_readme_runs():
    root = CONFIGS[0].parents[1]
    code = (root / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names = {}
    exec(code, names)
    assert names["latents"].shape == (2000, 256)
