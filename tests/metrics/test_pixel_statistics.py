"""Pixel statistics: planted galaxies have the numbers that they should, however they are turned."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from sfnetlab.metrics.pixel_statistics import NAMES, pixel_statistics

SIDE = 64


def galaxy(scale: float = 6.0, axis_ratio: float = 1.0, colour: tuple[float, float, float] = (1, 1, 1), shift: int = 0):
    """A Gaussian galaxy, one image of (SIDE, SIDE, 3)."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    light = 200 * np.exp(-0.5 * ((x - shift) ** 2 + (y / axis_ratio) ** 2) / scale**2)
    return np.round(light[..., None] * colour).astype(np.uint8)


def statistics(*images: NDArray[np.uint8]) -> list[dict[str, float]]:
    return [dict(zip(NAMES, row.tolist(), strict=True)) for row in pixel_statistics(np.stack(images))]


images_of_bytes = st.integers(16, 24).flatmap(lambda side: arrays(np.uint8, (1, side, side, 3)))


@given(images=images_of_bytes)
@settings(max_examples=40)
def test_nothing_changes_when_a_cutout_is_turned_or_mirrored(images):
    expected = pixel_statistics(images)
    assert np.isfinite(expected).all()
    for same in (np.rot90(images, 1, (1, 2)), images[:, ::-1], images[:, :, ::-1]):
        np.testing.assert_allclose(pixel_statistics(np.ascontiguousarray(same)), expected, rtol=1e-4, atol=1e-5)


def test_each_image_is_measured_by_itself():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 64, 64, 3), dtype=np.uint8)  # more than are read at a time
    np.testing.assert_allclose(pixel_statistics(images)[270:], pixel_statistics(images[270:]), rtol=1e-5, atol=1e-6)


def test_a_redder_galaxy_has_redder_colours():
    grey, red = statistics(galaxy(), galaxy(colour=(1.0, 0.5, 0.25)))
    for part in ("core", "half", "whole"):
        assert grey[f"log_red_over_green_{part}"] == pytest.approx(0, abs=1e-6)
        assert red[f"log_red_over_green_{part}"] == pytest.approx(np.log10(2), abs=0.02)
        assert red[f"log_green_over_blue_{part}"] == pytest.approx(np.log10(2), abs=0.03)


def test_the_half_light_radius_is_that_of_a_gaussian():
    for scale in (4.0, 6.0, 8.0):
        (found,) = statistics(galaxy(scale))
        expected = np.sqrt(2 * np.log(2)) * scale / (SIDE / 2)
        assert 10 ** found["log_half_light_radius_red"] == pytest.approx(expected, rel=0.08)


def test_the_concentration_is_that_of_a_gaussian():
    (found,) = statistics(galaxy(7.0))
    assert found["concentration_green"] == pytest.approx(5 * np.log10(np.sqrt(np.log(5) / np.log(1.25))), abs=0.15)


def test_the_ellipticity_is_that_of_the_axes():
    round_, flat = statistics(galaxy(), galaxy(axis_ratio=0.5))
    assert round_["ellipticity"] == pytest.approx(0, abs=0.01)
    assert flat["ellipticity"] == pytest.approx((1 - 0.25) / (1 + 0.25), abs=0.05)


def test_a_galaxy_beside_the_middle_is_asymmetric():
    centred, beside = statistics(galaxy(4.0), galaxy(4.0, shift=16))
    assert centred["asymmetry"] == pytest.approx(0, abs=0.01)
    assert beside["asymmetry"] > 0.9


def test_light_in_few_pixels_has_a_large_gini_coefficient_and_a_low_m20():
    wide, narrow = statistics(galaxy(12.0), galaxy(2.0))
    assert wide["gini"] < narrow["gini"] < 1
    assert narrow["m20"] < -0.5


def test_clumps_make_a_galaxy_less_smooth():
    rng = np.random.default_rng(0)
    clumpy = (galaxy(10.0) * (rng.random((SIDE, SIDE, 1)) < 0.5)).astype(np.uint8)
    smooth, rough = statistics(galaxy(10.0), clumpy)
    assert rough["smoothness"] > 5 * smooth["smoothness"]


def test_an_empty_image_is_that_of_an_even_one():
    even = np.full((1, 20, 20, 3), 255, np.uint8)
    np.testing.assert_allclose(pixel_statistics(0 * even), pixel_statistics(even), atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 64, 64), (2, 64, 32, 3), (2, 15, 15, 3), (2, 64, 64, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="images must be"):
        pixel_statistics(np.zeros(shape, np.uint8))
