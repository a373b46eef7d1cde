"""Figures of make-figures about predictions: summaries, examples, quantiles, views, the mass-metallicity relation."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sfnetlab.artifacts import SurveyTable
from sfnetlab.figures.calibration import plot_calibration
from sfnetlab.figures.mass_metallicity import plot_relation, plot_relation_residuals
from sfnetlab.figures.prediction_examples import chosen_examples, plot_prediction_examples
from sfnetlab.figures.prediction_summary import plot_prediction_summary
from sfnetlab.figures.resolution import plot_resolution, plot_surviving_features, plot_view_scores, plot_views
from sfnetlab.interpret.mzr import TREMONTI_SCATTER_DEX, median_relation
from sfnetlab.plan import ProbeSpec, ViewsSpec
from sfnetlab.settings import FULL_VIEW, Target
from sfnetlab.surveys.catalog import unit_of

N_EXAMPLES = 8
N_ON_RELATION = 2
"""Networks beside the truth on the mass-metallicity relation."""
MASS, METALLICITY, SFR = "lgm_tot_p50", "oh_p50", "sfr_tot_p50"

Probed = Sequence[tuple[ProbeSpec, Path]]
Figures = Iterator[tuple[str, Figure]]


def prediction_figures(probed: Probed, survey: SurveyTable) -> Figures:
    """For each network a summary of its own head's test predictions, the galaxies behind them, and its quantiles.

    Parameters
    ----------
    probed : sequence
        What fit-probes says of the tables to draw: spec and directory.
    """
    for spec, path in probed:
        if spec.head_target is None:
            continue
        label = _label(spec)
        rows = _head_rows(spec, path)
        for column in spec.targets[spec.head_target].columns:
            own = rows[rows["column"] == column]
            y_true, y_pred = own["y_true"].to_numpy(), own["y_pred"].to_numpy()
            name = f"{path.name}-{column}"
            yield f"summary-{name}", plot_prediction_summary(y_true, y_pred, column, unit_of(column), label)
            if survey.images is not None:
                yield f"examples-{name}", _examples(own, column, survey)
        if (path / "quantiles.parquet").exists():
            quantiles = pd.read_parquet(path / "quantiles.parquet")
            column = str(quantiles["column"].iloc[0])
            yield f"calibration-{path.name}", plot_calibration(quantiles, column, unit_of(column))


def _label(spec: ProbeSpec) -> str:
    table = spec.table
    return table.features if table.k is None else f"{table.features} k = {table.k}"


def _head_rows(spec: ProbeSpec, path: Path) -> pd.DataFrame:
    rows = pd.read_parquet(path / "predictions.parquet")
    return rows[(rows["target"] == spec.head_target) & (rows["probe"] == "head")]


def _examples(rows: pd.DataFrame, column: str, survey: SurveyTable) -> Figure:
    y_true, y_pred = rows["y_true"].to_numpy(), rows["y_pred"].to_numpy()
    chosen = chosen_examples(y_true, y_pred, min(N_EXAMPLES, len(rows)), seed=0)
    places = np.stack(list(chosen.values()))
    place = pd.Series(np.arange(len(survey.catalog)), index=survey.catalog["id_str"])
    cutouts = survey.cutouts[place[rows["id_str"]].to_numpy()[places].ravel()]
    images = np.asarray(cutouts).reshape(*places.shape, *survey.cutouts.shape[1:])
    return plot_prediction_examples(
        images, y_true[places], y_pred[places], list(chosen), column, unit_of(column), survey.pixel_scale_arcsec
    )


# --- views ------------------------------------------------------------------------------------------------------------


def view_figures(
    spec: ViewsSpec, path: Path, targets: Mapping[str, Target], metrics: pd.DataFrame, survey: SurveyTable
) -> Figures:
    """What stage compare-views found.

    Parameters
    ----------
    metrics : DataFrame
        `metrics.parquet` of the comparison, for the controls.
    """
    scores, survival = (pd.read_parquet(path / f"{name}.parquet") for name in ("scores", "survival"))
    shown, names = np.load(path / "views.npy", mmap_mode="r"), pd.read_parquet(path / "views.parquet")["view"].tolist()
    yield "views", plot_views(np.asarray(shown), names, survey.pixel_scale_arcsec)
    for name, target in targets.items():
        for column in target.columns:
            own = scores[(scores["target"] == name) & (scores["column"] == column)]
            if own.empty:
                continue
            controls = _controls(metrics, name, column)
            yield f"view_scores-{name}-{column}", plot_view_scores(scores, name, column, unit_of(column), controls)
            if own[own["is_degraded"]].groupby("method")["side_px"].nunique().max() > 1:
                yield f"resolution-{name}-{column}", plot_resolution(scores, name, column, unit_of(column), controls)
    first = next(iter(spec.views.values())).view
    sizes = scores.drop_duplicates("view").set_index("view")
    order = [first, *sizes.drop(first).sort_values("side_px", ascending=False, kind="stable").index]
    ticks = {
        view: f"{row['side_px']}²" if row["is_degraded"] and view != FULL_VIEW else str(view)
        for view, row in sizes.iterrows()
    }
    yield (
        "surviving_features",
        plot_surviving_features(survival, order, {str(view): tick for view, tick in ticks.items()}),
    )


def _controls(metrics: pd.DataFrame, target: str, column: str) -> dict[str, dict[str, float]]:
    """Test RMSE and NMAD of the mean, and of photometry by the probe that is best on valid rows."""
    rows = metrics[
        (metrics["target"] == target) & (metrics["column"] == column) & metrics["metric"].isin(["rmse", "nmad"])
    ]
    controls: dict[str, dict[str, float]] = {}
    for kind, label in (("mean", "predict the mean"), ("photometry", "photometry")):
        own = rows[rows["kind"] == kind]
        if own.empty:
            continue
        valid = own[(own["split"] == "valid") & (own["metric"] == "rmse")]
        best = valid.loc[valid["value"].idxmin(), "probe"]
        test = own[(own["split"] == "test") & (own["probe"] == best)]
        name = label if kind == "mean" else f"{label} ({best})"
        controls[name] = {str(metric): float(value) for metric, value in test.groupby("metric")["value"].mean().items()}
    return controls


# --- mass and metallicity ---------------------------------------------------------------------------------------------


def relation_figures(probed: Probed, comparison: Path, survey: SurveyTable) -> Figures:
    """The mass-metallicity relation of the networks that predict the metallicity, as stage fit-probes measured it."""
    if not (comparison / "mass_metallicity_bins.parquet").exists():
        return
    bins, trends = (pd.read_parquet(comparison / f"mass_metallicity_{name}.parquet") for name in ("bins", "residuals"))
    catalog = survey.catalog.set_index("id_str")
    metallicities: dict[str, pd.Series] = {}
    tables: dict[str, dict[str, pd.DataFrame]] = {"bins": {}, "trends": {}}
    for spec, path in probed:
        if spec.head_target is None or len(metallicities) == N_ON_RELATION:
            continue
        rows = _head_rows(spec, path)
        found = {name: _of_table(table, spec) for name, table in (("bins", bins), ("trends", trends))}
        if found["bins"].empty or found["trends"].empty:
            continue
        metallicities[_label(spec)] = rows[rows["column"] == METALLICITY].set_index("id_str")["y_pred"]
        for name, table in found.items():
            tables[name][_label(spec)] = table
    if not metallicities:
        return
    ids = next(iter(metallicities.values())).index
    known = catalog.loc[ids, [MASS, METALLICITY, SFR]]
    values = {"true": known[METALLICITY].to_numpy()} | {
        name: own.loc[ids].to_numpy() for name, own in metallicities.items()
    }
    of_bins = {"true": bins[bins["features"] == "true"]} | tables["bins"]
    of_trends = {"true": trends[trends["features"] == "true"]} | tables["trends"]
    mass = known[MASS].to_numpy()
    yield "mass_metallicity_relation", plot_relation(mass, values, of_bins, TREMONTI_SCATTER_DEX)
    residuals = {name: own - median_relation(mass, own)(mass) for name, own in values.items()}
    quantities = {"log SFR": known[SFR].to_numpy(), "log sSFR": (known[SFR] - known[MASS]).to_numpy()}
    units = {"log SFR": r"$M_\odot$ / yr", "log sSFR": "1 / yr"}
    yield "mass_metallicity_residuals", plot_relation_residuals(residuals, quantities, of_trends, units)


def _of_table(rows: pd.DataFrame, spec: ProbeSpec) -> pd.DataFrame:
    table = spec.table
    same_k = rows["k"].isna() if table.k is None else rows["k"] == table.k
    same_seed = rows["seed"].isna() if table.seed is None else rows["seed"] == table.seed
    return rows[(rows["features"] == table.features) & same_k & same_seed]
