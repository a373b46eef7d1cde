import numpy as np
import pytest

from sfnetlab.figures.predicted_vs_true import plot_predicted_vs_true

RNG = np.random.default_rng(0)
Y = RNG.normal(8.9, 0.2, 200)
GOOD, BAD = Y + RNG.normal(0, 0.05, Y.size), Y + RNG.normal(0, 0.2, Y.size)


def test_dots_are_the_galaxies_above_and_their_residuals_beneath() -> None:
    upper, lower = plot_predicted_vs_true(Y, {"SFNet": GOOD}, "12 + log(O/H)", "dex").axes
    np.testing.assert_array_equal(upper.lines[0].get_xydata(), np.column_stack([Y, GOOD]))
    np.testing.assert_array_equal(lower.lines[0].get_xydata(), np.column_stack([Y, GOOD - Y]))


def test_counts_of_many_galaxies_add_up() -> None:
    y = np.repeat(Y, 20)
    upper, *_ = plot_predicted_vs_true(y, {"perfect": y.copy()}, "oh_p50", "dex").axes
    assert upper.collections[0].get_array().sum() == y.size


def test_each_method_has_its_panel_and_scores() -> None:
    axes = plot_predicted_vs_true(Y, {"SFNet": Y + 0.12, "PCA": Y - 0.25}, "oh_p50", "dex").axes
    assert [ax.get_title() for ax in axes[::2]] == ["SFNet", "PCA"]
    assert axes[0].texts[0].get_text().splitlines() == ["RMSE 0.120", "NMAD 0.000", "bias +0.120"]
    assert axes[2].texts[0].get_text().splitlines() == ["RMSE 0.250", "NMAD 0.000", "bias −0.250"]


def test_galaxies_off_the_axes_are_counted() -> None:
    wild = GOOD.copy()
    wild[7] = 40.0
    upper, lower = plot_predicted_vs_true(Y, {"linear": wild}, "oh_p50", "dex").axes
    n_above = int(((wild > upper.get_ylim()[1]) | (wild - Y > lower.get_ylim()[1])).sum())
    n_below = int(((wild < upper.get_ylim()[0]) | (wild - Y < lower.get_ylim()[0])).sum())
    assert n_above >= 1
    assert upper.texts[0].get_text().splitlines()[-1] == f"{n_above + n_below} outside"


def test_running_median_of_a_shifted_truth_is_the_shift() -> None:
    upper, lower = plot_predicted_vs_true(Y, {"m": Y + 0.1}, "oh_p50", "dex").axes
    (median,) = [line for line in upper.lines if line.get_label() == "running median"]
    x, y = np.asarray(median.get_xydata()).T
    np.testing.assert_allclose(y - x, 0.1)
    np.testing.assert_allclose(np.asarray(lower.lines[-1].get_ydata()), 0.1)


@pytest.mark.parametrize("n_methods", [1, 3, 7])
def test_panels_are_square_and_share_their_limits(n_methods: int) -> None:
    fig = plot_predicted_vs_true(Y, {f"m{i}": (GOOD, BAD)[i % 2] for i in range(n_methods)}, "oh_p50", "dex")
    uppers = fig.axes[::2]
    assert len(uppers) == n_methods
    for ax in uppers:
        assert ax.bbox.width == pytest.approx(ax.bbox.height, rel=0.02)
        assert ax.get_xlim() == ax.get_ylim() == uppers[0].get_xlim()


def test_constant_predictions_of_a_constant_truth_are_drawn() -> None:
    upper, _ = plot_predicted_vs_true(np.ones(5), {"mean": np.ones(5)}, "z", "").axes
    assert upper.get_ylim() == (0.5, 1.5)


def test_axes_carry_names_and_units() -> None:
    upper, lower = plot_predicted_vs_true(Y, {"m": GOOD}, "log mass", "dex").axes
    assert upper.get_ylabel() == "predicted log mass (dex)"
    assert lower.get_xlabel() == "true log mass (dex)"
    assert lower.get_ylabel() == "residual\n(dex)"


@pytest.mark.parametrize(
    ("predictions", "message"),
    [({}, "at least one"), ({"m": GOOD[:-1]}, "shape"), ({"m": np.full(Y.size, np.nan)}, "m holds 200 values")],
)
def test_unusable_predictions_are_refused(predictions: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_predicted_vs_true(Y, predictions, "oh_p50", "dex")
