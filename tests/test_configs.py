"""The experiments that ship load, and say in their first line how to run them."""

from pathlib import Path

import pytest

from sfnetlab import config
from sfnetlab.methods.sfnet import SFNet
from sfnetlab.plan import make_plan

CONFIGS = sorted((Path(__file__).parents[1] / "config").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_loads_and_its_first_comment_is_its_command(path):
    assert config.load(path).name == path.stem
    assert path.read_text().startswith(f"# uv run sfnetlab run config/{path.name} ")


def test_there_are_experiments_to_load():
    assert {"demo.toml", "mock.toml", "claims_mock.toml", "galaxyzoo_saes.toml"} <= {path.name for path in CONFIGS}


@pytest.mark.parametrize("name", ["demo", "mock", "claims_mock"])
def test_an_experiment_without_files_has_a_plan_to_its_claims(name):
    jobs = {str(job) for job in make_plan(config.load(CONFIGS[0].parent / f"{name}.toml"))}
    assert {"fit-probes/comparison", "compare-features/relations", "hold-claims/claims"} <= jobs


def test_the_config_of_the_claims_has_what_the_claims_need():
    experiment = config.load(CONFIGS[0].parent / "claims_mock.toml")
    kinds = {feature.kind for feature in experiment.features}
    controls = {"mean", "photometry", "pixel_statistics", "mass_and_colour", "oracle"}
    assert kinds == controls | {"encoder", "pca", "pls", "sae", "null_sae", "sfnet"}
    ks = [set(feature.k) for feature in experiment.features if isinstance(feature, SFNet)]
    assert max(ks, key=len) <= set(experiment.probes.budgets)
    assert experiment.classes
    assert experiment.rare
    assert len(experiment.seeds) >= 5


def test_the_config_in_the_readme_loads_with_the_features_of_the_demo(tmp_path):
    root = CONFIGS[0].parents[1]
    own_data = (root / "README.md").read_text().split("```toml\n")[1].split("```")[0]
    demo = (root / "config/demo.toml").read_text()
    features = [each for each in demo.split("[[features]]")[1:] if 'kind = "oracle"' not in each]
    path = tmp_path / "mine.toml"
    path.write_text("[[features]]".join([own_data, *features]))
    assert config.load(path).survey.kind == "folder"


def test_the_python_in_the_readme_runs():
    root = CONFIGS[0].parents[1]
    code = (root / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names = {}
    exec(code, names)
    assert names["latents"].shape == (2000, 256)
