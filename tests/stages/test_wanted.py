"""What an experiment wants of its catalogue is asked when that is read; missing values are missing in every stage."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sfnetlab import config
from sfnetlab.artifacts import read_survey
from sfnetlab.errors import DataError
from sfnetlab.methods.controls import Photometry
from sfnetlab.plan import make_plan
from sfnetlab.runner import Options, run
from sfnetlab.schema import Classes
from sfnetlab.stages.class_probes import class_numbers

N = 80
TOML = """
name = "t"
[survey]
{survey}
[targets.t]
columns = ["{column}"]
{more}
[[features]]
kind = "mean"
"""
EXTERNAL = '[[features]]\nname = "e"\nkind = "external"\npath = "FOLDER/cat.csv"\ncolumns = ["y"]'
"""Rare galaxies are sought in an embedding."""


def catalogue() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id_str": [f"g{i}" for i in range(N)],
            "RA": np.repeat(rng.uniform(0, 360, N // 2), 2),
            "DEC": np.repeat(rng.uniform(-60, 60, N // 2), 2),
            "y": rng.normal(size=N),
            "words": ["1.5"] * (N - 3) + ["bad", "1.5", "--"],
            "empty": np.where(np.arange(N) % 2, -9999.0, np.inf),
            "constant": 3.0,
            "kind": ["E"] * N,
        }
    )


def prepared(tmp_path: Path, survey: str = 'kind = "embeddings"', column: str = "y", more: str = "") -> Path:
    if not (tmp_path / "cat.csv").exists():
        catalogue().to_csv(tmp_path / "cat.csv", index=False)
    survey = f'{survey}\ncatalog = "{tmp_path}/cat.csv"'
    (tmp_path / "t.toml").write_text(
        TOML.format(survey=survey, column=column, more=more.replace("FOLDER", str(tmp_path)))
    )
    options = Options(config=tmp_path / "t.toml", out=tmp_path / "r", overrides=(), force=False, device="cpu")
    root, plan = run(options, ["prepare-survey"])
    return plan[0].directory(root)


@pytest.mark.parametrize(
    ("column", "more", "message"),
    [
        ("z", "", "targets.t: the catalogue has no column 'z'"),
        ("words", "", r"targets.t: column 'words' is text: 'bad' \(row 78, id g77\) is no number; write numbers"),
        ("empty", "", "targets.t: no row has a finite value of 'empty'"),
        ("constant", "", "targets.t: nothing to learn, 'constant' has one and the same value"),
        ("y", '[classes.c]\ncolumn = "kind"', "classes 'c': 'kind' needs two classes.*; its values are E"),
        ("y", '[classes.c]\ncolumn = "kinds"', "classes 'c': .* no column 'kinds'; did you mean 'kind'"),
        ("y", '[classes.c]\ncolumn = "constant"\npositive = [3]\nnegative = [4]', r"no galaxy is of \[4\]"),
        ("y", f'[rare.r]\ncolumn = "words"\nabove = 1\n{EXTERNAL}', "rare.r: no numeric column 'words'"),
        (
            "y",
            '[[features]]\nkind = "photometry"\nmagnitudes = ["Y"]\nsizes = []',
            "no column Y; name its own in the settings",
        ),
    ],
)
def test_what_a_catalogue_lacks_is_told_before_images_are_looked_at(
    tmp_path: Path, column: str, more: str, message: str
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/g0.jpg").write_text("no image")
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, f'kind = "folder"\nimages = "{tmp_path}/images"', column, more)


def test_what_a_dataset_lacks_is_told_before_images_are_looked_at(tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    images = [{"bytes": b"no image", "path": None}] * N
    table = pa.table({"id_str": [f"g{i}" for i in range(N)], "y": ["bad"] * N, "image": images})
    datasets.Dataset(table).save_to_disk(tmp_path / "hub")
    (tmp_path / "t.toml").write_text(
        TOML.format(survey=f'kind = "hub"\ndirectory = "{tmp_path}/hub"', column="y", more="")
    )
    options = Options(config=tmp_path / "t.toml", out=tmp_path / "r", overrides=(), force=False, device="cpu")
    with pytest.raises(DataError, match=r"column 'y' is text: 'bad' \(row 1, id g0\) is no number"):
        run(options, ["prepare-survey"])


def test_all_that_a_catalogue_lacks_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)'words' is text.*'kind' needs two classes"):
        prepared(tmp_path, column="words", more='[classes.c]\ncolumn = "kind"')


def test_what_a_survey_lacks_that_was_prepared_before_is_told_by_the_next_stage(tmp_path: Path) -> None:
    prepared(tmp_path)
    options = Options(
        config=tmp_path / "t.toml",
        out=tmp_path / "r",
        overrides=('targets.t.columns=["z"]',),
        force=False,
        device="cpu",
    )
    with pytest.raises(DataError, match=r"targets.t: the catalogue has no column 'z'"):
        run(options, ["fit-baselines"])


def test_the_survey_is_the_same_whatever_is_wanted_of_it(tmp_path: Path) -> None:
    prepared(tmp_path)

    def key(*overrides: str) -> str:
        return make_plan(config.load(tmp_path / "t.toml", overrides))[0].key

    assert key('targets.t.columns=["constant"]') == key()
    assert key("survey.missing_values=[-1]") != key()


def test_galaxies_at_one_place_are_in_one_part_however_the_columns_are_called(tmp_path: Path) -> None:
    catalog = read_survey(prepared(tmp_path)).catalog
    assert catalog["split"].iloc[::2].tolist() == catalog["split"].iloc[1::2].tolist()
    assert {"ra", "dec"} <= set(catalog.columns)


def test_codes_of_missing_values_are_on_record_beside_the_survey(tmp_path: Path) -> None:
    catalogue().assign(mag_g=[99.0, -9999, *[17.0] * (N - 2)], words=1, empty=2).to_csv(
        tmp_path / "cat.csv", index=False
    )
    codes = pd.read_csv(prepared(tmp_path) / "missing_values.csv")
    assert codes[["column", "code", "n"]].to_numpy().tolist() == [["mag_g", -9999.0, 1], ["mag_g", 99.0, 1]]


def test_a_target_of_integers_with_missing_ones_is_trained_on(tmp_path: Path) -> None:
    catalogue().assign(y=[*range(N - 30), *[-9999] * 30], words=1, empty=2).to_csv(tmp_path / "cat.csv", index=False)
    prepared(tmp_path)
    options = Options(
        config=tmp_path / "t.toml", out=tmp_path / "r", force=False, device="cpu",
        overrides=('split={kind="random",fractions=[0.4,0.3,0.3]}', 'probes={kinds=["linear"],n_bootstrap=100}'),
    )  # fmt: skip
    root, _ = run(options, ["prepare-survey", "fit-baselines", "fit-probes"])
    assert (pd.read_parquet(root / "fit-probes/mean/metrics.parquet")["n"]).max() <= N - 30


# --- uses -------------------------------------------------------------------------------------------------------------


def test_missing_photometry_gets_the_median_of_train_galaxies_and_is_warned_of(caplog: Any) -> None:
    catalog = pd.DataFrame(
        {
            "split": ["train", "train", "train", "test"],
            "g": pd.array([17, None, 19, None], dtype="Int64"),
            "r": [16.0, 17, 18, 90],
        }
    )
    features = Photometry(magnitudes=("g", "r"), sizes=()).features(catalog)
    assert features["g"].tolist() == [17, 18, 19, 18]
    assert features["g - r"].tolist() == [1, 1, 1, -72]
    assert "gets the median of train galaxies: g 2" in caplog.text


@pytest.mark.parametrize(
    ("g", "message"), [([np.nan, 1.0], "no train galaxy has a value of g"), (["a", "b"], "'a' .row 1. is no number")]
)
def test_photometry_that_no_train_galaxy_has_is_refused(g: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Photometry(magnitudes=("g",), sizes=()).features(pd.DataFrame({"split": ["train", "test"], "g": g}))


@pytest.mark.parametrize("values", [[True, False, None], [1, 0, None], ["E", "S", None]])
def test_galaxies_without_a_class_are_in_none(values: list[Any]) -> None:
    column = pd.Series(values * 30, dtype={bool: "boolean", int: "Int64", str: "str"}[type(values[0])])
    catalog = pd.DataFrame({"split": np.repeat(["train", "valid", "test"], 30), "c": column})
    numbers, names = class_numbers(catalog, "c", Classes(column="c"))
    assert (numbers[2::3] == -1).all()
    assert len(names) == 2
