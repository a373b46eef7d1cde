"""What an experiment has to make: its stages in order, and for every stage its jobs with their settings and inputs.

This is the data flow on one page: survey -> features -> evidence -> figures. It imports no stage and computes nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal, assert_never

from sfnetlab.artifacts import Job, sha256_of
from sfnetlab.errors import ConfigError, DataError
from sfnetlab.schema import (
    PCA,
    PLS,
    SAE,
    Classes,
    Codes,
    Encoder,
    Experiment,
    Features,
    FolderSurvey,
    Interpretation,
    Mean,
    MockSurvey,
    NullSAE,
    Photometry,
    Probes,
    Rare,
    SFNet,
    Split,
    Survey,
    Target,
    Training,
)


@dataclass(frozen=True)
class Stage:
    """A step of the lab. `version` is raised when its code would give another result for the same settings."""

    name: str
    version: int
    summary: str

    @property
    def module(self) -> str:
        return f"sfnetlab.stages.{self.name.replace('-', '_')}"


STAGES = {
    stage.name: stage
    for stage in (
        Stage("prepare-survey", 1, "render or decode the cutouts, check the catalogue, split it"),
        Stage("train-sfnet", 1, "train the sparse networks, and the dense ones that encoders ask for"),
        Stage("embed-images", 1, "run networks over all cutouts: SFNet features, dense embeddings"),
        Stage("fit-baselines", 3, "PCA and PLS of the embeddings, photometry, the mean"),
        Stage("train-sae", 4, "train sparse autoencoders on the embeddings, all k and seeds in one pass"),
        Stage("encode-embeddings", 1, "run sparse autoencoders over all embeddings: sparse features"),
        Stage("fit-probes", 4, "probe every feature table for every target: the comparison"),
        Stage("perturb-images", 1, "run networks over turned, shifted, noisy and blurred cutouts"),
        Stage("interpret-features", 2, "what each feature responds to: labels, nuisances, equations, its galaxies"),
        Stage("compare-features", 1, "which features of different methods and seeds are the same, and what is rare"),
        Stage("test-claims", 1, "which claims of the papers hold on this survey"),
        Stage("make-figures", 3, "the figures, as PDF and PNG"),
    )
}


# --- the settings that each stage gets to see -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SurveySpec:
    survey: Survey
    split: Split
    fingerprint: dict[str, str]
    """Hashes of the user's files; empty for the mock survey."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a backbone's weights come from: "random", "imagenet", or the hash of the file at `path`."""

    source: str
    path: Path | None


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    backbone: str
    k: int | None
    """Active features a galaxy; None trains the dense network."""
    target: Target
    training: Training
    weights: Weights
    """What `training.weights` stands for."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class TrainedEmbeddingSpec:
    """Run the network of the input `network`; nothing else to choose."""


@dataclass(frozen=True, kw_only=True)
class FrozenEmbeddingSpec:
    """Run a timm backbone that is not trained here."""

    backbone: str
    weights: Weights
    image_size: int | None
    seed: int | None
    """Seed of random weights, else None."""


@dataclass(frozen=True, kw_only=True)
class BaselineSpec:
    baseline: PCA | PLS | Photometry | Mean
    target: Target | None = None
    """What PLS components are to covary with."""


@dataclass(frozen=True, kw_only=True)
class SAESpec:
    """Train SAEs on one embedding: one for every k of `sae` and every seed. How they encode later is not said."""

    sae: SAE | NullSAE
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class EncodeSpec:
    """Encode with one SAE of the input `saes`."""

    k: int
    seed: int
    codes: Codes


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """Which feature table this is: the columns by which tidy tables tell it from others."""

    features: str
    kind: Literal["sfnet", "encoder", "pca", "pls", "sae", "null_sae", "photometry", "mean"]
    k: int | None
    seed: int | None


@dataclass(frozen=True, kw_only=True)
class ProbeSpec:
    experiment: str
    table: TableSpec
    targets: dict[str, Target]
    classes: dict[str, Classes]
    probes: Probes
    head_target: str | None
    """The target that the network's own head predicts."""


@dataclass(frozen=True, kw_only=True)
class InterpretSpec:
    table: TableSpec
    targets: dict[str, Target]
    head_target: str | None
    interpretation: Interpretation
    mock: MockSurvey | None
    """Of a survey whose factors are known."""


@dataclass(frozen=True, kw_only=True)
class StabilitySpec:
    """Compare the SAEs that differ in their seed alone."""

    features: str
    k: int
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RelationsSpec:
    """Compare feature tables with each other: one of each method, all seeds of SFNets."""

    tables: dict[str, TableSpec]
    """Role of an input and which table it is."""
    rare: dict[str, Rare]


