"""Stage make-figures: every figure as PDF and PNG, each a query on the tables of the stages before it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.artifacts import SurveyTable, read_features, read_survey
from sfnetlab.figures.ablation import plot_ablation
from sfnetlab.figures.alignment import plot_alignment
from sfnetlab.figures.bpt import plot_bpt
from sfnetlab.figures.confounders import plot_confounders
from sfnetlab.figures.confusion_matrices import plot_confusion_matrices
from sfnetlab.figures.contact_sheet import plot_contact_sheet
from sfnetlab.figures.correlation_matrix import plot_correlation_matrix
from sfnetlab.figures.decoder_cosines import plot_decoder_cosines
from sfnetlab.figures.differences import plot_differences
from sfnetlab.figures.equations import plot_equations
from sfnetlab.figures.equivariance import plot_equivariance, plot_least_equivariant
from sfnetlab.figures.explained_variance import plot_explained_variance
from sfnetlab.figures.fvu_vs_l0 import plot_fvu_vs_l0
from sfnetlab.figures.gains import plot_gains
from sfnetlab.figures.in_sample import plot_in_sample
from sfnetlab.figures.l0_distribution import plot_l0_distribution
from sfnetlab.figures.label_scores import plot_label_confusion, plot_label_scores
from sfnetlab.figures.latent_frequency import plot_latent_frequency
from sfnetlab.figures.localisation import plot_localisation
from sfnetlab.figures.loss_recovered import plot_loss_recovered
from sfnetlab.figures.mass_metallicity import plot_mass_metallicity
from sfnetlab.figures.matching import plot_matched_correlations, plot_matching_matrix
from sfnetlab.figures.nested_fvu import plot_nested_fvu
from sfnetlab.figures.novelty import plot_novelty
from sfnetlab.figures.predicted_vs_true import plot_predicted_vs_true
from sfnetlab.figures.recovery import plot_absorption, plot_recovery_matrix, plot_recovery_scores
from sfnetlab.figures.rmse_vs_k import plot_rmse_vs_k
from sfnetlab.figures.seed_stability import plot_seed_stability
from sfnetlab.figures.splitting import plot_splitting
from sfnetlab.figures.strongest_galaxies import plot_strongest_galaxies
from sfnetlab.figures.style import save_figure
from sfnetlab.figures.training_curves import plot_training_curves
from sfnetlab.figures.yields import SEARCH, plot_yields
from sfnetlab.interpret.equations import UNIT, activation_scales, line_ratios, normalised_activations, printed_terms
from sfnetlab.interpret.equivariance import MAX_CHANGE
from sfnetlab.interpret.localisation import upsampled
from sfnetlab.jobs import Job, Metrics, TableSpec, Task
from sfnetlab.methods import kinds_of, typical
from sfnetlab.metrics.association import correlation_matrix
from sfnetlab.metrics.matching import children_per_latent
from sfnetlab.metrics.tables import columns_of
from sfnetlab.metrics.tidy import HEAD, IN_SAMPLE
from sfnetlab.plan import FiguresSpec, InterpretSpec, ProbeSpec, StabilitySpec
from sfnetlab.probes import shown_probe, standing_for
from sfnetlab.runner import stage_main
from sfnetlab.stages.autoencoder_figures import autoencoder_figures
from sfnetlab.stages.prediction_figures import prediction_figures, relation_figures, view_figures
from sfnetlab.surveys.catalog import LINE_FLUXES, measured_labels, unit_of
from sfnetlab.surveys.mock import MockSurvey

N_SHEET = 64
N_FEATURES = 6
N_EXAMPLES = 8
N_ON_DIAGRAMS = 4
"""Features on the BPT diagram and the mass-metallicity relation."""
N_LEAST_ON_RELATION = 50
"""Galaxies, fewer do not fill the bins of the mass-metallicity relation."""
N_CORRELATED = 10
N_CONFOUNDED = 15
N_TERMS = 4
N_MATCHED = 9
N_CONFUSED = 5
N_CONFUSED_LABELS = 6
N_LOCALISED = 5


def build(spec: FiguresSpec, task: Task) -> Metrics:
    survey = read_survey(task.inputs["survey"])
    metrics = pd.read_parquet(task.inputs["comparison"] / "metrics.parquet")
    n_figures = 0
    for name, figure in _figures(spec, task, survey, metrics):
        save_figure(figure, task.work, name)
        n_figures += 1
    return {"n_figures": n_figures}


def _figures(spec: FiguresSpec, task: Task, survey: SurveyTable, metrics: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    if survey.images is not None:
        yield "survey", _contact_sheet(spec, survey)
    for name, target in spec.targets.items():
        for column in target.columns:
            own = (metrics["target"] == name) & (metrics["column"] == column)
            floor = metrics.loc[own & (metrics["kind"] == "noise_floor"), "value"]
            methods = metrics[(metrics["kind"] != "noise_floor") & ~metrics["features"].isin(spec.other_views)]
            figure = plot_rmse_vs_k(methods, name, column, unit_of(column), floor.iloc[0] if len(floor) else None)
            yield f"rmse_vs_k-{name}-{column}", figure
            y_true, predictions = _predictions(task, name, column)
            if predictions:
                figure = plot_predicted_vs_true(y_true, predictions, column, unit_of(column))
                yield f"predicted_vs_true-{name}-{column}", figure
    if survey.images is not None:
        for table, directory in _typical(task, "interpret-features"):
            yield f"strongest-{directory.name}", _strongest(table, directory, survey)
    if vaes := task.inputs_of("train-vae"):
        yield from autoencoder_figures([(job.spec, path) for job, path in vaes.items()], survey, task.work)
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
    yield from _probe_figures(spec, task, metrics)
    yield from _table_figures(task)
    for told in _told(task):
        if told.spec.table.kind == "sfnet":
            yield from _sfnet_figures(told, survey)
    yield from _relation_figures(task)
    probed = [(job.spec, path) for job, path in task.inputs_of("fit-probes").items() if isinstance(job.spec, ProbeSpec)]
    drawn = [table for table, _ in _typical(task, "fit-probes")]
    probed = [(each, path) for each, path in probed if each.table in drawn]
    yield from prediction_figures(probed, survey)
    yield from relation_figures(probed, task.inputs["comparison"], survey)
    for job, path in task.inputs_of("compare-views").items():
        yield from view_figures(job.spec, path, spec.targets, metrics, survey)


def _contact_sheet(spec: FiguresSpec, survey: SurveyTable) -> Figure:
    """A random sheet, the same for the same survey, each galaxy with the first label of the first target."""
    target = next(iter(spec.targets.values()))
    rows = np.sort(np.random.default_rng(0).permutation(len(survey.catalog))[:N_SHEET])
    values = measured_labels(survey.catalog)[target.columns[0]].iloc[rows]
    labels = [f"{value:.2f}" if np.isfinite(value) else "–" for value in values]
    return plot_contact_sheet(survey.cutouts[rows], labels, survey.pixel_scale_arcsec)


def _predictions(task: Task, target: str, column: str) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Test predictions of one run of each method: a network by its own head, others by a probe on all features."""
    tables = {}
    for table, directory in _typical(task, "fit-probes"):
        if table.kind == "mean":
            continue
        rows = pd.read_parquet(directory / "predictions.parquet")
        rows = rows[(rows["target"] == target) & (rows["column"] == column)]
        probe = shown_probe(set(rows["probe"]))
        rows = rows[rows["probe"] == probe]
        rows = rows[rows["n_features_used"] == rows["n_features_used"].max()].set_index("id_str")
        tables[f"{_label(table.features, table.k)}, {probe}"] = rows
    if not tables:
        return np.empty(0), {}
    y_true = next(iter(tables.values()))["y_true"]
    return y_true.to_numpy(), {name: rows["y_pred"].loc[y_true.index].to_numpy() for name, rows in tables.items()}


