"""A survey that is a dataset with a column of images, on the Hugging Face hub or in a local folder.

Its other columns are read first, then its images, of which only those that are being decoded are in memory.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from sfnetlab.errors import DataError
from sfnetlab.settings import CatalogColumns, is_plain_name, require, require_scale, require_sizes
from sfnetlab.surveys.fingerprints import hash_of
from sfnetlab.surveys.messages import first_few
from sfnetlab.surveys.protocol import Accept, SurveyKind, as_it_is

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from datasets import Dataset, DatasetBuilder

    from sfnetlab.jobs import Metrics
    from sfnetlab.surveys.store import Chunk, Cutout, Stored

SPLIT_COLUMN = "dataset_split"
_PIECEWISE: dict[str, Any] = {"buffer_size": 2**22, "pre_buffer": False}
"""Options for opening parquet files piece by piece. Without them whole row groups, often whole files, are in memory."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HubSurvey(CatalogColumns):
    """A dataset with a column of images and one of ids, from the Hugging Face hub or a local folder."""

    has_images: ClassVar[bool] = True
    is_real: ClassVar[bool] = True
    kind: Literal["hub"] = "hub"
    dataset: str | None = None
    """Its id on the hub, for example "mwalmsley/gz_euclid" or "mwalmsley/gz2"; this or `directory`."""
    directory: Path | None = None
    """A local folder: of Dataset.save_to_disk or DatasetDict.save_to_disk, or of parquet files."""
    config: str | None = None
    """Which of the dataset's configurations, where it has several, for example "tiny"."""
    revision: str = "main"
    """Commit, tag or branch on the hub. Only a commit stays what it is; the one that was read is in source.json."""
    splits: tuple[str, ...] = ()
    """The dataset's splits to take together, for example ["train"]; empty: all. [split] divides them anew."""
    id_column: str = "id_str"
    """Column of ids, text or integers, unique over the splits."""
    image_column: str = "image"
    """Column of cutouts: JPEG, PNG, TIFF, GIF or WebP."""
    streaming: bool = False
    """Read parquet files over the network without keeping them: for one pass, it saves the disk space."""
    min_asked: float = 0.5
    """Vote fractions of a question are NaN where fewer than this share of a galaxy's volunteers were asked it
    (surveys/votes.py; Galaxy Zoo: 0.5)."""
    pixel_scale_arcsec: float | None = None
    """Arcseconds a pixel of the original cutouts, if it is the same for all; scale bars need it."""
    resize: int | None = None
    """Resample every cutout to this side in pixels before cropping."""
    crop: int | None = None
    """Cut out the central square of this side in pixels."""
    on_bad_image: Literal["error", "drop"] = "error"
    """What a missing, truncated or unreadable cutout, or one of a single colour, means: stop, or leave the galaxy out
    and record its id."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require((self.dataset is None) != (self.directory is None), "dataset or directory must be given, and not both")
        if self.dataset is None:
            require(self.revision == "main" and not self.streaming, "revision and streaming are for a dataset's id")
        else:
            owner, _, name = self.dataset.rpartition("/")
            require(
                is_plain_name(name) and (not owner or is_plain_name(owner)),
                f'dataset must be an id such as "mwalmsley/gz2" (a folder is survey.directory), got {self.dataset!r}',
            )
        require(len(set(self.splits)) == len(self.splits), f"splits repeat a name: {list(self.splits)}")
        require(self.id_column != self.image_column, f"id_column and image_column are both {self.id_column!r}")
        require(0 <= self.min_asked <= 1, f"min_asked must lie in [0, 1], got {self.min_asked}")
        require_sizes(self.resize, self.crop)
        require_scale(self.pixel_scale_arcsec)

    def resolved(self) -> SurveyKind:
        """Return these settings."""
        return self

    def fingerprint(self) -> dict[str, str]:
        """Return the revision of a hub dataset, or a hash of the names and contents of a local folder's files.

        Raises
        ------
        DataError
            If the folder is missing or empty.
        """
        if self.directory is None:
            return {"revision": self.revision}
        if not self.directory.is_dir():
            raise DataError(f"{self.directory}: no such folder (survey.directory)")
        return {"files_sha256": hash_of(self.directory, "survey.directory")}

    def read(self, work: Path, accept: Accept = as_it_is) -> "tuple[pd.DataFrame, Metrics]":
        """Read the splits. `source.json` says what was read, `bad_images.csv` which rows were left out."""
        from sfnetlab.surveys.store import rows_with_cutouts

        catalog, stored, source = build_hub_survey(self, work / "images.npy", accept)
        (work / "source.json").write_text(json.dumps(source, indent=1) + "\n")
        return rows_with_cutouts(catalog, stored, work, self.pixel_scale_arcsec, self.resize)


class DatasetSplit(NamedTuple):
    """One split of a dataset."""

    name: str
    data: "Dataset | list[str]"
    """A table in memory-mapped Arrow files, or the places of parquet files to be streamed."""
    n_rows: int | None
    """None where it is not known before reading."""
    fingerprint: str | None
    """The fingerprint that `datasets` gives a table; None for parquet files."""


class OpenedDataset(NamedTuple):
    """The splits of a dataset that was opened but not read."""

    splits: list[DatasetSplit]
    commit: str | None
    """The commit of a dataset of the hub; None for a local folder."""


def build_hub_survey(
    survey: HubSurvey, images_path: Path, accept: Accept = as_it_is
) -> "tuple[pd.DataFrame, Stored, dict[str, Any]]":
    """Decode the images of all splits, in order, into `images_path`: a .npy of (n, side, side, 3) uint8.

    Sizes and bad images are treated as in a folder survey. The other columns are read first, and the images only once
    `accept` has taken the catalogue that these make.

    Returns
    -------
    catalog : DataFrame
        A row a galaxy, even if its image is bad: `id_str`, `dataset_split`, the dataset's columns as
        `columns.typed_columns` types them, and vote fractions (votes.py).
    stored : Stored
        Which galaxies have no usable image, and the sizes of the others.
    source : dict
        What was read, for `source.json`: the dataset, its commit, the rows of each split.

    Raises
    ------
    DataError
        If the dataset cannot be had or read, lacks a split or column, its ids are floats, empty, repeated over its
        splits or unsafe as file names, or images are bad (with "drop": if all are).
    """
    from sfnetlab.surveys.store import Source, write_store
    from sfnetlab.surveys.votes import with_vote_fractions

    where = _where(survey)
    opened = _open(survey, where)
    catalog = accept(with_vote_fractions(_read_catalog(survey, opened.splits, where), survey.min_asked))
    source = Source(where, f"images {survey.image_column!r}", lambda: "survey.image_column")
    with ThreadPoolExecutor() as pool:
        stored = write_store(
            images_path,
            _chunks(survey, opened.splits, catalog["id_str"], where, pool),
            survey.crop or survey.resize,
            source,
            survey.on_bad_image,
            len(catalog),
        )
    source_json = {
        "dataset": survey.dataset,
        "config": survey.config,
        "revision": survey.revision if survey.dataset else None,
        "commit": opened.commit,
        "splits": {
            split.name: {"n_rows": int((catalog[SPLIT_COLUMN] == split.name).sum()), "fingerprint": split.fingerprint}
            for split in opened.splits
        },
    } | survey.fingerprint()
    return catalog, stored, source_json


# --- opening ----------------------------------------------------------------------------------------------------------


def _where(survey: HubSurvey) -> str:
    return str(survey.directory) if survey.dataset is None else f"hub dataset {survey.dataset}"


def _open(survey: HubSurvey, where: str) -> OpenedDataset:
    with _as_data_errors(where):
        if survey.dataset is not None:
            opened = _open_hub(survey, survey.dataset, where)
        else:
            assert survey.directory is not None
            opened = _open_folder(survey, survey.directory, where)
    names = [split.name for split in opened.splits]
    unknown = [name for name in survey.splits if name not in names]
    if unknown:
        raise DataError(f"{where}: no split {', '.join(unknown)} (survey.splits), expected of {', '.join(names)}")
    chosen = survey.splits or tuple(names)
    by_name = dict(zip(names, opened.splits, strict=True))
    return opened._replace(splits=[by_name[name] for name in chosen])


def _open_folder(survey: HubSurvey, directory: Path, where: str) -> OpenedDataset:
    import datasets

    if (directory / "dataset_dict.json").is_file() or (directory / "state.json").is_file():
        if survey.config is not None:
            raise DataError(f"{where}: a folder of save_to_disk has no configurations, found config {survey.config!r}")
        return OpenedDataset(_arrow_splits(datasets.load_from_disk(str(directory))), None)
    if not any(directory.rglob("*.parquet")):
        raise DataError(
            f"{where}: expected a folder of save_to_disk or of parquet files; the folder holds "
            f"{', '.join(sorted(path.name for path in directory.iterdir())[:5]) or 'nothing'}"
        )
    with TemporaryDirectory() as cache:  # nothing is cached, but a lock file would be left in the user's cache
        builder = datasets.load_dataset_builder(str(directory.resolve()), survey.config, cache_dir=cache)
        return OpenedDataset(_parquet_splits(builder, where), None)


def _open_hub(survey: HubSurvey, dataset: str, where: str) -> OpenedDataset:
    import datasets

    try:
        builder = datasets.load_dataset_builder(dataset, survey.config, revision=survey.revision)
        commit = builder.hash
        if re.fullmatch(r"[0-9a-f]{40}", survey.revision) and commit != survey.revision:
            # Without a network, `datasets` takes whatever it has cached.
            raise DataError(
                f"{where}: the hub cannot be reached, and the cache holds {commit}, not {survey.revision}; {_OFFLINE}"
            )
        if survey.streaming:
            return OpenedDataset(_parquet_splits(builder, where), commit)
        builder.download_and_prepare()
        return OpenedDataset(_arrow_splits(builder.as_dataset()), commit)
    except ConnectionError as error:
        raise DataError(f"{where}: the hub cannot be reached ({error}); {_OFFLINE}") from error


_OFFLINE = (
    "on a machine with a network, fetch it with `hf download --repo-type dataset ID --local-dir DIR` and give DIR as "
    "survey.directory"
)


def _arrow_splits(loaded: Any) -> list[DatasetSplit]:
    import datasets

    if isinstance(loaded, datasets.Dataset):
        loaded = {str(loaded.split or "all"): loaded}
    return [DatasetSplit(str(name), data, len(data), data._fingerprint) for name, data in loaded.items()]


def _parquet_splits(builder: "DatasetBuilder", where: str) -> list[DatasetSplit]:
    files = builder.config.data_files
    if not files or not type(builder).__module__.endswith("parquet.parquet"):
        raise DataError(f"{where}: only parquet files can be read where they are; save the dataset with save_to_disk")
    return [DatasetSplit(str(name), [str(path) for path in paths], None, None) for name, paths in files.items()]


@contextmanager
def _as_data_errors(where: str) -> Iterator[None]:
    """Turn what `datasets`, Arrow and the network raise at a missing, foreign or damaged dataset into DataErrors."""
    import datasets
    import httpx

    try:
        yield
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, httpx.HTTPError) as error:
        raise DataError(f"{where}: cannot be read: {type(error).__name__}: {error}") from error


# --- reading ----------------------------------------------------------------------------------------------------------


def _read_catalog(survey: HubSurvey, splits: list[DatasetSplit], where: str) -> "pd.DataFrame":
    """The ids and all columns but the images, of all splits together."""
    import pyarrow as pa

    from sfnetlab.surveys.columns import frame_of_arrow, typed_columns

    tables: list[pa.Table] = []
    split_of: dict[str, str] = {}
    left_out: dict[str, str] = {}

    def choose(schema: pa.Schema) -> list[str]:
        others = [each for each in schema if each.name not in (survey.id_column, survey.image_column)]
        left_out.update({each.name: str(each.type) for each in others if not _is_scalar(each.type)})
        return [survey.id_column, *(each.name for each in others if each.name not in left_out)]

    for split in splits:
        for table in _tables(split, survey, where, choose):
            ids = _ids(survey, table, split, split_of, where)
            rest = table.drop_columns([survey.id_column])
            columns = {"id_str": pa.array(ids), SPLIT_COLUMN: pa.array([split.name] * len(ids))}
            if clash := sorted({"split", *columns} & set(rest.column_names)):
                raise DataError(
                    f"{where}: has a column {clash[0]!r}, a name that is taken; rename it (rename_column and "
                    "save_to_disk of `datasets`, then survey.directory)"
                )
            tables.append(pa.table(columns | dict(zip(rest.column_names, rest.columns, strict=True))))
    if not tables:
        raise DataError(f"{where}: there are no rows")
    if left_out:
        named = (f"{name} ({kind})" for name, kind in left_out.items())
        _logger.warning("%s: left out columns that cannot be kept: %s", where, first_few(named, 20))
    with _as_data_errors(where):
        frame = frame_of_arrow(pa.concat_tables(tables, promote_options="permissive"))
    return typed_columns(frame, where)


def _chunks(
    survey: HubSurvey, splits: list[DatasetSplit], ids: "pd.Series[str]", where: str, pool: Executor
) -> "Iterator[Chunk]":
    """The decoded images of all splits, with the ids of the rows, which are in the same order."""
    start = 0
    for split in splits:
        for table in _tables(split, survey, where, lambda _: [survey.image_column]):
            images = table.column(survey.image_column).to_pylist()
            of_chunk = ids.iloc[start : start + len(images)].tolist()
            start += len(images)
            yield list(zip(of_chunk, pool.map(partial(_read_cutout, survey), images), strict=True))


def _ids(survey: HubSurvey, table: "pa.Table", split: DatasetSplit, split_of: dict[str, str], where: str) -> list[str]:
    """The ids of a part of a split, as text, which are added to `split_of`; an id that came before is refused."""
    import pyarrow as pa

    from sfnetlab.surveys.catalog import check_ids, ids_as_text

    where = f"{where}: split {split.name}: column {survey.id_column!r}"
    column = table.column(survey.id_column)
    is_integer = pa.types.is_integer(column.type)  # in pandas, an empty cell would turn them into floats
    ids = ids_as_text((column.cast(pa.string()) if is_integer else column).to_pandas(), where)
    check_ids(ids, where)
    texts: list[str] = ids.tolist()
    again = [id_str for id_str in texts if id_str in split_of]
    if again:
        raise DataError(
            f"{where}: id {again[0]} was already in split {split_of[again[0]]}; keep one row a galaxy, or "
            "name the splits to take in survey.splits"
        )
    split_of |= dict.fromkeys(texts, split.name)
    return texts


def _tables(
    split: DatasetSplit, survey: HubSurvey, where: str, choose: "Callable[[pa.Schema], list[str]]"
) -> "Iterator[pa.Table]":
    """The chosen columns of a split, at most CHUNK rows at a time, with images as they are stored, not decoded."""
    import datasets
    import fsspec
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sfnetlab.surveys.store import CHUNK

    def chosen(schema: pa.Schema) -> list[str]:
        for name in (survey.id_column, survey.image_column):
            if name not in schema.names:
                raise DataError(f"{where}: split {split.name} has no column {name!r}, only {schema.names}")
        return choose(schema)

    with _as_data_errors(where):
        if isinstance(split.data, list):
            for path in split.data:
                system, name = fsspec.url_to_fs(path)
                with system.open(name) as file, pq.ParquetFile(file, **_PIECEWISE) as parquet:
                    columns = chosen(parquet.schema_arrow)
                    yield from (pa.Table.from_batches([each]) for each in parquet.iter_batches(CHUNK, columns=columns))
            return
        data: Any = split.data.select_columns(chosen(split.data.features.arrow_schema))
        if isinstance(data.features.get(survey.image_column), datasets.Image):
            data = data.cast_column(survey.image_column, datasets.Image(decode=False))
        yield from data.with_format("arrow").iter(CHUNK)


def _is_scalar(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _read_cutout(survey: HubSurvey, stored: Any) -> "Cutout | str":
    """The square cutout of an image of a dataset, or the reason why there is none.

    A dataset stores an image as its bytes, or as the path of a file.
    """
    import fsspec

    from sfnetlab.surveys.images import decode_image
    from sfnetlab.surveys.store import as_cutout

    content = stored.get("bytes") if isinstance(stored, dict) else stored
    path = stored.get("path") if isinstance(stored, dict) else None
    try:
        if content is None and path:
            system, name = fsspec.url_to_fs(path)
            content = system.cat_file(name)
        if content is None:
            return "missing"
        if not isinstance(content, bytes):
            return f"column {survey.image_column!r} holds no image but {type(content).__name__}"
        image = decode_image(content)
    except FileNotFoundError:
        return f"missing, the dataset refers to {path}"
    except (OSError, ValueError) as error:
        return str(error)
    return as_cutout(image, survey.resize, survey.crop)
