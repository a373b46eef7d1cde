"""Folder survey: every galaxy has its own cutout, or is an error, or is left out on record."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from PIL import Image

from sfnetlab.errors import DataError
from sfnetlab.files import sha256_of
from sfnetlab.surveys import fingerprints, folder, store
from sfnetlab.surveys.catalog import read_catalog
from sfnetlab.surveys.folder import FolderSurvey
from sfnetlab.surveys.images import read_image

SDSS = Path(__file__).resolve().parents[2] / "../shared/data/sdss_metallicity"


def build_folder_survey(
    survey: FolderSurvey, catalog: pd.DataFrame, images_path: Path, n_workers: int | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows kept and the ones left out."""
    stored = folder.build_folder_survey(survey, catalog, images_path, n_workers)
    return stored.kept(catalog), stored.bad()


def pixels_of(i: int, side: int = 20) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)


def make_survey(tmp_path: Path, n: int = 12, **settings: Any) -> tuple[FolderSurvey, pd.DataFrame]:
    """PNG cutouts g0, g1, ... beside a catalogue that lists them in another order."""
    images = tmp_path / "images"
    images.mkdir()
    for i in range(n):
        Image.fromarray(pixels_of(i)).save(images / f"g{i}.png")
    order = np.random.default_rng(0).permutation(n)
    catalog = pd.DataFrame({"id_str": [f"g{i}" for i in order], "number": order})
    catalog.to_csv(tmp_path / "galaxies.csv", index=False)
    survey = FolderSurvey(catalog=tmp_path / "galaxies.csv", images=images, **{"extension": ".png"} | settings)
    return survey, catalog


