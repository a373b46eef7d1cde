"""Sparse autoencoders of an embedding, and their null arms, of which a part stays random."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sfnetlab.errors import ConfigError
from sfnetlab.jobs import Run, Table, TableSpec
from sfnetlab.methods.contract import (
    BLACK,
    GREY,
    ORANGE,
    PURPLE,
    SILVER,
    VERMILION,
    Given,
    Look,
    Planner,
    Reader,
    Traits,
    WidthOf,
    require_embedding,
    require_runs,
    runs_on,
)
from sfnetlab.methods.readers import SAEReader
from sfnetlab.settings import Codes, require, require_dictionary
from sfnetlab.training.sae.settings import Frozen, SAESettings, Selection, Standardize, Start, Variant, euclid_groups

if TYPE_CHECKING:
    from sfnetlab.artifacts import SurveyTable
    from sfnetlab.models.sae import SparseAutoencoder


@dataclass(frozen=True, kw_only=True)
class SAE:
    """Sparse autoencoder on an encoder's embeddings, trained on train rows. Unsupervised."""

    traits: ClassVar[Traits] = Traits(
        label="SAE",
        noun="latents",
        role="decomposition",
        supervised=False,
        can_be_decomposed=False,
        is_ordered=False,
        is_sparse=True,
        rank=100,
        look=Look(colors=(VERMILION, ORANGE, PURPLE), markers=("^", "v", "<", ">", "d"), linestyles=("--", "-.")),
    )

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["sae"] = "sae"
    on: str
    """The encoder, or the external embeddings, to decompose."""
    variant: Variant = "topk"
    """Which latents are active, and what the dictionary is; each variant's paper stands in sfnetlab.estimators."""
    n_latents: int = 2048
    """Size of the dictionary."""
    k: tuple[int, ...] = (32,)
    """Latents active for each galaxy ("relu", "jumprelu", "batch_topk": on average); one SAE a value and seed."""
    group_sizes: tuple[int, ...] = ()
    """Matryoshka groups, summing to n_latents; empty: the Euclid groups, 1/32, 1/32, 1/16, 1/8, 1/4 and 1/2 of it."""
    selection: Selection = "topk"
    """Of Matryoshka: k latents of each row, or k a row on average over a batch, by a threshold after training."""
    start: Start = "random"
    """Where atoms start: centroids, the same for all seeds, are the control of "archetypal", which starts there too."""
    auxk: float = 0.0
    """Weight of the auxiliary loss that revives silent latents (Gao et al. 2024: 1/32); 0: they are resampled only,
    those of "archetypal" not at all (see sfnetlab.estimators)."""
    codes: tuple[Codes, ...] = ("topk",)
    """"topk": what the encoder selects; "refit": least squares on that support; "omp": orthogonal matching pursuit. A
    feature table for each, those of refit and omp called <name>-refit and <name>-omp."""
    epochs: int = 50
    """Passes over the training rows."""
    batch_size: int | None = None
    """Rows a step; None: by the recipe, fewer where there are few rows."""
    learning_rate: float | None = None
    """Peak learning rate; None: by the recipe, from variant, n_latents and rows a step."""
    standardize: Standardize = "one scale"
    """What centred embeddings are divided by: "one scale" for all columns, or "columns", each by its own spread on
    train rows, so that all count alike, as in the Euclid paper. Reconstructions are in the embedding's own units."""
    max_distance: float | None = None
    """Rows farther from the columns' medians than so many times the median row are not trained on; None: all are."""
    runs: int = field(default=1, compare=False)
    """Dictionaries on the encoder of each seed, all trained in one pass: how they differ is told apart from how
    encoders do. An encoder without seeds has one for each of `seeds`."""
    # Not compared: what they decide is in ImportSAESpec, and results of SAEs that are trained here keep their keys.
    weights: tuple[Path, ...] = field(default=(), compare=False)
    """Checkpoints of another library (sfnetlab.models.foreign says which) that were trained on this embedding, the
    first for the first seed and so on; nothing is trained then. `k` is theirs, what is said of training is left out."""
    row_top_k: bool = field(default=False, compare=False)
    """Of `weights`: a BatchTopK without a threshold is read as the k largest of each row."""

    def __post_init__(self) -> None:
        require(bool(self.weights) or not self.row_top_k, "row_top_k is for weights, got none")
        if self.weights:
            self._require_no_training()
        require_dictionary(self.n_latents, self.k, self.epochs, self.batch_size)
        require_runs(self.runs)
        require(len(set(self.codes)) == len(self.codes) > 0, f"codes must name each kind once, got {list(self.codes)}")
        if self.variant != "matryoshka":
            require(not self.group_sizes, f'group_sizes are for variant = "matryoshka", got {self.variant!r}')
            require(self.selection == "topk", f'selection is for variant = "matryoshka", got {self.variant!r}')
        elif self.group_sizes:
            total = sum(self.group_sizes)
            require(min(self.group_sizes) >= 1, "group_sizes must be positive")
            require(total == self.n_latents, f"group_sizes must sum to n_latents={self.n_latents}, got {total}")
        else:
            require(self.n_latents % 32 == 0, f"n_latents must divide by 32 without group_sizes, got {self.n_latents}")
        _require_distance(self.max_distance)
        require(self.auxk >= 0, f"auxk must not be negative, got {self.auxk}")
        require(self.learning_rate is None or self.learning_rate > 0, "learning_rate must be positive")

    def _require_no_training(self) -> None:
        of_checkpoints = ("name", "kind", "on", "k", "codes", "weights", "row_top_k")
        told = [each.name for each in fields(self) if each.name not in of_checkpoints]
        told = [name for name in told if getattr(self, name) != getattr(type(self), name)]
        require(not told, f"{', '.join(told)} must be left out: weights are trained already")
        require(len(self.k) == 1, f"k must be the one of the checkpoints in weights, got {list(self.k)}")

    def check(self, given: Given) -> None:
        """Raise ValueError unless the experiment has the embedding."""
        require_embedding(self.name, self.on, given)

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield a table for each embedding, kind of codes, k and seed."""
        yield from dictionary_tables(planner, self)

    def lacking(self, survey: "SurveyTable", width_of: WidthOf) -> Iterator[str]:  # noqa: ARG002
        """Yield what a survey lacks: a train row for each atom that starts at a centroid."""
        n_rows = int((survey.catalog["split"] == "train").sum())
        if not self.starts_at_random and self.n_latents > n_rows:
            yield (
                f"features {self.name!r}: a start at centroids needs at least n_latents={self.n_latents} train rows, "
                f"got {n_rows}"
            )

    @property
    def starts_at_random(self) -> bool:
        """Whether two seeds start at different atoms."""
        return self.start == "random" and self.variant != "archetypal"

    def recipe(self, k: int, seed: int) -> SAESettings:
        """Return what the trainer is told about one of these autoencoders."""
        groups = self.group_sizes
        if self.variant == "matryoshka" and not groups:
            groups = euclid_groups(self.n_latents)
        return SAESettings(
            variant=self.variant,
            n_latents=self.n_latents,
            k=k,
            seed=seed,
            group_sizes=groups,
            selection=self.selection,
            learning_rate=self.learning_rate,
            auxk=self.auxk,
            start="random" if self.starts_at_random else "centroids",
        )

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:
        """Return what the autoencoder's own encoder selects, and what its decoder makes of it."""
        return SAEReader(load_sae_of(table, inputs["saes"]))


