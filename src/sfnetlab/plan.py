"""What an experiment has to make: its stages in order, and for every stage its jobs with their settings and inputs.

This is the data flow on one page: survey -> features -> evidence -> figures. It imports no stage, computes nothing, and
asks each method for its tables.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sfnetlab.errors import ConfigError, DataError
from sfnetlab.files import file_problem, sha256_of
from sfnetlab.jobs import Job, Run, Stage, Table, TableSpec, Viewed
from sfnetlab.methods import TRAITS, External, typical
from sfnetlab.methods.contract import ReadsCatalogue
from sfnetlab.schema import (
    Classes,
    Experiment,
    Interpretation,
    Probes,
    Rare,
)
from sfnetlab.settings import Target, Training, View
from sfnetlab.surveys.embeddings import EmbeddingsSurvey, fingerprint
from sfnetlab.surveys.mock import MockSurvey
from sfnetlab.surveys.protocol import SurveyKind
from sfnetlab.surveys.split import Split

INCLINATION = ("factor_axis_ratio", "expAB_r")
"""Axis ratios, as the mock survey and the SDSS call them."""

STAGES = {
    stage.name: stage
    for stage in (
        Stage("prepare-survey", 2, "render or decode the cutouts, check the catalogue, split it"),
        Stage("import-embeddings", 1, "join embeddings that somebody else made to the catalogue, by id"),
        Stage(
            "train-sfnet", 2, "train the sparse networks, and the dense ones that encoders ask for", uses_device=True
        ),
        Stage(
            "finetune-zoobot",
            1,
            "fine-tune pretrained encoders on a target, by Zoobot (needs the extra zoobot)",
            uses_device=True,
        ),
        Stage(
            "train-vae",
            1,
            "train autoencoders on the cutouts, score what they reconstruct: latent features",
            uses_device=True,
        ),
        Stage(
            "embed-images",
            2,
            "run networks over all cutouts: SFNet features, dense embeddings",
            uses_device=True,
            splits=True,
        ),
        Stage("fit-baselines", 3, "PCA and PLS of the embeddings, photometry, the mean"),
        Stage(
            "train-sae",
            10,
            "train sparse autoencoders on the embeddings, all k and seeds in one pass",
            uses_device=True,
        ),
        Stage("encode-embeddings", 1, "run sparse autoencoders over all embeddings: sparse features", uses_device=True),
        Stage("fit-probes", 7, "probe every feature table for every target: the comparison"),
        Stage("compare-views", 1, "what networks lose when they are shown fewer pixels or colours"),
        Stage("perturb-images", 1, "run networks over turned, shifted, noisy and blurred cutouts", uses_device=True),
        Stage("interpret-features", 8, "what each feature responds to: labels, nuisances, equations, its galaxies"),
        Stage("compare-features", 4, "which features of different methods and seeds are the same, and what is rare"),
        Stage("hold-claims", 3, "which claims of the papers hold on this survey"),
        Stage("make-figures", 9, "the figures, as PDF and PNG", link="figures"),
        Stage("build-atlas", 2, "the feature atlas: static pages to look at galaxies and features with", link="atlas"),
    )
}


_MEMORY_GB = {
    "prepare-survey": (1.2, 0.5),
    "import-embeddings": (0.5, 0.3),
    "train-sfnet": (2.3, 0.0),
    "finetune-zoobot": (2.3, 0.0),
    "train-vae": (2.3, 0.0),
    "embed-images": (2.3, 0.0),
    "fit-baselines": (1.3, 0.0),
    "train-sae": (0.8, 0.15),
    "encode-embeddings": (0.6, 0.65),
    "fit-probes": (1.3, 2.7),
    "compare-views": (1.0, 0.0),
    "perturb-images": (2.3, 0.0),
    "interpret-features": (1.6, 0.0),
    "compare-features": (2.7, 0.0),
    "hold-claims": (1.0, 0.0),
    "make-figures": (1.8, 0.0),
    "build-atlas": (2.0, 0.0),
}
"""Gigabytes of its own that a process takes which makes a job of a stage for few galaxies, and what a million galaxies
add. Seen with embeddings of 384 columns and SAEs of 2,048 latents at 10^4 to 10^6 galaxies: import-embeddings,
fit-baselines, train-sae, encode-embeddings, and prepare-survey without images. Seen once, on few galaxies: networks
(ResNet18 on 128 cutouts of 144 pixels), interpretation, comparison, figures, atlas; that these do not grow is a guess.
Chosen: compare-views, hold-claims, and that probes add so much that they take 4 GB of a million."""


def memory_bytes(stage: str, n_galaxies: int | None) -> int:
    """Return what memory a job needs on a survey of so many galaxies; of few, if the number is not known."""
    few, million = _MEMORY_GB[stage]
    return int(1e9 * (few + million * (n_galaxies or 0) / 1e6))


# --- the settings that stages get to see, but for those of methods ---------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an experiment wants of the catalogue."""

    targets: dict[str, Target]
    classes: dict[str, Classes]
    rare: dict[str, Rare]
    features: dict[str, tuple[str, ...]]
    """The columns that features of this name consist of."""