def damage(survey: FolderSurvey) -> dict[str, str]:
    """Spoil five cutouts; returns what each reason must say."""
    (survey.images / "g1.png").unlink()
    whole = (survey.images / "g2.png").read_bytes()
    (survey.images / "g2.png").write_bytes(whole[: len(whole) // 2])
    (survey.images / "g3.png").write_bytes(b"")
    (survey.images / "g4.png").write_bytes(b"<html>404</html>")
    Image.fromarray(pixels_of(5, side=31)).save(survey.images / "g5.png")
    Image.fromarray(pixels_of(6)[:18]).save(survey.images / "g6.png")
    return {
        "g1": "missing",
        "g2": "cannot be decoded",
        "g3": "0 bytes",
        "g4": "b'<html>404</h",
        "g5": "expected 20×20 pixels, found 31×31",
        "g6": "20×18 pixels: not square",
    }


def assert_images_match(path: Path, kept: pd.DataFrame) -> None:
    images = np.load(path, mmap_mode="r")
    assert images.shape == (len(kept), 20, 20, 3)
    assert images.dtype == np.uint8
    for image, number in zip(images, kept["number"], strict=True):
        np.testing.assert_array_equal(image, pixels_of(number))


@pytest.mark.parametrize("n_workers", [1, 4])
@pytest.mark.parametrize("chunk", [1, 5, 256])
def test_every_row_gets_its_own_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_workers: int, chunk: int
) -> None:
    monkeypatch.setattr(store, "CHUNK", chunk)
    survey, catalog = make_survey(tmp_path)
    kept, bad = build_folder_survey(survey, catalog, tmp_path / "images.npy", n_workers)
    pd.testing.assert_frame_equal(kept, catalog)
    assert_images_match(tmp_path / "images.npy", kept)
    assert bad.columns.tolist() == ["id_str", "reason"]
    assert len(bad) == 0


def test_drop_leaves_out_bad_images_on_record_and_shifts_nothing(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path, on_bad_image="drop")
    expected = damage(survey)
    kept, bad = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert sorted(bad["id_str"]) == sorted(expected)
    for id_str, reason in zip(bad["id_str"], bad["reason"], strict=True):
        assert expected[id_str] in reason
        assert str(survey.images) not in reason
    assert kept["id_str"].tolist() == [id_str for id_str in catalog["id_str"] if id_str not in expected]
    assert kept.index.tolist() == list(range(6))
    assert_images_match(tmp_path / "images.npy", kept)
    assert (tmp_path / "images.npy").stat().st_size == 128 + 6 * 20 * 20 * 3


def test_error_lists_bad_images_at_once_and_says_how_to_drop_them(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path)
    expected = damage(survey)
    with pytest.raises(DataError, match=r"6 of 12 cutouts <id>\.png cannot be used") as caught:
        build_folder_survey(survey, catalog, tmp_path / "images.npy")
    message = str(caught.value)
    for id_str, reason in expected.items():
        assert any(line.startswith(f"  {id_str}: ") and reason in line for line in message.splitlines())
    assert 'survey.on_bad_image = "drop"' in message
    assert not (tmp_path / "images.npy").exists()


def test_a_long_list_of_bad_images_is_cut_short(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path, n=15)
    for i in range(13):
        (survey.images / f"g{i}.png").unlink()
    with pytest.raises(DataError, match="and 3 more") as caught:
        build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert str(caught.value).count(": missing") == 10


@pytest.mark.parametrize("on_bad_image", ["error", "drop"])
def test_no_usable_image_at_all_is_an_error_that_shows_what_is_there(tmp_path: Path, on_bad_image: Any) -> None:
    survey, catalog = make_survey(tmp_path, on_bad_image=on_bad_image)
    wrong = catalog.assign(id_str="x" + catalog["id_str"])
    with pytest.raises(DataError, match=r"12 of 12 .*(\n.*)+the folder holds 12 entries, such as 'g0.png'") as caught:
        build_folder_survey(survey, wrong, tmp_path / "images.npy")
    assert "drop" not in str(caught.value)
    assert not (tmp_path / "images.npy").exists()


def test_the_commonest_side_is_expected_even_if_the_first_image_is_odd(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path, on_bad_image="drop")
    first = catalog["id_str"].iloc[0]
    Image.fromarray(pixels_of(0, side=31)).save(survey.images / f"{first}.png")
    kept, bad = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert bad["id_str"].tolist() == [first]
    assert len(kept) == 11


@pytest.mark.parametrize(
    ("settings", "side"), [({"resize": 16}, 16), ({"crop": 18}, 18), ({"resize": 40, "crop": 32}, 32)]
)
def test_resize_and_crop_bring_mixed_sizes_to_one(tmp_path: Path, settings: dict[str, int], side: int) -> None:
    survey, catalog = make_survey(tmp_path, **settings)
    Image.fromarray(pixels_of(5, side=31)).save(survey.images / "g5.png")
    kept, _ = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert np.load(tmp_path / "images.npy").shape == (len(catalog), side, side, 3) == (len(kept), side, side, 3)


def test_an_image_smaller_than_the_crop_is_bad(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path, crop=20, on_bad_image="drop")
    Image.fromarray(pixels_of(5, side=17)).save(survey.images / "g5.png")
    _, bad = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert bad["reason"].tolist() == ["17×17 pixels: smaller than crop = 20"]


def test_fits_cutouts_with_nan_are_dropped_by_name(tmp_path: Path) -> None:
    for i in range(3):
        planes = np.full((3, 16, 16), 0.2, dtype=np.float32)
        planes[:, i, i] = np.nan if i == 1 else 0.4
        fits.PrimaryHDU(planes).writeto(tmp_path / f"g{i}.fits")
    catalog = pd.DataFrame({"id_str": ["g0", "g1", "g2"]})
    survey = FolderSurvey(catalog=tmp_path / "c.csv", images=tmp_path, extension=".fits", on_bad_image="drop")
    kept, bad = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert kept["id_str"].tolist() == ["g0", "g2"]
    assert "3 of 768 pixels are not finite" in bad["reason"].iloc[0]


def test_an_id_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path)
    catalog.loc[0, "id_str"] = "../images/g0"
    with pytest.raises(DataError, match="cannot be file names"):
        build_folder_survey(survey, catalog, tmp_path / "images.npy")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    survey = FolderSurvey(catalog=tmp_path / "c.csv", images=tmp_path / "none")
    with pytest.raises(DataError, match="no such folder of images"):
        build_folder_survey(survey, pd.DataFrame({"id_str": ["1"]}), tmp_path / "images.npy")
    with pytest.raises(DataError, match="no such folder of images"):
        survey.fingerprint()


