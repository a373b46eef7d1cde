"""What every figure owes its reader, and the parts of `style`."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from sfnetlab.figures import style
from sfnetlab.figures.contact_sheet import plot_contact_sheet
from sfnetlab.figures.fvu_vs_l0 import plot_fvu_vs_l0
from sfnetlab.figures.predicted_vs_true import plot_predicted_vs_true
from sfnetlab.figures.rmse_vs_k import plot_rmse_vs_k
from sfnetlab.figures.strongest_galaxies import plot_strongest_galaxies
from sfnetlab.figures.training_curves import plot_training_curves
from sfnetlab.methods import TRAITS

LONG = "sae-on-the-dense-network-of-a-very-long-survey-name-with-many-words-and-a-half"


def rmse_vs_k(metrics: pd.DataFrame, name: str) -> Figure:
    names = metrics["features"].replace({"matryoshka": name, "random": f"random-{name}"})
    return plot_rmse_vs_k(metrics.assign(features=names), "metallicity", "metallicity_1", "dex")


def predicted_vs_true(metrics: pd.DataFrame, name: str) -> Figure:
    y = np.random.default_rng(0).normal(8.9, 0.2, 2000)
    return plot_predicted_vs_true(y, {"SFNet": y, name: y[::-1], "PCA": y, "mean": y}, "12 + log(O/H)", "dex")


def strongest_galaxies(metrics: pd.DataFrame, name: str) -> Figure:
    images = np.zeros((2, 8, 16, 16, 3), dtype=np.uint8)
    return plot_strongest_galaxies(images, np.ones((2, 8)), [name, "b"], np.array([1.0, 0.0]), 2.0, [name, ""])


def fvu_vs_l0(metrics: pd.DataFrame, name: str) -> Figure:
    return plot_fvu_vs_l0(
        pd.DataFrame({"features": [name] * 2, "kind": "sae", "k": [2, 64], "seed": 0, "split": "test", "fvu": 0.4})
    )


def training_curves(metrics: pd.DataFrame, name: str) -> Figure:
    runs = [f"{name} {i}" for i in range(8)]
    return plot_training_curves(
        pd.DataFrame({"features": runs, "kind": "sfnet", "seed": 0, "epoch": 0, "train_loss": 0.2, "valid_rmse": 0.3})
    )


def contact_sheet(metrics: pd.DataFrame, name: str) -> Figure:
    return plot_contact_sheet(np.zeros((3, 16, 16, 3), dtype=np.uint8), [name] * 3, 2.0)


FIGURES = [rmse_vs_k, predicted_vs_true, strongest_galaxies, fvu_vs_l0, training_curves, contact_sheet]


@pytest.mark.parametrize("name", ["other", LONG])
@pytest.mark.parametrize("draw", FIGURES)
def test_text_is_readable_and_nothing_is_cut_off(
    metrics: pd.DataFrame, draw: Callable[[pd.DataFrame, str], Figure], name: str
) -> None:
    fig = draw(metrics, name)
    fig.draw_without_rendering()
    shown = [text for text in fig.findobj(Text) if isinstance(text, Text) and text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in shown) >= 7
    assert fig.get_figwidth() <= style.PAGE_WIDTH_IN + 1e-9
    box = fig.get_tightbbox()
    assert box.x0 >= -0.02
    assert box.y0 >= -0.02
    assert box.x1 <= fig.get_figwidth() + 0.02
    assert box.y1 <= fig.get_figheight() + 0.02


def test_names_of_controls_do_not_overlap(metrics: pd.DataFrame) -> None:
    levels = metrics["kind"].isin(["mean", "photometry", "encoder"])
    fig = plot_rmse_vs_k(
        metrics.assign(value=metrics["value"].where(~levels, 0.2)), "metallicity", "metallicity_1", "dex"
    )
    boxes = [Text.get_window_extent(text) for text in fig.axes[2].texts]  # of an annotation, without its arrow
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_drawing_leaves_global_settings_alone(metrics: pd.DataFrame) -> None:
    before = dict(matplotlib.rcParams)
    fvu_vs_l0(metrics, "sae")
    assert dict(matplotlib.rcParams) == before


def test_same_figure_is_saved_as_the_same_bytes(metrics: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("a", "b"):
        style.save_figure(fvu_vs_l0(metrics, "sae"), tmp_path, name)
    for suffix in (".pdf", ".png"):
        first, second = ((tmp_path / name).with_suffix(suffix).read_bytes() for name in ("a", "b"))
        assert first == second
        assert b"CreationDate" not in first


def test_a_saved_image_has_the_dots_of_a_screen(metrics: pd.DataFrame, tmp_path: Path) -> None:
    fig = fvu_vs_l0(metrics, "sae")
    style.save_figure(fig, tmp_path, "fvu")
    with Image.open(tmp_path / "fvu.png") as image:
        assert image.width == pytest.approx(style.PNG_DPI * fig.get_figwidth(), abs=1)


@pytest.mark.parametrize("kind", ["sfnet", "sae", "pca", "encoder", "photometry", "mean"])
def test_twelve_peers_of_a_kind_differ(kind: str) -> None:
    names = [f"{kind}-{i}" for i in range(12)]
    assert len({(look.color, look.marker) for look in (style.method_style(name, kind, names) for name in names)}) == 12


def test_kinds_differ_in_colour_marker_and_line() -> None:
    looks = [style.method_style(kind, kind) for kind in ("sfnet", "sae", "pca")]
    for part in ("color", "marker", "linestyle"):
        assert len({getattr(look, part) for look in looks}) == 3


@pytest.mark.parametrize("kind", sorted(TRAITS))
def test_the_first_of_each_kind_looks_as_its_traits_say(kind: str) -> None:
    look = TRAITS[kind].look
    assert style.method_style(kind, kind) == style.MethodStyle(look.colors[0], look.markers[0], look.linestyles[0])


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("sae", "sae", "SAE"),
        ("zoobot", "zoobot", "Zoobot"),
        ("mine", "sae", "mine"),
        ("null_sae", "null_sae", "null_sae"),
    ],
)
def test_names_that_are_their_kinds_are_spelled_as_in_the_field_but_null_dictionaries(name, kind, shown) -> None:
    assert style.method_name(name, kind) == shown


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no such kind"):
        style.method_style("it", "no such kind")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0864, "0.0864"), (0.03, "0.0300"), (123.4, "123"), (5.0, "5.00"), (12345.6, "12346")]
)
def test_three_digits(value: float, text: str) -> None:
    assert style.three_digits(value) == text


def test_crowded_budgets_keep_powers_of_two_and_tick_the_rest(metrics: pd.DataFrame) -> None:
    budgets = [1, 2, 3, 4, 6, 8, 16, 32, 48, 64, 128, 256, 384, 512]
    table = pd.DataFrame({"features": "sae", "kind": "sae", "k": budgets, "seed": 0, "split": "test", "fvu": 0.4})
    (ax,) = plot_fvu_vs_l0(table).axes
    labels = [float(text.get_text()) for text in ax.get_xticklabels()]
    assert {1, 2, 4, 8, 16, 32, 64} <= set(labels)
    assert len(labels) < len(budgets)
    assert set(ax.get_xticks()) | set(ax.get_xticks(minor=True)) == set(budgets)
