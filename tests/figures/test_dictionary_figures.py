"""The figures of dictionaries: latents, stability, L0, loss recovered."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.text import Text

from sfnetlab.figures import style
from sfnetlab.figures.fvu_vs_l0 import plot_fvu_vs_l0
from sfnetlab.figures.l0_distribution import plot_l0_distribution
from sfnetlab.figures.latents import plot_latents
from sfnetlab.figures.loss_recovered import plot_loss_recovered
from sfnetlab.figures.seed_stability import plot_seed_stability

LONG = "sae-on-the-dense-network-of-a-very-long-survey-name-with-many-words"
LATENTS = pd.DataFrame(
    [
        {"features": name, "kind": kind, "seed": seed, "frequency": frequency, "max_cosine": cosine}
        for name, kind in (("sae", "sae"), ("random", "null_sae"))
        for seed in (0, 1)
        for frequency, cosine in ((0.0, np.nan), (0.002, 0.21), (0.002, 0.22), (0.5, 0.9))
    ]
)
SPECTRA = pd.DataFrame(
    [
        {"features": name, "kind": kind, "seed": seed, "component": i, "singular_value": (3.0 + seed) / (i + 1)}
        for name, kind in (("sae", "sae"), ("random", "null_sae"))
        for seed in (0, 1)
        for i in range(4)
    ]
)
STABILITY = pd.DataFrame(
    [
        {"features": name, "kind": "sae", "seed_a": 0, "seed_b": b, "metric": metric, "value": value + 0.02 * b}
        for name, level in (("worse", 0.4), ("better", 0.9))
        for b in (1, 2)
        for metric, value in (("decoder_cosine", level), ("decoder_cosine_chance", 0.1), ("shared_0.7", level - 0.1))
    ]
)
L0 = pd.DataFrame(
    [
        {"features": name, "kind": kind, "k": 8, "seed": seed, "l0": l0, "n_rows": n_rows}
        for name, kind, counts in (
            ("sae", "sae", {0: 10, 4: 40, 16: 40, 32: 10}),
            ("null", "null_sae", {0: 0, 8: 100}),
        )
        for seed in (0, 1)
        for l0, n_rows in counts.items()
    ]
)
RECOVERED = pd.DataFrame(
    [
        {
            "features": name, "kind": kind, "k": k, "seed": seed, "target": target, "column": f"{target}_1",
            "metric": metric, "n_features_used": n, "value": value, "low": value - 0.1, "high": value + 0.1,
        }
        for name, kind, ks, level in (
            ("sae", "sae", (8, 16), 0.8), ("null", "null_sae", (8, 16), 0.3), ("pca", "pca", (np.nan,), 0.9),
        )
        for k in ks
        for seed in (0, 1)
        for target in ("mass", "age")
        for metric, n, value in (("loss_recovered", 512, level + 0.02 * seed), ("rmse", 64, 7.0))
    ]
)  # fmt: skip


def curves(ax: Axes) -> dict[str, np.ndarray]:
    """Points of the lines that a legend names."""
    return {line.get_label(): line.get_xydata() for line in ax.lines if not line.get_label().startswith("_")}


def test_fifteen_dictionaries_look_different():
    names = [f"sae {i:02d}" for i in range(15)] + ["null 1", "null 2", "null 3", "pca"]
    kinds = ["sae"] * 15 + ["null_sae"] * 3 + ["pca"]
    looks = style.looks_of(pd.DataFrame({"features": names, "kind": kinds}))
    assert sorted(looks) == sorted(names)
    assert len(set(looks.values())) == 19


def test_looks_do_not_depend_on_the_order_of_rows():
    assert style.looks_of(LATENTS) == style.looks_of(LATENTS.iloc[::-1])


def test_a_method_has_the_colour_of_its_kind_at_every_k_and_a_line_for_each():
    several = pd.DataFrame({"features": ["sae", "b", "sae"], "kind": "sae", "k": [16, 4, 4]})
    looks = style.looks_of(style.named_with_k(several))
    assert list(looks) == ["b, k = 4", "SAE, k = 4", "SAE, k = 16"]
    first, second, other = looks["SAE, k = 4"], looks["SAE, k = 16"], looks["b, k = 4"]
    assert first.color == second.color == style.method_style("sae", "sae", ["b"]).color != other.color
    assert first.linestyle != second.linestyle


def test_frequencies_are_shares_of_all_latents_and_the_legend_tells_the_dead():
    fig = plot_latents(LATENTS, SPECTRA)
    for line in fig.axes[0].lines:
        shares = line.get_ydata()
        assert sorted(shares[shares > 0]) == [0.25, 0.5]
        assert line.get_xdata()[np.argmax(shares)] == pytest.approx(0.002, rel=0.4)
    assert all("25 % dead" in text.get_text() for text in fig.legends[0].texts)


@pytest.mark.parametrize(("frequency", "total"), [(0.0, 0), (1.0, 1)])
def test_latents_all_dead_or_always_active_are_drawn(frequency, total):
    often = plot_latents(LATENTS.assign(frequency=frequency), SPECTRA).axes[0]
    assert [line.get_ydata().sum() for line in often.lines] == [total, total]


def test_cosines_are_shares_and_spectra_means_over_seeds():
    _, alike, spectrum = plot_latents(LATENTS, SPECTRA).axes
    for stairs in alike.patches:
        assert sorted(stairs.get_data().values[stairs.get_data().values > 0]) == pytest.approx([1 / 3, 2 / 3])
    for line in spectrum.lines:
        np.testing.assert_allclose(line.get_xydata(), [(i + 1, 3.5 / (i + 1)) for i in range(4)])


def test_stability_shows_mean_pairs_and_chance_best_first():
    axes = plot_seed_stability(STABILITY).axes
    assert [ax.get_xlabel() for ax in axes] == ["decoder cosine", "share of pairs with\ndecoder cosine > 0.7"]
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["worse", "better"]
    chance, pairs, mean = axes[0].lines[-3:]
    assert chance.get_xdata() == pytest.approx([0.13])
    assert pairs.get_xdata() == pytest.approx([0.92, 0.94])
    assert mean.get_xdata() == pytest.approx([0.93])


def test_l0_shows_quantiles_mean_and_k_of_both_seeds():
    (ax,) = plot_l0_distribution(L0).axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["null, k = 8", "SAE, k = 8"]
    assert [list(line.get_xdata()) for line in ax.lines[:5]] == [[8, 8], [8, 8], [8], [8], [8]]
    assert [list(line.get_xdata()) for line in ax.lines[5:]] == [[0, 32], [4, 16], [4], [8], [11.2]]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(any), st.integers(1, 8))
@settings(max_examples=10, deadline=None)
def test_l0_quantiles_are_those_of_the_rows_themselves(n_rows, k):
    table = pd.DataFrame({"features": "a", "kind": "sae", "k": k, "l0": range(len(n_rows)), "n_rows": n_rows})
    (ax,) = plot_l0_distribution(table).axes
    drawn = np.concatenate([line.get_xdata() for line in ax.lines[:3]])
    l0 = np.repeat(np.arange(len(n_rows)), n_rows)
    expected = np.quantile(l0, [0.05, 0.95, 0.25, 0.75, 0.5], method="inverted_cdf")
    np.testing.assert_array_equal(drawn, expected)
    assert all(ax.get_xlim()[0] <= x <= ax.get_xlim()[1] for x in drawn)


def test_l0_has_a_tick_where_no_power_of_two_is_near():
    table = pd.DataFrame({"features": ["a"], "kind": "sae", "k": 6, "l0": 6, "n_rows": 9})
    assert list(plot_l0_distribution(table).axes[0].get_xticks()) == [6]


def test_loss_recovered_has_a_panel_for_each_column_with_pca_across():
    axes = plot_loss_recovered(RECOVERED).axes
    assert [ax.get_title() for ax in axes] == ["mass: mass_1", "age: age_1"]
    for ax in axes:
        drawn = curves(ax)
        np.testing.assert_allclose(drawn["SAE"], [(8, 0.81), (16, 0.81)])
        np.testing.assert_allclose(drawn["null"], [(8, 0.31), (16, 0.31)])
        assert drawn["PCA, 64 components"][:, 1] == pytest.approx([0.91, 0.91])
        assert 0 < ax.get_ylim()[0] < 0.2  # what is drawn and 1, not all from 0 on
        assert ax.get_ylim()[1] > 1


@pytest.mark.parametrize(("value", "scale"), [(0.5, "linear"), (-300.0, "symlog"), (5.0, "symlog")])
def test_only_losses_far_from_0_and_1_make_the_axis_logarithmic(value, scale):
    table = RECOVERED.assign(value=value, low=np.nan, high=np.nan)
    for ax in plot_loss_recovered(table).axes:
        assert ax.get_yscale() == scale
        assert ax.get_ylim()[0] < value < ax.get_ylim()[1]


@pytest.mark.parametrize(
    ("plot", "message"),
    [
        (lambda: plot_latents(LATENTS.assign(frequency=2.0), SPECTRA), r"\[0, 1\]"),
        (lambda: plot_latents(LATENTS.drop(columns="kind"), SPECTRA), "lacks the columns"),
        (lambda: plot_latents(LATENTS, SPECTRA[SPECTRA["features"] == "sae"]), "the same dictionaries"),
        (lambda: plot_seed_stability(STABILITY.assign(metric="other")), "none of the metrics"),
        (lambda: plot_l0_distribution(L0.assign(n_rows=0)), "no rows are counted"),
        (lambda: plot_l0_distribution(L0.assign(k=np.nan)), "k must be"),
        (lambda: plot_loss_recovered(RECOVERED[RECOVERED["kind"] == "pca"]), "no SAE or null arm"),
        (lambda: plot_loss_recovered(pd.concat([RECOVERED, RECOVERED])), "appears twice"),
    ],
)
def test_unusable_tables_are_refused(plot, message):
    with pytest.raises(ValueError, match=message):
        plot()


def named(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The rows of "sae" or "better" once for each name, the last a null arm."""
    own = table[table["features"].isin(["sae", "better"])]
    return pd.concat(own.assign(features=name, kind="null_sae" if name is names[-1] else "sae") for name in names)


@pytest.mark.parametrize("names", [["a"], [f"{i} {LONG}" for i in range(12)]], ids=["one", "twelve of long names"])
@pytest.mark.parametrize(
    "draw",
    [
        lambda names: plot_latents(named(LATENTS, names), named(SPECTRA, names)),
        lambda names: plot_seed_stability(named(STABILITY, names)),
        lambda names: plot_fvu_vs_l0(named(LATENTS.assign(k=8, split="test", fvu=0.5), names)),
        lambda names: plot_l0_distribution(named(L0, names)),
        lambda names: plot_loss_recovered(named(RECOVERED, names)),
    ],
    ids=["latents", "stability", "frontier", "l0", "loss"],
)
def test_text_is_readable_and_nothing_is_cut_off(draw, names):
    fig = draw(names)
    shown = [text for text in fig.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in shown) >= 7
    assert fig.get_figwidth() <= style.PAGE_WIDTH_IN + 1e-9
    box = fig.get_tightbbox()
    assert min(box.x0, box.y0) >= -0.02
    assert box.x1 <= fig.get_figwidth() + 0.02
    assert box.y1 <= fig.get_figheight() + 0.02
