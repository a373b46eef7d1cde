"""Hub survey: datasets as people save them; ids to the letter, bad images errors or on record."""

import io
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sfnetlab.errors import DataError
from sfnetlab.surveys import store as store_module
from sfnetlab.surveys.hub import HubSurvey, build_hub_survey

ID = 1237648704043942146  # a float would make it ...942208


@pytest.fixture(autouse=True)
def without_bars() -> None:
    datasets.disable_progress_bars()


def pixels_of(i: int, side: int = 20) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def rows(numbers: range) -> dict[str, list[Any]]:
    return {
        "id_str": [str(ID + i) for i in numbers],
        "image": [{"bytes": encoded(pixels_of(i)), "path": None} for i in numbers],
        "number": list(numbers),
        "bar-gz2_yes": [3 * i for i in numbers],
        "bar-gz2_no": list(numbers),
        "spectrum": [[0.1, 0.2]] * len(numbers),
    }


def dataset(content: dict[str, list[Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(content).cast_column("image", datasets.Image())


def saved(tmp_path: Path, form: str, splits: dict[str, dict[str, list[Any]]]) -> Path:
    """The dataset as save_to_disk or parquet files leave it."""
    folder = tmp_path / "dataset"
    if form == "save_to_disk":
        datasets.DatasetDict({name: dataset(content) for name, content in splits.items()}).save_to_disk(folder)
    else:
        folder.mkdir()
        for name, content in splits.items():
            dataset(content).to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return folder


def store(tmp_path: Path, folder: Path, **settings: Any) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    catalog, stored, source = build_hub_survey(HubSurvey(directory=folder, **settings), tmp_path / "images.npy")
    return stored.kept(catalog), stored.bad(), source


def assert_images_match(path: Path, kept: pd.DataFrame) -> None:
    images = np.load(path, mmap_mode="r")
    assert images.shape == (len(kept), 20, 20, 3)
    for image, number in zip(images, kept["number"], strict=True):
        np.testing.assert_array_equal(image, pixels_of(number))


@pytest.mark.parametrize("form", ["save_to_disk", "parquet"])
@pytest.mark.parametrize("chunk", [5, 256])
def test_every_row_of_every_split_gets_its_own_image(
    tmp_path: Path, form: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CHUNK", chunk)
    folder = saved(tmp_path, form, {"train": rows(range(12)), "test": rows(range(12, 16))})
    kept, bad, source = store(tmp_path, folder)
    assert kept["id_str"].tolist() == [str(ID + i) for i in range(16)]
    assert kept["dataset_split"].tolist() == ["train"] * 12 + ["test"] * 4
    assert_images_match(tmp_path / "images.npy", kept)
    assert len(bad) == 0
    assert {name: split["n_rows"] for name, split in source["splits"].items()} == {"train": 12, "test": 4}


def test_a_single_dataset_saved_to_disk_is_one_split(tmp_path: Path) -> None:
    dataset(rows(range(4))).save_to_disk(tmp_path / "dataset")
    kept, _, source = store(tmp_path, tmp_path / "dataset")
    assert len(kept) == 4
    assert list(source["splits"]) == ["all"]


def test_chosen_splits_are_read_in_their_order(tmp_path: Path) -> None:
    folder = saved(
        tmp_path, "save_to_disk", {name: rows(range(n, n + 2)) for n, name in ((0, "a"), (2, "b"), (4, "c"))}
    )
    kept, _, _ = store(tmp_path, folder, splits=("c", "a"))
    assert kept["number"].tolist() == [4, 5, 0, 1]


def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    folder = saved(tmp_path, "parquet", {"train": rows(range(2))})
    with pytest.raises(DataError, match=r"no split valid \(survey.splits\), expected of train"):
        store(tmp_path, folder, splits=("valid",))


def test_the_catalogue_has_labels_and_vote_fractions_but_no_lists(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept, _, _ = store(tmp_path, saved(tmp_path, "parquet", {"train": rows(range(3))}))
    assert kept.columns.tolist() == [
        *("id_str", "dataset_split", "number", "bar-gz2_yes", "bar-gz2_no"),
        *("bar-gz2_yes_fraction", "bar-gz2_no_fraction"),
    ]
    np.testing.assert_array_equal(kept["bar-gz2_yes_fraction"], [np.nan, 0.75, 0.75])
    assert "left out columns that cannot be kept: spectrum (list<" in caplog.text


@pytest.mark.parametrize("form", ["save_to_disk", "parquet"])
@pytest.mark.parametrize("empty", [False, True])
def test_integer_ids_stay_exact(tmp_path: Path, form: str, empty: bool) -> None:
    content = rows(range(3)) | {"id_str": [ID, ID + 1, None if empty else ID + 2]}
    folder = saved(tmp_path, form, {"train": content})
    if empty:
        with pytest.raises(DataError, match="split train: column 'id_str': 1 of 3 ids are empty"):
            store(tmp_path, folder)
    else:
        assert store(tmp_path, folder)[0]["id_str"].tolist() == [str(ID + i) for i in range(3)]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.0, 2.0, 3.0], r"ids are floats .*64-bit"),
        (["1.23765e+18", "2", "3"], r"1 ids are written as floats: 1.23765e\+18"),
        (["1", "1", "2"], "1 ids occur more than once, 1 rows too many: 1"),
        (["1", "../2", "3"], "1 ids cannot be file names"),
    ],
)
def test_ids_that_do_not_name_galaxies_are_refused(tmp_path: Path, ids: list[Any], message: str) -> None:
    folder = saved(tmp_path, "parquet", {"train": rows(range(3)) | {"id_str": ids}})
    with pytest.raises(DataError, match=rf"split train: column 'id_str': {message}"):
        store(tmp_path, folder)
    assert not (tmp_path / "images.npy").exists()


@pytest.mark.parametrize("chunk", [2, 256])
def test_an_id_in_two_splits_is_refused(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CHUNK", chunk)
    folder = saved(tmp_path, "save_to_disk", {"train": rows(range(3)), "test": rows(range(2, 5))})
    with pytest.raises(DataError, match=rf"split test: .* id {ID + 2} was already in split train; .*survey.splits"):
        store(tmp_path, folder)
    assert not (tmp_path / "images.npy").exists()
    assert len(store(tmp_path, folder, splits=("test",))[0]) == 3


@pytest.mark.parametrize("missing", ["id_str", "image"])
def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, missing: str) -> None:
    folder = tmp_path / "dataset"
    dataset(rows(range(2))).rename_column(missing, "other").save_to_disk(folder)
    with pytest.raises(DataError, match=rf"no column '{missing}', only \[.*'other'"):
        store(tmp_path, folder)


@pytest.mark.parametrize("taken", ["id_str", "split", "dataset_split"])
def test_a_column_that_is_called_like_one_of_ours_is_refused(tmp_path: Path, taken: str) -> None:
    content = rows(range(2))
    content["objid"] = content.pop("id_str")
    folder = saved(tmp_path, "parquet", {"train": content | {taken: ["a", "b"]}})
    with pytest.raises(DataError, match=f"has a column '{taken}', a name that is taken"):
        store(tmp_path, folder, id_column="objid")


def damaged(folder_of: Path, form: str) -> tuple[Path, dict[str, str]]:
    """A dataset with six bad images; what each reason must say."""
    content = rows(range(12))
    whole = encoded(pixels_of(1), "JPEG")
    bad = {
        1: (whole[: len(whole) // 2], "cannot be decoded"),
        2: (b"<html>404</html>", "b'<html>404</h"),
        3: (b"", "0 bytes"),
        4: (encoded(pixels_of(4, side=31)), "expected 20×20 pixels, found 31×31"),
        5: (encoded(pixels_of(5)[:18]), "20×18 pixels: not square"),
        6: (None, "missing"),
    }
    for i, (content_of_image, _) in bad.items():
        content["image"][i] = None if content_of_image is None else {"bytes": content_of_image, "path": None}
    return saved(folder_of, form, {"train": content}), {str(ID + i): reason for i, (_, reason) in bad.items()}


@pytest.mark.parametrize("form", ["save_to_disk", "parquet"])
def test_drop_leaves_out_bad_images_on_record_and_shifts_nothing(tmp_path: Path, form: str) -> None:
    folder, expected = damaged(tmp_path, form)
    kept, bad, _ = store(tmp_path, folder, on_bad_image="drop")
    assert bad["id_str"].tolist() == list(expected)
    for id_str, reason in zip(bad["id_str"], bad["reason"], strict=True):
        assert expected[id_str] in reason
    assert kept["number"].tolist() == [0, 7, 8, 9, 10, 11]
    assert_images_match(tmp_path / "images.npy", kept)


def test_error_lists_bad_images_at_once_and_says_how_to_drop_them(tmp_path: Path) -> None:
    folder, expected = damaged(tmp_path, "parquet")
    with pytest.raises(DataError, match="6 of 12 images 'image' cannot be used") as caught:
        store(tmp_path, folder)
    message = str(caught.value)
    for id_str, reason in expected.items():
        assert any(line.startswith(f"  {id_str}: ") and reason in line for line in message.splitlines())
    assert 'survey.on_bad_image = "drop"' in message
    assert not (tmp_path / "images.npy").exists()


def test_a_column_without_images_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "save_to_disk", {"train": rows(range(3))})
    with pytest.raises(DataError, match=r"3 of 3 images(.|\n)*holds no image but int(.|\n)*check survey.image_column"):
        store(tmp_path, folder, image_column="number", on_bad_image="drop")


def test_images_that_a_dataset_refers_to_by_path_are_read(tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(encoded(pixels_of(i)))
    references = [{"bytes": None, "path": str(tmp_path / f"{i}.png")} for i in range(3)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    (tmp_path / "dataset").mkdir()
    pq.write_table(
        pa.table({"id_str": ["0", "1", "2"], "number": [0, 1, 2], "image": pa.array(references, kind)}),
        tmp_path / "dataset/train.parquet",
    )
    kept, bad, _ = store(tmp_path, tmp_path / "dataset", on_bad_image="drop")
    assert_images_match(tmp_path / "images.npy", kept)
    assert bad["reason"].tolist() == [f"missing, the dataset refers to {tmp_path / '2.png'}"]


def test_mixed_sizes_come_to_one_by_resizing(tmp_path: Path) -> None:
    content = rows(range(3))
    content["image"][1] = {"bytes": encoded(pixels_of(1, side=31)), "path": None}
    folder = saved(tmp_path, "parquet", {"train": content})
    _, stored, _ = build_hub_survey(HubSurvey(directory=folder, resize=24, crop=18), tmp_path / "images.npy")
    assert np.load(tmp_path / "images.npy").shape == (3, 18, 18, 3)
    assert (stored.original_side, stored.n_original_sides) == (20, 2)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected a folder of save_to_disk or of parquet files; the folder holds nothing"),
        ({"galaxies.csv": b"id_str\n1\n"}, "the folder holds galaxies.csv"),
        ({"train.parquet": b"PAR1 garbage PAR1"}, "cannot be read: "),
        ({"dataset_dict.json": b"{"}, "cannot be read: "),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        store(tmp_path, folder)
    assert str(caught.value).startswith(f"{folder}: ")


def test_a_dataset_without_rows_is_refused(tmp_path: Path) -> None:
    kinds = pa.schema({"id_str": pa.string(), "image": pa.struct({"bytes": pa.binary(), "path": pa.string()})})
    (tmp_path / "dataset").mkdir()
    pq.write_table(kinds.empty_table(), tmp_path / "dataset/train.parquet")
    with pytest.raises(DataError, match="there are no rows"):
        store(tmp_path, tmp_path / "dataset")


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "parquet", {"train": rows(range(40))})
    path = next(folder.iterdir())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read: "):
        store(tmp_path, folder)


def test_a_black_image_is_bad_like_one_that_cannot_be_read(tmp_path: Path) -> None:
    content = rows(range(4))
    content["image"][2] = {"bytes": encoded(np.zeros((20, 20, 3), np.uint8)), "path": None}
    folder = saved(tmp_path, "parquet", {"train": content})
    with pytest.raises(DataError, match=f"{ID + 2}: an image of one colour"):
        store(tmp_path, folder)
    kept, bad, _ = store(tmp_path, folder, on_bad_image="drop")
    assert bad["id_str"].tolist() == [str(ID + 2)]
    assert_images_match(tmp_path / "images.npy", kept)


def test_without_a_way_to_the_hub_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    survey = HubSurvey(dataset="mwalmsley/gz2")
    with pytest.raises(DataError, match=r"hub dataset mwalmsley/gz2: the hub cannot be reached .*survey.directory"):
        build_hub_survey(survey, tmp_path / "images.npy")


def test_the_fingerprint_of_a_hub_dataset_is_its_revision() -> None:
    assert HubSurvey(dataset="mwalmsley/gz2", revision="abc").fingerprint() == {"revision": "abc"}


@pytest.mark.parametrize(
    ("change", "is_another"), [("touch", False), ("add", True), ("change", True), ("cache", False), ("read", False)]
)
def test_the_fingerprint_of_a_folder_changes_with_its_files(tmp_path: Path, change: str, is_another: bool) -> None:
    folder = saved(tmp_path, "save_to_disk", {"train": rows(range(2))})
    before = HubSurvey(directory=folder).fingerprint()
    match change:
        case "touch":
            os.utime(folder / "train/dataset_info.json", ns=(0, 1))
        case "change":
            (folder / "train/dataset_info.json").write_text("{}")
        case "add":
            (folder / "train/more.arrow").touch()
        case "cache":
            (folder / "train/cache-1234.arrow").touch()
        case _:
            store(tmp_path, folder)
    assert (HubSurvey(directory=folder).fingerprint() != before) == is_another


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none: no such folder \(survey.directory\)"):
        HubSurvey(directory=tmp_path / "none").fingerprint()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "dataset or directory must be given"),
        ({"dataset": "a/b", "directory": Path("c")}, "and not both"),
        ({"dataset": "./folder"}, "dataset must be an id"),
        ({"dataset": "a/b/c"}, "dataset must be an id"),
        ({"directory": Path("a"), "streaming": True}, "streaming are for a dataset's id"),
        ({"directory": Path("a"), "splits": ("train", "train")}, "splits repeat a name"),
        ({"directory": Path("a"), "image_column": "id_str"}, "are both 'id_str'"),
        ({"directory": Path("a"), "min_asked": 50.0}, r"min_asked must lie in \[0, 1\]"),
        ({"directory": Path("a"), "crop": 8}, "crop must be at least 16"),
        ({"directory": Path("a"), "pixel_scale_arcsec": 0.0}, "pixel_scale_arcsec must be positive"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HubSurvey(**settings)
