"""Figures of predictions: summaries, examples, quantiles, resolution, the mass-metallicity relation."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from sfnetlab.figures.calibration import plot_calibration
from sfnetlab.figures.gains import plot_gains
from sfnetlab.figures.mass_metallicity import plot_relation
from sfnetlab.figures.prediction_examples import chosen_examples, plot_prediction_examples
from sfnetlab.figures.prediction_summary import plot_prediction_summary
from sfnetlab.figures.resolution import plot_resolution, plot_surviving_features, plot_view_scores, plot_views
from sfnetlab.interpret.mzr import median_relation, relation_bins, residual_trends, tremonti_metallicity
from sfnetlab.metrics.gains import GAINS
from sfnetlab.metrics.regression import nmad, rmse

RNG = np.random.default_rng(0)
MASS = RNG.normal(10, 0.5, 400)
Z = tremonti_metallicity(MASS) + RNG.normal(0, 0.1, 400)
PREDICTED = 0.7 * Z + 0.3 * Z.mean() + RNG.normal(0, 0.06, 400)


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    rows = [
        {
            "target": "metallicity", "column": "oh_p50", "method": method, "kind": kind, "k": k, "view": view,
            "side_px": side, "is_degraded": view != "grey", "seed": seed, "metric": metric,
            "probe": "head", "value": 0.1 + 0.06 / side + 0.001 * seed, "low": 0.09, "high": 0.2,
        }
        for method, kind, k in (("dense", "encoder", None), ("sfnet", "sfnet", 4))
        for view, side in (("full", 32), ("px4", 4), ("px1", 1), ("grey", 32))
        for seed in (0, 1)
        for metric in ("rmse", "nmad")
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"k": "Int64", "seed": "Int64"})


CONTROLS = {"predict the mean": {"rmse": 0.2, "nmad": 0.19}}


def test_resolution_draws_means_over_seeds_against_the_side_without_other_views(scores: pd.DataFrame) -> None:
    fig = plot_resolution(scores, "metallicity", "oh_p50", "dex", CONTROLS)
    left = fig.axes[0]
    (line,) = [line for line in left.lines if line.get_label() == "SFNet, k = 4"]
    x, y = np.asarray(line.get_xydata()).T
    np.testing.assert_allclose(x, [1, 4, 32])
    np.testing.assert_allclose(y, 0.1005 + 0.06 / x)
    assert [label.get_text() for label in left.get_xticklabels()] == ["1²", "4²", "32²"]
    assert left.get_ylabel() == "error of oh_p50 (dex)"
    assert left.get_ylim()[1] > 0.2


def test_resolution_of_one_size_is_refused(scores: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no method has two sizes"):
        plot_resolution(scores[scores["view"].isin(["full", "grey"])], "metallicity", "oh_p50", "dex", {})


def test_views_stand_in_the_order_of_their_errors(scores: pd.DataFrame) -> None:
    ax = plot_view_scores(scores, "metallicity", "oh_p50", "dex", CONTROLS).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()][-2:] == ["px4", "px1"]


def test_the_median_of_surviving_features_is_drawn() -> None:
    rows = [
        {"method": "sfnet", "k": 4, "view": view, "seed": seed, "feature": f, "frequency": 1 - f / 10,
         "correlation": q * f / 9, "null_95": 0.1}
        for view, seed, q in (("full", 1, 1.0), ("px4", 0, 0.6), ("px4", 1, 0.4))
        for f in range(10)
    ]  # fmt: skip
    fig = plot_surviving_features(pd.DataFrame(rows), ["full", "px4"], {"px4": "4²"})
    (line,) = [line for line in fig.axes[0].lines if line.get_label() == "median feature"]
    np.testing.assert_allclose(np.asarray(line.get_ydata()), [0.5, 0.25])
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["full,\nother seed", "4²"]


def test_each_view_has_a_row_with_its_name() -> None:
    shown = np.zeros((2, 3, 8, 8, 3), np.uint8)
    ax = plot_views(shown, ["full", "px4"], 1.2).axes[0]
    assert {"full", "px4"} <= {text.get_text() for text in ax.texts}
    assert len(ax.images) == 6


def test_a_summary_tells_errors_and_draws_the_running_median() -> None:
    fig = plot_prediction_summary(Z, PREDICTED, "oh_p50", "dex", "net")
    main, above = fig.axes[:2]
    texts = [text.get_text() for text in above.get_legend().get_texts()]
    assert texts == [f"RMSE {rmse(Z, PREDICTED):#.3g}", f"NMAD {nmad(Z, PREDICTED):#.3g}"]
    (median,) = [line for line in main.lines if line.get_label() == "running median"]
    x, y = np.asarray(median.get_xydata()).T
    assert np.polyfit(x, y, 1)[0] == pytest.approx(0.7, abs=0.15)
    assert main.get_xlim() == main.get_ylim()
    assert main.get_xlabel() == "true oh_p50 (dex)"


def test_a_summary_of_perfect_predictions_is_drawn() -> None:
    plot_prediction_summary(Z, Z, "oh_p50", "dex", "net")


def test_examples_are_the_extremes() -> None:
    chosen = chosen_examples(Z, PREDICTED, 3, seed=0)
    assert chosen["highest true"][0] == Z.argmax()
    assert chosen["lowest predicted"][0] == PREDICTED.argmin()
    assert chosen["most underpredicted"][0] == (PREDICTED - Z).argmin()
    assert len(set(chosen["random"])) == 3
    images = np.zeros((7, 3, 8, 8, 3), np.uint8)
    places = np.stack(list(chosen.values()))
    ax = plot_prediction_examples(images, Z[places], PREDICTED[places], list(chosen), "oh_p50", "dex", "net", 0.4).axes[
        0
    ]
    assert f"{Z.max():.2f}" in {text.get_text() for text in ax.texts}


def test_calibration_draws_shares_below_each_level() -> None:
    levels = [0.025, 0.16, 0.5, 0.84, 0.975]
    n = len(Z)
    raw = PREDICTED[:, None] + 0.02 * norm.ppf(levels)
    table = pd.DataFrame(
        {
            "id_str": np.repeat([str(i) for i in range(n)], 5),
            "y_true": np.repeat(Z, 5),
            "level": np.tile(levels, n),
            "raw": raw.ravel(),
            "calibrated": (PREDICTED[:, None] + 0.08 * norm.ppf(levels)).ravel(),
        }
    )
    left, right = plot_calibration(table, "oh_p50", "dex", n_resamples=50).axes
    drawn = left.containers[0].lines[0]
    np.testing.assert_allclose(np.asarray(drawn.get_ydata()), (Z[:, None] <= raw).mean(axis=0))
    assert "68 % raw" in right.texts[0].get_text()


def test_the_relation_has_a_panel_for_the_truth_and_each_network_and_its_residuals_beneath() -> None:
    values = {"true": Z, "net": PREDICTED}
    sfr = {"log SFR": RNG.normal(size=len(MASS))}
    bins = {name: relation_bins(MASS, own, n_resamples=50, seed=0) for name, own in values.items()}
    residuals = {name: own - median_relation(MASS, own)(MASS) for name, own in values.items()}
    trends = {name: residual_trends(own, sfr, n_resamples=50, seed=0) for name, own in residuals.items()}
    axes = plot_relation(MASS, values, bins, sfr, trends, 0.1).axes
    assert [ax.get_title() for ax in axes[:2]] == ["true", "net"]
    assert axes[0].get_ylabel() == "12 + log(O/H)"
    (median,) = [line for line in axes[1].lines if line.get_label() == "median"]
    np.testing.assert_allclose(np.asarray(median.get_ydata()), bins["net"]["median"])
    assert [text.get_text().split(" = ")[0] for text in axes[4].get_legend().get_texts()] == ["true: ρ", "net: ρ"]
    assert axes[4].get_xlabel().startswith("log SFR (")


def test_a_summary_of_few_galaxies_has_no_running_median_and_their_scatter():
    fig = plot_prediction_summary(Z[:6], PREDICTED[:6], "oh_p50", "dex", "net")
    labels = [text for ax in fig.axes for text in ax.get_legend_handles_labels()[1]]
    assert "running median" not in labels
    assert any(text.startswith("RMSE") for text in labels)


@pytest.fixture
def gain_table() -> pd.DataFrame:
    rows = [
        {
            "features": features, "k": k, "probe": probe, "target": "metallicity", "column": "oh_p50", "gain": gain,
            "n_seeds": 2, "rmse_single": 0.12, "rmse": 0.12 + change, "difference": change, "low": change - 0.002,
            "high": change + 0.002, "p": 0.01,
        }
        for features, k, shift in (("dense", None, 0.0), ("sfnet", 4, -0.01))
        for probe in ("head", "ridge")
        for gain, change in zip(GAINS, (-0.004 + shift, -0.003 + shift, -0.006 + shift), strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"k": "Int64"})


def test_gains_are_drawn_of_heads_alone(gain_table: pd.DataFrame) -> None:
    (ax,) = plot_gains(gain_table, "oh_p50", "dex").axes
    drawn = sorted(
        float(x) for line in ax.lines for x in np.atleast_1d(line.get_xdata()) if line.get_marker() != "None"
    )
    expected = gain_table.loc[gain_table["probe"] == "head", "difference"]
    np.testing.assert_allclose(drawn, sorted(expected))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["dense", "sfnet, $k$ = 4"]


def test_gains_of_a_column_that_no_head_predicts_are_an_error(gain_table: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no head that predicts 'mass'"):
        plot_gains(gain_table, "mass", "dex")