@dataclass(frozen=True, kw_only=True)
class NullSAE:
    """Control: a top-k sparse autoencoder of which a part stays random (Sanity Checks for SAEs, arXiv:2602.14111)."""

    traits: ClassVar[Traits] = Traits(
        label="null SAE",
        noun="latents",
        role="null",
        supervised=False,
        can_be_decomposed=False,
        is_ordered=False,
        is_sparse=True,
        rank=90,
        look=Look(colors=(GREY, SILVER, BLACK), markers=("x", "+", "1", "2"), linestyles=(":", "--")),
    )

    name: str
    """Names its results, and its rows in every table."""
    kind: Literal["null_sae"] = "null_sae"
    on: str
    """The encoder, or the external embeddings, to decompose."""
    arm: Literal["frozen_decoder", "frozen_encoder", "random_dictionary"]
    """What is not trained: the atoms, the encoder, or both (encoder and decoder are then one random dictionary)."""
    n_latents: int = 2048
    """Size of the dictionary."""
    k: tuple[int, ...] = (32,)
    """Latents active for each galaxy; one a value and seed."""
    codes: tuple[Codes, ...] = ("topk",)
    """"topk": what the encoder selects; "refit": least squares on that support; "omp": orthogonal matching pursuit. A
    feature table for each, those of refit and omp called <name>-refit and <name>-omp."""
    epochs: int = 50
    """Passes over the training rows."""
    batch_size: int | None = None
    """Rows a step; None: as of kind "sae"."""
    standardize: Standardize = "one scale"
    """What centred embeddings are divided by: "one scale" for all columns, or "columns", each by its own spread on
    train rows, so that all count alike, as in the Euclid paper. Reconstructions are in the embedding's own units."""
    max_distance: float | None = None
    """Rows farther from the columns' medians than so many times the median row are not trained on; None: all are."""
    runs: int = field(default=1, compare=False)
    """Dictionaries on the encoder of each seed, all trained in one pass: how they differ is told apart from how
    encoders do. An encoder without seeds has one for each of `seeds`."""

    def __post_init__(self) -> None:
        require_dictionary(self.n_latents, self.k, self.epochs, self.batch_size)
        _require_distance(self.max_distance)
        require_runs(self.runs)
        require(len(set(self.codes)) == len(self.codes) > 0, f"codes must name each kind once, got {list(self.codes)}")

    def check(self, given: Given) -> None:
        """Raise ValueError unless the experiment has the embedding."""
        require_embedding(self.name, self.on, given)

    def tables(self, planner: Planner) -> Iterator[Table]:
        """Yield a table for each embedding, kind of codes, k and seed."""
        yield from dictionary_tables(planner, self)

    @property
    def starts_at_random(self) -> bool:
        """Whether two seeds start at different atoms: they do."""
        return True

    def recipe(self, k: int, seed: int) -> SAESettings:
        """Return what the trainer is told about one of these autoencoders."""
        arms: dict[str, Frozen] = {
            "frozen_decoder": "decoder",
            "frozen_encoder": "encoder",
            "random_dictionary": "both",
        }
        return SAESettings(variant="topk", n_latents=self.n_latents, k=k, seed=seed, frozen=arms[self.arm])

    @staticmethod
    def reader(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:
        """Return what the autoencoder's own encoder selects, and what its decoder makes of it."""
        return SAEReader(load_sae_of(table, inputs["saes"]))


@dataclass(frozen=True, kw_only=True)
class SAESpec:
    """Train SAEs on one embedding: one for every k of `sae` and every seed. How they encode later is not said."""

    sae: SAE | NullSAE
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ImportSAESpec(SAESpec):
    """Read SAEs that another library trained on one embedding: one for every seed, all of one k."""

    row_top_k: bool
    """Whether a BatchTopK without a threshold is read as the k largest of each row."""
    sha256: tuple[str, ...]
    """What the checkpoint of each seed holds."""
    paths: tuple[Path, ...] = field(compare=False)
    """Where they are."""


@dataclass(frozen=True, kw_only=True)
class EncodeSpec:
    """Encode with one SAE of the input `saes`."""

    k: int
    seed: int
    codes: Codes


def dictionary_tables(planner: Planner, settings: SAE | NullSAE) -> Iterator[Table]:
    """Yield the tables of sparse autoencoders: one embedding a seed where there are several, else one for all seeds.

    On each embedding of a seed there are `settings.runs` for each k.
    """
    embeddings = planner.embedding(settings.on)
    checkpoints = _checkpoints(settings, planner.seeds) if isinstance(settings, SAE) else {}
    all_seeds = tuple(checkpoints) or planner.seeds
    for embedding in embeddings:
        of_encoders = all_seeds if len(embeddings) == 1 else (embedding.spec.seed or 0,)
        if checkpoints and not checkpoints.keys() >= set(of_encoders):
            continue
        numbers = range(runs_on(embedding, settings.name, settings.runs))
        seeds = tuple(Run(seed, number).seed for number in numbers for seed in of_encoders)
        # A start at centroids is the same for every seed: then seeds are orders of the rows, each a pass of its own.
        for trained in [seeds] if settings.starts_at_random else [(seed,) for seed in seeds]:
            seed_of_name = None if trained[: len(all_seeds)] == all_seeds else trained[0]
            name = TableSpec(features=settings.name, kind=settings.kind, k=None, seed=seed_of_name).name
            spec = SAESpec(sae=replace(settings, codes=("topk",)), seeds=trained)
            if checkpoints:
                spec = _import_spec(spec, [checkpoints[seed] for seed in trained])
            saes = planner.job("train-sae", name, spec, {"embedding": embedding.job})
            for codes, k, seed in product(settings.codes, settings.k, trained):
                features = settings.name if codes == "topk" else f"{settings.name}-{codes}"
                table = TableSpec(features=features, kind=settings.kind, k=k, seed=seed)
                encode = EncodeSpec(k=k, seed=seed, codes=codes)
                inputs = {"embedding": embedding.job, "saes": saes}
                job = planner.job("encode-embeddings", table.name, encode, inputs)
                yield Table(spec=table, job=job, saes=saes, on=embedding, is_refit=codes != "topk")


def _checkpoints(settings: SAE, seeds: tuple[int, ...]) -> dict[int, Path]:
    """The checkpoint of each seed that has one."""
    if len(settings.weights) > len(seeds):
        raise ConfigError(
            f"features {settings.name!r}: expected at most a checkpoint for each of the seeds {list(seeds)}, got "
            f"{len(settings.weights)} weights; name more seeds or fewer weights"
        )
    return dict(zip(seeds, settings.weights, strict=False))


def _import_spec(spec: SAESpec, paths: Sequence[Path]) -> ImportSAESpec:
    from sfnetlab.surveys.fingerprints import hash_of

    assert isinstance(spec.sae, SAE)
    return ImportSAESpec(
        sae=spec.sae,
        seeds=spec.seeds,
        row_top_k=spec.sae.row_top_k,
        sha256=tuple(hash_of(path, f"features {spec.sae.name!r}: weights") for path in paths),
        paths=tuple(paths),
    )


def _require_distance(max_distance: float | None) -> None:
    # Half of all rows lie within the median distance.
    require(max_distance is None or max_distance > 1, f"max_distance must be more than 1, got {max_distance}")


def sae_directory(saes: Path, k: int, seed: int) -> Path:
    """Return where train-sae keeps one of its SAEs."""
    return saes / f"k{k}-{Run.of(seed).name}"


def load_sae_of(table: TableSpec, saes: Path) -> "SparseAutoencoder":
    """Return the autoencoder behind a table, from what train-sae wrote."""
    from sfnetlab.models.sae import load_sae

    assert table.k is not None
    assert table.seed is not None
    return load_sae(sae_directory(saes, table.k, table.seed))