@dataclass(frozen=True, kw_only=True)
class ComparisonSpec:
    """Put together what the probes of every table found."""

    experiment: str
    targets: dict[str, Target]
    classes: dict[str, Classes]


@dataclass(frozen=True, kw_only=True)
class ClaimsSpec:
    """Hold what the papers claim against what was found."""

    experiment: str
    survey: Literal["mock", "folder"]
    targets: dict[str, Target]
    classes: dict[str, Classes]


@dataclass(frozen=True, kw_only=True)
class FiguresSpec:
    experiment: str
    targets: dict[str, Target]
    classes: dict[str, Classes]
    budgets: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PerturbSpec:
    """Run the network behind the input `embedding` over changed cutouts; which changes: `surveys/perturb.py`."""

    n_galaxies: int = 200
    """Test galaxies at most."""
    seed: int = 0
    """Of their choice, and of noise and shifts."""


# --- the jobs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Table:
    """A feature table to have: what it is, the job that makes it, and the one that trained what is behind it."""

    spec: TableSpec
    job: Job
    network: Job | None = None
    saes: Job | None = None
    embedding: Job | None = None
    """What the features decompose, if they do."""
    head_target: str | None = None


def make_plan(config: Experiment) -> list[Job]:
    """Every job of an experiment, in the order in which they can be done.

    Raises
    ------
    ConfigError
        If two results would have the same name.
    DataError
        If a file that the configuration names is missing.
    """
    survey = _job("prepare-survey", "survey", _survey_spec(config), {})
    tables = list(_tables(config, survey))
    trained = {job.key: job for table in tables for job in (table.network, table.saes) if job is not None}.values()

    probes = [_probe_job(config, survey, table) for table in tables]
    comparison = _job(
        "fit-probes",
        "comparison",
        ComparisonSpec(experiment=config.name, targets=config.targets, classes=config.classes),
        {"survey": survey} | {str(job): job for job in probes},
    )
    perturbed = _perturbation_jobs(survey, tables)
    interpreted = [_interpretation_job(config, survey, table, perturbed) for table in _with_features(tables)]
    interpreted += _stability_jobs(tables)
    relations = _relations_job(config, survey, tables)
    claims = _job(
        "test-claims",
        "claims",
        ClaimsSpec(experiment=config.name, survey=config.survey.kind, targets=config.targets, classes=config.classes),
        {"survey": survey, "comparison": comparison, "relations": relations}
        | {str(job): job for job in (*probes, *interpreted)},
    )
    figures = _job(
        "make-figures",
        "figures",
        FiguresSpec(
            experiment=config.name,
            targets=config.targets,
            classes=config.classes,
            budgets=config.probes.budgets,
        ),
        {"survey": survey, "comparison": comparison, "relations": relations}
        | {str(job): job for job in (*trained, *(table.job for table in tables), *probes, *interpreted)},
    )
    made = [*trained, *(table.job for table in tables), *probes, comparison]
    runs = {job.key: job for job in perturbed.values()}.values()
    jobs = [survey, *made, *runs, *interpreted, relations, claims, figures]
    names = [str(job) for job in jobs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"two results would be called {', '.join(repeated)}: rename one of the [[features]]")
    order = list(STAGES)
    return sorted(jobs, key=lambda job: order.index(job.stage))


def _tables(config: Experiment, survey: Job) -> Iterator[Table]:
    # PCA and SAEs stand on encoders, wherever the file names them: encoders first.
    encoders = {
        feature.name: list(_encoder_tables(config, survey, feature))
        for feature in config.features
        if isinstance(feature, Encoder)
    }
    for feature in config.features:
        match feature:
            case SFNet():
                yield from _sfnet_tables(config, survey, feature)
            case Encoder():
                yield from encoders[feature.name]
            case PCA():
                for table in encoders[feature.on]:
                    yield _baseline_table(feature, table.spec.seed, {"embedding": table.job})
            case PLS():
                for table in encoders[feature.on]:
                    inputs = {"survey": survey, "embedding": table.job}
                    yield _baseline_table(feature, table.spec.seed, inputs, config.targets[feature.target])
            case SAE() | NullSAE():
                yield from _sae_tables(config, feature, encoders[feature.on])
            case Photometry() | Mean():
                yield _baseline_table(feature, None, {"survey": survey})
            case _ as never:
                assert_never(never)


def _sfnet_tables(config: Experiment, survey: Job, feature: SFNet) -> Iterator[Table]:
    for k in feature.k:
        for seed in config.seeds:
            name = table_name(feature, k, seed)
            network = _network_job(config, survey, name, "resnet18", k, feature.target, seed)
            yield Table(
                spec=TableSpec(features=feature.name, kind="sfnet", k=k, seed=seed),
                job=_job("embed-images", name, TrainedEmbeddingSpec(), {"survey": survey, "network": network}),
                network=network,
                head_target=feature.target,
            )


