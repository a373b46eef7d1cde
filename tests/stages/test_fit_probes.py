"""The stage that probes: which galaxies are of which of two classes, what is fitted to which rows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from sfnetlab.artifacts import read_features, write_dense_features, write_rows
from sfnetlab.errors import DataError
from sfnetlab.jobs import TableSpec
from sfnetlab.metrics import tables
from sfnetlab.metrics.regression import rmse
from sfnetlab.plan import ProbeSpec
from sfnetlab.schema import Classes, Probes
from sfnetlab.settings import Target
from sfnetlab.stages import fit_probes, samples
from sfnetlab.stages.class_probes import class_numbers, class_predictions
from sfnetlab.stages.fit_probes import in_sample_predictions, on_seen_predictions, value_predictions
from sfnetlab.stages.samples import SEEN, Sample, parts_of
from sfnetlab.surveys.catalog import FOR_PROBES, taught_rows

N = 150
SPLIT = np.array(["train"] * 90 + ["valid"] * 30 + ["test"] * 30)
AGN = Classes(column="bptclass", positive=(4, 5), negative=(1, 2))


def spec(kind, **probes):
    table = TableSpec(features="x", kind=kind, k=None, seed=0)
    settings = Probes(budgets=(1, 2, 5, 10), **probes)
    target = {"y": Target(columns=("y",))}
    return ProbeSpec(table=table, targets=target, classes={"agn": AGN}, probes=settings, head_target=None)


def features(d=6, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, d))
    return X, (X[:, 3] + 0.3 * rng.normal(size=N) > 0).astype(int)


def catalog(codes):
    return pd.DataFrame({"bptclass": np.resize(np.array(codes, dtype=float), N), "split": SPLIT})


def found(spec, X, y):
    return list(class_predictions(spec, Sample(X, SPLIT), y, are_two=True))


def test_near_copies_are_counted_once_beside_the_features_in_all():
    rng = np.random.default_rng(0)
    two = rng.normal(size=(N, 2))
    X = np.repeat(two, 4, axis=1) + 0.3 * rng.normal(size=(N, 8))
    y = (two.sum(axis=1) > 0).astype(int)
    of_classes = found(spec("encoder"), X, y)
    of_values = list(value_predictions(spec("encoder"), Sample(X, SPLIT), two, None))
    for predictions in (of_classes, of_values):
        whole = {(p.n_effective, round(p.participation)) for p in predictions if p.n_features_used == 8}
        assert whole == {(2, 2)}
        assert all(p.n_effective == min(p.n_features_used, 2) for p in predictions)
    control = value_predictions(spec("photometry"), Sample(X, SPLIT, is_control=True), two, None)
    assert {(p.n_effective, np.isnan(p.participation)) for p in control} == {(2, True)}


def test_codes_that_are_not_listed_and_nan_are_of_no_class():
    numbers, names = class_numbers(catalog([1, 4, 2, 5, np.nan, -1]), "agn", AGN)
    np.testing.assert_array_equal(numbers, np.resize([0, 1, 0, 1, -1, -1], N))
    assert names == ["[1, 2]", "[4, 5]"]


def test_too_few_of_a_class_are_refused_with_their_number():
    table = catalog([1])
    table.loc[:20, "bptclass"] = 4
    with pytest.raises(
        DataError, match=r"'agn': 'bptclass' needs .* 10 valid galaxies each, too few are of \[4, 5\] \(0\)"
    ):
        class_numbers(table, "agn", AGN)


def test_classes_of_an_absent_or_text_column_are_refused():
    with pytest.raises(DataError, match="no column 'bptclass'"):
        class_numbers(catalog([1, 4]).drop(columns="bptclass"), "agn", AGN)
    with pytest.raises(DataError, match="'bptclass' is not numeric"):
        class_numbers(catalog([1, 4]).astype({"bptclass": str}), "agn", AGN)


def test_classifiers_use_all_features_and_the_best_of_each_budget_the_rbf_machine_budgets_only():
    X, y = features()
    fitted = [(p.probe, p.n_features_used) for p in found(spec("encoder"), X, y)]
    linear = {(name, n) for name in ("logistic", "linear_svm") for n in (6, 1, 2, 5)}
    assert len(fitted) == len(set(fitted))
    assert set(fitted) == linear | {("rbf_svm", n) for n in (1, 2, 5)} | {("majority", 0)}


@pytest.mark.parametrize(("kind", "finds"), [("encoder", True), ("pls", False)])
def test_the_best_feature_is_chosen_but_of_components_the_first(kind, finds):
    X, y = features()
    one = spec(kind, classifiers=("logistic",))
    (score,) = [p.values[:, 0] for p in found(one, X, y) if p.n_features_used == 1]
    assert (abs(np.corrcoef(score, X[:, 3])[0, 1]) > 0.99) == finds


def test_without_features_there_is_the_majority_alone():
    _, y = features()
    assert [p.probe for p in found(spec("mean"), np.zeros((N, 0)), y)] == ["majority"]


def test_every_classifier_finds_galaxies_above_the_threshold_that_is_best_on_valid_ones():
    rng = np.random.default_rng(0)
    y = (rng.random(N) < 0.3).astype(np.intp)
    X = np.hstack([rng.normal(size=(N, 5)), (y + rng.normal(size=N))[:, None]])
    valid = SPLIT == "valid"
    for prediction in found(spec("pca"), X, y):
        scores = prediction.values[valid, 0]
        shifts = np.unique(np.concatenate([scores - 1e-6, scores + 1e-6]))
        best = max(f1_score(y[valid], scores > shift, zero_division=0) for shift in shifts)
        assert f1_score(y[valid], scores > 0) == pytest.approx(best), prediction.probe


def memorised():
    """Features that know the labels of half of the train galaxies by heart, and say little of others."""
    rng = np.random.default_rng(2)
    y = rng.normal(size=(N, 1))
    rows = pd.DataFrame({"split": SPLIT, FOR_PROBES: (SPLIT == "train") & (np.arange(N) % 2 == 0)})
    X = rng.normal(size=(N, 3)) + 0.3 * y
    is_seen = taught_rows(rows)
    X[is_seen, 0] = y[is_seen, 0]
    return rows, X, y


def error_on_test(prediction, y):
    return rmse(y[SPLIT == "test", 0], prediction.values[SPLIT == "test", 0])


def test_probes_are_fitted_on_rows_that_the_features_have_not_learnt_and_the_other_number_stands_beside():
    rows, X, y = memorised()
    taught = replace(spec("encoder", kinds=("linear",)), has_seen_labels=True)
    sample = Sample(X, parts_of(rows, taught))
    assert (sample.rows("train") == np.flatnonzero(rows[FOR_PROBES])).all()
    honest = next(p for p in value_predictions(taught, sample, y, None) if p.n_features_used == 3)
    (seen,) = on_seen_predictions(taught, sample, y)
    assert (honest.probe, seen.probe) == ("linear", "linear_on_seen_rows")
    assert error_on_test(honest, y) < 0.9 * error_on_test(seen, y)
    changed = np.where((sample.split == SEEN)[:, None], 99.0, y)
    again = next(p for p in value_predictions(taught, sample, changed, None) if p.n_features_used == 3)
    np.testing.assert_array_equal(again.values, honest.values)


def test_features_that_have_seen_no_label_and_surveys_without_a_share_for_probes_keep_all_train_rows():
    rows, X, y = memorised()
    untaught = spec("encoder", kinds=("ridge",))
    taught = replace(untaught, has_seen_labels=True)
    for one, table in ((untaught, rows), (taught, rows.drop(columns=FOR_PROBES))):
        parts = parts_of(table, one)
        assert (parts == SPLIT).all()
        assert not list(on_seen_predictions(one, Sample(X, parts), y))


def test_in_sample_probes_are_fitted_to_the_test_rows():
    X, _ = features(d=40)
    noise = np.random.default_rng(1).normal(size=(N, 1))
    values = {p.probe: p.values[:, 0] for p in in_sample_predictions(spec("encoder"), Sample(X, SPLIT), noise)}
    assert set(values) == {"linear_in_sample", "ridge_in_sample", "xgboost_in_sample"}
    test = SPLIT == "test"
    np.testing.assert_allclose(values["linear_in_sample"][test], noise[test, 0], atol=1e-8)
    assert np.isnan(values["linear_in_sample"][~test]).all()


def test_only_encoders_have_in_sample_probes():
    X, y = features()
    assert list(in_sample_predictions(spec("sae"), Sample(X, SPLIT), y[:, None].astype(float))) == []


class Diverging:
    def fit(self, *rows):
        return self

    def predict(self, X):
        return np.where(np.arange(len(X))[:, None] < 2, np.inf, 1.0)


@pytest.mark.parametrize("predictions", [in_sample_predictions, lambda *given: value_predictions(*given, network=None)])
def test_predictions_that_are_not_finite_name_the_probe(predictions, monkeypatch):
    monkeypatch.setattr(fit_probes, "_new_probe", lambda name: Diverging())
    X, y = features()
    with pytest.raises(DataError, match=r"probe 'linear': 2 of .* predictions are not finite; .* max_spreads"):
        list(predictions(spec("encoder"), Sample(X, SPLIT), y[:, None].astype(float)))


@pytest.mark.parametrize("kinds", [("linear", "ridge"), ("xgboost",)])
def test_features_that_are_read_in_blocks_give_the_same_scores(tmp_path, monkeypatch, kinds):
    """A table of which the rows are in another order than the survey's, as a stage reads it."""
    X, classes = features()
    order = np.random.default_rng(1).permutation(N)
    ids = pd.Series([f"g{i}" for i in range(N)])
    write_rows(tmp_path, pd.DataFrame({"id_str": ids[order], "split": SPLIT[order]}))
    write_dense_features(tmp_path, X[order])
    Y = X @ np.linspace(0, 1, 12).reshape(6, 2)
    table, found = read_features(tmp_path), []
    for limit in (samples.MAPPED_VALUES, 0):
        monkeypatch.setattr(samples, "MAPPED_VALUES", limit)
        monkeypatch.setattr(tables, "BLOCK_VALUES", 2**22 if limit else 60)
        sample = Sample(samples.features_of(table, ids), SPLIT)
        assert isinstance(sample.X, tables.Mapped) == (limit == 0)
        settings = spec("external", kinds=kinds)
        found.append(
            [
                *value_predictions(settings, sample, Y, None),
                *in_sample_predictions(settings, sample, Y),
                *class_predictions(settings, sample, classes, are_two=True),
            ]
        )
    for whole, in_blocks in zip(*found, strict=True):
        assert (whole.probe, whole.n_features_used) == (in_blocks.probe, in_blocks.n_features_used)
        np.testing.assert_allclose(in_blocks.values, whole.values, rtol=1e-6, atol=1e-9)


def test_classifiers_are_scored_on_a_sample_of_many_train_galaxies_and_on_all_others(monkeypatch):
    X, y = features()
    (_, whole, *_) = found(spec("external"), X, y)
    monkeypatch.setattr(samples, "SCORED_ROWS", 30)
    sample = Sample(X, SPLIT)
    assert np.flatnonzero(sample.scored).tolist() == [*range(0, 90, 3), *range(90, N)]
    (_, sampled, *_) = class_predictions(spec("external"), sample, y, are_two=True)
    np.testing.assert_allclose(sampled.values[sample.scored], whole.values[sample.scored], rtol=1e-9)
    assert not sampled.values[~sample.scored].any()
