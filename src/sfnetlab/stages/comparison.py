"""The comparison of fit-probes: all tables together, means over seeds, gains, paired differences, mass-metallicity."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pandas as pd

from sfnetlab.artifacts import read_survey
from sfnetlab.errors import DataError
from sfnetlab.interpret.mzr import MASS, METALLICITY, SFR, metallicity_from_mass, predicted_relations
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods import BOUNDS, kinds_of
from sfnetlab.methods.controls import Mean
from sfnetlab.metrics.differences import differences_of_target
from sfnetlab.metrics.gains import combine_predictions, format_gains
from sfnetlab.metrics.method_scores import (
    MANY_CLASSES,
    TWO_CLASSES,
    VALUES,
    method_scores,
    without_interval,
)
from sfnetlab.metrics.selection import k_at_budgets
from sfnetlab.metrics.tidy import COLUMNS
from sfnetlab.plan import ComparisonSpec, ProbeSpec
from sfnetlab.probes import ProbeTask, probes_of, standing_for
from sfnetlab.report import (
    class_table,
    comparison_table,
    format_classes,
    format_comparison,
    format_differences,
    format_labels,
    format_on_seen_rows,
    label_table,
    latex_comparison,
    significance_line,
)
from sfnetlab.results import Results
from sfnetlab.schema import Probes
from sfnetlab.settings import Target
from sfnetlab.stages.samples import SEED
from sfnetlab.surveys.catalog import target_rows

log = logging.getLogger(__name__)


def compare(spec: ComparisonSpec, task: Task) -> Metrics:
    """Write all tables' metrics with what follows from them together, and the comparison as text, CSV and LaTeX."""
    survey = task.inputs["survey"]
    catalog = read_survey(survey).catalog
    probed = {job: path for job, path in task.inputs_of("fit-probes").items() if isinstance(job.spec, ProbeSpec)}
    probes: Probes = next(iter(probed)).spec.probes
    n_resamples = probes.n_bootstrap
    predictions = Results.of_task(task).predictions()
    assert predictions is not None
    columns_of = {name: target.columns for name, target in spec.targets.items()}
    ensembles, gained = combine_predictions(predictions, columns_of, n_resamples=n_resamples, seed=SEED)
    from_mass, implied, relations = _mass_metallicity(spec, catalog, survey, predictions, n_resamples)
    tables = [pd.read_parquet(path / "metrics.parquet") for path in probed.values()]
    metrics = pd.concat([*tables, *ensembles, *from_mass], ignore_index=True)[list(COLUMNS)]
    scored = _method_scores(spec, pd.concat([predictions, *implied], ignore_index=True), n_resamples)
    methods = pd.concat([*scored, *without_interval(ensembles)], ignore_index=True)
    choices = k_at_budgets(metrics)
    differences = _differences(spec, probes.classifiers, predictions, choices, n_resamples)
    metrics.to_parquet(task.work / "metrics.parquet", index=False)
    methods.to_parquet(task.work / "methods.parquet", index=False)
    differences.to_parquet(task.work / "differences.parquet", index=False)
    (task.work / "differences.txt").write_text(format_differences(differences) + "\n", encoding="utf-8")
    for name, table in relations.items():
        table.to_parquet(task.work / f"{name}.parquet", index=False)
    text = [*_written_comparison(task.work, methods, choices), significance_line(differences)]
    if on_seen := format_on_seen_rows(metrics):
        text.append(on_seen)
    if gained:
        gains = pd.concat(gained, ignore_index=True)
        gains.to_parquet(task.work / "gains.parquet", index=False)
        text.append(format_gains(gains))
    (task.work / "comparison.txt").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    return {"n_rows": len(metrics)}


def _method_scores(spec: ComparisonSpec, predictions: pd.DataFrame, n_resamples: int) -> Iterator[pd.DataFrame]:
    """The scores of methods on each target and set of classes."""
    columns_of = {name: target.columns for name, target in spec.targets.items()}
    yield method_scores(predictions, columns_of, VALUES, n_resamples=n_resamples, seed=SEED)
    for are_two, metrics in ((True, TWO_CLASSES), (False, MANY_CLASSES)):
        columns_of = {name: (each.column,) for name, each in spec.classes.items() if each.are_two == are_two}
        yield method_scores(
            predictions, columns_of, metrics, are_classes_many=not are_two, n_resamples=n_resamples, seed=SEED
        )