def _encoder_tables(config: Experiment, survey: Job, feature: Encoder) -> Iterator[Table]:
    pretrained = feature.weights not in ("target", "random")
    for seed in (None,) if pretrained else config.seeds:
        name = table_name(feature, None, seed)
        spec = TableSpec(features=feature.name, kind="encoder", k=None, seed=seed)
        if feature.weights == "target" and feature.target is not None and seed is not None:
            network = _network_job(config, survey, name, feature.backbone, None, feature.target, seed)
            job = _job("embed-images", name, TrainedEmbeddingSpec(), {"survey": survey, "network": network})
            yield Table(spec=spec, job=job, network=network, head_target=feature.target)
        else:
            frozen = FrozenEmbeddingSpec(
                backbone=feature.backbone,
                weights=_weights(feature.weights),
                image_size=feature.image_size,
                seed=seed,
            )
            yield Table(spec=spec, job=_job("embed-images", name, frozen, {"survey": survey}))


def _sae_tables(config: Experiment, feature: SAE | NullSAE, embeddings: list[Table]) -> Iterator[Table]:
    for embedding in embeddings:
        # One embedding a seed where there are several, else the one that all seeds share.
        seeds = config.seeds if len(embeddings) == 1 else (embedding.spec.seed or 0,)
        # A start at centroids is the same for every seed: then seeds are orders of the rows, each a pass of its own.
        passes = [seeds] if starts_at_random(feature) and len(embeddings) == 1 else [(seed,) for seed in seeds]
        for own in passes:
            name = table_name(feature, None, None if own == config.seeds else own[0])
            spec = SAESpec(sae=replace(feature, codes=("topk",)), seeds=own)
            saes = _job("train-sae", name, spec, {"embedding": embedding.job})
            for codes, k, seed in product(feature.codes, feature.k, own):
                named = feature if codes == "topk" else replace(feature, name=f"{feature.name}-{codes}")
                encode = EncodeSpec(k=k, seed=seed, codes=codes)
                inputs = {"embedding": embedding.job, "saes": saes}
                yield Table(
                    spec=TableSpec(features=named.name, kind=feature.kind, k=k, seed=seed),
                    job=_job("encode-embeddings", table_name(named, k, seed), encode, inputs),
                    saes=saes,
                    embedding=embedding.job,
                )


def starts_at_random(feature: SAE | NullSAE) -> bool:
    """Whether SAEs of two seeds start at different atoms."""
    return isinstance(feature, NullSAE) or (feature.start == "random" and feature.variant != "archetypal")


def _baseline_table(
    feature: PCA | PLS | Photometry | Mean, seed: int | None, inputs: dict[str, Job], target: Target | None = None
) -> Table:
    return Table(
        spec=TableSpec(features=feature.name, kind=feature.kind, k=None, seed=seed),
        job=_job(
            "fit-baselines", table_name(feature, None, seed), BaselineSpec(baseline=feature, target=target), inputs
        ),
        embedding=inputs.get("embedding"),
    )


def _network_job(
    config: Experiment, survey: Job, name: str, backbone: str, k: int | None, target: str, seed: int
) -> Job:
    spec = NetworkSpec(
        backbone=backbone,
        k=k,
        target=config.targets[target],
        training=config.training,
        weights=_weights(config.training.weights),
        seed=seed,
    )
    return _job("train-sfnet", name, spec, {"survey": survey})


def _probe_job(config: Experiment, survey: Job, table: Table) -> Job:
    spec = ProbeSpec(
        experiment=config.name,
        table=table.spec,
        targets=config.targets,
        classes=config.classes,
        probes=config.probes,
        head_target=table.head_target,
    )
    inputs = {
        "survey": survey,
        "features": table.job,
        "network": table.network,
        "embedding": table.embedding,
        "saes": table.saes,
    }
    return _job("fit-probes", table.job.name, spec, _without_none(inputs))


def typical(tables: Iterable[TableSpec]) -> list[TableSpec]:
    """One table of each method: the first seed, and the largest k that an SFNet has too (else the largest)."""
    specs = list(tables)
    shared = {spec.k for spec in specs if spec.kind == "sfnet"}
    methods: dict[str, list[TableSpec]] = {}
    for spec in specs:
        methods.setdefault(spec.features, []).append(spec)
    return [
        max(of_method, key=lambda spec: (spec.k in shared, spec.k or 0, -(spec.seed or 0)))
        for of_method in methods.values()
    ]


def _with_features(tables: Iterable[Table]) -> list[Table]:
    return [table for table in tables if table.spec.kind not in ("mean", "photometry")]


