import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sfnetlab.figures.rmse_vs_k import plot_rmse_vs_k

KS = np.array([2.0, 4.0, 8.0])


def draw(metrics: pd.DataFrame) -> Figure:
    return plot_rmse_vs_k(metrics, "metallicity", "metallicity_1", "dex")


@pytest.fixture(scope="module")
def figure(metrics: pd.DataFrame) -> Figure:
    return draw(metrics)


def curves(ax: Axes) -> dict[str, NDArray[np.float64]]:
    lines = {str(line.get_label()): np.asarray(line.get_xydata()) for line in ax.lines}
    return {label: xy for label, xy in lines.items() if not label.startswith("_")}


def level(ax: Axes, label: str) -> float:
    (line,) = [line for line in ax.lines if str(line.get_label()).startswith(f"_{label}")]
    return float(np.asarray(line.get_ydata())[0])


def expected(start: float) -> NDArray[np.float64]:
    """Means over seeds 0 and 1 of start + 0.1 / k + 0.001 seed."""
    return np.column_stack([KS, start + 0.1 / KS + 0.0005])


@pytest.mark.parametrize(
    ("panel", "label", "start"),
    [
        (0, "SFNet†", 0.10),
        (0, "SFNet†, linear probe on all", 0.11),
        (0, "SAE", 0.14),
        (0, "matryoshka", 0.15),
        (0, "PCA", 0.18),
        (1, "SFNet†", 0.13),
        (1, "SAE", 0.17),
        (1, "matryoshka", 0.18),
        (1, "PCA", 0.18),
    ],
)
def test_curve_is_the_mean_over_seeds_at_its_budget(figure: Figure, panel: int, label: str, start: float) -> None:
    np.testing.assert_allclose(curves(figure.axes[panel])[label], expected(start))


def test_panels_hold_no_other_curves(figure: Figure) -> None:
    assert [len(curves(ax)) for ax in figure.axes[:2]] == [5, 4]


def test_the_largest_budget_is_drawn_where_no_linear_probe_has_all_features(metrics: pd.DataFrame) -> None:
    """As with `kinds = ["ridge"]`: linear probes are fitted on the budgets alone."""
    is_on_all = (metrics["probe"] == "linear") & metrics["n_features_used"].isin([11, 2048])
    right = draw(metrics[~(is_on_all & (metrics["kind"] == "sae"))]).axes[1]
    np.testing.assert_allclose(curves(right)["SAE"], expected(0.17))


def test_at_a_budget_the_k_is_drawn_that_is_best_on_valid_galaxies(metrics: pd.DataFrame) -> None:
    """At 2 features k = 2 is nearest and best on test; on valid it is bad and k = 8 is good."""
    is_at_two = (metrics["features"] == "sae") & (metrics["n_features_used"] == 2)
    is_valid = is_at_two & (metrics["split"] == "valid")
    value = metrics["value"].mask(is_valid & (metrics["k"] == 2), 9.0).mask(is_valid & (metrics["k"] == 8), 0.01)
    right = draw(metrics.assign(value=value)).axes[1]
    found = curves(right)["SAE"]
    np.testing.assert_allclose(found[0], [2, expected(0.17)[0, 1] + 0.01])
    np.testing.assert_allclose(found[1:], expected(0.17)[1:])


def test_near_copies_stand_at_the_number_that_they_effectively_are(metrics: pd.DataFrame) -> None:
    """All of SFNet's budgets are two effective features, of which the largest is best on valid galaxies."""
    n_effective = metrics["n_features_used"].where((metrics["kind"] != "sfnet") | (metrics["n_features_used"] > 8), 2)
    ax = draw(metrics.assign(n_effective=n_effective.clip(upper=100))).axes[2]
    found = curves(ax)["SFNet†"]
    np.testing.assert_allclose(found[0], [2, 0.13 + 0.1 / 8 + 0.0005])
    np.testing.assert_allclose(curves(ax)["PCA"][:, 0], KS)
    assert ax.get_xlabel().startswith("effective features")


def test_dots_are_the_seeds(figure: Figure) -> None:
    ax = figure.axes[0]
    head = [line.get_label() for line in ax.lines].index("SFNet†")
    dots = np.asarray(ax.lines[head + 1].get_xydata())
    np.testing.assert_allclose(sorted(dots[:, 1]), sorted([*(0.1 + 0.1 / KS), *(0.101 + 0.1 / KS)]))


def test_one_seed_draws_no_dots(metrics: pd.DataFrame) -> None:
    ax = draw(metrics[metrics["seed"] == 0]).axes[0]
    assert all(len(line.get_xydata()) == 0 for line in ax.lines if line.get_label() == "_seeds")


def test_bars_are_the_mean_intervals(figure: Figure) -> None:
    ax = figure.axes[0]
    segments = np.array(ax.containers[0].lines[2][0].get_segments())
    np.testing.assert_allclose(segments[:, 0, 1], expected(0.10)[:, 1] - 0.01)
    np.testing.assert_allclose(segments[:, 1, 1], expected(0.10)[:, 1] + 0.02)


@pytest.mark.parametrize("name", ["predict the mean", "photometry (xgboost)"])
@pytest.mark.parametrize("panel", [0, 1, 2])
def test_controls_are_lines_across_all_panels(figure: Figure, name: str, panel: int) -> None:
    want = {"predict the mean": 0.3005, "photometry (xgboost)": 0.2105}[name]
    assert level(figure.axes[panel], name) == pytest.approx(want)