@dataclass(frozen=True, kw_only=True)
class SurveySpec:
    """Prepare a survey."""

    survey: SurveyKind
    """As its kind resolves it: a download of SDSS is a folder survey here."""
    split: Split
    fingerprint: dict[str, str]
    """What identifies the user's files."""
    wanted: Wanted = field(compare=False)
    """The catalogue is refused if it lacks this. It is not in the recipe, for it does not change the survey."""


@dataclass(frozen=True, kw_only=True)
class CommonSurveySpec(SurveySpec):
    """Keep only the galaxies that all of these tables have."""

    required: tuple[External, ...]


@dataclass(frozen=True, kw_only=True)
class ProbeSpec:
    """Fit the probes to one feature table."""

    table: TableSpec
    targets: dict[str, Target]
    classes: dict[str, Classes]
    probes: Probes
    head_target: str | None
    """The target that the network's own head predicts."""
    has_seen_labels: bool = False
    """Whether the features have learnt from labels of train galaxies, or decompose what has."""


@dataclass(frozen=True, kw_only=True)
class InterpretSpec:
    """Describe the features of one table."""

    table: TableSpec
    targets: dict[str, Target]
    head_target: str | None
    interpretation: Interpretation
    mock: MockSurvey | None
    """A survey whose factors are known."""


@dataclass(frozen=True, kw_only=True)
class StabilitySpec:
    """Compare the SAEs on one embedding that differ in their seed alone."""

    features: str
    k: int
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RelationsSpec:
    """Compare feature tables with each other: one of each method, all seeds of SFNets."""

    tables: dict[str, TableSpec]
    """Role of an input and which table it is."""
    rare: dict[str, Rare]
    untrained: tuple[str, ...] = ()
    """Which of them are features of an untrained network."""
    trivial: tuple[str, ...] = ()
    """Columns of the catalogue, or differences of two, that any network sees."""


@dataclass(frozen=True, kw_only=True)
class ComparisonSpec:
    """Put together what the probes of every table found."""

    targets: dict[str, Target]
    classes: dict[str, Classes]
    untrained: tuple[str, ...] = ()
    """Names of features of an untrained network, or of what decomposes them: to be better than these is no finding."""


@dataclass(frozen=True, kw_only=True)
class ClaimsSpec:
    """Hold what the papers claim against what was found."""

    survey: str
    """Its kind."""
    is_real: bool
    """Whether there are galaxies in the sky where the catalogue says so; else verdicts are about methods."""
    targets: dict[str, Target]
    classes: dict[str, Classes]
    held_fixed: tuple[str, ...]
    """Columns of the catalogue, or differences of two, beyond which a finding has to go, as far as they exist."""


@dataclass(frozen=True, kw_only=True)
class FiguresSpec:
    """Draw the figures. What they show, their inputs know."""


@dataclass(frozen=True, kw_only=True)
class AtlasSpec:
    """Build the atlas."""

    experiment: str
    targets: dict[str, Target]
    is_real: bool
    """Whether there are galaxies in the sky where the catalogue says so."""
    names: Path | None
    names_sha256: str | None
    """What the user's file of names holds."""


@dataclass(frozen=True, kw_only=True)
class PerturbSpec:
    """Run the network behind the input `embedding` over changed cutouts; which changes: `surveys/perturb.py`."""

    n_galaxies: int = 200
    """Test galaxies at most."""
    seed: int = 0
    """Seed of their choice, and of noise and shifts."""


@dataclass(frozen=True, kw_only=True)
class ViewsSpec:
    """Compare networks that see the same cutouts through different views."""

    tables: dict[str, TableSpec]
    """Role of an input and which table it is."""
    views: dict[str, Viewed]
    """Role of an input and the view through which its network sees."""