def _written_comparison(directory: Path, methods: pd.DataFrame, choices: pd.DataFrame) -> list[str]:
    """Write the tables that people read as CSV and LaTeX; the same as blocks of text."""
    table = comparison_table(methods[methods["metric"] == "rmse"])
    table.to_csv(directory / "comparison.csv", index=False)
    (directory / "comparison.tex").write_text(latex_comparison(table, choices), encoding="utf-8")
    text = [format_comparison(table)]
    are_two = methods["target"].isin(methods.loc[methods["metric"] == "auc", "target"])
    two, many = methods[are_two], methods[~are_two & (methods["metric"] == "accuracy")]
    if len(two):
        classes = class_table(two)
        classes.to_csv(directory / "classes.csv", index=False)
        text.append(format_classes(classes))
    if len(many):
        labels = label_table(methods[methods["target"].isin(many["target"])])
        labels.to_csv(directory / "labels.csv", index=False)
        text.append(format_labels(labels))
    return text


def _mass_metallicity(
    spec: ComparisonSpec, catalog: pd.DataFrame, survey: Path, predictions: pd.DataFrame, n_resamples: int
) -> tuple[list[pd.DataFrame], list[pd.DataFrame], dict[str, pd.DataFrame]]:
    """Scores of the metallicity that predicted masses imply, itself, and the relations of what heads predict."""
    target = next((name for name, target in spec.targets.items() if METALLICITY in target.columns), None)
    if target is None or not {MASS, METALLICITY, SFR} <= set(catalog):
        return [], [], {}
    measured = Target(columns=(METALLICITY, MASS, SFR), cut="metallicity")
    try:
        known = catalog[target_rows(catalog, measured, str(survey))]
    except DataError as error:
        log.info("the mass-metallicity relation is left out: %s", error)
        return [], [], {}
    scores, implied = metallicity_from_mass(known, predictions, n_resamples=n_resamples, seed=SEED)
    relations = predicted_relations(known, predictions, n_resamples=n_resamples, seed=SEED)
    scores, implied = ([rows.assign(target=target) for rows in tables] for tables in (scores, implied))
    return scores, implied, relations


def judged(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions of methods that are compared: all but bounds of what any method can reach.

    Where there is nothing but bounds, they are returned.
    """
    is_bound = predictions["kind"].isin(BOUNDS)
    return predictions if is_bound.all() else predictions[~is_bound]


def _differences(
    spec: ComparisonSpec,
    classifiers: tuple[str, ...],
    predictions: pd.DataFrame,
    choices: pd.DataFrame,
    n_resamples: int,
) -> pd.DataFrame:
    """The paired differences of every label column and pair of classes."""
    columns_of = {name: target.columns for name, target in spec.targets.items()}
    if set(classifiers) & set(standing_for("two_classes")):
        columns_of |= {name: (classes.column,) for name, classes in spec.classes.items() if classes.are_two}
    compared = judged(predictions)
    is_trivial = compared["kind"].isin((Mean.kind, *kinds_of("null")))
    trivial = {*spec.untrained, *compared.loc[is_trivial, "features"]}
    tables = []
    for name, columns in columns_of.items():
        probe_task: ProbeTask = "two_classes" if name in spec.classes else "values"
        metric: Literal["rmse", "auc"] = "auc" if name in spec.classes else "rmse"
        rows = compared[compared["target"] == name]
        on_budgets = [kind.name for kind in probes_of(probe_task) if kind.on_budgets]
        chosen = choices[choices["target"] == name].drop(columns="target")
        table = differences_of_target(
            rows, columns, metric, standing_for(probe_task), on_budgets, chosen, trivial,
            n_resamples=n_resamples, seed=SEED,
        )  # fmt: skip
        table.insert(0, "target", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
