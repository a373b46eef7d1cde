"""The one index of a finished run: which results there are, what each feature table is, and what is known of it.

Stages, figures, atlas and export ask it, so that nothing else joins jobs, keys, paths and ids. In a notebook::

    from sfnetlab.results import Results

    results = Results.open("results/demo")
    results                                   # says what is there
    sfnet = results.table("sfnet-k4-seed0")
    sfnet.frame("test")                       # features of the test galaxies
    sfnet.read("associations")                # with which labels they go
    results.cutouts(sfnet.strongest(17))      # the galaxies in which feature 17 is strongest

Nothing is read before it is asked for.
"""

import html
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sfnetlab.artifacts import MANIFEST, FeatureTable, SurveyTable, read_features, read_manifest, read_survey
from sfnetlab.errors import ArtifactError, DataError
from sfnetlab.files import expanded, read_array
from sfnetlab.jobs import Job, Run, TableSpec, Task, as_recipe
from sfnetlab.methods import TRAITS, Reader, Traits, reader_of, typical
from sfnetlab.metrics.tidy import FAMILY, IDENTITY, TRAINING
from sfnetlab.settings import Target

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

DESCRIBED, PROBED = "interpret-features", "fit-probes"


@dataclass(frozen=True)
class Record:
    """One result: what made it from what, and where it lies."""

    stage: str
    name: str
    key: str
    settings: Mapping[str, Any]
    """The settings of its recipe, as JSON data."""
    inputs: Mapping[str, str]
    """Role to key of what it read."""
    path: Path | None
    """None where a stage may know of it but does not read it."""
    job: Job | None = None
    """The job of the plan, whose spec holds paths too; None in a folder that was opened."""

    def __str__(self) -> str:
        return f"{self.stage}/{self.name}"

    def read(self, name: str) -> "pd.DataFrame | None":
        """Return one of its tables, None where it has none of this name."""
        import pandas as pd

        path = self.directory / f"{name}.parquet"
        return pd.read_parquet(path) if path.exists() else None

    @property
    def directory(self) -> Path:
        """Where it lies.

        Raises
        ------
        ArtifactError
            If it is no input of the stage that asks.
        """
        if self.path is None:
            raise ArtifactError(f"{self} is not among the results that may be read here")
        return self.path


def with_identity(table: "pd.DataFrame", spec: TableSpec) -> "pd.DataFrame":
    """Return a tidy table with the columns `features, kind, k, seed`, the last two nullable integers.

    A column that the table has stays as it is: `k` of the reconstruction by PCA is the number of components kept.
    """
    absent = {name: getattr(spec, name) for name in IDENTITY if name not in table}
    return table.assign(**absent).astype({"k": "Int64", "seed": "Int64"})


