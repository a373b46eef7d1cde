"""Stage fit-probes: every feature table under the same probes, then all of them in one tidy `metrics.parquet`."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import FeatureTable, SurveyTable, read_features, read_survey
from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods import TRAITS, reader_of
from sfnetlab.metrics.predictions import (
    Prediction,
    prediction_rows,
    quantile_tables,
    value_scores,
)
from sfnetlab.metrics.quantiles import calibrated, conformal_offsets
from sfnetlab.metrics.reconstruction import loss_recovered
from sfnetlab.metrics.tables import FeatureMatrix, checked_table, columns_of, in_memory, rows_of
from sfnetlab.metrics.tidy import AUGMENTED, COLUMNS, HEAD, IN_SAMPLE, ON_SEEN, PARTS
from sfnetlab.plan import ComparisonSpec, ProbeSpec
from sfnetlab.probes import make_probe, probes_of
from sfnetlab.probes.common import Probe
from sfnetlab.results import with_identity
from sfnetlab.runner import stage_main
from sfnetlab.runtime import n_threads
from sfnetlab.settings import Target
from sfnetlab.stages.class_probes import probe_classes
from sfnetlab.stages.comparison import compare
from sfnetlab.stages.samples import N_LEAST, SEED, SEEN, NamedRows, Sample, features_of, parts_of, too_few
from sfnetlab.surveys.catalog import target_rows

Predict = Callable[[FeatureMatrix], NDArray[np.float64]]


def build(spec: ProbeSpec | ComparisonSpec, task: Task) -> Metrics:
    """Probe one feature table, or put together what was found of all of them."""
    match spec:
        case ProbeSpec():
            return _probe_table(spec, task)
        case ComparisonSpec():
            return compare(spec, task)


def _probe_table(spec: ProbeSpec, task: Task) -> Metrics:
    survey, table = read_survey(task.inputs["survey"]), read_features(task.inputs["features"])
    found: dict[str, list[pd.DataFrame]] = defaultdict(list)
    for stem, rows in chain(_probe_targets(spec, task, survey, table), probe_classes(spec, survey, table)):
        found[stem].append(rows)
    tables = {stem: pd.concat(parts, ignore_index=True) for stem, parts in found.items()}
    tables["metrics"] = with_identity(tables["metrics"], spec.table)[list(COLUMNS)]
    for stem, rows in tables.items():
        rows.to_parquet(task.work / f"{stem}.parquet", index=False)
    return {"n_rows": len(tables["metrics"])}


def _probe_targets(spec: ProbeSpec, task: Task, survey: SurveyTable, table: FeatureTable) -> Iterator[NamedRows]:
    reader = reader_of(spec.table, task.inputs)
    n_resamples = spec.probes.n_bootstrap
    for name, target in spec.targets.items():
        rows = survey.catalog[target_rows(survey.catalog, target, str(task.inputs["survey"]))]
        ids, Y = rows["id_str"], rows[list(target.columns)].to_numpy(dtype=np.float64, na_value=np.nan)
        is_control = TRAITS[spec.table.kind].role == "control"
        sample = Sample(features_of(table, ids), parts_of(rows, spec), is_control)
        if few := too_few(name, sample.split):
            raise DataError(few)
        if (x_hat := reader.decode(table.of(ids[sample.split == "test"]))) is not None:
            embedding = features_of(read_features(task.inputs["embedding"]), ids)
            x_hat = np.asarray(x_hat, dtype=np.float32)
            recovered = _loss_recovered(target, sample, embedding, x_hat, Y, n_resamples)
            yield "metrics", recovered.assign(target=name)
        network = task.inputs["network"] if name == spec.head_target else None
        turned = _turned_tables(spec, task, survey, ids[sample.split == "test"])
        for prediction in value_predictions(spec, sample, Y, network, turned):
            parts = ("test",) if prediction.probe.endswith(AUGMENTED) else PARTS
            scores = value_scores(
                target.columns, Y, prediction, sample.split, n_resamples=n_resamples, seed=SEED, parts=parts
            )
            yield "metrics", scores.assign(target=name)
            yield "predictions", prediction_rows(target.columns, ids, Y, prediction, sample.split).assign(target=name)
        if network is not None and target.quantiles:
            scores, quantiles = _quantiles(name, target, sample, ids, Y[:, 0], network, n_resamples)
            used = {"n_features_used": len(sample.alive)} | sample.all_effective._asdict()
            yield "metrics", scores.assign(target=name, **used)
            yield "quantiles", quantiles.assign(target=name, column=target.columns[0])
        for prediction in (*in_sample_predictions(spec, sample, Y), *on_seen_predictions(spec, sample, Y)):
            scores = value_scores(
                target.columns, Y, prediction, sample.split, n_resamples=n_resamples, seed=SEED, parts=("test",)
            )
            yield "metrics", scores.assign(target=name)


def value_predictions(
    spec: ProbeSpec,
    sample: Sample,
    Y: NDArray[np.float64],
    network: Path | None,
    turned: Sequence[FeatureMatrix] = (),
) -> Iterator[Prediction]:
    """Yield predictions of the network's own head, of the probes on all features and of a linear probe on each budget.

    Parameters
    ----------
    Y : ndarray of shape (n, n_columns)
        Labels of the sample.
    network
        Directory of the network that predicts them, if one was trained to.
    turned
        Features of the test galaxies under each symmetry of their cutouts: head and probes on all features predict
        these also by the mean over them, NaN elsewhere.
    """

    def predicted(name: str, columns: NDArray[np.integer], predict: Predict) -> Iterator[Prediction]:
        yield Prediction(name, len(columns), _finite(name, predict(sample.X)), *sample.all_effective)
        if turned:
            values = np.full(Y.shape, np.nan)
            values[sample.split == "test"] = _finite(name, np.mean([predict(table) for table in turned], axis=0))
            yield Prediction(f"{name}{AUGMENTED}", len(columns), values, *sample.all_effective)

    def fitted(name: str, columns: NDArray[np.integer]) -> Predict:
        probe = sample.fit(_new_probe(name), columns_of(sample.X, columns), Y)
        return lambda table: probe.predict(columns_of(table, columns))

    if network is not None:
        yield from predicted(HEAD, sample.alive, partial(_head_predictions, network))
    for name in spec.probes.kinds:
        yield from predicted(name, sample.alive, fitted(name, sample.alive))
    for columns in sample.budgets(spec, Y):
        effective = sample.effective(columns)
        for kind in probes_of("values"):
            if kind.on_budgets:
                values = _finite(kind.name, fitted(kind.name, columns)(sample.X))
                yield Prediction(kind.name, len(columns), values, *effective)


def in_sample_predictions(spec: ProbeSpec, sample: Sample, Y: NDArray[np.float64]) -> Iterator[Prediction]:
    """For embeddings each probe, fitted to the test rows that it then predicts, NaN elsewhere.

    What the SFNet paper calls cheating: what such a fit gains over the honest one is memorised. Penalty and rounds are
    chosen on the valid rows, as ever, so that the two differ in nothing else.
    """
    if TRAITS[spec.table.kind].role == "embedding":
        yield from _test_predictions(spec, sample, Y, "test", IN_SAMPLE)


def on_seen_predictions(spec: ProbeSpec, sample: Sample, Y: NDArray[np.float64]) -> Iterator[Prediction]:
    """Each probe, fitted to the train rows whose labels the features have learnt, for test rows; NaN elsewhere.

    On such rows features know the label better than on others, and a probe trusts them too much. Nothing where no rows
    were left to probes: then all probes are fitted so.
    """
    if len(sample.rows(SEEN)) >= N_LEAST:
        yield from _test_predictions(spec, sample, Y, SEEN, ON_SEEN)


def _test_predictions(
    spec: ProbeSpec, sample: Sample, Y: NDArray[np.float64], part: str, ending: str
) -> Iterator[Prediction]:
    """Predictions for test rows of each probe on all features, fitted on one part."""
    chosen, test = columns_of(sample.X, sample.alive), sample.rows("test")
    for name in spec.probes.kinds:
        values = np.full(Y.shape, np.nan)
        probe = sample.fit(_new_probe(name), chosen, Y, on=part)
        values[test] = _finite(name, probe.predict(rows_of(chosen, test)))
        yield Prediction(f"{name}{ending}", len(sample.alive), values, *sample.all_effective)


def _finite(probe: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return predictions as they are; a DataError if one is not finite."""
    if n_bad := np.count_nonzero(~np.isfinite(values).all(axis=1)):
        raise DataError(
            f"probe {probe!r}: {n_bad} of {len(values)} predictions are not finite; features or labels hold values too "
            f"large to compute with: look for broken ones, or leave labels out by max_spreads of the target"
        )
    return values