# --- the jobs ---------------------------------------------------------------------------------------------------------


def make_plan(config: Experiment) -> list[Job]:
    """Return every job of an experiment, in the order in which they can be done.

    Raises
    ------
    ConfigError
        If two results would have the same name.
    DataError
        If a file that the configuration names is missing.
    """
    survey = _job("prepare-survey", "survey", _survey_spec(config), {})
    tables = list(_Planner(config, survey).tables())
    trained = dict.fromkeys(job for table in tables for job in (table.network, table.saes) if job is not None)

    probes = [_probe_job(config, survey, table) for table in tables]
    comparison = _job(
        "fit-probes",
        "comparison",
        ComparisonSpec(targets=config.targets, classes=config.classes, untrained=_untrained_features(tables)),
        {"survey": survey} | {str(job): job for job in probes},
    )
    views = list(_views_jobs(survey, comparison, tables))
    first_views = [table for table in tables if not table.is_another_view]
    perturbed = _perturbation_jobs(survey, first_views)
    described = _with_features(first_views)
    interpreted = [_interpretation_job(config, survey, table, perturbed, described) for table in described]
    interpreted += _stability_jobs(tables)
    relations = _relations_job(config, survey, first_views)
    evidence = {"survey": survey, "comparison": comparison, "relations": relations}
    claims = _claims_job(config, evidence, [*probes, *interpreted])
    figures = _job(
        "make-figures",
        "figures",
        FiguresSpec(),
        evidence
        | {str(job): job for job in (*trained, *(table.job for table in tables), *probes, *interpreted, *views)},
    )
    atlas = _atlas_job(config, first_views, evidence | {"claims": claims}, interpreted, probes)
    made = [*trained, *(table.job for table in tables), *probes, comparison]
    runs = dict.fromkeys(perturbed.values())
    jobs = [survey, *made, *views, *runs, *interpreted, relations, claims, figures, atlas]
    repeated = sorted(name for name, n in Counter(map(str, jobs)).items() if n > 1)
    if repeated:
        raise ConfigError(f"two results would be called {', '.join(repeated)}: rename one of the [[features]]")
    order = list(STAGES)
    return sorted(jobs, key=lambda job: order.index(job.stage))


@dataclass(frozen=True)
class _Planner:
    """An experiment as methods see it: see `contract.Planner`."""

    config: Experiment
    survey: Job
    known: dict[str, list[Table]] = field(default_factory=dict)
    """Tables by the name of their [[features]], as far as they were asked for."""

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.config.seeds

    @property
    def training(self) -> Training:
        return self.config.training

    @property
    def targets(self) -> Mapping[str, Target]:
        return self.config.targets

    def target(self, name: str) -> Target:
        return self.config.targets[name]

    def view(self, name: str) -> View | None:
        return self.config.views.get(name)

    def embedding(self, on: str) -> list[Table]:
        # What stands on an embedding may come before it in the file.
        return [table for table in self._tables_of(on) if not table.is_another_view]

    def job(self, stage: str, name: str, spec: object, inputs: Mapping[str, Job]) -> Job:
        return _job(stage, name, spec, inputs)

    def tables(self) -> Iterator[Table]:
        for feature in self.config.features:
            yield from self._tables_of(feature.name)

    def _tables_of(self, name: str) -> list[Table]:
        if name not in self.known:
            (feature,) = (feature for feature in self.config.features if feature.name == name)
            self.known[name] = list(feature.tables(self))
        return self.known[name]


def _probe_job(config: Experiment, survey: Job, table: Table) -> Job:
    traits = TRAITS[table.spec.kind]
    is_taught = traits.supervised and traits.role != "control"
    spec = ProbeSpec(
        table=table.spec,
        targets=config.targets,
        classes=config.classes,
        probes=config.probes,
        head_target=table.head_target,
        has_seen_labels=is_taught or (table.on or table).network is not None,
    )
    return _job("fit-probes", table.job.name, spec, _behind(survey, table))


def _behind(survey: Job, table: Table) -> dict[str, Job]:
    """The survey, a table and what made it, by role."""
    inputs = {
        "survey": survey,
        "features": table.job,
        "network": table.network,
        "embedding": table.embedding,
        "saes": table.saes,
    }
    return {role: job for role, job in inputs.items() if job is not None}


def _with_features(tables: Iterable[Table]) -> list[Table]:
    """Tables whose features are worth a description: those that something learnt."""
    return [table for table in tables if TRAITS[table.spec.kind].role != "control"]