def _typical(task: Task, stage: str) -> list[tuple[TableSpec, Path]]:
    """The typical run of each method, of its first view."""
    made = task.inputs_of(stage)
    other_views = task.job.spec.other_views
    jobs = [job for job in _table_jobs(task, stage) if job.spec.table.features not in other_views]
    runs = [(job.spec.table, made[job]) for job in jobs]
    chosen = typical(spec for spec, _ in runs)
    return [run for run in runs if run[0] in chosen]


def _label(features: str, k: int | None) -> str:
    return features if k is None else f"{features} k={k}"


def _strongest(table: TableSpec, directory: Path, survey: SurveyTable) -> Figure:
    """The most used features of one table, each with its strongest test galaxies."""
    features = pd.read_parquet(directory / "features.parquet").head(N_FEATURES)
    examples = pd.read_parquet(directory / "examples.parquet")
    examples = examples[examples["rank"] < N_EXAMPLES]
    place = pd.Series(np.arange(len(survey.catalog)), index=survey.catalog["id_str"])
    images = np.zeros((len(features), N_EXAMPLES, *survey.cutouts.shape[1:]), dtype=np.uint8)
    activations = np.full((len(features), N_EXAMPLES), np.nan)
    for i, feature in enumerate(features["feature"]):
        own = examples[examples["feature"] == feature]
        images[i, : len(own)] = survey.cutouts[place[own["id_str"]].to_numpy()]
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