def test_the_fingerprint_is_repeatable_and_ignores_other_files(tmp_path: Path) -> None:
    survey, _ = make_survey(tmp_path)
    before = survey.fingerprint()
    (survey.images / "notes.txt").write_text("x")
    assert survey.fingerprint() == before


@pytest.mark.parametrize("change", ["remove", "rename", "catalogue", "one byte", "damage"])
def test_the_fingerprint_changes_with_the_input(tmp_path: Path, change: str) -> None:
    survey, _ = make_survey(tmp_path)
    before = survey.fingerprint()
    cutout = survey.images / "g0.png"
    match change:
        case "remove":
            cutout.unlink()
        case "rename":
            cutout.rename(survey.images / "h0.png")
        case "catalogue":
            survey.catalog.write_text(survey.catalog.read_text() + "\n")
        case "one byte":
            change_one_byte(cutout)
        case "damage":
            cutout.write_bytes(b"")
    after = survey.fingerprint()
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"catalog_sha256" if change == "catalogue" else "images_sha256"}


def change_one_byte(path: Path) -> None:
    """Change the content of a file, but neither its size nor its mtime."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture(params=["many files", "few large ones"])
def kept_hashes(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Hashes are kept, even of few files that have just been written; returns the files that are read, as they come."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    limit, value = ("_MANY_FILES", 1) if request.param == "many files" else ("_MANY_BYTES", 0)
    monkeypatch.setattr(fingerprints, limit, value)
    monkeypatch.setattr(fingerprints, "_RACY_NS", 0)
    reads: list[Path] = []

    def counted(path: Path) -> str:
        reads.append(path)
        return sha256_of(path)

    monkeypatch.setattr(fingerprints, "sha256_of", counted)
    return reads


@pytest.mark.parametrize("change", ["touch", "restore", "extra", "side files", "copy"])
def test_the_fingerprint_is_of_contents_not_of_times_places_and_other_files(tmp_path: Path, change: str) -> None:
    survey, _ = make_survey(tmp_path)
    before = survey.fingerprint()
    cutout = survey.images / "g0.png"
    match change:
        case "touch":
            os.utime(cutout, ns=(0, 1))
        case "restore":
            content = cutout.read_bytes()
            cutout.unlink()
            cutout.write_bytes(content)
        case "extra":
            Image.fromarray(pixels_of(99)).save(survey.images / "of_nobody.png")
        case "side files":
            (survey.images / "._g0.png").write_bytes(b"\0\5\x16\7")
            (survey.images / ".DS_Store").touch()
        case "copy":
            shutil.copytree(survey.images, tmp_path / "scratch")
            survey = replace(survey, images=tmp_path / "scratch")
    assert survey.fingerprint() == before


def test_files_that_did_not_change_are_not_read_again(tmp_path: Path, kept_hashes: list[Path]) -> None:
    survey, _ = make_survey(tmp_path)
    before = survey.fingerprint()
    assert len(kept_hashes) == 13  # the catalogue too
    kept_hashes.clear()
    os.utime(survey.images / "g3.png", ns=(0, 1))
    assert survey.fingerprint() == before
    assert [path.name for path in kept_hashes] == ["g3.png"]
    kept_hashes.clear()
    assert survey.fingerprint() == before
    assert kept_hashes == []


def test_one_changed_byte_is_noticed_behind_the_old_size_and_time(tmp_path: Path, kept_hashes: list[Path]) -> None:
    survey, _ = make_survey(tmp_path)
    before = survey.fingerprint()
    change_one_byte(survey.images / "g5.png")
    assert survey.fingerprint()["images_sha256"] != before["images_sha256"]


@pytest.fixture
def many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are kept, even about few files that have just been written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprints, "_MANY_FILES", 1)
    monkeypatch.setattr(fingerprints, "_RACY_NS", 0)


@pytest.mark.usefixtures("many_files")
def test_when_nothing_changed_not_even_the_catalogue_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey, _ = make_survey(tmp_path)
    before = survey.fingerprint()
    monkeypatch.setattr(folder, "find_cutouts", None)
    assert survey.fingerprint() == before


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("extension", [".png", None])
@pytest.mark.parametrize("change", ["remove", "rename", "one byte", "damage", "swap", "a row less", "a type preferred"])
def test_a_kept_answer_is_the_one_that_a_first_look_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, extension: str | None
) -> None:
    survey, _ = make_survey(tmp_path, extension=extension)
    before = survey.fingerprint()
    cutout = survey.images / "g0.png"
    match change:
        case "remove":
            cutout.unlink()
        case "rename":
            cutout.rename(survey.images / "h0.png")
        case "one byte":
            change_one_byte(cutout)
        case "damage":
            cutout.write_bytes(b"")
        case "swap":  # the same files by other names
            cutout.rename(survey.images / "x.png")
            (survey.images / "g1.png").rename(cutout)
            (survey.images / "x.png").rename(survey.images / "g1.png")
        case "a row less":
            survey.catalog.write_text(survey.catalog.read_text().strip().rpartition("\n")[0] + "\n")
        case "a type preferred":
            shutil.copy(survey.images / "g1.png", survey.images / "g0.jpg")
    after = survey.fingerprint()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other cache"))
    assert survey.fingerprint() == after
    assert (after == before) == (change == "a type preferred" and extension == ".png")


def test_damaged_kept_hashes_are_made_anew(tmp_path: Path, kept_hashes: list[Path]) -> None:
    survey, _ = make_survey(tmp_path)
    before = survey.fingerprint()
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        path.write_bytes(b"PAR1 half")
    assert survey.fingerprint() == before
    kept_hashes.clear()
    assert survey.fingerprint() == before
    assert kept_hashes == []


def test_a_cache_that_cannot_be_written_is_a_warning(
    tmp_path: Path, kept_hashes: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    survey, _ = make_survey(tmp_path)
    before = survey.fingerprint()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert survey.fingerprint() == before
    assert "set XDG_CACHE_HOME to a folder that can be written" in caplog.text


def test_a_fingerprint_needs_the_catalogue_and_images(tmp_path: Path) -> None:
    survey, _ = make_survey(tmp_path, n=1)
    (survey.images / "g0.png").rename(survey.images / "g0.txt")
    with pytest.raises(DataError, match=r"no cutout of .* 'g0'\.png; the folder holds 1 entries, such as 'g0\.txt'"):
        survey.fingerprint()
    (survey.images / "g0.txt").rename(survey.images / "g0.png")
    survey.catalog.unlink()
    with pytest.raises(DataError, match=r"no readable file \(survey.catalog\)"):
        survey.fingerprint()


@pytest.mark.parametrize("kind", ["black", "grey", "one colour"])
def test_a_cutout_of_one_colour_is_bad(tmp_path: Path, kind: str) -> None:
    survey, catalog = make_survey(tmp_path, on_bad_image="drop")
    colour = {"black": (0, 0, 0), "grey": (99, 99, 99), "one colour": (255, 0, 7)}[kind]
    Image.new("RGB", (20, 20), colour).save(survey.images / "g4.png")
    kept, bad = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert bad.to_numpy().tolist() == [["g4", "an image of one colour: outside the survey's footprint"]]
    assert_images_match(tmp_path / "images.npy", kept)


def test_a_cutout_whose_crop_is_of_one_colour_is_bad(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path, on_bad_image="drop", crop=16)
    framed = pixels_of(4)
    framed[2:-2, 2:-2] = 0
    Image.fromarray(framed).save(survey.images / "g4.png")
    _, bad = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert bad["id_str"].tolist() == ["g4"]


def test_black_cutouts_stop_where_bad_images_do(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path)
    Image.new("L", (20, 20)).save(survey.images / "g4.png")
    with pytest.raises(DataError, match=r"g4: an image of one colour"):
        build_folder_survey(survey, catalog, tmp_path / "images.npy")


@pytest.mark.parametrize("extension", [None, ".png", ".PNG"])
@pytest.mark.parametrize("place", ["g0.PNG", "field7/g0.png", "a/b/g0.PNG"])
def test_cutouts_are_found_in_capitals_and_in_sub_folders(tmp_path: Path, extension: Any, place: str) -> None:
    survey, catalog = make_survey(tmp_path)
    (survey.images / place).parent.mkdir(parents=True, exist_ok=True)
    (survey.images / "g0.png").rename(survey.images / place)
    kept, _ = build_folder_survey(replace(survey, extension=extension), catalog, tmp_path / "images.npy")
    assert_images_match(tmp_path / "images.npy", kept)


def test_without_an_extension_mixed_types_are_one_survey(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path)
    (survey.images / "g0.png").unlink()
    Image.fromarray(pixels_of(0)).save(survey.images / "g0.TIFF")
    kept, _ = build_folder_survey(replace(survey, extension=None), catalog, tmp_path / "images.npy")
    assert_images_match(tmp_path / "images.npy", kept)


def test_two_cutouts_of_one_galaxy_are_told_by_name(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path, on_bad_image="drop")
    (survey.images / "g0.png").rename(survey.images / "g0.gif")
    Image.fromarray(pixels_of(1)).save(survey.images / "g0.tif")
    _, bad = build_folder_survey(replace(survey, extension=None), catalog, tmp_path / "images.npy")
    assert bad["reason"].tolist() == ["2 files: g0.gif, g0.tif; say which by survey.extension or image_column"]


def test_the_file_in_the_folder_itself_goes_before_one_below_it(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path)
    (survey.images / "thumbnails").mkdir()
    Image.fromarray(pixels_of(99)).save(survey.images / "thumbnails/g0.png")
    kept, _ = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert_images_match(tmp_path / "images.npy", kept)


@pytest.mark.parametrize("absolute", [False, True])
def test_cutouts_are_where_the_catalogues_file_loc_says(tmp_path: Path, absolute: bool) -> None:
    survey, catalog = make_survey(tmp_path, image_column="file_loc")
    (survey.images / "J00").mkdir()
    paths = [survey.images / "J00" / f"x{number}.JPEG.png" for number in catalog["number"]]
    for number, path in zip(catalog["number"], paths, strict=True):
        (survey.images / f"g{number}.png").rename(path)
    catalog["file_loc"] = [str(path if absolute else path.relative_to(survey.images)) for path in paths]
    kept, _ = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert_images_match(tmp_path / "images.npy", kept)
    catalog.to_csv(survey.catalog, index=False)
    before = survey.fingerprint()
    paths[3].write_bytes(b"")
    assert survey.fingerprint() != before


def test_a_path_that_is_empty_is_a_bad_image(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path, image_column="file_loc", on_bad_image="drop")
    catalog["file_loc"] = [f"{id_str}.png" if i else np.nan for i, id_str in enumerate(catalog["id_str"])]
    _, bad = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert bad["reason"].tolist() == ["missing, no path in column 'file_loc'"]


def test_an_image_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path, image_column="numbers")
    with pytest.raises(DataError, match=r"no column 'numbers' \(survey.image_column\); did you mean 'number'"):
        build_folder_survey(survey, catalog, tmp_path / "images.npy")


def spoil(path: Path, how: str) -> None:
    path.unlink()
    match how:
        case "a link to nothing":
            path.symlink_to(path.with_name("gone.png"))
        case "a link to itself":
            path.symlink_to(path)
        case "a folder":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("a link to nothing", r"missing, a link to .*gone.png"),
        ("a link to itself", "cannot be read: .*symbolic links"),
        ("a folder", "a folder, not an image file"),
        ("a pipe", "neither a file nor a folder"),
    ],
)
def test_what_is_no_file_is_a_bad_image_with_a_reason(tmp_path: Path, how: str, reason: str) -> None:
    survey, catalog = make_survey(tmp_path, on_bad_image="drop")
    spoil(survey.images / "g7.png", how)
    survey.fingerprint()
    kept, bad = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert bad["id_str"].tolist() == ["g7"]
    assert re.fullmatch(reason, bad["reason"].iloc[0])
    assert_images_match(tmp_path / "images.npy", kept)


def test_an_unreadable_file_is_a_bad_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey, catalog = make_survey(tmp_path, on_bad_image="drop")
    opened = Path.open

    def forbidden(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "g7.png":  # root may read everything, so that chmod would not do
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **options)

    before = survey.fingerprint()
    monkeypatch.setattr(Path, "open", forbidden)
    assert survey.fingerprint()["images_sha256"] != before["images_sha256"]
    _, bad = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert bad.to_numpy().tolist() == [["g7", "cannot be read: Permission denied"]]


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path)
    (survey.images / "loop").symlink_to(survey.images, target_is_directory=True)
    kept, _ = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert len(kept) == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extension": ".bmp"}, "extension must be one of .jpg, .jpeg"),
        ({"fits_bands": (0, 1)}, "fits_bands must be one or three"),
        ({"fits_bands": (0, "R", "G")}, "fits_bands must be one or three"),
        ({"fits_bands": (-1, 1, 0)}, "fits_bands must be one or three numbers from 0"),
        ({"fits_bands": ("I", "R", "G"), "fits_hdu": 1}, "cannot both be given"),
        ({"fits_scaling": "linear"}, r"fits_limits must be \[black, white\]"),
        ({"fits_limits": (0.0, 1.0)}, "fits_limits must be .* for no other"),
        ({"fits_scaling": "asinh", "fits_limits": (2.0, 1.0)}, "fits_limits must be"),
        ({"fits_percentiles": (5.0, 101.0)}, "fits_percentiles must be two, rising"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FolderSurvey(catalog=Path("c.csv"), images=Path("im"), **settings)


def test_resized_cutouts_are_counted_by_their_original_sides(tmp_path: Path) -> None:
    survey, catalog = make_survey(tmp_path, resize=16)
    Image.fromarray(pixels_of(5, side=31)).save(survey.images / "g5.png")
    stored = folder.build_folder_survey(survey, catalog, tmp_path / "images.npy")
    assert (stored.original_side, stored.n_original_sides) == (20, 2)


@pytest.mark.skipif(not SDSS.is_dir(), reason="the SDSS metallicity sample is not beside the checkout")
def test_the_sdss_sample_becomes_a_survey(tmp_path: Path) -> None:
    survey = FolderSurvey(catalog=SDSS / "galaxies.csv", images=SDSS / "images", id_column="objID")
    catalog = read_catalog(survey.catalog, survey.id_column)
    kept, bad = build_folder_survey(survey, catalog, tmp_path / "images.npy")
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert images.shape == (400, 128, 128, 3)
    assert len(bad) == 0
    for i in (0, 257, 399):
        path = survey.images / f"{kept['id_str'].iloc[i]}.jpg"
        np.testing.assert_array_equal(images[i], read_image(path, fits_stretch=1.0, fits_q=1.0))
