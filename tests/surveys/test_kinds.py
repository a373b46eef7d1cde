"""Kinds of surveys: a new one is a file of its own and a line of the union; nothing else knows kinds by name."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
import pandas as pd
import pytest

from sfnetlab import config, schema
from sfnetlab.artifacts import read_manifest, read_survey
from sfnetlab.errors import ConfigError
from sfnetlab.plan import make_plan
from sfnetlab.runner import Options, run
from sfnetlab.surveys import Survey
from sfnetlab.surveys.protocol import Accept, as_it_is

KINDS = get_args(Survey)
TOML = """
name = "toys"
[survey]
kind = "toy"
n_galaxies = 50
[targets.brightness]
columns = ["brightness"]
[[features]]
kind = "mean"
"""
SEEING = '[[features]]\nkind = "sfnet"\nname = "sfnet"\ntarget = "brightness"\n'


@dataclass(frozen=True, kw_only=True)
class ToySurvey:
    """Grey squares: all that the file of a new kind needs to hold."""

    has_images: ClassVar[bool] = True
    is_real: ClassVar[bool] = False
    kind: Literal["toy"] = "toy"
    n_galaxies: int = 40
    """How many squares."""

    def resolved(self) -> "ToySurvey":
        return self

    def fingerprint(self) -> dict[str, str]:
        return {"version": "1"}

    def read(self, work: Path, accept: Accept = as_it_is) -> tuple[pd.DataFrame, dict[str, float]]:
        grey = np.arange(self.n_galaxies, dtype=np.uint8)
        np.save(work / "images.npy", np.tile(grey[:, None, None, None], (1, 16, 16, 3)))
        catalog = pd.DataFrame({"id_str": [f"toy{i}" for i in grey], "brightness": grey / 255})
        return accept(catalog), {"pixel_scale_arcsec": 0.5}


@dataclass(frozen=True, kw_only=True)
class BlindToySurvey(ToySurvey):
    """Squares without pictures."""

    has_images: ClassVar[bool] = False


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment on toys, whose kind stands in the union as it would with one line in surveys/__init__.py."""
    monkeypatch.setitem(schema.Experiment.__annotations__, "survey", Survey | ToySurvey)
    path = tmp_path / "toys.toml"
    path.write_text(TOML)
    return path


def test_a_kind_in_the_union_is_read_prepared_and_identified_by_its_own_settings(toml: Path, tmp_path: Path) -> None:
    options = Options(config=toml, out=tmp_path / "results", overrides=(), force=False, device="cpu")
    root, plan = run(options, ["prepare-survey"])
    survey = read_survey(plan[0].directory(root))
    assert sorted(survey.catalog["id_str"]) == sorted(f"toy{i}" for i in range(50))
    np.testing.assert_array_equal(survey.cutouts[:, 0, 0, 0], survey.catalog["brightness"] * 255)
    assert survey.pixel_scale_arcsec == 0.5
    settings = read_manifest(plan[0].directory(root))["recipe"]["settings"]
    assert settings["survey"] == {"kind": "toy", "n_galaxies": 50}
    assert settings["fingerprint"] == {"version": "1"}


def test_a_kind_in_the_union_has_a_plan_to_its_claims_and_atlas(toml: Path) -> None:
    specs = {job.stage: job.spec for job in make_plan(config.load(toml))}
    assert specs["hold-claims"].survey == "toy"
    assert not specs["build-atlas"].is_real


def test_a_kind_in_the_union_is_described(toml: Path) -> None:
    assert '[survey] kind = "toy"\n# Grey squares' in config.describe_schema()


def test_a_kind_without_images_refuses_features_that_need_them(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schema.Experiment.__annotations__, "survey", Survey | BlindToySurvey)
    toml.write_text(TOML + SEEING)
    with pytest.raises(ConfigError, match=r"survey kind = \"toy\" has no images, .*'sfnet' \(sfnet\)"):
        config.load(toml)


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: settings.kind)
def test_a_kind_stands_in_the_module_of_its_name(settings: type) -> None:
    assert importlib.import_module(f"sfnetlab.surveys.{settings.kind}") is importlib.import_module(settings.__module__)


def test_the_readme_tells_of_every_kind() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    told = readme.split("| `survey.kind` |")[1].split("\n\n")[0]
    assert [settings.kind for settings in KINDS] == [
        line.split('`"')[1].split('"`')[0] for line in told.splitlines()[2:]
    ]
