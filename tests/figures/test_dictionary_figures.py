"""The figures of dictionaries: frequencies of latents, cosines of atoms, stability over seeds."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from sfnetlab.figures import style
from sfnetlab.figures.decoder_cosines import plot_decoder_cosines
from sfnetlab.figures.dictionaries import dictionary_looks
from sfnetlab.figures.fvu_vs_l0 import plot_fvu_vs_l0
from sfnetlab.figures.latent_frequency import plot_latent_frequency
from sfnetlab.figures.seed_stability import plot_seed_stability

LONG = "sae-on-the-dense-network-of-a-very-long-survey-name-with-many-words"
LATENTS = pd.DataFrame(
    [
        {"features": name, "kind": kind, "seed": seed, "frequency": frequency, "max_cosine": cosine}
        for name, kind in (("sae", "sae"), ("random", "random_dictionary"))
        for seed in (0, 1)
        for frequency, cosine in ((0.0, np.nan), (0.002, 0.21), (0.002, 0.22), (0.5, 0.9))
    ]
)
SPECTRA = pd.DataFrame(
    [
        {"features": name, "kind": kind, "seed": seed, "component": i, "singular_value": (3.0 + seed) / (i + 1)}
        for name, kind in (("sae", "sae"), ("random", "random_dictionary"))
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


def test_twenty_dictionaries_look_different():
    names = [f"sae {i:02d}" for i in range(16)] + ["null 1", "null 2", "null 3", "pca"]
    kinds = ["sae"] * 16 + ["frozen_decoder", "frozen_encoder", "random_dictionary", "pca"]
    looks = dictionary_looks(pd.DataFrame({"features": names, "kind": kinds}))
    assert sorted(looks) == sorted(names)
    assert len(set(looks.values())) == 20


def test_looks_do_not_depend_on_the_order_of_rows():
    assert dictionary_looks(LATENTS) == dictionary_looks(LATENTS.iloc[::-1])


def test_frequencies_are_shares_of_latents_and_the_dead_stand_apart():
    dead, alive = plot_latent_frequency(LATENTS).axes
    assert [line.get_ydata()[0] for line in dead.lines] == [0.25, 0.25]
    for line in alive.lines:
        shares = line.get_ydata()
        assert sorted(shares[shares > 0]) == [0.25, 0.5]
        assert line.get_xdata()[np.argmax(shares)] == pytest.approx(0.002, rel=0.4)
        assert "25 % dead" in line.get_label()


def test_every_latent_dead_is_drawn():
    dead, _ = plot_latent_frequency(LATENTS.assign(frequency=0.0)).axes
    assert [line.get_ydata()[0] for line in dead.lines] == [1, 1]


def test_latents_always_active_are_drawn():
    _, alive = plot_latent_frequency(LATENTS.assign(frequency=1.0)).axes
    assert [line.get_ydata().sum() for line in alive.lines] == [1, 1]


def test_cosines_are_shares_and_spectra_means_over_seeds():
    left, right = plot_decoder_cosines(LATENTS, SPECTRA).axes
    for stairs in left.patches:
        assert sorted(stairs.get_data().values[stairs.get_data().values > 0]) == pytest.approx([1 / 3, 2 / 3])
    for line in right.lines:
        np.testing.assert_allclose(line.get_xydata(), [(i + 1, 3.5 / (i + 1)) for i in range(4)])


def test_stability_shows_mean_pairs_and_chance_best_first():
    axes = plot_seed_stability(STABILITY).axes
    assert [ax.get_xlabel() for ax in axes] == ["decoder cosine", "share of pairs with\ndecoder cosine > 0.7"]
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["worse", "better"]
    chance, pairs, mean = axes[0].lines[-3:]
    assert chance.get_xdata() == pytest.approx([0.13])
    assert pairs.get_xdata() == pytest.approx([0.92, 0.94])
    assert mean.get_xdata() == pytest.approx([0.93])


@pytest.mark.parametrize(
    ("plot", "message"),
    [
        (lambda: plot_latent_frequency(LATENTS.assign(frequency=2.0)), r"\[0, 1\]"),
        (lambda: plot_latent_frequency(LATENTS.drop(columns="kind")), "lacks the columns"),
        (lambda: plot_decoder_cosines(LATENTS, SPECTRA[SPECTRA["features"] == "sae"]), "the same dictionaries"),
        (lambda: plot_seed_stability(STABILITY.assign(metric="other")), "none of the metrics"),
    ],
)
def test_unusable_tables_are_refused(plot, message):
    with pytest.raises(ValueError, match=message):
        plot()


def named(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The rows of "sae" or "better" once for each name, the last a null arm."""
    own = table[table["features"].isin(["sae", "better"])]
    return pd.concat(own.assign(features=name, kind="null" if name is names[-1] else "sae") for name in names)


@pytest.mark.parametrize("names", [["a"], [f"{i} {LONG}" for i in range(12)]], ids=["one", "twelve of long names"])
@pytest.mark.parametrize(
    "draw",
    [
        lambda names: plot_latent_frequency(named(LATENTS, names)),
        lambda names: plot_decoder_cosines(named(LATENTS, names), named(SPECTRA, names)),
        lambda names: plot_seed_stability(named(STABILITY, names)),
        lambda names: plot_fvu_vs_l0(named(LATENTS.assign(k=8, split="test", fvu=0.5), names)),
    ],
    ids=["frequency", "cosines", "stability", "frontier"],
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
