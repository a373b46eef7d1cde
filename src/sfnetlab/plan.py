"""What an experiment has to make: its stages in order, and for every stage its jobs with their settings and inputs.

This is the data flow on one page: survey -> features -> evidence -> figures. It imports no stage and computes nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal, TypeVar, assert_never

from sfnetlab.artifacts import Job, sha256_of
from sfnetlab.errors import ConfigError, DataError
from sfnetlab.schema import (
    PCA,
    PLS,
    SAE,
    VAE,
    Classes,
    Codes,
    EmbeddingsSurvey,
    Encoder,
    Experiment,
    External,
    Features,
    FolderSurvey,
    Galaxy10Survey,
    HubSurvey,
    Interpretation,
    Mean,
    MockSurvey,
    NullSAE,
    Photometry,
    Probes,
    Rare,
    SDSSSurvey,
    SFNet,
    Split,
    Zoobot,
)
from sfnetlab.settings import FULL_VIEW, WEIGHT_FILES, Target, Training, View


@dataclass(frozen=True)
class Stage:
    """A step of the lab. `version` is raised when its code would give another result for the same settings."""

    name: str
    version: int
    summary: str
    splits: bool = False
    """Whether `--shard i/n` can split its jobs."""
    link: str | None = None
    """A short way to its one result, for people: a link of this name in the experiment's folder."""

    @property
    def module(self) -> str:
        return f"sfnetlab.stages.{self.name.replace('-', '_')}"


STAGES = {
    stage.name: stage
    for stage in (
        Stage("prepare-survey", 1, "render or decode the cutouts, check the catalogue, split it"),
        Stage("train-sfnet", 2, "train the sparse networks, and the dense ones that encoders ask for"),
        Stage("finetune-zoobot", 1, "fine-tune pretrained encoders on a target, by Zoobot (needs the extra zoobot)"),
        Stage("train-vae", 1, "train autoencoders on the cutouts, score what they reconstruct: latent features"),
        Stage("embed-images", 2, "run networks over all cutouts: SFNet features, dense embeddings", splits=True),
        Stage("import-embeddings", 1, "join embeddings that somebody else made to the catalogue, by id"),
        Stage("fit-baselines", 3, "PCA and PLS of the embeddings, photometry, the mean"),
        Stage("train-sae", 10, "train sparse autoencoders on the embeddings, all k and seeds in one pass"),
        Stage("encode-embeddings", 1, "run sparse autoencoders over all embeddings: sparse features"),
        Stage("fit-probes", 4, "probe every feature table for every target: the comparison"),
        Stage("compare-views", 1, "what networks lose when they are shown fewer pixels or colours"),
        Stage("perturb-images", 1, "run networks over turned, shifted, noisy and blurred cutouts"),
        Stage("interpret-features", 5, "what each feature responds to: labels, nuisances, equations, its galaxies"),
        Stage("compare-features", 2, "which features of different methods and seeds are the same, and what is rare"),
        Stage("test-claims", 1, "which claims of the papers hold on this survey"),
        Stage("make-figures", 5, "the figures, as PDF and PNG", link="figures"),
        Stage("build-atlas", 1, "the feature atlas: static pages to look at galaxies and features with", link="atlas"),
    )
}


# --- the settings that each stage gets to see -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SurveySpec:
    survey: MockSurvey | FolderSurvey | HubSurvey | Galaxy10Survey | EmbeddingsSurvey
    """A download of SDSS is a folder survey here."""
    split: Split
    fingerprint: dict[str, str]
    """Hashes of the user's files; empty for the mock survey."""


@dataclass(frozen=True, kw_only=True)
class CommonSurveySpec(SurveySpec):
    """Keep only the galaxies that all of these tables have."""

    required: tuple[External, ...]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a backbone's weights come from: "random", "imagenet", "hub", or the hash of the file at `path`."""

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
    view: View | None
    """What it is shown of cutouts; None: all of it."""


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec:
    zoobot: Zoobot
    weights: Weights
    """What `zoobot.weights` stands for."""
    target: Target
    seed: int


@dataclass(frozen=True, kw_only=True)
class TrainedEmbeddingSpec:
    """Run the network of the input `network`; nothing else to choose."""


@dataclass(frozen=True, kw_only=True)
class FrozenEmbeddingSpec:
    """Run a backbone that is not trained here."""

    backbone: str
    weights: Weights
    image_size: int | None
    seed: int | None
    """Seed of random weights, else None."""