def test_encoder_controls_use_all_dimensions(figure: Figure) -> None:
    ax = figure.axes[1]
    assert level(ax, "dense, all 512 (ridge)") == pytest.approx(0.0905)
    assert level(ax, "random, all 512 (ridge)") == pytest.approx(0.2505)


@pytest.mark.parametrize("kind", ["vae", "zoobot", "external"])
def test_other_dense_features_are_controls_like_encoders(metrics: pd.DataFrame, kind: str) -> None:
    is_dense = (metrics["features"] == "dense") & (metrics["kind"] == "encoder")
    right = draw(metrics.assign(kind=metrics["kind"].mask(is_dense, kind))).axes[1]
    assert level(right, "dense, all 512 (ridge)") == pytest.approx(0.0905)


def test_vae_has_a_curve_of_its_best_latents(metrics: pd.DataFrame) -> None:
    own = metrics[(metrics["kind"] == "pca")].assign(features="elbo", kind="vae")
    whole = own[own["n_features_used"] == 8].assign(n_features_used=20)
    right = draw(pd.concat([metrics, own, whole])).axes[1]
    np.testing.assert_allclose(curves(right)["elbo"], expected(0.18))


def test_another_target_draws_its_own_rows(metrics: pd.DataFrame) -> None:
    ax = plot_rmse_vs_k(metrics, "lines", "lines_1", "dex").axes[0]
    np.testing.assert_allclose(curves(ax)["SFNet†"][:, 1], 3 * expected(0.10)[:, 1])


def test_sae_without_ridge_rows_is_drawn_and_named_with_its_linear_probe(metrics: pd.DataFrame) -> None:
    rows = metrics[~((metrics["kind"] == "sae") & (metrics["probe"] == "ridge"))]
    left = draw(rows).axes[0]
    np.testing.assert_allclose(curves(left)["SAE"][:, 1], 0.5005)
    assert "linear on all latents" in left.get_title().replace("\n", " ")


def test_the_title_of_the_left_panel_tells_the_probes(figure: Figure) -> None:
    title = figure.axes[0].get_title().replace("\n", " ")
    assert title == "own head; ridge on all latents; linear on the first components"


def test_sfnet_without_linear_probe_on_all_is_drawn_with_ridge(metrics: pd.DataFrame) -> None:
    is_on_all = (metrics["kind"] == "sfnet") & (metrics["n_features_used"] == 11)
    rows = metrics.assign(probe=metrics["probe"].mask(is_on_all, "ridge"))
    left = curves(draw(rows).axes[0])
    np.testing.assert_allclose(left["SFNet†, ridge probe on all"], expected(0.11))


@pytest.mark.parametrize("kind", ["sfnet", "sae", "pca", "mean", "photometry", "encoder"])
def test_draws_without_any_one_kind(metrics: pd.DataFrame, kind: str) -> None:
    assert all(curves(ax) for ax in draw(metrics[metrics["kind"] != kind]).axes)


def test_one_k_is_drawn_with_its_tick(metrics: pd.DataFrame) -> None:
    rows = metrics[(metrics["k"] == 4) | metrics["k"].isna() & ~metrics["n_features_used"].isin([2, 8])]
    left = draw(rows).axes[0]
    assert [text.get_text() for text in left.get_xticklabels()] == ["4"]


def test_ticks_are_the_budgets(figure: Figure) -> None:
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == ["2", "4", "8"]


def test_panel_without_rows_says_so(metrics: pd.DataFrame) -> None:
    right = draw(metrics[metrics["probe"] != "linear"]).axes[1]
    assert "no rows for this budget" in [text.get_text() for text in right.texts]


def test_all_points_and_bars_lie_within_the_axes(metrics: pd.DataFrame) -> None:
    ax = draw(metrics[~metrics["kind"].isin(["mean", "photometry", "encoder"])]).axes[0]
    bottom, top = ax.get_ylim()
    assert bottom < 0.10 + 0.1 / 8 + 0.0005 - 0.01
    assert top > 0.18 + 0.1 / 2 + 0.0005 + 0.02


def test_missing_intervals_are_left_out(metrics: pd.DataFrame) -> None:
    assert not draw(metrics.drop(columns=["low", "high"])).axes[0].containers


def test_axes_carry_names_and_units(figure: Figure) -> None:
    assert figure.axes[0].get_ylabel().split() == ["test", "RMSE", "of", "metallicity_1", "(dex)"]
    assert [ax.get_xlabel().replace("\n", " ") for ax in figure.axes] == [
        "features active per galaxy (L0)", "features used in all", "effective features (near copies once)",
    ]  # fmt: skip


def test_rows_of_two_experiments_are_refused(metrics: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="appear twice"):
        draw(pd.concat([metrics, metrics.assign(experiment="other")]))


def test_unknown_column_is_answered_with_the_known_ones(metrics: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="mass_1"):
        plot_rmse_vs_k(metrics, "metallicity", "oh_p50", "dex")


def test_table_without_a_needed_column_is_refused(metrics: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="n_features_used"):
        draw(metrics.drop(columns="n_features_used"))


def test_controls_alone_are_refused(metrics: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no method but controls"):
        draw(metrics[metrics["kind"] == "mean"])