def _typical_tables(tables: Iterable[Table]) -> list[Table]:
    """The typical table of each method that has features, SAEs with what their own encoder selects."""
    plain = [table for table in _with_features(tables) if not table.is_refit]
    chosen = typical(table.spec for table in plain)
    return [table for table in plain if table.spec in chosen]


def _perturbation_jobs(survey: Job, tables: list[Table]) -> dict[str, Job]:
    """For the typical table of each method the network behind it, run over changed cutouts; by the table's key.

    Tables on one embedding share one job.
    """
    runs: dict[Job, Job] = {}
    made: dict[str, Job] = {}
    for table in _typical_tables(tables):
        embedded = table.on or table
        if TRAITS[embedded.spec.kind].needs_images:  # else it was made elsewhere: there is no network to run
            inputs = {"survey": survey, "embedding": embedded.job}
            if embedded.network is not None:
                inputs["network"] = embedded.network
            if embedded.job not in runs:
                runs[embedded.job] = _job("perturb-images", embedded.job.name, PerturbSpec(), inputs)
            made[table.job.key] = runs[embedded.job]
    return made


def _interpretation_job(
    config: Experiment, survey: Job, table: Table, perturbed: dict[str, Job], described: list[Table]
) -> Job:
    spec = InterpretSpec(
        table=table.spec,
        targets=config.targets,
        head_target=table.head_target,
        interpretation=config.interpretation,
        mock=config.survey if isinstance(config.survey, MockSurvey) else None,
    )
    inputs = _behind(survey, table)
    if table.job.key in perturbed:
        inputs["perturbed"] = perturbed[table.job.key]
    method = [each for each in described if (each.spec.features, each.spec.k) == (table.spec.features, table.spec.k)]
    if len(method) > 1:
        inputs["another_seed"] = method[(method.index(table) + 1) % len(method)].job
    if untrained := [each for each in described if each.is_untrained]:
        # of another seed, if there is one: an untrained network stands against another
        others = [each for each in untrained if each.job is not table.job]
        inputs["untrained"] = (others or untrained)[0].job
    return _job("interpret-features", table.job.name, spec, inputs)


def _relations_job(config: Experiment, survey: Job, tables: list[Table]) -> Job:
    chosen = _typical_tables(tables)
    # Whether seeds agree is asked of sparse networks, whatever the seed; autoencoders on one encoder have jobs of their
    # own for that. Where dictionaries are nested in encoders, those of the first stand beside the first of each other.
    sfnets = {(table.spec.features, table.spec.k) for table in chosen if table.network is not None and table.spec.k}
    nested = {(table.spec.features, table.spec.k) for table in tables if _run(table).dictionary}
    nested &= {(table.spec.features, table.spec.k) for table in chosen}
    first = {(table.spec.features, table.spec.k): _run(table).encoder for table in chosen}
    compared = [
        table
        for table in tables
        if table in chosen
        or (method := (table.spec.features, table.spec.k)) in sfnets
        or (method in nested and (_run(table).dictionary == 0 or _run(table).encoder == first[method]))
    ]
    spec = RelationsSpec(
        tables={table.job.name: table.spec for table in compared},
        rare=config.rare,
        untrained=tuple(table.job.name for table in compared if table.is_untrained),
        trivial=config.interpretation.told_by_all(config.targets),
    )
    inputs = {"survey": survey} | {table.job.name: table.job for table in compared}
    inputs |= {f"saes of {table.job.name}": table.saes for table in compared if table.saes is not None}
    return _job("compare-features", "relations", spec, inputs)


def _run(table: Table) -> Run:
    return Run.of(table.spec.seed or 0)


