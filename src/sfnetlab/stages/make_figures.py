"""Stage make-figures: every figure as PDF and PNG, each a query on the tables of the stages before it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.artifacts import Job, Metrics, SurveyTable, read_survey
from sfnetlab.figures.contact_sheet import plot_contact_sheet
from sfnetlab.figures.decoder_cosines import plot_decoder_cosines
from sfnetlab.figures.fvu_vs_l0 import plot_fvu_vs_l0
from sfnetlab.figures.l0_distribution import plot_l0_distribution
from sfnetlab.figures.latent_frequency import plot_latent_frequency
from sfnetlab.figures.loss_recovered import plot_loss_recovered
from sfnetlab.figures.nested_fvu import plot_nested_fvu
from sfnetlab.figures.predicted_vs_true import plot_predicted_vs_true
from sfnetlab.figures.rmse_vs_k import plot_rmse_vs_k
from sfnetlab.figures.seed_stability import plot_seed_stability
from sfnetlab.figures.strongest_galaxies import plot_strongest_galaxies
from sfnetlab.figures.style import save_figure
from sfnetlab.figures.training_curves import plot_training_curves
from sfnetlab.plan import FiguresSpec, StabilitySpec, TableSpec
from sfnetlab.runner import Task, stage_main
from sfnetlab.surveys.catalog import measured_labels, unit_of

N_SHEET = 64
N_FEATURES = 6
N_EXAMPLES = 8


def build(spec: FiguresSpec, task: Task) -> Metrics:
    survey = read_survey(task.inputs["survey"])
    metrics = pd.read_parquet(task.inputs["comparison"] / "metrics.parquet")
    n_figures = 0
    for name, figure in _figures(spec, task, survey, metrics):
        save_figure(figure, task.work, name)
        n_figures += 1
    return {"n_figures": n_figures}


def _figures(spec: FiguresSpec, task: Task, survey: SurveyTable, metrics: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    yield "survey", _contact_sheet(spec, survey)
    for name, target in spec.targets.items():
        for column in target.columns:
            own = (metrics["target"] == name) & (metrics["column"] == column)
            floor = metrics.loc[own & (metrics["kind"] == "noise_floor"), "value"]
            methods = metrics[metrics["kind"] != "noise_floor"]
            figure = plot_rmse_vs_k(methods, name, column, unit_of(column), floor.iloc[0] if len(floor) else None)
            yield f"rmse_vs_k-{name}-{column}", figure
            y_true, predictions = _predictions(task, name, column)
            if predictions:
                figure = plot_predicted_vs_true(y_true, predictions, column, unit_of(column))
                yield f"predicted_vs_true-{name}-{column}", figure
    for table, directory in _typical(task, "interpret-features"):
        yield f"strongest-{directory.name}", _strongest(table, directory, survey)
    if task.inputs_of("train-sae"):
        yield "fvu_vs_l0", plot_fvu_vs_l0(_reconstructions(task))
        nested = _of_dictionaries(task, "reconstruction.parquet")
        if not nested["is_whole"].all():
            yield "nested_fvu", plot_nested_fvu(nested)
        yield "l0_distribution", plot_l0_distribution(_of_dictionaries(task, "l0.parquet"))
        latents = _named_with_k(_of_dictionaries(task, "latents.parquet"))
        spectra = _named_with_k(_of_dictionaries(task, "spectrum.parquet"))
        yield "latent_frequency", plot_latent_frequency(latents)
        yield "decoder_cosines", plot_decoder_cosines(latents, spectra)
        if ((metrics["metric"] == "loss_recovered") & (metrics["kind"] != "pca")).any():
            yield "loss_recovered", plot_loss_recovered(metrics)
    if stability := _stabilities(task):
        yield "seed_stability", plot_seed_stability(pd.concat(stability, ignore_index=True))
    if task.inputs_of("train-sfnet") or task.inputs_of("train-sae"):
        yield "training_curves", plot_training_curves(_histories(task))


def _contact_sheet(spec: FiguresSpec, survey: SurveyTable) -> Figure:
    """A random sheet, the same for the same survey, each galaxy with the first label of the first target."""
    target = next(iter(spec.targets.values()))
    rows = np.sort(np.random.default_rng(0).permutation(len(survey.catalog))[:N_SHEET])
    values = measured_labels(survey.catalog)[target.columns[0]].iloc[rows]
    labels = [f"{value:.2f}" if np.isfinite(value) else "–" for value in values]
    return plot_contact_sheet(survey.images[rows], labels, survey.pixel_scale_arcsec)


def _predictions(task: Task, target: str, column: str) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Test predictions of one run of each method: a network by its own head, others by a probe on all features."""
    tables = {}
    for table, directory in _typical(task, "fit-probes"):
        if table.kind == "mean":
            continue
        rows = pd.read_parquet(directory / "predictions.parquet")
        rows = rows[(rows["target"] == target) & (rows["column"] == column)]
        probe = next(name for name in ("head", "ridge", "linear", "xgboost") if (rows["probe"] == name).any())
        rows = rows[rows["probe"] == probe]
        rows = rows[rows["n_features_used"] == rows["n_features_used"].max()].set_index("id_str")
        tables[f"{_label(table.features, table.k)}, {probe}"] = rows
    if not tables:
        return np.empty(0), {}
    y_true = next(iter(tables.values()))["y_true"]
    return y_true.to_numpy(), {name: rows["y_pred"].loc[y_true.index].to_numpy() for name, rows in tables.items()}