# --- probes -----------------------------------------------------------------------------------------------------------


def _probe_figures(spec: FiguresSpec, task: Task, metrics: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    differences = pd.read_parquet(task.inputs["comparison"] / "differences.parquet")
    differences = differences[~differences[["features_a", "features_b"]].isin(spec.other_views).any(axis=1)]
    metrics = metrics[~metrics["features"].isin(spec.other_views)]
    sfnets = metrics.loc[metrics["kind"] == "sfnet", "features"].unique()
    for name, target in spec.targets.items():
        for column in target.columns:
            own = metrics[(metrics["target"] == name) & (metrics["column"] == column)]
            if own["probe"].str.endswith(IN_SAMPLE).any():
                yield f"in_sample-{name}-{column}", plot_in_sample(metrics, name, column, unit_of(column))
            of_column = differences[(differences["target"] == name) & (differences["column"] == column)]
            for reference in sfnets:
                if (of_column[["features_a", "features_b"]] == reference).any(axis=None):
                    figure = plot_differences(differences, name, column, unit_of(column), reference)
                    yield f"differences-{reference}-{name}-{column}", figure
    gains = task.inputs["comparison"] / "gains.parquet"
    if gains.exists():
        table = pd.read_parquet(gains)
        table = table[~table["features"].isin(spec.other_views)]
        for column in table.loc[table["probe"] == HEAD, "column"].unique():
            yield f"gains-{column}", plot_gains(table, column, unit_of(column))
    for name, classes in spec.classes.items():
        yield from (
            _two_class_figures(spec, metrics, name) if classes.are_two else _many_class_figures(task, metrics, name)
        )


def _two_class_figures(spec: FiguresSpec, metrics: pd.DataFrame, name: str) -> Iterator[tuple[str, Figure]]:
    own = metrics[metrics["target"] == name]
    ranks = {
        kind: rank for rank, kind in enumerate(("sfnet", "photometry", *kinds_of("embedding"), "pca", "vae", "sae"))
    }
    tables = own[own["kind"].isin(ranks)].drop_duplicates("features")
    ordered = tables.iloc[np.argsort(tables["kind"].map(ranks), kind="stable")]["features"].tolist()[:N_CONFUSED]
    budgets = sorted(set(own["n_features_used"]) & set(spec.budgets))
    if ordered and budgets:
        budget = 4 if 4 in budgets else budgets[-1]
        names = (f"not {name}", name)
        yield f"confusion-{name}", plot_confusion_matrices(metrics, name, ordered, budget, names)


def _many_class_figures(task: Task, metrics: pd.DataFrame, name: str) -> Iterator[tuple[str, Figure]]:
    yield f"label_scores-{name}", plot_label_scores(metrics, name)
    confusions = _confusions(task)
    own = metrics[(metrics["target"] == name) & (metrics["split"] == "test")]
    own = own[own["probe"] == standing_for("many_classes")[0]]
    best = own[own["metric"] == "balanced_accuracy"].groupby("features")["value"].max().sort_values(ascending=False)
    shown = [feature for feature in best.index if feature in set(confusions["features"])][:N_CONFUSED_LABELS]
    yield f"label_confusion-{name}", plot_label_confusion(confusions, name, shown)


def _confusions(task: Task) -> pd.DataFrame:
    """Of the typical run of each method, those of many classes."""
    tables = [
        pd.read_parquet(directory / "confusion.parquet").assign(features=table.features)
        for table, directory in _typical(task, "fit-probes")
    ]
    return pd.concat(tables, ignore_index=True)


# --- what is told of tables -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Told:
    """A feature table and what interpret-features says of it."""

    spec: InterpretSpec
    path: Path
    features: Path
    network: Path | None

    def has(self, name: str) -> bool:
        return (self.path / f"{name}.parquet").exists()

    def read(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.path / f"{name}.parquet")

    @property
    def label(self) -> str:
        return _label(self.spec.table.features, self.spec.table.k)


def _told(task: Task, *, of_all: bool = False) -> list[_Told]:
    """Of the typical table of each method, or of all tables."""
    made = {job.key: task.inputs[role] for role, job in task.job.inputs.items()}
    told = [
        _Told(job.spec, path, made[job.inputs["features"].key], _made(made, job.inputs.get("network")))
        for job, path in task.inputs_of("interpret-features").items()
        if isinstance(job.spec, InterpretSpec)
    ]
    chosen = typical(each.spec.table for each in told)
    return [each for each in told if of_all or each.spec.table in chosen]


def _made(made: dict[str, Path], job: Job | None) -> Path | None:
    return None if job is None else made[job.key]


def _gathered(told: Sequence[_Told], name: str) -> pd.DataFrame | None:
    parts = [each.read(name) for each in told if each.has(name)]
    return pd.concat(parts, ignore_index=True) if parts else None


def _table_figures(task: Task) -> Iterator[tuple[str, Figure]]:
    told = _told(task)
    alignment = _gathered(told, "alignment")
    if alignment is not None:
        yield from _alignment_figures(alignment)
    explained = _gathered(told, "explained_variance")
    if explained is not None:
        yield "explained_variance", plot_explained_variance(explained)
    changes = _gathered([each for each in told if each.spec.table.kind not in kinds_of("embedding")], "changes")
    if changes is not None and changes["change"].notna().any():
        yield "equivariance", plot_equivariance(changes, MAX_CHANGE)
    recovery = _gathered(told, "recovery")
    if recovery is not None:
        recovery = recovery.drop(columns="k").rename(columns={"n_features_used": "k"})
        yield "recovery_of_factors", plot_recovery_matrix(recovery, 1)
        yield "recovery_scores", plot_recovery_scores(recovery)
    absorption = _gathered(told, "absorption")
    if absorption is not None and absorption["absorption"].notna().any():
        yield "absorption", plot_absorption(absorption)


def _alignment_figures(alignment: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Densities, each where in any of its groups features differ: on few galaxies all may be wholly novel."""
    learned = alignment[~alignment["kind"].isin(kinds_of("embedding"))]
    learned = learned if len(learned) else alignment
    latents = alignment[alignment["kind"] == "sae"]
    if _differ(learned, "features", "max_rho"):
        yield "alignment", plot_alignment(learned, "features")
    if _differ(learned, "features", "novelty"):
        yield "novelty", plot_novelty(learned, "features")
    if _differ(latents, "group", "max_rho"):
        yield "alignment_by_frequency", plot_alignment(latents, "group")
    if "matryoshka_group" in latents:
        if _differ(latents, "matryoshka_group", "max_rho"):
            yield "alignment_by_prefix", plot_alignment(latents, "matryoshka_group")
        if _differ(latents, "matryoshka_group", "novelty"):
            yield "novelty_by_prefix", plot_novelty(latents, "matryoshka_group")


def _differ(alignment: pd.DataFrame, by: str, column: str) -> bool:
    values = alignment.dropna(subset=[by]).groupby(["features", by])[column]
    return bool((values.min() < values.max()).any())


def _sfnet_figures(told: _Told, survey: SurveyTable) -> Iterator[tuple[str, Figure]]:
    name, prefix = told.spec.table.features, _prefix(told)
    features = told.read("features")
    test = survey.catalog[(survey.catalog["split"] == "test").to_numpy()]
    train = survey.catalog[(survey.catalog["split"] == "train").to_numpy()]
    stored = read_features(told.features)
    most_used = features["feature"].to_numpy()
    names = dict(zip(most_used, features["name"], strict=True))

    ablation = told.read("ablation")
    yield f"ablation-{name}", plot_ablation(ablation, unit_of(ablation["column"].iloc[0]))
    correlated = most_used[:N_CORRELATED]
    correlation = correlation_matrix(columns_of(stored.of(test["id_str"]), correlated))
    figure = plot_correlation_matrix(correlation, [names[feature] for feature in correlated], is_clustered=False)
    yield f"correlation_matrix-{name}", figure
    if told.has("nuisances"):
        drawn = {int(feature): names[feature] for feature in most_used[:N_CONFOUNDED]}
        held_fixed = " and ".join(told.spec.interpretation.held_fixed)
        figure = plot_confounders(features, told.read("nuisances"), told.read("partial"), drawn, held_fixed)
        yield f"confounders-{name}", figure
    if told.has("changes"):
        changes = told.read("changes")
        if changes["change"].notna().any():
            yield f"least_equivariant-{name}", plot_least_equivariant(changes)
    laws = _fitted_laws(told)
    if len(laws):
        yield f"equations-{name}", _equations(laws, told, survey, prefix)
    if told.has("localised"):
        yield f"localisation-{name}", _localisation(told, survey)

    shown = most_used[:N_ON_DIAGRAMS]
    scales = activation_scales(stored.of(train["id_str"]), shown)
    shown, scales = shown[np.isfinite(scales)], scales[np.isfinite(scales)]
    if len(shown) == 0:
        return
    activations = normalised_activations(stored.of(test["id_str"]), shown, scales)
    labels = measured_labels(test)
    drawn_names = [names[feature] for feature in shown]
    if set(LINE_FLUXES) <= set(labels):
        ratios = line_ratios(labels).to_numpy()
        if np.isfinite(ratios).all(axis=1).any():
            examples = [_cutouts(told, survey, feature, 9) for feature in shown]
            figure = plot_bpt(ratios[:, 0], ratios[:, 1], activations, drawn_names, examples, UNIT)
            yield f"bpt-{name}", figure
    if {"lgm_tot_p50", "oh_p50"} <= set(labels):
        mass, metallicity = labels["lgm_tot_p50"].to_numpy(), labels["oh_p50"].to_numpy()
        if np.isfinite(mass + metallicity).sum() < N_LEAST_ON_RELATION:
            return
        yield f"mass_metallicity-{name}", plot_mass_metallicity(mass, metallicity, activations, drawn_names, UNIT)


def _prefix(told: _Told) -> str:
    """What the names of the table's features begin with."""
    first = told.read("features").iloc[0]
    return str(first["name"]).removesuffix(str(first["feature"]))


def _cutouts(told: _Told, survey: SurveyTable, feature: int, n: int) -> NDArray[np.uint8]:
    examples = told.read("examples")
    ids = examples.loc[examples["feature"] == feature].sort_values("rank")["id_str"].iloc[:n]
    return survey.cutouts[_places(survey, ids)]


def _places(survey: SurveyTable, ids: "pd.Series[str]") -> NDArray[np.intp]:
    place = pd.Series(np.arange(len(survey.catalog)), index=survey.catalog["id_str"])
    return place[ids].to_numpy()


def _fitted_laws(told: _Told) -> pd.DataFrame:
    """Those of least squares for each property of the network's own target: of lines, for their ratios."""
    laws = told.read("equations") if told.has("equations") else pd.DataFrame({"origin": [], "property": []})
    laws = laws[laws["origin"] == "regression"]
    own = told.spec.targets[told.spec.head_target].columns if told.spec.head_target else ()
    ratios = [name for name in laws["property"].unique() if str(name).startswith("log([")]
    wanted = ratios if set(LINE_FLUXES) <= set(own) and ratios else list(own)
    return laws[laws["property"].isin(wanted)].groupby("property", sort=False).head(1 + N_TERMS)


def _equations(laws: pd.DataFrame, told: _Told, survey: SurveyTable, prefix: str) -> Figure:
    cutouts = {
        (row["property"], row["term"]): _cutouts(told, survey, int(row["term"]), 1)[0]
        for row in laws.to_dict("records")
        if row["term"].isdigit()
    }
    return plot_equations(printed_terms(laws), cutouts, dict.fromkeys(laws["property"].unique(), prefix), UNIT)


def _localisation(told: _Told, survey: SurveyTable) -> Figure:
    """A few galaxies of each component, with the map of the feature that follows it."""
    import torch

    from sfnetlab.models.sfnet import load_network
    from sfnetlab.surveys.mock_render import component_masks

    mock = told.spec.mock
    assert isinstance(mock, MockSurvey)
    assert told.network is not None
    network = load_network(told.network)
    summary = told.read("localisation")
    rows = told.read("localised")
    rows = rows[rows["inside"].notna()].groupby("component", sort=False).head(N_LOCALISED)
    size = survey.cutouts.shape[1]
    shape = (len(summary["component"].unique()), N_LOCALISED, size, size)
    images, maps, masks = np.zeros((*shape, 3), np.uint8), np.zeros(shape), np.zeros(shape, dtype=bool)
    inside, area = np.full(shape[:2], np.nan), np.full(shape[:2], np.nan)
    names: list[str] = []
    for i, (component, own) in enumerate(rows.groupby("component", sort=False)):
        places, n = _places(survey, own["id_str"]), len(own)
        feature = int(own["feature"].iloc[0])
        images[i, :n] = survey.cutouts[places]
        with torch.no_grad():
            coarse = network.activation_maps(torch.from_numpy(images[i, :n]), feature).numpy()
        maps[i, :n] = upsampled(coarse, size, size)
        for j, (_, row) in enumerate(survey.catalog.iloc[places].iterrows()):
            masks[i, j] = component_masks(row, mock.image_size, mock.field_arcsec, mock.seed)[str(component)]
        inside[i, :n], area[i, :n] = own["inside"], own["area"]
        means = summary[summary["component"] == component].set_index("metric")["value"]
        names.append(
            f"{component}\n{_prefix(told)}{feature}\n{means['inside']:.0%} inside,\n{means['area']:.0%} of the area"
        )
    return plot_localisation(images, maps, masks, inside, area, names, survey.pixel_scale_arcsec)


# --- relations between tables -----------------------------------------------------------------------------------------


def _relation_figures(task: Task) -> Iterator[tuple[str, Figure]]:
    relations = task.inputs["relations"]
    tables = task.job.inputs["relations"].spec.tables
    if (relations / "matching.parquet").exists():
        summary = pd.read_parquet(relations / "matching.parquet")
        yield "matching", plot_matching_matrix(summary)
        pairs, null = (pd.read_parquet(relations / f"{name}.parquet") for name in ("pairs", "null"))
        best = summary.sort_values("mean_correlation", ascending=False).head(N_MATCHED)
        chosen = best[["table_a", "table_b"]]
        yield "matched_correlations", plot_matched_correlations(*(each.merge(chosen) for each in (pairs, null)))
    if (relations / "splitting.parquet").exists():
        splitting = pd.read_parquet(relations / "splitting.parquet")
        for (small, large), split in splitting.groupby(["small", "large"]):
            children = children_per_latent(split, int(split["n_alive_small"].iloc[0]))
            yield f"splitting-{small}-{large}", plot_splitting(split, children, str(small), str(large))
    if (relations / "yield.parquet").exists():
        found = pd.read_parquet(relations / "yield.parquet")
        kinds = {table.features: table.kind for table in tables.values()}
        seeds = {table.features: table.seed for table in reversed(tables.values())}
        kind = found["method"].map(kinds).fillna(SEARCH)
        yield "yields", plot_yields(found.assign(kind=kind, seed=found["method"].map(seeds)))


# --- dictionaries -----------------------------------------------------------------------------------------------------


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
    """Of all trainings, runs that differ in the seed by one name."""
    parts = []
    for job, directory in (task.inputs_of("train-sfnet") | task.inputs_of("finetune-zoobot")).items():
        run = job.name.removesuffix(f"-seed{job.spec.seed}")
        parts.append(pd.read_json(directory / "progress.jsonl", lines=True).assign(run=run, kind="network"))
    for job, directory in task.inputs_of("train-sae").items():
        history = pd.read_json(directory / "progress.jsonl", lines=True)
        parts.append(history.assign(run=[f"{job.spec.sae.name}-k{k}" for k in history["k"]], kind="sae"))
    return pd.concat(parts, ignore_index=True)


main = partial(stage_main, "make-figures")

if __name__ == "__main__":
    raise SystemExit(main())
