"""Embeddings or features that somebody else made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from sfnetlab.jobs import Table, TableSpec
from sfnetlab.methods.contract import BLACK, GREEN, GREY, Given, Look, Planner, Reader, Traits
from sfnetlab.methods.readers import identity_of
from sfnetlab.settings import is_plain_name, require
from sfnetlab.surveys.embeddings import IdRepair, fingerprint


@dataclass(frozen=True, kw_only=True)
class External:
    """Embeddings or features that somebody else made, joined to the catalogue by id. No image is needed."""

    traits: ClassVar[Traits] = Traits(
        label="external",
        noun="dimensions",
        role="embedding",
        supervised=False,
        can_be_decomposed=True,
        is_ordered=False,
        is_sparse=False,
        rank=50,
        look=Look(colors=(BLACK, GREEN, GREY), markers=("D", "*", "d", "8"), linestyles=(":", "-.")),
    )

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["external"] = "external"
    path: Path | None = None
    """A file of arrays (.npy, .npz, .pt, .pth, .safetensors, .h5, .hdf5) or a table (parquet, FITS, CSV, Feather), a
    folder of .parquet files (HATS too) or one of `datasets`' `save_to_disk`."""
    dataset: str | None = None
    """Its id on the hub, for example "mwalmsley/euclid_q1_embeddings"; this or `path`."""
    config: str | None = None
    """Which of the dataset's configurations, where it has several."""
    revision: str = "main"
    """Commit, tag or branch on the hub. Only a commit stays what it is; the one that was read is in model.json."""
    splits: tuple[str, ...] = ()
    """The splits of a dataset to take together, for example ["train", "test"]; empty: all."""
    columns: tuple[str, ...] = ()
    """One column of lists (["pooled_features_block_11"]) or numeric ones, patterns too (["feat_pca_*"]), in the order
    of the file; of arrays (n, d) or (n,). Not for .npy; .npz, .pt and .safetensors need it where they hold several."""
    id_column: str = "id_str"
    """Column or array of the ids, read as text; in .npz and .pt they may be called "ids" too."""
    ids: Path | None = None
    """For .npy, and .npz, .pt and .safetensors without ids: these in the order of the rows, as .npy, .txt (a line each)
    or a table with `id_column`."""
    id_repair: IdRepair = "none"
    """Of these ids, to meet the catalogue's: "neg_to_minus" writes "-" for "NEG" (Euclid tiles south of the equator),
    "minus_to_neg" the reverse."""

    def __post_init__(self) -> None:
        require((self.path is None) != (self.dataset is None), "path or dataset must be given, and not both")
        if self.dataset is None:
            require(self.config is None and self.revision == "main", "config and revision are for a dataset's id")
        else:
            owner, _, name = self.dataset.rpartition("/")
            require(
                is_plain_name(name) and (not owner or is_plain_name(owner)),
                f'dataset must be an id such as "mwalmsley/gz2" (a file or folder is path), got {self.dataset!r}',
            )
        ending = "" if self.path is None else self.path.suffix.lower()
        is_npy, has_arrays = ending == ".npy", ending in (".npz", ".pt", ".pth", ".safetensors")
        require(is_npy or has_arrays or len(self.columns) > 0, "columns must name at least one column of embeddings")
        require(not (is_npy and self.columns), "columns are for tables, but a .npy file has no columns")
        is_right = has_arrays or is_npy == (self.ids is not None)
        require(is_right, "ids must name the file of ids of a .npy file, or of an .npz, .pt or .safetensors one")
        require(len(set(self.columns)) == len(self.columns), f"columns repeat a name: {list(self.columns)}")

    def check(self, given: Given) -> None:
        """Refer to nothing else of the experiment."""

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield the one table."""
        spec = TableSpec(features=self.name, kind=self.kind, k=None, seed=None)
        imported = ImportSpec(external=self, fingerprint=fingerprint(self))
        yield Table(spec=spec, job=planner.job("import-embeddings", spec.name, imported, {"survey": planner.survey}))

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:  # noqa: ARG004
        """Return the identity: features are the embedding itself."""
        return identity_of(inputs)


@dataclass(frozen=True, kw_only=True)
class ImportSpec:
    """Join a table of somebody's embeddings to the survey."""

    external: External
    fingerprint: dict[str, str]
    """Hashes of its files; empty for a hub dataset, which its revision identifies."""
