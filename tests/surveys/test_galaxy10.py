"""Galaxy10: the file is the one it is said to be, and its classes have the names of its variant."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sfnetlab.errors import DataError
from sfnetlab.files import sha256_of
from sfnetlab.surveys import store
from sfnetlab.surveys.galaxy10 import VARIANTS, Galaxy10Survey, build_galaxy10_survey


def contents(variant: Any, n: int = 12) -> dict[str, np.ndarray]:
    """A part of Galaxy10, as far as names, shapes and types go."""
    rng = np.random.default_rng(0)
    side = VARIANTS[variant].side
    arrays: dict[str, np.ndarray] = {
        "images": rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8),
        "ans": np.arange(n, dtype=np.uint8) % 10,
    }
    if variant == "decals":
        arrays |= {"ra": rng.uniform(0, 360, n), "dec": rng.uniform(-60, 60, n), "pxscale": np.full(n, 0.262)}
        arrays["redshift"] = np.where(np.arange(n) == 3, np.nan, 0.1)
    return arrays


def written(tmp_path: Path, arrays: dict[str, np.ndarray], variant: Any, **settings: Any) -> Galaxy10Survey:
    path = tmp_path / "Galaxy10.h5"
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
    return Galaxy10Survey(file=path, variant=variant, **({"sha256": sha256_of(path)} | settings))


@pytest.mark.parametrize("variant", ["sdss", "decals"])
@pytest.mark.parametrize("chunk", [5, 256])
def test_every_row_gets_its_own_image_and_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: Any, chunk: int
) -> None:
    monkeypatch.setattr(store, "CHUNK", chunk)
    arrays = contents(variant)
    catalog, _ = build_galaxy10_survey(written(tmp_path, arrays, variant), tmp_path / "images.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), arrays["images"])
    assert catalog["id_str"].iloc[[0, 11]].tolist() == [f"galaxy10-{variant}-000000", f"galaxy10-{variant}-000011"]
    assert catalog["class"].dtype == np.int64
    assert catalog["class"].tolist() == arrays["ans"].tolist()
    for name in arrays.keys() - {"images", "ans"}:
        np.testing.assert_array_equal(catalog[name], arrays[name])


@pytest.mark.parametrize(
    ("variant", "names"),
    [
        ("sdss", ["Disk, Face-on, No Spiral", "Smooth, Cigar shaped", "Disk, Face-on, Loose Spiral"]),
        ("decals", ["Disturbed Galaxies", "In-between Round Smooth Galaxies", "Edge-on Galaxies with Bulge"]),
    ],
)
def test_classes_have_the_names_of_the_variant(tmp_path: Path, variant: Any, names: list[str]) -> None:
    catalog, _ = build_galaxy10_survey(written(tmp_path, contents(variant), variant), tmp_path / "images.npy")
    assert [catalog["class_name"].iloc[number] for number in (0, 3, 9)] == names


def test_images_are_resized_and_cropped(tmp_path: Path) -> None:
    survey = written(tmp_path, contents("sdss"), "sdss", resize=64, crop=48)
    build_galaxy10_survey(survey, tmp_path / "images.npy")
    assert np.load(tmp_path / "images.npy", mmap_mode="r").shape == (12, 48, 48, 3)


def test_a_black_image_is_bad_by_on_bad_image(tmp_path: Path) -> None:
    arrays = contents("sdss")
    arrays["images"][5] = 0
    survey = written(tmp_path, arrays, "sdss")
    with pytest.raises(DataError, match="galaxy10-sdss-000005: an image of one colour"):
        build_galaxy10_survey(survey, tmp_path / "images.npy")
    catalog, facts = replace(survey, on_bad_image="drop").read(tmp_path)
    assert facts == {"n_bad_images": 1}
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), np.delete(arrays["images"], 5, axis=0))
    assert catalog["class"].tolist() == np.delete(arrays["ans"], 5).tolist()


@pytest.mark.parametrize(("variant", "other"), [("sdss", "decals"), ("decals", "sdss")])
def test_the_other_variant_under_the_name_of_this_one_is_refused(tmp_path: Path, variant: Any, other: Any) -> None:
    survey = written(tmp_path, contents("decals") | contents(other), variant)
    with pytest.raises(DataError, match=rf"not Galaxy10 {variant} .*images of uint8 with shape .*") as caught:
        build_galaxy10_survey(survey, tmp_path / "images.npy")
    assert "whose classes are not those of the other variant; check survey.variant" in str(caught.value)
    assert not (tmp_path / "images.npy").exists()


def test_without_a_hash_of_ones_own_the_number_of_galaxies_must_be_the_published_one(tmp_path: Path) -> None:
    survey = written(tmp_path, contents("sdss"), "sdss", sha256=None)
    with pytest.raises(DataError, match=r"Galaxy10.h5: 21,785 images of 69×69\).*12 images in it; .*survey.sha256"):
        build_galaxy10_survey(survey, tmp_path / "images.npy")


def test_a_published_variant_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "sdss", VARIANTS["sdss"]._replace(n_galaxies=12))
    survey = written(tmp_path, contents("sdss"), "sdss", sha256=None)
    with pytest.raises(DataError, match=rf"sha256 {sha256_of(survey.file)}, expected 969a6b1c.*published.*again"):
        build_galaxy10_survey(survey, tmp_path / "images.npy")


def test_a_file_that_is_not_the_one_of_the_hash_is_refused(tmp_path: Path) -> None:
    survey = written(tmp_path, contents("sdss"), "sdss", sha256="0" * 64)
    with pytest.raises(DataError, match=r"expected 0{64} \(survey.sha256\)"):
        build_galaxy10_survey(survey, tmp_path / "images.npy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ans": np.arange(12) - 1}, "whole numbers from 0 to 9, found int64 from -1 to 10"),
        ({"ans": np.arange(12) % 11}, "from 0 to 10"),
        ({"ans": np.zeros(12)}, "found float64"),
        ({"ans": np.zeros(11, dtype=int)}, r"a value for each of 12 images, found ans \(11,\)"),
        ({"images": np.zeros((12, 69, 69, 3))}, "images of float64"),
        ({"images": np.zeros((12, 69, 69), dtype=np.uint8)}, r"with shape \(12, 69, 69\)"),
        ({"images": None}, "it lacks images, it holds ans"),
    ],
)
def test_a_file_in_another_form_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    arrays = {name: values for name, values in (contents("sdss") | change).items() if values is not None}
    with pytest.raises(DataError, match=message):
        build_galaxy10_survey(written(tmp_path, arrays, "sdss"), tmp_path / "images.npy")


@pytest.mark.parametrize("content", [None, b"", b"<html>404</html>", "truncated"])
def test_a_missing_or_damaged_file_is_refused(tmp_path: Path, content: Any) -> None:
    survey = written(tmp_path, contents("sdss"), "sdss")
    whole = survey.file.read_bytes()
    survey.file.unlink()
    if content is not None:
        survey.file.write_bytes(whole[: len(whole) // 2] if content == "truncated" else content)
    with pytest.raises(DataError, match=r"no such file|cannot be read as HDF5"):
        build_galaxy10_survey(survey, tmp_path / "images.npy")


def test_the_fingerprint_is_the_hash_that_the_file_must_have(tmp_path: Path) -> None:
    absent = tmp_path / "Galaxy10_DECals.h5"
    assert Galaxy10Survey(file=absent, variant="decals").fingerprint()["file_sha256"].startswith("19aefc47")
    assert Galaxy10Survey(file=absent, variant="decals", sha256="1" * 64).fingerprint() == {"file_sha256": "1" * 64}


@pytest.mark.parametrize("sha256", ["", "abc", "A" * 64])
def test_a_setting_that_is_no_hash_is_refused(sha256: str) -> None:
    with pytest.raises(ValueError, match="sha256 must be 64 hexadecimal digits"):
        Galaxy10Survey(file=Path("x"), variant="sdss", sha256=sha256)