def _atlas_job(
    config: Experiment, tables: list[Table], evidence: dict[str, Job], interpreted: list[Job], probes: list[Job]
) -> Job:
    """About the typical table of each method, with what each stands on; embeddings and nulls if there is no other."""
    shown = _typical_tables(tables)
    shown = [table for table in shown if TRAITS[table.spec.kind].role not in ("embedding", "null")] or shown
    made = {table.job.key for table in shown}
    methods = {(table.spec.features, table.spec.k) for table in shown}
    told = [
        job
        for job in interpreted
        if (isinstance(job.spec, InterpretSpec) and job.inputs["features"].key in made)
        or (isinstance(job.spec, StabilitySpec) and (job.spec.features, job.spec.k) in methods)
    ]
    compared = typical(table.spec for table in tables)
    behind = [
        job
        for table in shown
        for job in (table.job, table.network, table.saes, table.embedding, (table.on or table).network)
        if job is not None
    ]
    names = config.atlas.names
    if names is not None and (problem := file_problem(names)):
        raise DataError(
            f"atlas.names: {names} not found: {problem}; copy names.toml out of an atlas to there, or leave it out"
        )
    spec = AtlasSpec(
        experiment=config.name,
        targets=config.targets,
        is_real=config.survey.is_real,
        names=names,
        names_sha256=None if names is None else sha256_of(names),
    )
    judged = [job for job in probes if job.spec.table in compared]
    return _job("build-atlas", "atlas", spec, evidence | {str(job): job for job in (*told, *behind, *judged)})


def _untrained_features(tables: list[Table]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(table.spec.features for table in tables if (table.on or table).is_untrained))


def _claims_job(config: Experiment, evidence: dict[str, Job], told: list[Job]) -> Job:
    labels = {name for target in config.targets.values() for name in target.columns}
    held_fixed = (*config.interpretation.trivial, *INCLINATION)
    spec = ClaimsSpec(
        survey=config.survey.kind,
        is_real=config.survey.is_real,
        targets=config.targets,
        classes=config.classes,
        held_fixed=tuple(text for text in held_fixed if not labels & set(text.split(" - "))),
    )
    return _job("hold-claims", "claims", spec, evidence | {str(job): job for job in told})


def _views_jobs(survey: Job, comparison: Job, tables: list[Table]) -> Iterator[Job]:
    """One job, where a method has several views."""
    seen = {table.job.name: table for table in tables if table.viewed is not None}
    methods = {viewed.method for table in seen.values() if (viewed := table.viewed) and not viewed.is_first}
    compared = {name: table for name, table in seen.items() if table.viewed and table.viewed.method in methods}
    if compared:
        spec = ViewsSpec(
            tables={name: table.spec for name, table in compared.items()},
            views={name: table.viewed for name, table in compared.items() if table.viewed},
        )
        inputs = {"survey": survey, "comparison": comparison}
        yield _job("compare-views", "views", spec, inputs | {name: table.job for name, table in compared.items()})


def _stability_jobs(tables: list[Table]) -> Iterator[Job]:
    """A job for each SAE, k and embedding which several seeds decompose: pairs within one encoder."""
    groups: dict[tuple[str, int, str], list[Table]] = {}
    for table in tables:
        is_sae = table.saes is not None and TRAITS[table.spec.kind].role == "decomposition"
        if is_sae and table.spec.k is not None and table.embedding is not None:
            groups.setdefault((table.spec.features, table.spec.k, table.embedding.key), []).append(table)
    n_embeddings = Counter((features, k) for features, k, _ in groups)
    for (features, k, _), group in groups.items():
        if len(group) < 2:
            continue
        seeds = tuple(table.spec.seed for table in group if table.spec.seed is not None)
        inputs = {f"seed{table.spec.seed}": table.job for table in group}
        inputs |= {f"saes{table.spec.seed}": table.saes for table in group if table.saes is not None}
        on = f"-on-{group[0].embedding.name}" if n_embeddings[features, k] > 1 and group[0].embedding else ""
        spec = StabilitySpec(features=features, k=k, seeds=seeds)
        yield _job("interpret-features", f"{features}-k{k}-seeds{on}", spec, inputs)


def _survey_spec(config: Experiment) -> SurveySpec:
    survey = config.survey.resolved()
    files = survey.fingerprint()
    wanted = Wanted(
        targets=config.targets,
        classes=config.classes,
        rare=config.rare,
        features={each.name: each.catalogue_columns for each in config.features if isinstance(each, ReadsCatalogue)},
    )
    if not (isinstance(survey, EmbeddingsSurvey) and survey.without_embedding == "drop"):
        return SurveySpec(survey=survey, split=config.split, fingerprint=files, wanted=wanted)
    required = tuple(feature for feature in config.features if isinstance(feature, External))
    files |= {f"{table.name}_{name}": value for table in required for name, value in fingerprint(table).items()}
    return CommonSurveySpec(survey=survey, split=config.split, fingerprint=files, wanted=wanted, required=required)


def _job(stage: str, name: str, spec: object, inputs: Mapping[str, Job]) -> Job:
    return Job(stage=stage, version=STAGES[stage].version, name=name, spec=spec, inputs=inputs)
