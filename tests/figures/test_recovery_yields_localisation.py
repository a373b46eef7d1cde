"""Figures of absorption, yields and localisation: what is drawn is what stands in the tables."""

import numpy as np
import pandas as pd
import pytest

from sfnetlab.figures.localisation import plot_localisation
from sfnetlab.figures.recovery import plot_absorption
from sfnetlab.figures.yields import SEARCH, plot_yields

YIELDS = pd.DataFrame(
    [
        {
            "rare": rare, "method": method, "kind": kind, "seed": seed, "n_inspected": n, "metric": metric,
            "value": value / (1 + n / 50), "low": 0.0, "high": 1.0, "n_rare": 20, "n": 800,
        }
        for rare in ("mergers", "rings")
        for method, kind, value in (("sae", "sae", 0.9), ("pca", "pca", 0.6), ("random order", SEARCH, 0.1))
        for seed in (0, 1)
        for n in (10, 20, 50)
        for metric in ("purity", "recall")
    ]
)  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8)
MASKS = np.zeros((2, 3, 16, 16), dtype=bool)
MASKS[..., 4:8, 4:12] = True
INSIDE = np.array([[0.5, 0.4, np.nan], [0.3, 0.2, 0.1]])
LOCALISATION = {
    "images": IMAGES, "maps": np.random.default_rng(1).random((2, 3, 16, 16)), "masks": MASKS, "inside": INSIDE,
    "area": np.full((2, 3), 0.125), "names": ["bulge\nsfnet 61", "arms"], "pixel_scale_arcsec": 38 / 16,
}  # fmt: skip


def test_each_kind_of_rare_galaxy_has_a_panel_with_all_methods():
    fig = plot_yields(YIELDS)
    assert [ax.get_title() for ax in fig.axes] == ["mergers: 20 of 800", "rings: 20 of 800"]
    for ax in fig.axes:
        lines = {line.get_label(): line for line in ax.lines}
        assert {"SAE", "PCA", "random order"} <= set(lines)
        np.testing.assert_allclose(lines["SAE"].get_xydata(), [[n, 0.9 / (1 + n / 50)] for n in (10, 20, 50)])


def test_no_search_is_purer_than_all_rare_galaxies_first():
    ax = plot_yields(YIELDS).axes[0]
    (best,) = [line for line in ax.lines if line.get_label() == "no search is purer"]
    budgets, purity = best.get_xydata().T
    np.testing.assert_allclose(purity, np.minimum(1, 20 / budgets))


def test_purity_that_appears_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        plot_yields(pd.concat([YIELDS, YIELDS]))


def test_cutouts_have_map_outline_and_numbers_and_nan_leaves_the_place_empty():
    (ax,) = plot_localisation(**LOCALISATION).axes
    assert len(ax.images) == 5
    texts = [text.get_text() for text in ax.texts]
    assert [text for text in texts if " in " in text] == [
        "50 % in 12 %", "40 % in 12 %", "30 % in 12 %", "20 % in 12 %", "10 % in 12 %",
    ]  # fmt: skip
    assert {"bulge", "arms", "N", "E", "10″"} <= set(texts)
    assert len(ax.collections) == 10


def test_outline_lies_on_the_border_of_the_mask():
    (ax,) = plot_localisation(**LOCALISATION).axes
    left, _, _, top = ax.images[0].get_extent()
    outline = ax.collections[1].get_paths()[0].vertices - [left, top]
    np.testing.assert_allclose(outline.min(axis=0), [4 / 16, 4 / 16], atol=1e-6)
    np.testing.assert_allclose(outline.max(axis=0), [12 / 16, 8 / 16], atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"maps": MASKS[:1].astype(float)}, "maps and masks"),
        ({"names": ["one"]}, "2 entries"),
        ({"inside": np.full((2, 3), np.nan)}, "no galaxy"),
    ],
)
def test_unusable_localisation_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        plot_localisation(**(LOCALISATION | changed))


def test_absorption_shows_every_run_beside_permuted_galaxies_and_missing_ones_are_left_out():
    values = {"sfnet": (0.1, np.nan), "sae": (0.4, 0.2)}
    table = pd.DataFrame(
        [
            {
                "features": name,
                "kind": name,
                "seed": seed,
                "parent": "disc",
                "child": child,
                "absorption": v + 0.1 * seed,
                "low": v + 0.1 * seed - 0.2,
                "high": v + 0.1 * seed + 0.3,
                "null_q95": 0.07,
            }
            for name, pair in values.items()
            for child, v in zip(("barred", "edge_on"), pair, strict=True)
            for seed in (0, 1)
        ]
    )
    (ax,) = plot_absorption(table).axes
    drawn = {label: [line for line in ax.lines if line.get_label() == label] for label in ("_value", "_runs", "_null")}
    assert [line.get_xdata()[0] for line in drawn["_value"]] == pytest.approx([0.15, 0.45, 0.25])
    np.testing.assert_allclose([line.get_xdata() for line in drawn["_runs"]], [(0.1, 0.2), (0.4, 0.5), (0.2, 0.3)])
    assert {line.get_xdata()[0] for line in drawn["_null"]} == {0.07}
    assert [text.get_text() for text in ax.get_yticklabels()] == ["barred in disc", "edge on in disc"]
    assert {text.get_text() for text in ax.figure.legends[0].texts} == {"SFNet", "SAE", "95 % of permuted"}


def test_absorption_without_a_number_is_refused():
    table = pd.DataFrame({"features": ["a"], "kind": "sae", "seed": 0, "parent": "disc", "child": "barred"}).assign(
        absorption=np.nan, low=np.nan, high=np.nan, null_q95=np.nan
    )
    with pytest.raises(ValueError, match="no number"):
        plot_absorption(table)