def _typical_tables(tables: Iterable[Table]) -> list[Table]:
    """The typical table of each method that has features; of SAEs with what their own encoder selects."""
    plain = [
        table
        for table in _with_features(tables)
        if not (isinstance(table.job.spec, EncodeSpec) and table.job.spec.codes != "topk")
    ]
    chosen = typical(table.spec for table in plain)
    return [table for table in plain if table.spec in chosen]


def _perturbation_jobs(survey: Job, tables: list[Table]) -> dict[str, Job]:
    """For the typical table of each method the network behind it, run over changed cutouts; by the table's key."""
    made: dict[str, Job] = {}
    for table in _typical_tables(tables):
        embedding = table.embedding or table.job
        inputs = {"survey": survey, "embedding": embedding, "network": embedding.inputs.get("network")}
        made[table.job.key] = _job("perturb-images", embedding.name, PerturbSpec(), _without_none(inputs))
    return made


def _interpretation_job(config: Experiment, survey: Job, table: Table, perturbed: dict[str, Job]) -> Job:
    spec = InterpretSpec(
        table=table.spec,
        targets=config.targets,
        head_target=table.head_target,
        interpretation=config.interpretation,
        mock=config.survey if isinstance(config.survey, MockSurvey) else None,
    )
    inputs = {
        "survey": survey,
        "features": table.job,
        "network": table.network,
        "embedding": table.embedding,
        "saes": table.saes,
        "perturbed": perturbed.get(table.job.key),
    }
    return _job("interpret-features", table.job.name, spec, _without_none(inputs))


def _relations_job(config: Experiment, survey: Job, tables: list[Table]) -> Job:
    chosen = _typical_tables(tables)
    sfnets = {(table.spec.features, table.spec.k) for table in chosen if table.spec.kind == "sfnet"}
    compared = [table for table in tables if table in chosen or (table.spec.features, table.spec.k) in sfnets]
    spec = RelationsSpec(
        tables={table.job.name: table.spec for table in compared},
        rare=config.rare,
    )
    inputs = {"survey": survey} | {table.job.name: table.job for table in compared}
    inputs |= {f"saes of {table.job.name}": table.saes for table in compared if table.saes is not None}
    return _job("compare-features", "relations", spec, inputs)


def _stability_jobs(tables: list[Table]) -> Iterator[Job]:
    """A job for each SAE and k of which several seeds decompose the same embedding."""
    groups: dict[tuple[str, int | None, str], list[Table]] = {}
    for table in tables:
        if table.spec.kind == "sae" and table.embedding is not None:
            groups.setdefault((table.spec.features, table.spec.k, table.embedding.key), []).append(table)
    for group in groups.values():
        if len(group) < 2:
            continue
        first = group[0].spec
        seeds = tuple(table.spec.seed for table in group if table.spec.seed is not None)
        assert first.k is not None
        inputs = {f"seed{table.spec.seed}": table.job for table in group}
        inputs |= {f"saes{table.spec.seed}": table.saes for table in group if table.saes is not None}
        spec = StabilitySpec(features=first.features, k=first.k, seeds=seeds)
        yield _job("interpret-features", f"{first.features}-k{first.k}-seeds", spec, inputs)


def _survey_spec(config: Experiment) -> SurveySpec:
    files: dict[str, str] = {}
    if isinstance(config.survey, FolderSurvey):
        from sfnetlab.surveys.folder import fingerprint

        files = fingerprint(config.survey)
    return SurveySpec(survey=config.survey, split=config.split, fingerprint=files)


def table_name(feature: Features, k: int | None, seed: int | None) -> str:
    """Directory name of a feature table: `sae-k4-seed0`, without the parts that it does not have."""
    parts = [feature.name, f"k{k}" if k is not None else "", f"seed{seed}" if seed is not None else ""]
    return "-".join(part for part in parts if part)


def sae_directory(saes: Path, k: int, seed: int) -> Path:
    """Where train-sae keeps one of its SAEs."""
    return saes / f"k{k}-seed{seed}"


def _weights(weights: str) -> Weights:
    if not weights.endswith(".safetensors"):
        return Weights(source=weights, path=None)
    path = Path(weights)
    if not path.is_file():
        raise DataError(f"{path}: weights file not found; give the path of a .safetensors file of the timm backbone")
    return Weights(source=f"sha256:{sha256_of(path)}", path=path)


def _job(stage: str, name: str, spec: object, inputs: dict[str, Job]) -> Job:
    return Job(stage=stage, version=STAGES[stage].version, name=name, spec=spec, inputs=inputs)


def _without_none(inputs: dict[str, Job | None]) -> dict[str, Job]:
    return {role: job for role, job in inputs.items() if job is not None}
