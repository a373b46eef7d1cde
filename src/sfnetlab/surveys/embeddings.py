"""A survey without images, and what names the tables of embeddings that somebody else made of its galaxies.

tables.py opens these tables and joins them to the catalogue.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from sfnetlab.settings import CatalogColumns
from sfnetlab.surveys.protocol import Accept, SurveyKind, as_it_is

if TYPE_CHECKING:
    import pandas as pd

    from sfnetlab.jobs import Metrics

IdRepair = Literal["none", "neg_to_minus", "minus_to_neg"]
"""How ids of a table are changed to meet the catalogue's: "neg_to_minus" writes "-" for "NEG", "minus_to_neg" the
reverse."""


class EmbeddingSource(Protocol):
    """Where a table of embeddings lies and what to take of it; the settings of features of kind "external" are one.

    What each field means is told where they are set. Either `path` or `dataset` is None.
    """

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path | None: ...
    @property
    def dataset(self) -> str | None: ...
    @property
    def config(self) -> str | None: ...
    @property
    def revision(self) -> str: ...
    @property
    def splits(self) -> tuple[str, ...]: ...
    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def id_column(self) -> str: ...
    @property
    def ids(self) -> Path | None: ...
    @property
    def id_repair(self) -> IdRepair: ...


@dataclass(frozen=True, kw_only=True)
class EmbeddingsSurvey(CatalogColumns):
    """A catalogue without images, for embeddings that somebody else made: [[features]] of kind "external"."""

    has_images: ClassVar[bool] = False
    is_real: ClassVar[bool] = True
    kind: Literal["embeddings"] = "embeddings"
    catalog: Path
    """Catalogue: CSV and other text, ECSV, VOTable, FITS, Feather or parquet, which may be a folder (HATS too)."""
    id_column: str = "id_str"
    """Catalogue column by which embeddings are joined; read as text, for 64-bit ids do not survive as floats."""
    without_embedding: Literal["error", "drop"] = "error"
    """What a galaxy that one of the external [[features]] lacks means: stop, or leave it out and record its id."""

    def resolved(self) -> SurveyKind:
        """Return these settings."""
        return self

    def fingerprint(self) -> dict[str, str]:
        """Return the hash of the catalogue.

        Raises
        ------
        DataError
            If there is no such file.
        """
        from sfnetlab.surveys.fingerprints import hash_of

        return {"catalog_sha256": hash_of(self.catalog, "survey.catalog")}

    def read(
        self,
        work: Path,  # noqa: ARG002 - writes nothing, unlike other kinds
        accept: Accept = as_it_is,
    ) -> "tuple[pd.DataFrame, Metrics]":
        """Read the catalogue, every row of it."""
        from sfnetlab.surveys.catalog import read_unsplit_catalog

        return accept(read_unsplit_catalog(self.catalog, self.id_column)), {}


def fingerprint(source: EmbeddingSource) -> dict[str, str]:
    """Return hashes of the contents of a table's files; empty for a dataset of the hub, which its revision identifies.

    Raises
    ------
    DataError
        If a file is missing, or a folder holds none.
    """
    from sfnetlab.surveys.fingerprints import hash_of

    name = f"features {source.name!r}"
    files = {} if source.path is None else {"sha256": hash_of(source.path, f"{name}: path")}
    return files if source.ids is None else files | {"ids_sha256": hash_of(source.ids, f"{name}: ids")}