@dataclass(frozen=True, kw_only=True)
class VAESpec:
    """Train an autoencoder on all train cutouts, and encode every galaxy with it."""

    vae: VAE
    seed: int


@dataclass(frozen=True, kw_only=True)
class ImportSpec:
    """Join a table of somebody's embeddings to the survey."""

    external: External
    fingerprint: dict[str, str]
    """Hashes of its files; empty for a hub dataset, which its revision identifies."""


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
    kind: Literal[
        "sfnet", "encoder", "zoobot", "external", "pca", "pls", "sae", "null_sae", "vae", "photometry", "mean"
    ]
    k: int | None
    seed: int | None


EMBEDDINGS = ("encoder", "zoobot", "external")
"""Kinds of tables that others decompose."""


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
    survey: Literal["mock", "folder", "sdss", "hub", "galaxy10", "embeddings"]
    targets: dict[str, Target]
    classes: dict[str, Classes]


@dataclass(frozen=True, kw_only=True)
class FiguresSpec:
    experiment: str
    targets: dict[str, Target]
    classes: dict[str, Classes]
    budgets: tuple[int, ...]
    other_views: tuple[str, ...] = ()
    """Names of features that stand in the figures of views alone."""


@dataclass(frozen=True, kw_only=True)
class AtlasSpec:
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
    """Of their choice, and of noise and shifts."""


@dataclass(frozen=True, kw_only=True)
class Viewed:
    """Of which method a feature table is, and through which view."""

    method: str
    view: str
    settings: View
    is_first: bool


@dataclass(frozen=True, kw_only=True)
class ViewsSpec:
    """Compare networks that see the same cutouts through different views."""

    tables: dict[str, TableSpec]
    """Role of an input and which table it is."""
    views: dict[str, Viewed]
    """The same, through which view."""


Viewer = TypeVar("Viewer", SFNet, Encoder)

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
    viewed: Viewed | None = None
    """Of a network trained here: the method that it is, through which view."""

    @property
    def is_another_view(self) -> bool:
        """Whether it is of a method that stands with another view, the first, where it is interpreted and compared."""
        return self.viewed is not None and not self.viewed.is_first


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
    views = list(_views_jobs(survey, comparison, tables))
    alone = [table for table in tables if not table.is_another_view]
    perturbed = _perturbation_jobs(survey, alone)
    interpreted = [_interpretation_job(config, survey, table, perturbed) for table in _with_features(alone)]
    interpreted += _stability_jobs(tables)
    relations = _relations_job(config, survey, alone)
    evidence = {"survey": survey, "comparison": comparison, "relations": relations}
    claims = _claims_job(config, evidence, [*probes, *interpreted])
    figures = _job(
        "make-figures",
        "figures",
        FiguresSpec(
            experiment=config.name,
            targets=config.targets,
            classes=config.classes,
            budgets=config.probes.budgets,
            other_views=tuple(sorted({table.spec.features for table in tables if table.is_another_view})),
        ),
        evidence
        | {str(job): job for job in (*trained, *(table.job for table in tables), *probes, *interpreted, *views)},
    )
    atlas = _atlas_job(config, alone, evidence | {"claims": claims}, interpreted, probes)
    made = [*trained, *(table.job for table in tables), *probes, comparison]
    runs = {job.key: job for job in perturbed.values()}.values()
    jobs = [survey, *made, *views, *runs, *interpreted, relations, claims, figures, atlas]
    names = [str(job) for job in jobs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"two results would be called {', '.join(repeated)}: rename one of the [[features]]")
    order = list(STAGES)
    return sorted(jobs, key=lambda job: order.index(job.stage))


def _tables(config: Experiment, survey: Job) -> Iterator[Table]:
    # PCA and SAEs stand on embeddings, wherever the file names them: embeddings first.
    encoders = {
        feature.name: list(_encoder_tables(config, survey, feature))
        for feature in config.features
        if isinstance(feature, Encoder)
    }
    encoders |= {
        feature.name: [_external_table(survey, feature)] for feature in config.features if isinstance(feature, External)
    }
    encoders |= {
        feature.name: [_vae_table(survey, feature, seed) for seed in config.seeds]
        for feature in config.features
        if isinstance(feature, VAE)
    }
    encoders |= {
        feature.name: list(_zoobot_tables(config, survey, feature))
        for feature in config.features
        if isinstance(feature, Zoobot)
    }
    for feature in config.features:
        match feature:
            case SFNet():
                yield from _sfnet_tables(config, survey, feature)
            case Encoder() | Zoobot() | External() | VAE():
                yield from encoders[feature.name]
            case PCA():
                for table in _first_view(encoders[feature.on]):
                    yield _baseline_table(feature, table.spec.seed, {"embedding": table.job})
            case PLS():
                for table in _first_view(encoders[feature.on]):
                    inputs = {"survey": survey, "embedding": table.job}
                    yield _baseline_table(feature, table.spec.seed, inputs, config.targets[feature.target])
            case SAE() | NullSAE():
                yield from _sae_tables(config, feature, _first_view(encoders[feature.on]))
            case Photometry() | Mean():
                yield _baseline_table(feature, None, {"survey": survey})
            case _ as never:
                assert_never(never)