def _new_probe(name: str) -> Probe:
    return make_probe(name, seed=SEED, n_threads=n_threads())


def _loss_recovered(
    target: Target,
    sample: Sample,
    embedding: FeatureMatrix,
    x_hat: FeatureMatrix,
    Y: NDArray[np.float64],
    n_resamples: int,
) -> pd.DataFrame:
    """Rows of `loss_recovered` by a ridge probe of the embedding, from reconstructions `x_hat` of the test rows."""
    train, test = sample.rows("train"), sample.rows("test")
    probe = sample.fit(_new_probe("ridge"), embedding, Y)
    of_embedding, of_reconstruction = (probe.predict(values) for values in (rows_of(embedding, test), x_hat))
    rows = loss_recovered(
        target.columns, Y[test], Y[train].mean(axis=0), of_embedding, of_reconstruction,
        n_resamples=n_resamples, seed=SEED,
    )  # fmt: skip
    about = {"probe": "ridge", "n_features_used": checked_table(embedding).shape[1], "split": "test", "n": len(test)}
    return rows.assign(**about)


def _head_predictions(network: Path, X: FeatureMatrix) -> NDArray[np.float64]:
    """Label units, (n, n_columns); of quantiles the median."""
    from sfnetlab.models.sfnet import load_network

    weights, bias = load_network(network).head_weights()
    return np.asarray(in_memory(checked_table(X)) @ weights.T + bias, dtype=np.float64)