class TableResult:
    """A feature table and what stages found about it.

    Attributes
    ----------
    spec
        Which table it is: `features`, `kind`, `k` and `seed`.
    head_target
        The target that the network's own head predicts; None where it has none.
    is_another_view
        Whether its method stands with another view, the first, where it is interpreted and compared.
    """

    def __init__(
        self,
        spec: TableSpec,
        records: Mapping[str, Record],
        *,
        head_target: str | None,
        on: TableSpec | None = None,
        is_another_view: bool = False,
    ) -> None:
        """Take what is known of a table.

        Parameters
        ----------
        records
            By role: `features`, and `network`, `saes`, `embedding`, `probes`, `description` as far as there are any.
        on
            The table that the features decompose, if they do.
        """
        self._on = on
        self.spec = spec
        self.head_target = head_target
        self.is_another_view = is_another_view
        self._records = records

    @property
    def name(self) -> str:
        """Name of its directories, such as `sae-k4-seed0`."""
        return self.spec.name

    @property
    def label(self) -> str:
        """What a legend calls it, such as `sae k=4`."""
        return self.spec.label

    @property
    def traits(self) -> Traits:
        """What its kind is."""
        return TRAITS[self.spec.kind]

    @property
    def key(self) -> str:
        """What identifies the features."""
        return self._records["features"].key

    @property
    def embedding_key(self) -> str:
        """What identifies the embedding that the features are made of: of an embedding itself its own key."""
        return self._records.get("embedding", self._records["features"]).key

    @property
    def stands_on(self) -> dict[str, str | int | None]:
        """On which training the features stand: its `family`, whatever the seed, and the seed.

        Of what decomposes an embedding that has a seed it is the embedding's, of the codes of one autoencoder that
        autoencoder's.
        """
        if self._on is not None and self._on.seed is not None:
            return {FAMILY: self._on.label, TRAINING: self._on.seed}
        saes = self.record("saes")
        if saes is None:
            return {FAMILY: self.label, TRAINING: self.spec.seed}
        name = saes.name.removesuffix("" if self.spec.seed is None else f"-{Run.of(self.spec.seed).name}")
        return {FAMILY: f"{name} k={self.spec.k}", TRAINING: self.spec.seed}

    @property
    def held_fixed(self) -> tuple[str, ...]:
        """What interpret-features held fixed where it asked what remains of a correlation."""
        return tuple(self._records["description"].settings["interpretation"]["held_fixed"])

    @property
    def source(self) -> Record:
        """The result that holds the features: its settings say how they were made."""
        return self._records["features"]

    def has(self, role: str) -> bool:
        """Return whether there is a result of this role, one of those of `__init__`, that may be read."""
        return role in self._records and self._records[role].path is not None

    def record(self, role: str) -> Record | None:
        """Return the result of a role, one of those of `__init__`, whether or not it may be read; None without one."""
        return self._records.get(role)

    def directory(self, role: str) -> Path:
        """Return where the result of a role lies, for what reads more than tables."""
        return self._records[role].directory

    # --- values -------------------------------------------------------------------------------------------------------

    @cached_property
    def stored(self) -> FeatureTable:
        """Rows (`id_str`, `split`) and features (n, d) of all galaxies, memory-mapped or CSR."""
        return read_features(self._records["features"].directory)

    def array(self, split: str | None = None) -> "NDArray[np.float32]":
        """Return the features (n, d) of all galaxies or of one part of the split, dense."""
        import numpy as np
        from scipy import sparse

        rows, values = self.stored
        chosen: Any = values if split is None else values[np.flatnonzero(np.asarray(rows["split"] == split))]
        return chosen.toarray() if sparse.issparse(chosen) else np.asarray(chosen)

    def frame(self, split: str | None = None) -> "pd.DataFrame":
        """Return the features as a DataFrame with `id_str` as index, a column a feature called as in `names`."""
        import pandas as pd

        rows = self.stored.rows if split is None else self.stored.rows[self.stored.rows["split"] == split]
        return pd.DataFrame(self.array(split), index=pd.Index(rows["id_str"]), columns=self.names)

    def values(self, ids: "Sequence[str] | pd.Series[str] | NDArray[np.str_]") -> "NDArray[np.float32] | csr_array":
        """Return the features (n, d) of these galaxies, in their order, dense or CSR as they are stored."""
        import pandas as pd

        return self.stored.of(pd.Series(list(ids), dtype=object))

    @property
    def names(self) -> list[str]:
        """Names of the features: of the columns that they come from, else `feature_<i>`."""
        d = self.stored.n_features
        path = self._records["features"].directory / "model.json"
        given = json.loads(path.read_text()).get("columns") if path.exists() else None
        if given and len({"id_str", "split", *given}) == d + 2:
            return list(given)
        return [f"feature_{i}" for i in range(d)]

    @cached_property
    def reader(self) -> Reader:
        """What reads the features in what they are made of."""
        return reader_of(self.spec, {role: record.directory for role, record in self._records.items() if record.path})

    @cached_property
    def embedding(self) -> FeatureTable | None:
        """The embedding that the features decompose, if they do."""
        record = self._records.get("embedding")
        return None if record is None else read_features(record.directory)

    @cached_property
    def head(self) -> "tuple[NDArray[np.float64], NDArray[np.float64]] | None":
        """Weights (n_outputs, d) and bias of the network's own head, in label units; None where it has none."""
        if self.head_target is None or not self.has("network"):
            return None
        from sfnetlab.models.sfnet import load_network

        return load_network(self.directory("network")).head_weights()

    # --- what was found -----------------------------------------------------------------------------------------------

    def read(self, name: str) -> "pd.DataFrame | None":
        """Return one tidy table with its columns of identity, None where there is none.

        Parameters
        ----------
        name
            `metrics`, `predictions`, `quantiles`, `confusion` (of fit-probes); `features`, `examples`, `associations`,
            `alignment` and others (of interpret-features); `reconstruction`, `latents` and others (of what made the
            features). results/README.md lists them.
        """
        for role in ("description", "probes", "features"):
            if self.has(role) and (table := self._records[role].read(name)) is not None:
                return with_identity(table, self.spec)
        return None

    def need(self, name: str) -> "pd.DataFrame":
        """Return one tidy table that must be there.

        Raises
        ------
        DataError
            If it is not.
        """
        table = self.read(name)
        if table is None:
            raise DataError(f"{self.name}: there is no table {name!r}; results/README.md lists what each stage writes")
        return table

    def read_array(self, name: str) -> "NDArray[Any] | None":
        """Return one array that interpret-features or what made the features wrote, memory-mapped; None without one."""
        for role in ("description", "features"):
            if self.has(role) and (path := self.directory(role) / f"{name}.npy").exists():
                return read_array(path)
        return None

    def strongest(self, feature: int, n: int = 10) -> "pd.Series[str]":
        """Return the ids of the test galaxies in which a feature is strongest, strongest first, ten at most."""
        examples = self.need("examples")
        return examples[examples["feature"] == feature].sort_values("rank")["id_str"].iloc[:n]

    @property
    def history(self) -> "pd.DataFrame | None":
        """A row a step of the training behind the features, None where nothing was trained."""
        for role in ("saes", "network", "features"):
            if self.has(role) and (path := self.directory(role) / "progress.jsonl").exists():
                return _history(path)
        return None

    def __repr__(self) -> str:
        roles = ", ".join(role for role in self._records if self.has(role))
        return f"<{self.name}: {self.spec.kind}, {roles}>"