def _sfnet_tables(config: Experiment, survey: Job, feature: SFNet) -> Iterator[Table]:
    for view, k, seed in product(feature.views, feature.k, config.seeds):
        named = _seen_through(feature, view)
        name = table_name(named, k, seed)
        network = _network_job(config, survey, name, "resnet18", k, feature.target, seed, view)
        yield Table(
            spec=TableSpec(features=named.name, kind="sfnet", k=k, seed=seed),
            job=_job("embed-images", name, TrainedEmbeddingSpec(), {"survey": survey, "network": network}),
            network=network,
            head_target=feature.target,
            viewed=_viewed(config, feature, view),
        )


def _seen_through(feature: Viewer, view: str) -> Viewer:
    return feature if view == FULL_VIEW else replace(feature, name=f"{feature.name}-{view}")


def _viewed(config: Experiment, feature: SFNet | Encoder, view: str) -> Viewed:
    settings = config.views.get(view, View())
    return Viewed(method=feature.name, view=view, settings=settings, is_first=view == feature.views[0])


def _first_view(tables: Iterable[Table]) -> list[Table]:
    return [table for table in tables if not table.is_another_view]


def _encoder_tables(config: Experiment, survey: Job, feature: Encoder) -> Iterator[Table]:
    pretrained = feature.weights not in ("target", "random")
    for view, seed in product(feature.views, (None,) if pretrained else config.seeds):
        named = _seen_through(feature, view)
        name = table_name(named, None, seed)
        spec = TableSpec(features=named.name, kind="encoder", k=None, seed=seed)
        if feature.weights == "target" and feature.target is not None and seed is not None:
            network = _network_job(config, survey, name, feature.backbone, None, feature.target, seed, view)
            job = _job("embed-images", name, TrainedEmbeddingSpec(), {"survey": survey, "network": network})
            viewed = _viewed(config, feature, view)
            yield Table(spec=spec, job=job, network=network, head_target=feature.target, viewed=viewed)
        else:
            frozen = FrozenEmbeddingSpec(
                backbone=feature.backbone,
                weights=_weights(feature.weights),
                image_size=feature.image_size,
                seed=seed,
            )
            yield Table(spec=spec, job=_job("embed-images", name, frozen, {"survey": survey}))


def _zoobot_tables(config: Experiment, survey: Job, feature: Zoobot) -> Iterator[Table]:
    for seed in config.seeds:
        name = table_name(feature, None, seed)
        spec = FinetuneSpec(
            zoobot=feature, weights=_weights(feature.weights), target=config.targets[feature.target], seed=seed
        )
        network = _job("finetune-zoobot", name, spec, {"survey": survey})
        yield Table(
            spec=TableSpec(features=feature.name, kind="zoobot", k=None, seed=seed),
            job=_job("embed-images", name, TrainedEmbeddingSpec(), {"survey": survey, "network": network}),
            network=network,
            head_target=feature.target,
        )


def _external_table(survey: Job, feature: External) -> Table:
    from sfnetlab.surveys.tables import fingerprint

    spec = ImportSpec(external=feature, fingerprint=fingerprint(feature))
    return Table(
        spec=TableSpec(features=feature.name, kind="external", k=None, seed=None),
        job=_job("import-embeddings", table_name(feature, None, None), spec, {"survey": survey}),
    )


