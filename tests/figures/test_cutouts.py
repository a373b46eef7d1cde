"""The two figures of cutouts: strongest galaxies and contact sheet."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.typing import NDArray

from sfnetlab.figures.contact_sheet import plot_contact_sheet, plot_levels
from sfnetlab.figures.strongest_galaxies import plot_strongest_galaxies

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8)
ACTIVATIONS = np.array([[3.0, 2.0, 1.0], [1234.0, 0.5, np.nan]])
SCALE = 38 / 16


def strongest(activations: NDArray[np.float64] = ACTIVATIONS, scale: float | None = SCALE) -> Axes:
    frequencies = np.array([0.123, 0.00001])
    (ax,) = plot_strongest_galaxies(
        IMAGES, activations, ["sfnet 61", "sfnet 256"], frequencies, scale, ["weight +0.5", ""]
    ).axes
    return ax


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_strongest_cutouts_stand_in_rows_of_their_features() -> None:
    tops = [image.get_extent()[3] for image in strongest().images]
    assert len(set(tops[:3])) == len(set(tops[3:])) == 1
    assert tops[0] < tops[3]


def test_missing_activation_leaves_its_place_empty() -> None:
    drawn = [np.asarray(image.get_array()) for image in strongest().images]
    np.testing.assert_array_equal(drawn, [*IMAGES[0], *IMAGES[1, :2]])


def test_north_is_up() -> None:
    ax = strongest()
    left, right, bottom, top = ax.images[0].get_extent()
    display = ax.transData.transform([(left, top), (right, bottom)])
    assert ax.images[0].origin == "upper"
    assert display[0, 1] > display[1, 1]


def test_features_are_named_with_frequency_note_and_activations() -> None:
    drawn = texts(strongest())
    assert {"sfnet 61", "active in 12 %\nweight +0.5", "3.00", "1234", "0.500"} <= set(drawn)
    assert "active in < 0.01 %" in drawn


def test_scale_bar_has_its_length_on_the_sky() -> None:
    ax = strongest()
    x = np.asarray(ax.lines[0].get_xdata())
    assert "10″" in texts(ax)
    assert x[1] - x[0] == pytest.approx(10 / 38)


def test_unknown_pixel_scale_draws_no_bar_but_the_compass() -> None:
    ax = strongest(scale=None)
    assert not ax.lines
    assert {"N", "E"} <= set(texts(ax))


def test_compass_marks_the_first_galaxy_drawn() -> None:
    ax = strongest(np.array([[np.nan] * 3, [np.nan, 2.0, 1.0]]))
    (north,) = [text for text in ax.texts if text.get_text() == "N"]
    left, right, bottom, top = ax.images[0].get_extent()
    x, y = north.get_position()
    assert left < x < right
    assert top < y < bottom


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": IMAGES.astype(np.float32)}, "uint8"),
        ({"activations": ACTIVATIONS.T}, "shapes"),
        ({"names": ["one"]}, "2 entries"),
        ({"frequencies": np.array([0.1, 12.0])}, r"\[0, 1\]"),
        ({"activations": np.full((2, 3), np.nan)}, "no galaxy"),
        ({"pixel_scale_arcsec": 0.0}, "positive"),
    ],
)
def test_unusable_features_are_refused(changed: dict[str, object], message: str) -> None:
    arguments = {
        "images": IMAGES, "activations": ACTIVATIONS, "names": ["a", "b"], "frequencies": np.array([0.1, 0.2]),
        "pixel_scale_arcsec": 0.3, "notes": ["", ""],
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        plot_strongest_galaxies(**(arguments | changed))  # type: ignore[arg-type]


def test_contact_sheet_holds_every_cutout_in_reading_order() -> None:
    cutouts = IMAGES.reshape(6, 16, 16, 3)
    (ax,) = plot_contact_sheet(cutouts, [f"Z = {i}" for i in range(6)], SCALE).axes
    np.testing.assert_array_equal([np.asarray(image.get_array()) for image in ax.images], cutouts)
    assert [text for text in texts(ax) if text.startswith("Z")] == [f"Z = {i}" for i in range(6)]
    corners = [(image.get_extent()[3], image.get_extent()[0]) for image in ax.images]
    assert corners == sorted(corners)


def test_labels_of_neighbouring_cutouts_do_not_touch() -> None:
    cutouts = IMAGES.reshape(6, 16, 16, 3)
    fig = plot_contact_sheet(cutouts, ["12+log(O/H)=8.97 W W"] * 6, None)
    boxes = [text.get_window_extent() for text in fig.axes[0].texts if text.get_text().startswith("12")]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_contact_sheet_of_one_unlabelled_cutout() -> None:
    (ax,) = plot_contact_sheet(IMAGES[0, :1], None, SCALE).axes
    assert len(ax.images) == 1


def test_contact_sheet_refuses_a_wrong_number_of_labels() -> None:
    with pytest.raises(ValueError, match="one entry for each of 3"):
        plot_contact_sheet(IMAGES[0], ["one"], None)


def test_levels_are_drawn_as_shares_of_each_channel_and_both_ends_are_told():
    counts = np.ones((3, 256), dtype=np.int64)
    counts[0, 0], counts[2, 255] = 45, 9
    sheet, levels = plot_levels(IMAGES[0], counts, 12).axes
    assert len(sheet.images) == len(IMAGES[0])
    red, green, _ = levels.lines
    np.testing.assert_allclose(red.get_ydata(), counts[0] / 300)
    np.testing.assert_allclose(green.get_ydata(), 1 / 256)
    texts = [text.get_text() for text in levels.get_legend().get_texts()]
    assert texts == [
        "red: 15.0% at 0, 0.3% at 255",
        "green: 0.4% at 0, 0.4% at 255",
        "blue: 0.4% at 0, 3.4% at 255",
    ]
    assert levels.get_ylabel() == "share of pixels\n(12 cutouts)"
