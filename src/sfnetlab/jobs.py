"""What a plan is made of: stages, jobs with their settings and inputs, and feature tables. It knows no method."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

from sfnetlab.files import write_text
from sfnetlab.settings import View, is_place

Metrics = Mapping[str, float | int | str]


@dataclass(frozen=True)
class Stage:
    """A step of the lab. `version` is raised when its code would give another result for the same settings."""

    name: str
    version: int
    summary: str
    splits: bool = False
    """Whether `--shard i/n` can split its jobs."""
    uses_device: bool = False
    """Whether its jobs run on a GPU where there is one."""
    link: str | None = None
    """Name of a link in the experiment's folder that leads people to the stage's one result."""

    @property
    def module(self) -> str:
        """Name of the module whose `build` makes the stage's jobs."""
        return f"sfnetlab.stages.{self.name.replace('-', '_')}"


@dataclass(frozen=True, eq=False)
class Job:
    """One result to have: a stage's settings and the results that it reads.

    Attributes
    ----------
    stage, version
        Which code makes it; the version is raised when that code would give another result.
    name
        Names its directory, `<root>/<stage>/<name>`.
    spec
        Frozen dataclass with every setting that matters, and nothing else: it is all that the stage gets to see.
    inputs
        The jobs whose directories it reads, by the role they play.
    """

    stage: str
    version: int
    name: str
    spec: Any
    inputs: Mapping[str, "Job"]

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Everything that decides what the result is, as JSON data."""
        return {
            "stage": self.stage,
            "version": self.version,
            "settings": as_recipe(self.spec),
            "inputs": {role: job.key for role, job in self.inputs.items()},
        }

    @cached_property
    def key(self) -> str:
        """The sha256 of the canonical JSON of the recipe."""
        canonical = json.dumps(self.recipe, sort_keys=True, allow_nan=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def directory(self, root: Path) -> Path:
        """Return where the result lies below the experiment's folder."""
        return root / self.stage / self.name

    def __str__(self) -> str:
        return f"{self.stage}/{self.name}"


def as_recipe(value: Any) -> Any:
    """Return a spec as plain JSON data, without what does not decide the result.

    That is paths, for a place is not a setting, the hash of its content is; and fields that do not count where two
    specs are compared (`compare=False`).
    """
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, getattr(value, field.name)) for field in fields(value) if field.compare)
        return {name: as_recipe(item) for name, item in pairs if not is_place(name, item)}
    if isinstance(value, Mapping):
        return {str(key): as_recipe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_recipe(item) for item in value]
    return value


class Shard(NamedTuple):
    """Part `index` (from 0) of `n`; 0 of 1 is everything."""

    index: int
    n: int

    def rows(self, n_rows: int, batch_size: int) -> range:
        """Return this shard's rows: whole batches, so that no row is computed in another batch than without shards.

        The sizes of shards differ by a batch at most; a shard may be empty.
        """
        n_batches = -(-n_rows // batch_size)
        start, end = (part * n_batches // self.n * batch_size for part in (self.index, self.index + 1))
        return range(min(start, n_rows), min(end, n_rows))


WHOLE = Shard(0, 1)


@dataclass(frozen=True)
class Task:
    """What a stage needs beside its settings: where its inputs are, where to write, and on which device to work."""

    inputs: dict[str, Path]
    work: Path
    device: str
    job: Job
    shard: Shard = WHOLE
    """Which rows to make, in a stage that can be split."""
    shards: Sequence[Path] = ()
    """Directories of finished shards that need only be joined."""

    def inputs_of(self, stage: str) -> dict[Job, Path]:
        """Return the inputs that a stage made, in the order of the plan."""
        return {job: self.inputs[role] for role, job in self.job.inputs.items() if job.stage == stage}

    def report(self, history: Sequence[dict[str, Any]]) -> None:
        """Write `progress.jsonl` anew: a line for each step of the history."""
        write_text(self.work / "progress.jsonl", "".join(json.dumps(row) + "\n" for row in history))


# --- feature tables ---------------------------------------------------------------------------------------------------


MOST_SEEDS = 1_000_000
"""Seeds of an experiment are smaller, so that the number of a run says both what its encoder and its dictionary are."""


class Run(NamedTuple):
    """What a feature table is a run of: dictionaries are nested within the encoder whose embedding they decompose.

    One number stands for both, in the column `seed` of tables and as the seed of the training: the encoder's seed for
    the first dictionary and for whatever is no dictionary.
    """

    encoder: int
    """Seed of the encoder, or of the method where it decomposes nothing that has a seed."""
    dictionary: int = 0
    """Which of the trainings on this encoder, from 0."""

    @classmethod
    def of(cls, seed: int) -> Self:
        """Return the run of a number."""
        return cls(seed % MOST_SEEDS, seed // MOST_SEEDS)

    @property
    def seed(self) -> int:
        """The number that stands for the run."""
        return self.encoder + MOST_SEEDS * self.dictionary

    @property
    def name(self) -> str:
        """How directories call it: `seed0`, `seed0-dictionary1`."""
        return f"seed{self.encoder}" + (f"-dictionary{self.dictionary}" if self.dictionary else "")


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """Which feature table this is: the columns by which tidy tables tell it from others."""

    features: str
    """Name of its [[features]], with the view or the codes where these are not the usual ones."""
    kind: str
    k: int | None
    """Features active for each galaxy; None where all are."""
    seed: int | None
    """Number of its `Run`; None where nothing random made it."""

    @property
    def name(self) -> str:
        """Name of its directory: `sae-k4-seed0`, without the parts that it does not have."""
        parts = [
            self.features,
            f"k{self.k}" if self.k is not None else "",
            Run.of(self.seed).name if self.seed is not None else "",
        ]
        return "-".join(part for part in parts if part)

    @property
    def label(self) -> str:
        """What a legend calls it: its features, and k where it has one."""
        return self.features if self.k is None else f"{self.features} k={self.k}"


@dataclass(frozen=True, kw_only=True)
class Viewed:
    """The method that a feature table is of, and the view through which its network sees cutouts."""

    method: str
    view: str
    settings: View
    is_first: bool


@dataclass(frozen=True, kw_only=True)
class Table:
    """A feature table to have: what it is, the job that makes it, and the jobs behind that one."""

    spec: TableSpec
    job: Job
    network: Job | None = None
    """What trained the network that gives the features, where one is trained here."""
    saes: Job | None = None
    """What trained the sparse autoencoder that gives them."""
    on: "Table | None" = None
    """The table that the features decompose, if they do."""
    head_target: str | None = None
    """The target that the network's own head predicts."""
    viewed: Viewed | None = None
    """Method and view of a network trained here."""
    is_untrained: bool = False
    """Whether a network of random weights gives the features: what any network shares with any other."""
    is_refit: bool = False
    """Whether other codes stand in for those that the method's own encoder selects."""

    @property
    def is_another_view(self) -> bool:
        """Whether its method stands with another view, the first, where it is interpreted and compared."""
        return self.viewed is not None and not self.viewed.is_first

    @property
    def embedding(self) -> Job | None:
        """The job that makes the table which the features decompose."""
        return None if self.on is None else self.on.job