class Results:
    """All results of one experiment, or those that a stage may read."""

    def __init__(self, records: Iterable[Record], where: str) -> None:
        """Take records, the jobs behind jobs among them; `where` names the place in messages."""
        self._records = {record.key: record for record in records}
        self._where = where

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a results folder, such as `results/demo`.

        Raises
        ------
        ArtifactError
            If there are no results in it.
        """
        folder = Path(expanded(str(folder)))
        # Names with a dot are work in progress or were replaced; a shard is a part of another result.
        paths = [
            path.parent
            for path in sorted(folder.glob(f"*/*/{MANIFEST}"))
            if not path.parent.name.startswith(".") and ".shard-" not in path.parent.name
        ]
        if not paths:
            raise ArtifactError(
                f"{folder}: no results here; give the folder of an experiment, such as results/demo, "
                f"or make them with `uv run sfnetlab run CONFIG`"
            )
        return cls((_record_in(path) for path in paths), str(folder))

    @classmethod
    def of_task(cls, task: Task) -> Self:
        """Return what a stage may read: its inputs, and what it may know of, the jobs behind them."""
        paths = {job.key: task.inputs[role] for role, job in task.job.inputs.items()}
        return cls(_records_behind(task.job.inputs.values(), paths), str(task.job))

    @classmethod
    def of_plan(cls, plan: Iterable[Job], root: Path) -> Self:
        """Return all jobs of a plan, as their directories below a root."""
        jobs = list(plan)
        return cls(_records_behind(jobs, {job.key: job.directory(root) for job in jobs}), str(root))

    # --- results ------------------------------------------------------------------------------------------------------

    def records(self, stage: str) -> list[Record]:
        """Return the results of one stage that may be read."""
        return [record for record in self._records.values() if record.stage == stage and record.path is not None]

    def record(self, stage: str) -> Record:
        """Return the one result of a stage that makes one.

        Raises
        ------
        ArtifactError
            If there is none.
        """
        found = self.records(stage)
        if not found:
            raise ArtifactError(f"{self._where}: no result of {stage}; run `sfnetlab {stage} CONFIG` first")
        return found[0]

    def input(self, record: Record, role: str) -> Record | None:
        """Return what a result read in a role, if it is known."""
        return self._records.get(record.inputs.get(role, ""))

    # --- survey -------------------------------------------------------------------------------------------------------

    @cached_property
    def survey(self) -> SurveyTable:
        """The catalogue and the cutouts, row by row."""
        return read_survey(self.record("prepare-survey").directory)

    @property
    def catalog(self) -> "pd.DataFrame":
        """The survey's catalogue, a row a galaxy, with `id_str` and `split`."""
        return self.survey.catalog

    @property
    def has_images(self) -> bool:
        """Whether the survey has cutouts."""
        return self.survey.images is not None

    @property
    def pixel_scale_arcsec(self) -> float | None:
        """Arcseconds a pixel of the cutouts; None where it is not known."""
        return self.survey.pixel_scale_arcsec

    @cached_property
    def _place(self) -> "pd.Index[str]":
        import pandas as pd

        return pd.Index(self.catalog["id_str"])

    def places(self, ids: "Sequence[str] | pd.Series[str] | NDArray[np.str_]") -> "NDArray[np.intp]":
        """Return the rows of the survey of these galaxies, in their order.

        Raises
        ------
        DataError
            If the survey lacks one.
        """
        import numpy as np
        import pandas as pd

        places = np.asarray(self._place.get_indexer(pd.Index(ids)), dtype=np.intp)
        if (places < 0).any():
            absent = [name for name, place in zip(ids, places, strict=True) if place < 0]
            raise DataError(f"{self._where}: {len(absent)} galaxies are not in the survey (first: {absent[0]})")
        return places

    def cutouts(self, ids: "Sequence[str] | pd.Series[str] | NDArray[np.str_]") -> "NDArray[np.uint8]":
        """Return the cutouts (n, side, side, 3) of these galaxies, row 0 north."""
        import numpy as np

        return np.asarray(self.survey.cutouts[self.places(ids)])

    # --- feature tables -----------------------------------------------------------------------------------------------

    @cached_property
    def tables(self) -> tuple[TableResult, ...]:
        """The feature tables, in the order of the configuration."""
        by_table: dict[str, tuple[Record, dict[str, Record]]] = {}
        for stage, role in ((PROBED, "probes"), (DESCRIBED, "description")):
            for record in self.records(stage):
                if "table" in record.settings:
                    by_table.setdefault(record.name, (record, {}))[1][role] = record
        made = sorted(by_table.values(), key=lambda each: self._order.get(each[0].inputs["features"], len(self._order)))
        return tuple(self._table(record, found) for record, found in made)

    @cached_property
    def _order(self) -> dict[str, int]:
        """Keys of the features in the order of the configuration, which is that of what the comparison compares."""
        if self._comparison is None:
            return {}
        probed = [self._records[key] for key in self._comparison.inputs.values() if key in self._records]
        return {record.inputs["features"]: n for n, record in enumerate(probed) if "features" in record.inputs}

    def table(self, name: str) -> TableResult:
        """Return one feature table by its name, such as `sae-k4-seed0`.

        Raises
        ------
        DataError
            If there is none.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise DataError(f"{self._where}: no table {name!r}; there are {', '.join(table.name for table in self.tables)}")

    def typical(
        self, *, every_view: bool = False, of: Callable[[TableResult], bool] | None = None
    ) -> list[TableResult]:
        """Return one table of each method: the first seed, and the largest k that an SFNet has too (else the largest).

        Parameters
        ----------
        every_view
            Whether a method counts once for each view; else only its first view does.
        of
            Which tables to choose from; None: all.
        """
        tables = [
            table for table in self.tables if (every_view or not table.is_another_view) and (of is None or of(table))
        ]
        chosen = typical(table.spec for table in tables)
        return [table for table in tables if table.spec in chosen]

    def gathered(self, name: str, tables: Iterable[TableResult] | None = None) -> "pd.DataFrame | None":
        """Return one tidy table of all feature tables that have it, with the columns of identity; None if none has."""
        import pandas as pd

        parts = [
            part for table in (self.tables if tables is None else tables) if (part := table.read(name)) is not None
        ]
        return pd.concat(parts, ignore_index=True) if parts else None

    def predictions(self) -> "pd.DataFrame | None":
        """Return the test predictions of all feature tables and on which training each stands; None without any."""
        import pandas as pd

        parts = [
            part.assign(**table.stands_on).astype({TRAINING: "Int64"})
            for table in self.tables
            if (part := table.read("predictions")) is not None
        ]
        return pd.concat(parts, ignore_index=True) if parts else None

    def across_seeds(self, table: TableResult) -> Record | None:
        """Return what interpret-features found about the seeds of a table's autoencoder; None where it found nothing.

        Its `consensus.safetensors` holds the atoms that recur, its table `stability` how alike two seeds are.
        """
        for record in self.records(DESCRIBED):
            compared = record.settings
            is_of_table = (compared.get("features"), compared.get("k")) == (table.spec.features, table.spec.k)
            if is_of_table and table.spec.seed in compared["seeds"]:
                return record
        return None

    def _table(self, record: Record, found: Mapping[str, Record]) -> TableResult:
        spec = TableSpec(**record.settings["table"])
        behind = {role: self._records[key] for role, key in record.inputs.items() if key in self._records}
        records = {role: behind[role] for role in ("features", "network", "saes", "embedding") if role in behind}
        return TableResult(
            spec,
            {**records, **found},
            head_target=record.settings["head_target"],
            on=self._spec_of.get(record.inputs.get("embedding", "")),
            is_another_view=spec.features in self._other_views,
        )

    @cached_property
    def _spec_of(self) -> dict[str, TableSpec]:
        """From the key of features to the table that they are."""
        return {
            record.inputs["features"]: TableSpec(**record.settings["table"])
            for record in self._records.values()
            if record.stage in (PROBED, DESCRIBED) and "table" in record.settings and "features" in record.inputs
        }

    @cached_property
    def _other_views(self) -> set[str]:
        return {
            record.settings["tables"][role]["features"]
            for record in self._records.values()
            if record.stage == "compare-views"
            for role, viewed in record.settings["views"].items()
            if not viewed["is_first"]
        }

    # --- what stages found about all of them --------------------------------------------------------------------------

    @cached_property
    def _comparison(self) -> Record | None:
        found = [record for record in self.records(PROBED) if "table" not in record.settings]
        return found[0] if found else None

    @cached_property
    def _settings(self) -> Mapping[str, Any]:
        """Settings that fit-probes has of the whole experiment."""
        found = [record for record in self._records.values() if record.stage == PROBED]
        if not found:
            raise ArtifactError(f"{self._where}: no result of {PROBED}; run `sfnetlab {PROBED} CONFIG` first")
        return found[0].settings

    @cached_property
    def targets(self) -> dict[str, Target]:
        """What is predicted, by name."""
        return {
            name: Target(columns=tuple(target["columns"]), cut=target["cut"], quantiles=tuple(target["quantiles"]))
            for name, target in self._settings["targets"].items()
        }

    @property
    def classes(self) -> dict[str, Mapping[str, Any]]:
        """Settings of the classes that are told apart, by name."""
        return self._settings["classes"]

    @property
    def two_classes(self) -> tuple[str, ...]:
        """Names of the classes of which one is told from another."""
        return tuple(name for name, classes in self.classes.items() if classes["positive"])

    @property
    def many_classes(self) -> tuple[str, ...]:
        """Names of the classes of which one of several is named."""
        return tuple(name for name, classes in self.classes.items() if not classes["positive"])

    @property
    def budgets(self) -> tuple[int, ...]:
        """Numbers of features on which linear probes were fitted."""
        probed = [record for record in self._records.values() if record.stage == PROBED and "probes" in record.settings]
        return tuple(probed[0].settings["probes"]["budgets"]) if probed else ()

    def comparison(self, name: str = "metrics") -> "pd.DataFrame | None":
        """Return a table of the comparison: `metrics`, `differences`, `gains` and others; None where there is none."""
        return None if self._comparison is None else self._comparison.read(name)

    def stability(self) -> "pd.DataFrame | None":
        """Return how alike the dictionaries of several seeds are, `seed_a, seed_b, metric, value`, seed being missing.

        None where no dictionary has several seeds.
        """
        import pandas as pd

        kinds = {table.spec.features: table.spec.kind for table in self.tables}
        parts: list[pd.DataFrame] = []
        for record in self.records(DESCRIBED):
            if "seeds" in record.settings and (stability := record.read("stability")) is not None:
                features = record.settings["features"]
                spec = TableSpec(features=features, kind=kinds[features], k=record.settings["k"], seed=None)
                parts.append(with_identity(stability, spec))
        return pd.concat(parts, ignore_index=True) if parts else None

    def relations(self, name: str) -> "pd.DataFrame | None":
        """Return a table of compare-features: `matching`, `pairs`, `reading` and others; None where there is none.

        Those of two tables have a column `runs`: "one encoder" where these are two dictionaries of a method on the same
        encoder, "two encoders" where they are a method's on two, None for two methods.
        """
        import pandas as pd

        found = self.records("compare-features")
        table = found[0].read(name) if found else None
        if table is None or not {"table_a", "table_b"} <= set(table):
            return table
        of_two = dict.fromkeys(zip(table["table_a"], table["table_b"], strict=True))
        named = {(a, b): _runs_of_two(self.related[a], self.related[b]) for a, b in of_two}
        runs = [named[two] for two in zip(table["table_a"], table["table_b"], strict=True)]
        return table.assign(runs=pd.Series(runs, index=table.index, dtype=object))

    def views(self, name: str) -> "pd.DataFrame | None":
        """Return a table of compare-views: `scores`, `survival` or `views`; None where no method has several views."""
        found = self.records("compare-views")
        return found[0].read(name) if found else None

    def view_examples(self) -> "NDArray[np.uint8]":
        """Return a few galaxies as each of `views` shows them, (n_views, n_examples, side, side, 3)."""
        return read_array(self.record("compare-views").directory / "views.npy")

    @property
    def related(self) -> dict[str, TableSpec]:
        """The tables that compare-features compares, by name."""
        found = self.records("compare-features")
        return {name: TableSpec(**table) for name, table in found[0].settings["tables"].items()} if found else {}

    def histories(self, *stages: str) -> "list[tuple[Record, pd.DataFrame]]":
        """Return the trainings of some stages, each with a row a step, but for what others trained elsewhere."""
        paths = [(record, record.directory / "progress.jsonl") for stage in stages for record in self.records(stage)]
        return [(record, _history(path)) for record, path in paths if path.exists()]

    # --- for people ---------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        lines = [f"Results of {self._where}: {len(self.tables)} feature tables", *map(repr, self.tables)]
        return "\n  ".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(table.name)}</td><td>{html.escape(table.traits.label)}</td>"
            f"<td>{'' if table.spec.k is None else table.spec.k}</td>"
            f"<td>{html.escape(', '.join(role for role in ('probes', 'description') if table.has(role)))}</td></tr>"
            for table in self.tables
        )
        head = "<tr><th>table</th><th>method</th><th>k</th><th>there is</th></tr>"
        return f"<p>Results of {html.escape(self._where)}</p><table>{head}{rows}</table>"


def _runs_of_two(a: TableSpec, b: TableSpec) -> str | None:
    """What two tables of one method have in common."""
    if (a.features, a.k) != (b.features, b.k) or a.seed is None or b.seed is None:
        return None
    return "one encoder" if Run.of(a.seed).encoder == Run.of(b.seed).encoder else "two encoders"


def _record_in(directory: Path) -> Record:
    """The result that a directory holds, by its manifest."""
    manifest = read_manifest(directory)
    recipe = manifest["recipe"]
    return Record(
        stage=manifest["stage"],
        name=manifest["name"],
        key=manifest["key"],
        settings=recipe["settings"],
        inputs=recipe["inputs"],
        path=directory,
    )


def _records_behind(jobs: Iterable[Job], paths: Mapping[str, Path]) -> Iterable[Record]:
    """Records of jobs and of all jobs behind them, in that order; those without a path are known, but not read."""
    records: dict[str, Record] = {}
    waiting = list(jobs)
    while waiting:
        behind: list[Job] = []
        for job in waiting:
            if job.key not in records:
                inputs = {role: needed.key for role, needed in job.inputs.items()}
                path = paths.get(job.key)
                records[job.key] = Record(job.stage, job.name, job.key, as_recipe(job.spec), inputs, path, job)
                behind += job.inputs.values()
        waiting = behind
    return records.values()


def _history(path: Path) -> "pd.DataFrame":
    import pandas as pd

    return pd.read_json(path, lines=True)
