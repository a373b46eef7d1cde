"""Features on the BPT diagram and on the mass-metallicity relation."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure

from sfnetlab.figures.bpt import X_RANGE, Y_RANGE, plot_bpt
from sfnetlab.figures.mass_metallicity import N_LEAST, plot_mass_metallicity
from sfnetlab.surveys.lines import KAUFFMANN_POLE, KEWLEY_POLE, tremonti_2004

RNG = np.random.default_rng(0)
N = 200
X, Y = RNG.uniform(-1.2, 0.3, N), RNG.uniform(-0.9, 1.0, N)
X[:3] = np.nan
Y[3] = 2.0
ACTIVATIONS = np.maximum(RNG.normal(size=(N, 3)), 0)
NAMES = ["SL17", "SL138", "SL322"]
IMAGES = RNG.integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
EXAMPLES = [IMAGES, IMAGES[:2], IMAGES[:0]]


def bpt() -> Figure:
    return plot_bpt(X, Y, ACTIVATIONS, NAMES, EXAMPLES, "99th percentile")


def test_strongest_galaxies_are_drawn_last_and_those_without_ratios_not_at_all() -> None:
    fig = bpt()
    (points,) = [c for c in fig.axes[0].collections if isinstance(c, PathCollection)]
    strengths = np.asarray(points.get_array())
    assert len(strengths) == N - 3
    assert (np.diff(strengths) >= 0).all()
    place = np.asarray(points.get_offsets())[-1]
    np.testing.assert_allclose(place, [X[3:][ACTIVATIONS[3:, 0].argmax()], Y[3:][ACTIVATIONS[3:, 0].argmax()]])
    assert points.get_clim() == (0, 1)
    assert points.get_rasterized()


def test_frame_lines_and_titles_are_those_of_the_field() -> None:
    fig = bpt()
    panel = fig.axes[0]
    assert panel.get_xlim() == X_RANGE == (-1.55, 0.55)
    assert panel.get_ylim() == Y_RANGE == (-1.05, 1.3)
    for line, pole in zip(panel.lines, (KAUFFMANN_POLE, KEWLEY_POLE), strict=True):
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert x.max() < pole
        assert (np.diff(y) < 0).all()
        assert y.min() >= Y_RANGE[0]
    assert panel.get_title() == f"SL17 (N = {np.count_nonzero(ACTIVATIONS[3:, 0])})"
    assert "1 outside" in [text.get_text() for text in panel.texts]
    assert "dex" in panel.get_ylabel()


def test_examples_stand_in_a_square_strongest_first_and_may_be_few() -> None:
    shown = [ax.images for ax in bpt().axes[:6] if not ax.axison]
    assert [len(images) for images in shown] == [9, 2, 0]
    places = [(image.get_extent()[3], image.get_extent()[0]) for image in shown[0]]
    assert places == sorted(places)
    np.testing.assert_array_equal(np.asarray(shown[0][0].get_array()), IMAGES[0])


def test_two_features_fill_a_page_and_one_a_column() -> None:
    assert bpt().get_figwidth() == pytest.approx(7.1, abs=0.1)
    one = plot_bpt(X, Y, ACTIVATIONS[:, :1], NAMES[:1], EXAMPLES[:1], "99th percentile")
    assert one.get_figwidth() == pytest.approx(3.5, abs=0.1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"activations": -ACTIVATIONS}, "not negative"),
        ({"activations": ACTIVATIONS[:5]}, "do not fit"),
        ({"log_nii_ha": np.full(N, np.nan)}, "no galaxy has both line ratios"),
        ({"examples": EXAMPLES[:1]}, "do not fit"),
    ],
)
def test_unusable_features_are_refused(changed: dict[str, object], message: str) -> None:
    arguments = {
        "log_nii_ha": X, "log_oiii_hb": Y, "activations": ACTIVATIONS, "names": NAMES, "examples": EXAMPLES, "unit": "",
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        plot_bpt(**(arguments | changed))  # type: ignore[arg-type]


def relation(n: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mass = RNG.normal(10, 0.4, n)
    metallicity = tremonti_2004(np.clip(mass, 8.5, 11.5)) + RNG.normal(0, 0.1, n)
    return mass, metallicity, np.column_stack([np.full(n, 0.25), np.clip(metallicity - 8.5, 0, 1)])


def test_bins_of_the_mass_metallicity_relation_hold_mean_activations() -> None:
    mass, metallicity, activations = relation()
    fig = plot_mass_metallicity(mass, metallicity, activations, ["Z61", "Z256"], "99th percentile")
    flat, rising = (next(c for c in ax.collections if isinstance(c, PolyCollection)) for ax in fig.axes[:2])
    np.testing.assert_allclose(np.asarray(flat.get_array()), 0.25)
    heights = np.asarray(rising.get_offsets())[:, 1]
    assert np.corrcoef(heights, np.asarray(rising.get_array()))[0, 1] > 0.95
    assert flat.get_clim() == rising.get_clim()
    assert fig.axes[0].get_title() == "Z61 (N = 3,000)"


def test_mass_metallicity_relation_is_that_of_tremonti() -> None:
    fig = plot_mass_metallicity(*relation(), ["Z61", "Z256"], "99th percentile")
    line = fig.axes[0].lines[0]
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    np.testing.assert_allclose(y, tremonti_2004(x))


def test_bins_of_few_galaxies_are_not_drawn() -> None:
    mass, metallicity, activations = relation(N_LEAST - 1)
    with pytest.raises(ValueError, match="no bin"):
        plot_mass_metallicity(mass, metallicity, activations, ["Z61", "Z256"], "")
    with pytest.raises(ValueError, match="do not fit"):
        plot_mass_metallicity(mass, metallicity[:-1], activations, ["Z61", "Z256"], "")
