"""Stage prepare-survey: real surveys in, as stand-ins of their form; one catalogue, store and record out."""

import json
import logging
import os
import shutil
from pathlib import Path

import datasets
import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sfnetlab.artifacts import SurveyTable, read_survey
from sfnetlab.errors import DataError
from sfnetlab.files import sha256_of
from sfnetlab.runner import Options, describe_status, run
from sfnetlab.surveys.catalog import FOR_PROBES, taught_rows

N = 60
EXPERIMENT = """
name = "real"
[survey]
{survey}
[targets.t]
columns = ["{target}"]
[[features]]
kind = "mean"
"""


def pixels_of(i: int, side: int = 24) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)


def prepare(tmp_path: Path, *survey: str, target: str = "oh_p50") -> tuple[SurveyTable, Path]:
    """Run the stage alone, twice: the second time there is nothing to do."""
    config = tmp_path / "x.toml"
    tmp_path.mkdir(exist_ok=True)
    config.write_text(EXPERIMENT.format(survey="\n".join(survey), target=target))
    options = Options(config=config, out=tmp_path / "results", overrides=(), force=False, device="cpu")
    root, plan = run(options, ["prepare-survey"])
    directory = plan[0].directory(root)
    made = (directory / "manifest.json").stat().st_mtime_ns
    run(options, ["prepare-survey"])
    assert (directory / "manifest.json").stat().st_mtime_ns == made
    return read_survey(directory), directory


def images_of(table: SurveyTable) -> np.ndarray:
    assert table.images is not None
    return table.images


def make_download(folder: Path) -> Path:
    """As `sfnetlab download sdss` leaves it; of the first galaxy there is no cutout, the second one's is cut short."""
    (folder / "images").mkdir(parents=True)
    ids = [str(1237648704043942146 + i) for i in range(N)]
    for i, id_str in enumerate(ids[1:], 1):
        Image.fromarray(pixels_of(i)).save(folder / f"images/{id_str}.jpg")
    short = folder / f"images/{ids[1]}.jpg"
    short.write_bytes(short.read_bytes()[:-300])
    pd.DataFrame({"id_str": ids, "oh_p50": np.linspace(8, 9, N)}).to_parquet(folder / "catalog.parquet")
    (folder / "download.json").write_text(json.dumps({"layer": "sdss", "pixel_scale_arcsec": 0.262, "size_px": 24}))
    return folder


