"""Tables of embeddings: every format gives the same rows, joined by id; what is broken is refused and named."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather
from safetensors.torch import save_file

from sfnetlab.errors import DataError
from sfnetlab.methods.external import External
from sfnetlab.surveys import embedding_files
from sfnetlab.surveys.embeddings import fingerprint
from sfnetlab.surveys.tables import (
    EmbeddingTable,
    common_galaxies,
    join_by_id,
    open_embeddings,
    read_into,
    require_every,
)

N, D = 23, 4
IDS = [f"g{i}" for i in range(N)]
VALUES = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_files, "BLOCK_ROWS", 5)


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The dataset someone/embeddings is the folder hub; nothing is fetched, and the cache is the test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    load = datasets.load_dataset_builder

    def load_local(dataset: str, config: str | None, revision: str) -> datasets.DatasetBuilder:
        return load(str(tmp_path / "hub") if dataset == "someone/embeddings" else dataset, config)

    monkeypatch.setattr(datasets, "load_dataset_builder", load_local)


def external(path: Path, *columns: str, **settings: Any) -> External:
    return External(name="mae", path=path, columns=columns, **settings)


def read(settings: External, ids: list[str] = IDS) -> np.ndarray:
    table = open_embeddings(settings)
    wanted = pd.Series(ids)
    joined = require_every(settings, table, wanted)
    out = np.full((len(ids), len(table.columns)), np.nan, dtype=np.float32)
    read_into(table, joined, out)
    return out


def write_parquet(path: Path, ids: list[Any] = IDS, values: Any = VALUES, row_group_size: int = 7) -> Path:
    table = pa.table({"id_str": ids, "smooth": np.arange(len(ids)), "pooled": list(values)})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def as_list_column(folder: Path) -> External:
    return external(write_parquet(folder / "t.parquet"), "pooled")


def as_fixed_size_lists(folder: Path) -> External:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(VALUES.ravel()), D)
    pq.write_table(pa.table({"id_str": IDS, "pooled": lists}), folder / "t.parquet")
    return external(folder / "t.parquet", "pooled")


def as_numeric_columns(folder: Path) -> External:
    frame = pd.DataFrame(VALUES.astype(np.float64), columns=[f"feat_pca_{i}" for i in range(D)])
    frame.assign(id_str=pd.Categorical(IDS), ra=1.0).to_parquet(folder / "t.parquet")
    return external(folder / "t.parquet", "feat_pca_*")


def as_parquet_folder(folder: Path) -> External:
    (folder / "parts").mkdir()
    for i, rows in enumerate((slice(0, 11), slice(11, N))):
        write_parquet(folder / f"parts/{i}.parquet", IDS[rows], VALUES[rows])
    return external(folder / "parts", "pooled")


def as_npy_with_text_ids(folder: Path) -> External:
    np.save(folder / "t.npy", VALUES)
    (folder / "ids.txt").write_text("\n".join(IDS) + "\n")
    return external(folder / "t.npy", ids=folder / "ids.txt")


def as_npy_with_csv_ids(folder: Path) -> External:
    np.save(folder / "t.npy", VALUES.astype(np.float64))
    pd.DataFrame({"objID": IDS}).to_csv(folder / "ids.csv")
    return external(folder / "t.npy", ids=folder / "ids.csv", id_column="objID")


def as_npy_with_npy_ids(folder: Path) -> External:
    np.save(folder / "t.npy", np.asfortranarray(VALUES))
    np.save(folder / "ids.npy", np.array(IDS, dtype="S"))
    return external(folder / "t.npy", ids=folder / "ids.npy")


def as_hdf5_matrix(folder: Path) -> External:
    with h5py.File(folder / "t.h5", "w") as file:
        file["deep/representations"] = VALUES
        file["id_str"] = IDS
    return external(folder / "t.h5", "deep/representations")


def as_hdf5_columns(folder: Path) -> External:
    with h5py.File(folder / "t.hdf5", "w") as file:
        file["ids"] = np.array(IDS, dtype="S")
        for i in range(D):
            file[f"f{i}"] = VALUES[:, i]
    return external(folder / "t.hdf5", "f*", id_column="ids")


def as_saved_dataset(folder: Path) -> External:
    made = datasets.Dataset.from_dict({"id_str": IDS, "pooled": VALUES.tolist()})
    made.cast_column("pooled", datasets.List(datasets.Value("float32"))).save_to_disk(folder / "saved")
    return external(folder / "saved", "pooled")


def as_splits_of_a_saved_dataset(folder: Path) -> External:
    whole = datasets.Dataset.from_dict({"id_str": IDS[::-1], "pooled": VALUES[::-1].tolist()})
    splits = {"train": whole.select(range(9, N)), "test": whole.select(range(9)), "other": whole.select([0])}
    datasets.DatasetDict(splits).save_to_disk(folder / "saved")
    return external(folder / "saved", "pooled", splits=("test", "train"))


def as_hub_dataset(folder: Path) -> External:
    (folder / "hub").mkdir()
    write_parquet(folder / "hub/train.parquet")
    return External(name="mae", dataset="someone/embeddings", columns=("pooled",))


def as_npz_with_ids(folder: Path) -> External:
    np.savez_compressed(folder / "t.npz", ids=np.array(IDS), embeddings=VALUES)
    return external(folder / "t.npz")


def as_one_array_of_npz(folder: Path) -> External:
    np.savez(folder / "t.npz", VALUES)
    pd.DataFrame({"id_str": IDS}).to_parquet(folder / "ids.parquet")
    return external(folder / "t.npz", ids=folder / "ids.parquet")


def as_named_array_of_npz(folder: Path) -> External:
    np.savez(folder / "t.npz", objID=np.array(IDS), deep=VALUES, shallow=VALUES[:, :2], labels=np.arange(N))
    return external(folder / "t.npz", "deep", id_column="objID")


def as_tensor(folder: Path) -> External:
    torch.save(torch.nn.Parameter(torch.tensor(VALUES)), folder / "t.pt")
    (folder / "ids.csv").write_text("# ours\nid_str;z\n" + "".join(f"{each};0,5\n" for each in IDS))
    return external(folder / "t.pt", ids=folder / "ids.csv")


def as_tensor_and_ids(folder: Path) -> External:
    torch.save({"ids": IDS, "embeddings": torch.tensor(VALUES)}, folder / "t.pth")
    return external(folder / "t.pth")


def as_tensors_by_id(folder: Path) -> External:
    torch.save(dict(zip(IDS, torch.tensor(VALUES), strict=True)), folder / "t.pt")
    return external(folder / "t.pt")


def as_tensor_of_old_torch(folder: Path) -> External:
    torch.save({"id_str": IDS, "z": torch.tensor(VALUES)}, folder / "t.pt", _use_new_zipfile_serialization=False)
    return external(folder / "t.pt", "z")


def as_safetensors(folder: Path) -> External:
    save_file({"embeddings": torch.tensor(VALUES)}, folder / "t.safetensors")
    (folder / "ids.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(IDS).encode())
    return external(folder / "t.safetensors", ids=folder / "ids.txt")


def as_csv(folder: Path) -> External:
    pd.DataFrame(VALUES, columns=[f"f{i}" for i in range(D)]).assign(id_str=IDS, ra=1.5).to_csv(folder / "t.csv.gz")
    return external(folder / "t.csv.gz", "f*")


def as_fits_vector(folder: Path) -> External:
    Table({"id_str": IDS, "deep": VALUES.astype(np.float64), "ra": np.ones(N)}).write(folder / "t.fits")
    return external(folder / "t.fits", "deep")


def as_fits_columns(folder: Path) -> External:
    Table({"id_str": IDS} | {f"f{i}": VALUES[:, i] for i in range(D)}).write(folder / "t.fits")
    return external(folder / "t.fits", "f?")


def as_feather(folder: Path) -> External:
    table = pa.table({"id_str": IDS, "pooled": list(VALUES)})
    feather.write_feather(table, str(folder / "t.feather"))
    return external(folder / "t.feather", "pooled")


def as_hats_folder(folder: Path) -> External:
    place = folder / "hats" / "dataset" / "Norder=0" / "Dir=0" / "Npix=4"
    place.mkdir(parents=True)
    write_parquet(place / "part0.parquet")
    write_parquet(folder / "hats" / "dataset" / "data_thumbnail.parquet", IDS[:3], VALUES[:3])
    pq.write_metadata(pq.read_schema(place / "part0.parquet"), folder / "hats" / "dataset" / "_metadata")
    (folder / "hats" / "hats.properties").write_text("obs_collection=x\n")
    return external(folder / "hats", "pooled")


FORMS = [
    as_list_column, as_fixed_size_lists, as_numeric_columns, as_parquet_folder, as_npy_with_text_ids,
    as_npy_with_csv_ids, as_npy_with_npy_ids, as_hdf5_matrix, as_hdf5_columns, as_saved_dataset,
    as_splits_of_a_saved_dataset, as_hub_dataset, as_npz_with_ids, as_one_array_of_npz, as_named_array_of_npz,
    as_tensor, as_tensor_and_ids, as_tensors_by_id, as_tensor_of_old_torch, as_safetensors, as_csv, as_fits_vector,
    as_fits_columns, as_feather, as_hats_folder,
]  # fmt: skip


@pytest.mark.parametrize("write", FORMS)
def test_every_form_gives_the_rows_of_their_ids(write, tmp_path):
    order = np.random.default_rng(2).permutation(N)[:15]
    found = read(write(tmp_path), [IDS[i] for i in order])
    np.testing.assert_array_equal(found, VALUES[order])


@pytest.mark.parametrize("write", [form for form in FORMS if form is not as_hub_dataset])
def test_a_fingerprint_follows_the_content_not_the_place(write, tmp_path):
    prints = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        prints.append(fingerprint(write(tmp_path / place)))
    if write not in (as_saved_dataset, as_splits_of_a_saved_dataset, as_tensor_of_old_torch):  # these write random keys
        assert prints[0] == prints[1]
    assert all(len(value) == 64 for value in prints[0].values())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8"])
def test_numbers_of_any_width_become_float32(dtype, tmp_path):
    values = np.arange(N * D).reshape(N, D).astype(dtype)
    np.save(tmp_path / "t.npy", values)
    np.save(tmp_path / "ids.npy", np.array(IDS))
    found = read(external(tmp_path / "t.npy", ids=tmp_path / "ids.npy"))
    np.testing.assert_array_equal(found, values.astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int32])
def test_tensors_of_any_width_become_float32(dtype, tmp_path):
    values = torch.arange(N * D).reshape(N, D).to(dtype)
    torch.save({"ids": torch.arange(N), "embeddings": values}, tmp_path / "t.pt")
    save_file({"embeddings": values, "ids": torch.arange(N)}, tmp_path / "t.safetensors")
    for name in ("t.pt", "t.safetensors"):
        found = read(external(tmp_path / name), [str(i) for i in range(N)])
        np.testing.assert_array_equal(found, values.float().numpy())


def test_integers_are_ids_too(tmp_path):
    ids = [1237648720000000000 + i for i in range(N)]
    np.testing.assert_array_equal(
        read(external(write_parquet(tmp_path / "t.parquet", ids), "pooled"), list(map(str, ids))), VALUES
    )


@given(order=st.permutations(range(N)), n=st.integers(1, N))
def test_a_join_places_each_row_by_its_id(order, n):
    ids = pd.Series([IDS[i] for i in order])
    table = EmbeddingTable("t", ids, ("a",), lambda: iter(()))
    joined = join_by_id(table, pd.Series(IDS[:n]))
    assert [IDS[place] for place in joined.place if place >= 0] == [each for each in ids if each in IDS[:n]]
    assert joined.counts == {"n_both": n, "n_only_in_table": N - n, "n_only_in_catalog": 0}


# --- ids --------------------------------------------------------------------------------------------------------------


def test_minus_and_neg_meet_by_the_named_repair(tmp_path):
    catalog = [f"10201_-{i}" for i in range(N)]
    path = write_parquet(tmp_path / "t.parquet", [each.replace("-", "NEG") for each in catalog])
    np.testing.assert_array_equal(read(external(path, "pooled", id_repair="neg_to_minus"), catalog), VALUES)
    with pytest.raises(DataError, match=f'with id_repair = "neg_to_minus", {N} would be in both'):
        read(external(path, "pooled"), catalog)


def test_minus_to_neg_is_the_reverse(tmp_path):
    catalog = [f"10201_NEG{i}" for i in range(N)]
    path = write_parquet(tmp_path / "t.parquet", [each.replace("NEG", "-") for each in catalog])
    np.testing.assert_array_equal(read(external(path, "pooled", id_repair="minus_to_neg"), catalog), VALUES)


def test_ids_that_a_repair_makes_alike_are_refused(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", ["a-1", "aNEG1"], VALUES[:2])
    with pytest.raises(DataError, match="1 ids occur more than once, 1 rows too many: a-1"):
        open_embeddings(external(path, "pooled", id_repair="neg_to_minus"))


def test_repeated_ids_are_refused(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", [*IDS[:-2], "g0", "g0"])
    with pytest.raises(DataError, match="1 ids occur more than once, 2 rows too many: g0; keep one row a galaxy"):
        open_embeddings(external(path, "pooled"))


def test_ids_that_went_through_floats_are_refused(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", [1.2376e18 + i for i in range(N)])
    with pytest.raises(DataError, match="ids are floats"):
        open_embeddings(external(path, "pooled"))


def test_missing_galaxies_are_counted_and_named(tmp_path):
    settings = as_list_column(tmp_path)
    with pytest.raises(
        DataError, match="2 of 3 galaxies of the survey have no row in it: x, y; 1 are in both, 22 only"
    ):
        read(settings, ["x", "g3", "y"])


def test_common_galaxies_are_those_of_every_table(tmp_path):
    first = external(write_parquet(tmp_path / "a.parquet", IDS[:9], VALUES[:9]), "pooled")
    second = External(
        name="other", path=write_parquet(tmp_path / "b.parquet", IDS[4:], VALUES[4:]), columns=("pooled",)
    )
    kept, dropped = common_galaxies(pd.DataFrame({"id_str": IDS[2:12]}), [first, second])
    assert kept["id_str"].tolist() == IDS[4:9]
    assert dict(zip(dropped["id_str"], dropped["features"], strict=True)) == {
        **dict.fromkeys(IDS[9:12], "mae"),
        **dict.fromkeys(IDS[2:4], "other"),
    }
    with pytest.raises(DataError, match=r"no galaxy of the catalogue \(x\) is in it \(g0, "):
        common_galaxies(pd.DataFrame({"id_str": ["x"]}), [first])


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_values_that_are_no_float32_are_refused_with_their_galaxies(bad, tmp_path):
    values = VALUES.astype(np.float64)
    values[3, 1] = values[17, :] = bad
    path = write_parquet(tmp_path / "t.parquet", values=values)
    with pytest.raises(DataError, match=f"{1 + D} values of 2 galaxies are missing, NaN, infinite .*: g3, g17;"):
        read(external(path, "pooled"))


def test_bad_values_of_galaxies_that_are_not_asked_for_do_not_matter(tmp_path):
    values = VALUES.copy()
    values[3] = np.nan
    path = write_parquet(tmp_path / "t.parquet", values=values)
    np.testing.assert_array_equal(read(external(path, "pooled"), IDS[4:]), VALUES[4:])


@pytest.mark.parametrize("odd", [None, [1.0], [1.0] * (D + 1), [1.0, None, 1.0, 1.0]])
def test_absent_short_and_long_lists_are_missing_values(odd, tmp_path):
    lists = [*VALUES.tolist()[:-2], odd, VALUES.tolist()[-1]]
    pq.write_table(pa.table({"id_str": IDS, "pooled": lists}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"values of 1 galaxies are missing, .*: g21;"):
        read(external(tmp_path / "t.parquet", "pooled"))


# --- files ------------------------------------------------------------------------------------------------------------


def problem_of(settings: External) -> str:
    with pytest.raises(DataError) as caught:
        read(settings)
    return str(caught.value)


def test_unknown_columns_are_named_with_the_nearest(tmp_path):
    path = write_parquet(tmp_path / "t.parquet")
    assert "no column 'poled'; did you mean 'pooled'?" in problem_of(external(path, "poled"))
    assert "no id column 'id'; it has id_str, smooth, pooled" in problem_of(external(path, "pooled", id_column="id"))


def test_columns_are_one_of_lists_or_numbers(tmp_path):
    path = write_parquet(tmp_path / "t.parquet")
    assert "one column of lists of numbers, or numeric columns; found smooth (int64), pooled" in problem_of(
        external(path, "pooled", "smooth")
    )


def test_damaged_and_missing_files_are_named(tmp_path):
    whole = write_parquet(tmp_path / "t.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    assert "cut.parquet: cannot be read" in problem_of(external(tmp_path / "cut.parquet", "pooled"))
    assert "no such embeddings file" in problem_of(external(tmp_path / "none.parquet", "pooled"))
    (tmp_path / "t.pkl").write_bytes(b"\x80\x05")
    assert "is a pickle" in problem_of(external(tmp_path / "t.pkl", "pooled"))
    (tmp_path / "empty").mkdir()
    assert "no .parquet files in this folder" in problem_of(external(tmp_path / "empty", "pooled"))
    with pytest.raises(DataError, match=r"none\.parquet: no readable file \(features 'mae': path\)"):
        fingerprint(external(tmp_path / "none.parquet", "pooled"))


def test_a_damaged_row_group_is_an_error_of_the_file(tmp_path):
    path = write_parquet(tmp_path / "t.parquet")
    column = pq.ParquetFile(path).metadata.row_group(1).column(2)
    whole = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    whole[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(whole)
    assert "t.parquet: cannot be read" in problem_of(external(path, "pooled"))


def test_rows_and_ids_must_be_as_many(tmp_path):
    np.save(tmp_path / "t.npy", VALUES)
    np.save(tmp_path / "ids.npy", np.array(IDS[:-1]))
    settings = external(tmp_path / "t.npy", ids=tmp_path / "ids.npy")
    assert f"{N} rows, but {tmp_path / 'ids.npy'} has {N - 1} ids" in problem_of(settings)


def test_pickled_ids_are_never_loaded(tmp_path):
    np.save(tmp_path / "t.npy", VALUES)
    np.save(tmp_path / "ids.npy", np.array(IDS, dtype=object))
    assert "allow_pickle=False" in problem_of(external(tmp_path / "t.npy", ids=tmp_path / "ids.npy"))


def test_pickled_tensors_are_refused_with_how_to_save_them(tmp_path):
    torch.save({"ids": IDS, "embeddings": VALUES, "made_by": Path("x")}, tmp_path / "t.pt")
    assert 'save tensors and text alone: torch.save({"ids": list_of_text' in problem_of(external(tmp_path / "t.pt"))


def test_of_several_arrays_one_must_be_named(tmp_path):
    np.savez(tmp_path / "t.npz", ids=np.array(IDS), deep=VALUES, shallow=VALUES[:, :2])
    problem = problem_of(external(tmp_path / "t.npz"))
    assert "found deep (23, 4), shallow (23, 2); choose by columns" in problem


def test_an_array_without_ids_says_where_to_put_them(tmp_path):
    np.savez(tmp_path / "t.npz", deep=VALUES)
    assert "no array of ids, neither 'id_str' nor 'ids', among deep; save them" in problem_of(
        external(tmp_path / "t.npz")
    )


@pytest.mark.parametrize("name", ["t.pt", "t.safetensors", "t.npz", "t.npy", "t.h5", "t.fits", "t.parquet", "t.csv"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!doctype html><p>Log in", "a web page"),
        (b"\x07\x08\x09damaged" * 300, "cannot be read"),
    ],
)
def test_what_is_no_file_of_embeddings_is_named(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "ids.txt").write_text("\n".join(IDS))
    ids = {"ids": tmp_path / "ids.txt"} if name in ("t.npy", "t.npz", "t.pt", "t.safetensors") else {}
    columns = () if ids else ("pooled",)
    assert message in problem_of(external(tmp_path / name, *columns, **ids))


def test_links_in_a_circle_and_folders_are_no_files_of_embeddings(tmp_path):
    (tmp_path / "loop.npz").symlink_to(tmp_path / "loop.npz")
    assert "a link that leads in a circle" in problem_of(external(tmp_path / "loop.npz"))
    (tmp_path / "ids.txt").mkdir()
    np.savez(tmp_path / "t.npz", VALUES)
    assert "ids.txt: no such ids file: it is a folder" in problem_of(
        external(tmp_path / "t.npz", ids=tmp_path / "ids.txt")
    )


def test_unknown_splits_are_named(tmp_path):
    as_splits_of_a_saved_dataset(tmp_path)
    assert "no split valid; it has train, test, other" in problem_of(
        external(tmp_path / "saved", "pooled", splits=("valid",))
    )


def test_a_hub_dataset_that_cannot_be_had_says_what_to_do(tmp_path):
    settings = External(name="mae", dataset="someone/else", columns=("pooled",))
    assert "save_to_disk, and give that folder as path" in problem_of(settings)


def test_another_commit_in_the_cache_is_not_the_one_asked_for(tmp_path):
    settings = replace(as_hub_dataset(tmp_path), revision="0" * 40)
    assert f"not the revision {'0' * 40}" in problem_of(settings)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "path or dataset must be given"),
        ({"path": Path("a.npy")}, "ids must name the file of ids"),
        ({"path": Path("a.npy"), "ids": Path("i"), "columns": ("a",)}, "columns are for tables"),
        ({"dataset": "/data/mae", "columns": ("a",)}, "dataset must be an id such as"),
        ({"path": Path("a.parquet")}, "columns must name at least one"),
        ({"path": Path("a.parquet"), "columns": ("a",), "config": "x"}, "config and revision are for"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        External(name="mae", **settings)