def _turned_tables(spec: ProbeSpec, task: Task, survey: SurveyTable, ids: "pd.Series[str]") -> list[FeatureMatrix]:
    """What a network trained here makes of these galaxies under each of the 8 symmetries of their cutouts, if asked."""
    if not (spec.probes.test_time_augmentation and "network" in task.inputs):
        return []
    from scipy import sparse

    from sfnetlab.models.sfnet import load_network
    from sfnetlab.training.network import embed_turned

    network = load_network(task.inputs["network"]).to(task.device)
    place = pd.Series(np.arange(len(survey.catalog)), index=survey.catalog["id_str"])
    tables: list[FeatureMatrix] = []
    for batches in embed_turned(network.features, survey.cutouts, place[ids].to_numpy(), device=task.device):
        if network.k is None:
            tables.append(np.concatenate(list(batches)))
        else:
            tables.append(sparse.csr_array(sparse.vstack([sparse.csr_array(batch) for batch in batches])))
    return tables


def _quantiles(
    name: str,
    target: Target,
    sample: Sample,
    ids: "pd.Series[str]",
    y: NDArray[np.float64],
    network: Path,
    n_resamples: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of `quantile_tables`, calibrated on valid rows."""
    from sfnetlab.models.sfnet import load_network

    (column,), levels, valid = target.columns, target.quantiles, sample.rows("valid")
    raw = load_network(network).read_features(in_memory(checked_table(sample.X)))
    try:
        offsets = conformal_offsets(y[valid], raw[valid], levels)
    except ValueError as error:
        raise DataError(f"target {name!r}: {error}: give the valid part a greater share in split.fractions") from None
    both = (raw, calibrated(raw, offsets, levels))
    return quantile_tables(column, ids, y, both, levels, sample.split, n_resamples=n_resamples, seed=SEED)


main = partial(stage_main, "fit-probes")

if __name__ == "__main__":
    raise SystemExit(main())