def make_dataset(folder: Path) -> Path:
    datasets.disable_progress_bars()
    content = {
        "id_str": [f"galaxy{i}" for i in range(N)],
        "image": [Image.fromarray(pixels_of(i)) for i in range(N)],
        "smooth-or-featured-euclid_smooth": [20] * N,
        "smooth-or-featured-euclid_featured-or-disk": list(range(N)),
        "bar-euclid_strong": [i // 2 for i in range(N)],
        "bar-euclid_no": [i - i // 2 for i in range(N)],
        "oh_p50": np.linspace(8, 9, N).tolist(),
    }
    halves = {
        name: datasets.Dataset.from_dict({column: values[rows] for column, values in content.items()})
        for name, rows in (("train", slice(0, N // 2)), ("test", slice(N // 2, N)))
    }
    datasets.DatasetDict(halves).save_to_disk(folder)
    return folder


def test_a_download_of_sdss_is_prepared_as_the_folder_that_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_download(tmp_path / "sdss")
    table, directory = prepare(tmp_path, 'kind = "sdss"', f'directory = "{folder}"', "resize = 20", "crop = 16")
    assert images_of(table).shape == (N - 2, 16, 16, 3)
    assert table.pixel_scale_arcsec == pytest.approx(0.262 * 24 / 20)
    bad = pd.read_csv(directory / "bad_images.csv", dtype=str)
    assert bad["id_str"].tolist() == ["1237648704043942146", "1237648704043942147"]
    assert bad["reason"].iloc[0] == "missing"
    assert f"2 of {N} galaxies dropped" in caplog.text
    same = (
        f'kind = "folder"\ncatalog = "{folder}/catalog.parquet"\nimages = "{folder}/images"\nresize = 20\ncrop = 16\n'
    )
    caplog.set_level(logging.INFO)
    prepare(tmp_path, same + 'on_bad_image = "drop"\npixel_scale_arcsec = 0.262')
    assert "all 1 results are current" in caplog.text


@pytest.mark.parametrize("name", ["split", FOR_PROBES])
def test_a_catalogue_that_has_a_split_already_is_refused(tmp_path: Path, name: str) -> None:
    folder = make_download(tmp_path / "sdss")
    pd.read_parquet(folder / "catalog.parquet").assign(**{name: "train"}).to_parquet(folder / "catalog.parquet")
    with pytest.raises(DataError, match=rf"catalog.parquet: has a column '{name}', a name that is taken; rename it"):
        prepare(tmp_path, 'kind = "sdss"', f'directory = "{folder}"')


def test_a_share_of_the_train_galaxies_is_left_to_probes_and_stays_train(tmp_path: Path) -> None:
    mock = ('kind = "mock"', "n_galaxies = 60", "image_size = 16")
    every, _ = prepare(tmp_path / "every", *mock)
    apart, _ = prepare(tmp_path / "apart", *mock, "[split]", "probe_share = 0.3")
    assert FOR_PROBES not in every.catalog
    assert (apart.catalog["split"] == every.catalog["split"]).all()
    is_train = every.catalog["split"] == "train"
    assert (taught_rows(every.catalog) == is_train).all()
    assert (taught_rows(apart.catalog) == is_train & ~apart.catalog[FOR_PROBES]).all()
    assert 0 < apart.catalog[FOR_PROBES].sum() < is_train.sum()
    assert not apart.catalog.loc[~is_train, FOR_PROBES].any()


def test_a_missing_download_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sfnetlab download sdss --to .*none"):
        prepare(tmp_path, 'kind = "sdss"', f'directory = "{tmp_path / "none"}"')


def test_a_dataset_saved_to_disk_is_prepared_with_vote_fractions_and_a_record(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "gz_euclid")
    table, directory = prepare(tmp_path, 'kind = "hub"', f'directory = "{folder}"', "pixel_scale_arcsec = 0.1")
    catalog = table.catalog
    assert catalog["id_str"].tolist() == [f"galaxy{i}" for i in range(N)]
    for row in (0, N - 1):
        np.testing.assert_array_equal(images_of(table)[row], pixels_of(row))
    assert set(catalog["split"]) == {"train", "valid", "test"}
    assert catalog["bar-euclid_strong_fraction"].notna().tolist() == [i >= 20 for i in range(N)]
    assert table.pixel_scale_arcsec == 0.1
    source = json.loads((directory / "source.json").read_text())
    assert {name: split["n_rows"] for name, split in source["splits"].items()} == {"train": N // 2, "test": N // 2}
    assert all(split["fingerprint"] for split in source["splits"].values())
    assert len(source["files_sha256"]) == 64


def test_a_part_of_galaxy10_is_prepared_with_classes_to_tell_apart(tmp_path: Path) -> None:
    path = tmp_path / "Galaxy10.h5"
    images = np.stack([pixels_of(i, 69) for i in range(N)])
    with h5py.File(path, "w") as file:
        file["images"], file["ans"] = images, np.arange(N, dtype=np.uint8) % 10
    survey = (f'file = "{path}"', 'variant = "sdss"', f'sha256 = "{sha256_of(path)}"')
    classes = '[classes.edge_on]\ncolumn = "class"\npositive = [4, 5, 6]\nnegative = [0, 7, 8, 9]'
    table, _ = prepare(tmp_path, 'kind = "galaxy10"', *survey, classes, target="class")
    np.testing.assert_array_equal(images_of(table), images)
    assert table.catalog.columns.tolist() == ["id_str", "split", "class", "class_name"]
    assert table.pixel_scale_arcsec is None


def test_one_pixel_scale_for_resized_cutouts_of_several_sizes_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_download(tmp_path / "sdss")
    Image.fromarray(pixels_of(5, 48)).save(folder / "images/1237648704043942151.jpg")
    prepare(tmp_path, 'kind = "sdss"', f'directory = "{folder}"', "resize = 16")
    assert "cutouts of 2 sizes were resized" in caplog.text


def folder_survey(tmp_path: Path) -> str:
    """Sixty cutouts of which the first is damaged, as settings that leave it out."""
    images = tmp_path / "images"
    images.mkdir()
    for i in range(N):
        Image.fromarray(pixels_of(i)).save(images / f"g{i}.png")
    (images / "g0.png").write_bytes(b"half")
    catalog = pd.DataFrame({"id_str": [f"g{i}" for i in range(N)], "oh_p50": np.linspace(8, 9, N)})
    catalog.to_csv(tmp_path / "catalog.csv", index=False)
    return f'kind = "folder"\ncatalog = "{tmp_path}/catalog.csv"\nimages = "{images}"\non_bad_image = "drop"'


def run_two_stages(tmp_path: Path, *settings: str) -> tuple[str, int]:
    """The states of survey and features before, and when the features that are there after were made."""
    options = Options(tmp_path / "x.toml", tmp_path / "results", settings, force=False, device="cpu")
    states = [line.split()[0] for line in describe_status(options).splitlines()[:2]]
    run(options, ["prepare-survey", "fit-baselines"])
    assert describe_status(options).splitlines()[1].strip() == "current  fit-baselines/mean"
    return " ".join(states), (tmp_path / "results/fit-baselines/mean/features.npy").stat().st_mtime_ns


def test_nothing_is_stale_when_files_are_restored_copied_or_joined_by_others(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(EXPERIMENT.format(survey=folder_survey(tmp_path), target="oh_p50"))
    run_two_stages(tmp_path)
    shutil.copytree(tmp_path / "images", tmp_path / "scratch")
    os.utime(tmp_path / "scratch/g3.png", ns=(0, 1))
    Image.fromarray(pixels_of(99)).save(tmp_path / "scratch/of_nobody.jpg")
    states, _ = run_two_stages(tmp_path, f'survey.images="{tmp_path}/scratch"')
    assert states == "current current"


@pytest.mark.parametrize("change", ["the catalogue is written anew", "what was dropped is damaged otherwise"])
def test_features_stay_when_other_files_make_the_same_survey(tmp_path: Path, change: str) -> None:
    (tmp_path / "x.toml").write_text(EXPERIMENT.format(survey=folder_survey(tmp_path), target="oh_p50"))
    _, made = run_two_stages(tmp_path)
    if change == "the catalogue is written anew":
        path = tmp_path / "catalog.csv"
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    else:
        (tmp_path / "images/g0.png").write_bytes(b"")
    assert run_two_stages(tmp_path) == ("stale stale", made)
    assert run_two_stages(tmp_path) == ("current current", made)


def test_features_are_made_anew_when_a_cutout_is_missing(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(EXPERIMENT.format(survey=folder_survey(tmp_path), target="oh_p50"))
    _, made = run_two_stages(tmp_path)
    (tmp_path / "images/g5.png").unlink()
    states, made_after = run_two_stages(tmp_path)
    assert states == "stale stale"
    assert made_after > made


def test_the_contact_sheet_shows_levels_and_the_metrics_say_how_many_pixels_are_at_the_ends(tmp_path: Path) -> None:
    settings = folder_survey(tmp_path)
    for i in range(1, N):
        half = pixels_of(i)
        half[:12], half[12:18] = 0, 255
        Image.fromarray(half).save(tmp_path / f"images/g{i}.png")
    _, directory = prepare(tmp_path, settings)
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["share_black"] == pytest.approx(0.5 + 0.25 / 256, abs=1e-3)
    assert metrics["share_saturated"] == pytest.approx(0.25 + 0.25 / 256, abs=1e-3)
    with Image.open(directory / "contact_sheet.png") as sheet:
        assert min(sheet.size) > 500