def _vae_table(survey: Job, feature: VAE, seed: int) -> Table:
    return Table(
        spec=TableSpec(features=feature.name, kind="vae", k=None, seed=seed),
        job=_job("train-vae", table_name(feature, None, seed), VAESpec(vae=feature, seed=seed), {"survey": survey}),
    )


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
    config: Experiment, survey: Job, name: str, backbone: str, k: int | None, target: str, seed: int, view: str
) -> Job:
    spec = NetworkSpec(
        backbone=backbone,
        k=k,
        target=config.targets[target],
        training=config.training,
        weights=_weights(config.training.weights),
        seed=seed,
        view=config.views.get(view),
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
        if isinstance(embedding.spec, ImportSpec):
            continue  # made elsewhere: there is no network to run
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


CONTROLS = ("encoder", "zoobot", "external", "null_sae")
"""Kinds of tables that are there to be decomposed or compared with: the atlas shows others, where there are any."""


def _atlas_job(
    config: Experiment, tables: list[Table], evidence: dict[str, Job], interpreted: list[Job], probes: list[Job]
) -> Job:
    """About the typical table of each method, with what each stands on."""
    shown = _typical_tables(tables)
    shown = [table for table in shown if table.spec.kind not in CONTROLS] or shown
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
        for job in (
            table.job,
            table.network,
            table.saes,
            table.embedding,
            (table.embedding or table.job).inputs.get("network"),
        )
        if job is not None
    ]
    names = config.atlas.names
    if names is not None and not names.is_file():
        raise DataError(
            f"atlas.names: {names} not found; copy names.toml out of an atlas to there, or leave the setting out"
        )
    spec = AtlasSpec(
        experiment=config.name,
        targets=config.targets,
        is_real=not isinstance(config.survey, MockSurvey),
        names=names,
        names_sha256=None if names is None else sha256_of(names),
    )
    judged = [job for job in probes if job.spec.table in compared]
    return _job("build-atlas", "atlas", spec, evidence | {str(job): job for job in (*told, *behind, *judged)})


def _claims_job(config: Experiment, evidence: dict[str, Job], told: list[Job]) -> Job:
    spec = ClaimsSpec(experiment=config.name, survey=config.survey.kind, targets=config.targets, classes=config.classes)
    return _job("test-claims", "claims", spec, evidence | {str(job): job for job in told})


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
    if isinstance(config.survey, EmbeddingsSurvey):
        return _catalog_spec(config, config.survey)
    survey = config.survey
    files: dict[str, str] = {}
    match survey:
        case MockSurvey():
            pass
        case FolderSurvey() | SDSSSurvey():
            from sfnetlab.surveys import folder

            survey = folder.as_folder(survey) if isinstance(survey, SDSSSurvey) else survey
            files = folder.fingerprint(survey)
        case HubSurvey():
            from sfnetlab.surveys import hub

            files = hub.fingerprint(survey)
        case Galaxy10Survey():
            from sfnetlab.surveys import galaxy10

            files = galaxy10.fingerprint(survey)
        case _ as never:
            assert_never(never)
    return SurveySpec(survey=survey, split=config.split, fingerprint=files)


def _catalog_spec(config: Experiment, survey: EmbeddingsSurvey) -> SurveySpec:
    from sfnetlab.surveys.tables import fingerprint, hash_of

    files = {"catalog_sha256": hash_of(survey.catalog, "survey.catalog")}
    if survey.without_embedding == "error":
        return SurveySpec(survey=survey, split=config.split, fingerprint=files)
    required = tuple(feature for feature in config.features if isinstance(feature, External))
    files |= {f"{own.name}_{name}": value for own in required for name, value in fingerprint(own).items()}
    return CommonSurveySpec(survey=survey, split=config.split, fingerprint=files, required=required)


def table_name(feature: Features, k: int | None, seed: int | None) -> str:
    """Directory name of a feature table: `sae-k4-seed0`, without the parts that it does not have."""
    parts = [feature.name, f"k{k}" if k is not None else "", f"seed{seed}" if seed is not None else ""]
    return "-".join(part for part in parts if part)


def sae_directory(saes: Path, k: int, seed: int) -> Path:
    """Where train-sae keeps one of its SAEs."""
    return saes / f"k{k}-seed{seed}"


def _weights(weights: str) -> Weights:
    if not weights.endswith(WEIGHT_FILES):
        return Weights(source=weights, path=None)
    path = Path(weights)
    if not path.is_file():
        raise DataError(f"{path}: weights file not found; give the path of a file of the backbone's weights")
    return Weights(source=f"sha256:{sha256_of(path)}", path=path)


def _job(stage: str, name: str, spec: object, inputs: dict[str, Job]) -> Job:
    return Job(stage=stage, version=STAGES[stage].version, name=name, spec=spec, inputs=inputs)


def _without_none(inputs: dict[str, Job | None]) -> dict[str, Job]:
    return {role: job for role, job in inputs.items() if job is not None}
