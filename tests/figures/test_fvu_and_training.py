"""The two figures of training: FVU against L0 and curves against epoch."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.figures.fvu_vs_l0 import plot_fvu_vs_l0
from sfnetlab.figures.training_curves import plot_training_curves

FVU = pd.DataFrame(
    [
        {"features": name, "kind": kind, "k": k, "seed": seed, "split": split, "fvu": worse / k + 0.01 * seed + extra}
        for name, kind, worse in (("sae", "sae", 1.0), ("matryoshka", "sae", 1.2), ("pca", "pca", 1.5))
        for k in (2, 8)
        for seed in (0, 1)
        for split, extra in (("train", 0.3), ("test", 0.0))
    ]
)
NETWORKS = pd.DataFrame(
    [
        {
            "features": run,
            "kind": kind,
            "seed": 0,
            "epoch": epoch,
            "train_loss": 1 / (epoch + 1),
            "valid_rmse": 2 / (epoch + 1),
        }
        for run, kind in (("sfnet 4", "sfnet"), ("dense", "encoder"))
        for epoch in range(3)
    ]
)
SAES = pd.DataFrame(
    [
        {"features": "sae 4", "kind": "sae", "seed": 0, "epoch": epoch, "train_fvu": 0.5, "dead_fraction": 0.1 * epoch}
        for epoch in range(5)
    ]
)


@pytest.mark.parametrize(("label", "worse"), [("SAE", 1.0), ("matryoshka", 1.2), ("PCA", 1.5)])
def test_fvu_curve_is_the_mean_of_the_test_rows(label: str, worse: float) -> None:
    (ax,) = plot_fvu_vs_l0(FVU).axes
    (line,) = [line for line in ax.lines if line.get_label() == label]
    np.testing.assert_allclose(line.get_xydata(), [(2, worse / 2 + 0.005), (8, worse / 8 + 0.005)])


def test_fvu_axis_holds_the_means_and_worse() -> None:
    assert plot_fvu_vs_l0(FVU).axes[0].get_ylim()[1] > 1
    assert plot_fvu_vs_l0(FVU.assign(fvu=3.0)).axes[0].get_ylim()[1] > 3


def test_fvu_stands_at_the_measured_l0_where_there_is_one() -> None:
    table = FVU.assign(l0=np.where(FVU["features"] == "sae", 1.1 * FVU["k"] + FVU["seed"], np.nan))
    lines = {line.get_label(): line for line in plot_fvu_vs_l0(table).axes[0].lines}
    np.testing.assert_allclose(lines["SAE"].get_xdata(), [2.7, 9.3])
    np.testing.assert_allclose(lines["matryoshka"].get_xdata(), [2, 8])


def test_pca_does_not_widen_the_axes() -> None:
    pca = pd.DataFrame({"features": "pca", "kind": "pca", "k": [1, 512], "seed": 0, "split": "test", "fvu": [0.9, 0.0]})
    saes = FVU[FVU["kind"] == "sae"]
    (ax,) = plot_fvu_vs_l0(pd.concat([saes, pca])).axes
    (alone,) = plot_fvu_vs_l0(saes).axes
    assert (ax.get_xlim(), ax.get_ylim()) == (alone.get_xlim(), alone.get_ylim())


def test_a_silent_dictionary_has_no_place_on_the_axes() -> None:
    table = FVU.assign(l0=FVU["k"].where(FVU["k"] > 2, 0))
    (line,) = [line for line in plot_fvu_vs_l0(table).axes[0].lines if line.get_label() == "SAE"]
    np.testing.assert_allclose(line.get_xdata(), [8])
    with pytest.raises(ValueError, match="no test row with an active latent"):
        plot_fvu_vs_l0(FVU.assign(l0=0))


def test_legend_is_in_the_order_of_the_curves() -> None:
    (ax,) = plot_fvu_vs_l0(FVU).axes
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["PCA", "matryoshka", "SAE"]


def test_fvu_of_one_sae_one_k_one_seed_is_drawn() -> None:
    rows = FVU[(FVU["features"] == "sae") & (FVU["k"] == 8) & (FVU["seed"] == 0)]
    (ax,) = plot_fvu_vs_l0(rows).axes
    assert [text.get_text() for text in ax.get_xticklabels()] == ["8"]


def test_what_the_first_features_leave_unexplained_stands_beside() -> None:
    kept = pd.DataFrame(
        {"features": ["sae", "sae", "pca"], "kind": ["sae", "sae", "pca"], "k": [8, 8, np.nan],
         "n_components": [1, 4, 2], "explained_variance": [-0.5, 0.75, 0.9]}
    )  # fmt: skip
    left, right = plot_fvu_vs_l0(FVU, kept).axes
    drawn = {line.get_color(): np.asarray(line.get_xydata()) for line in right.lines[:2]}
    colour = {line.get_label(): line.get_color() for line in left.lines}
    np.testing.assert_allclose(drawn[colour["SAE"]], [(1, 1.5), (4, 0.25)])
    np.testing.assert_allclose(drawn[colour["PCA"]], [(2, 0.1)])
    assert right.get_xlabel() == "features kept in all (k = 8)"


def test_components_that_leave_nothing_are_in_no_panel() -> None:
    whole = pd.DataFrame({"features": "whole", "kind": "pca", "k": [4], "seed": None, "split": "test", "fvu": 0.0})
    kept = pd.DataFrame(
        {"features": "whole", "kind": "pca", "k": None, "n_components": [1, 2, 4], "explained_variance": [0.5, 0.9, 1]}
    )
    assert len(plot_fvu_vs_l0(pd.concat([FVU, whole]), kept).axes) == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (FVU[FVU["split"] == "train"], "no test rows"),
        (FVU.assign(fvu=np.nan), "finite"),
        (FVU.drop(columns="fvu"), "lacks the columns"),
    ],
)
def test_unusable_fvu_tables_are_refused(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_fvu_vs_l0(table)


def test_networks_and_saes_have_a_row_of_two_panels_each() -> None:
    axes = plot_training_curves(pd.concat([NETWORKS, SAES])).axes
    assert [ax.get_ylabel() for ax in axes] == [
        "train loss (target scatter)",
        "valid RMSE (target units)",
        "train FVU (fraction of variance)",
        "dead latents (fraction)",
    ]
    assert [len(ax.lines) for ax in axes] == [2, 2, 1, 1]


def test_curves_are_the_history_in_order_of_epoch() -> None:
    axes = plot_training_curves(NETWORKS.iloc[::-1]).axes
    (line,) = [line for line in axes[1].lines if line.get_label() == "dense"]
    np.testing.assert_allclose(line.get_xydata(), [(0, 2), (1, 1), (2, 2 / 3)])


def test_seeds_are_thin_lines_and_their_mean_a_thick_one() -> None:
    other = NETWORKS.assign(valid_rmse=NETWORKS["valid_rmse"] + 0.4, seed=1)
    ax = plot_training_curves(pd.concat([NETWORKS, other])).axes[1]
    (line,) = [line for line in ax.lines if line.get_label() == "dense"]
    np.testing.assert_allclose(line.get_xydata(), [(0, 2.2), (1, 1.2), (2, 2 / 3 + 0.2)])
    seeds = [line for line in ax.lines if line.get_label() == "_seed" and line.get_color() == "#666666"]
    np.testing.assert_allclose([line.get_ydata() for line in seeds], [(2, 1, 2 / 3), (2.4, 1.4, 2 / 3 + 0.4)])
    assert all(seed.get_linewidth() < line.get_linewidth() for seed in seeds)


def test_epochs_without_a_value_are_left_out() -> None:
    history = SAES.assign(dead_fraction=SAES["dead_fraction"].where(SAES["epoch"] != 2))
    (line,) = plot_training_curves(history).axes[1].lines
    assert list(line.get_xdata()) == [0, 1, 3, 4]


def test_one_epoch_shows_as_a_point() -> None:
    (line,) = plot_training_curves(SAES.iloc[:1]).axes[0].lines
    assert line.get_marker() not in ("", "None", None)


def test_history_of_saes_without_dead_fraction_is_refused() -> None:
    with pytest.raises(ValueError, match="dead_fraction"):
        plot_training_curves(SAES.drop(columns="dead_fraction"))