def _typical(task: Task, stage: str) -> list[tuple[TableSpec, Path]]:
    """One run of each method: the first seed, and the largest k that an SFNet has too (else the largest)."""
    made = task.inputs_of(stage)
    runs = [(job.spec.table, made[job]) for job in _table_jobs(task, stage)]
    shared = {table.k for table, _ in runs if table.kind == "sfnet"}
    methods: dict[str, list[tuple[TableSpec, Path]]] = {}
    for run in runs:
        methods.setdefault(run[0].features, []).append(run)

    def preference(run: tuple[TableSpec, Path]) -> tuple[bool, int, int]:
        k, seed = run[0].k or 0, run[0].seed or 0
        return (k in shared, k, -seed)

    return [max(runs_of_method, key=preference) for runs_of_method in methods.values()]


def _label(features: str, k: int | None) -> str:
    return features if k is None else f"{features} k={k}"


def _strongest(table: TableSpec, directory: Path, survey: SurveyTable) -> Figure:
    """The most used features of one table, each with its strongest test galaxies."""
    features = pd.read_parquet(directory / "features.parquet").head(N_FEATURES)
    examples = pd.read_parquet(directory / "examples.parquet")
    examples = examples[examples["rank"] < N_EXAMPLES]
    place = pd.Series(np.arange(len(survey.catalog)), index=survey.catalog["id_str"])
    images = np.zeros((len(features), N_EXAMPLES, *survey.images.shape[1:]), dtype=np.uint8)
    activations = np.full((len(features), N_EXAMPLES), np.nan)
    for i, feature in enumerate(features["feature"]):
        own = examples[examples["feature"] == feature]
        images[i, : len(own)] = survey.images[place[own["id_str"]].to_numpy()]
        activations[i, : len(own)] = own["activation"]
    weights = [name for name in features.columns if name.startswith("weight_")]
    notes = [
        "\n".join(
            [f"{name.removeprefix('weight_')}: {row[name]:+.3f}" for name in weights]
            + [f"ρ = {row['rho']:+.2f} {row['best_label'].removeprefix('factor_')}"]
        )
        for row in features.to_dict("records")
    ]
    names = [f"{table.features} {feature}" for feature in features["feature"]]
    frequencies = features["frequency"].to_numpy()
    return plot_strongest_galaxies(images, activations, names, frequencies, survey.pixel_scale_arcsec, notes)


def _reconstructions(task: Task) -> pd.DataFrame:
    """FVU of every SAE and PCA, with the names by which the probes know them."""
    stages = ("encode-embeddings", "fit-baselines")
    made = {job.key: path for stage in stages for job, path in task.inputs_of(stage).items()}
    parts = []
    for job in _table_jobs(task, "fit-probes"):
        path = made.get(job.inputs["features"].key)
        if path is not None and (path / "reconstruction.parquet").exists():
            table = job.spec.table
            part = pd.read_parquet(path / "reconstruction.parquet")
            if "is_whole" in part:
                part = part[part["is_whole"]]
            parts.append(part.assign(features=table.features, kind=table.kind, seed=table.seed))
    return pd.concat(parts, ignore_index=True)


def _of_dictionaries(task: Task, file: str) -> pd.DataFrame:
    """One table of every SAE of the comparison, with the names by which the probes know them."""
    tables = {job.inputs["features"].key: job.spec.table for job in _table_jobs(task, "fit-probes")}
    parts = [
        pd.read_parquet(path / file).assign(features=table.features, kind=table.kind, k=table.k, seed=table.seed)
        for job, path in task.inputs_of("encode-embeddings").items()
        if (table := tables.get(job.key)) is not None
    ]
    return pd.concat(parts, ignore_index=True)


def _named_with_k(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(features=[_label(name, k) for name, k in zip(table["features"], table["k"], strict=True)])


def _stabilities(task: Task) -> list[pd.DataFrame]:
    return [
        pd.read_parquet(path / "stability.parquet").assign(features=_label(job.spec.features, job.spec.k), kind="sae")
        for job, path in task.inputs_of("interpret-features").items()
        if isinstance(job.spec, StabilitySpec)
    ]


def _table_jobs(task: Task, stage: str) -> list[Job]:
    """Jobs of a stage that are about one feature table each."""
    return [job for job in task.inputs_of(stage) if hasattr(job.spec, "table")]


def _histories(task: Task) -> pd.DataFrame:
    parts = []
    for job, directory in task.inputs_of("train-sfnet").items():
        parts.append(pd.read_json(directory / "progress.jsonl", lines=True).assign(run=job.name, kind="network"))
    for job, directory in task.inputs_of("train-sae").items():
        history = pd.read_json(directory / "progress.jsonl", lines=True)
        runs = [f"{job.spec.sae.name}-k{k}-seed{seed}" for k, seed in zip(history["k"], history["seed"], strict=True)]
        parts.append(history.assign(run=runs, kind="sae"))
    return pd.concat(parts, ignore_index=True)


main = partial(stage_main, "make-figures")

if __name__ == "__main__":
    raise SystemExit(main())
