"""Changed cutouts: what each transform does to a galaxy, and that it is the same each time."""

import numpy as np
import pytest

from sfnetlab.surveys.mock_population import make_population
from sfnetlab.surveys.mock_render import render_images
from sfnetlab.surveys.perturb import TRANSFORMS, Transform

BY_LABEL = {transform.label: transform for transform in TRANSFORMS}


@pytest.fixture(scope="module")
def galaxies() -> tuple[np.ndarray, list[str]]:
    catalog = make_population(12, 0, 38.0)
    images = np.empty((12, 64, 64, 3), dtype=np.uint8)
    render_images(catalog, 64, 38.0, 0, images, n_workers=1)
    return images, catalog["id_str"].tolist()


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: t.label)
def test_each_galaxy_changes_by_itself_and_the_same_each_time(
    transform: Transform, galaxies: tuple[np.ndarray, list[str]]
) -> None:
    images, ids = galaxies
    before = images.copy()
    changed = transform(images, ids, 3)
    assert changed.shape == images.shape
    assert changed.dtype == np.uint8
    np.testing.assert_array_equal(images, before)
    order = [7, 2]
    np.testing.assert_array_equal(transform(images[order], [ids[i] for i in order], 3), changed[order])


def test_identity_comes_first_and_labels_differ() -> None:
    assert TRANSFORMS[0].name == "identity"
    assert len(BY_LABEL) == len(TRANSFORMS)
    assert {"rotation 90°", "flip east-west", "shift 2 px", "noise 5/255", "PSF 1 px"} <= set(BY_LABEL)


def test_quarter_turns_and_flips_undo_themselves(galaxies: tuple[np.ndarray, list[str]]) -> None:
    images, ids = galaxies
    for first, second in (
        ("rotation 90°", "rotation 270°"),
        ("rotation 180°", "rotation 180°"),
        ("flip east-west", "flip east-west"),
        ("flip north-south", "flip north-south"),
    ):
        changed = BY_LABEL[first](images, ids, 0)
        assert (changed != images).any()
        np.testing.assert_array_equal(BY_LABEL[second](changed, ids, 0), images)


def test_rotations_turn_counter_clockwise() -> None:
    image = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    image[0, 14:18, 19:23] = 200  # right of the centre

    def centre(label: str) -> tuple[float, float]:
        rows, columns = np.nonzero(BY_LABEL[label](image, ["1"], 0)[0, :, :, 0] > 100)
        return rows.mean() - 15.5, columns.mean() - 15.5

    assert centre("rotation 90°") == (-5, 0)  # above it
    assert centre("rotation 45°") == pytest.approx((-5 / np.sqrt(2), 5 / np.sqrt(2)), abs=0.3)


@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_shift_moves_by_its_pixels_in_a_direction_of_the_id(
    pixels: int, galaxies: tuple[np.ndarray, list[str]]
) -> None:
    images, ids = galaxies
    moved = BY_LABEL[f"shift {pixels} px"](images, ids, 0)
    inner = slice(4, -4)
    directions = set()
    for image, other in zip(images, moved, strict=True):
        matches = [
            (dy, dx)
            for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))
            if np.array_equal(np.roll(image, (dy * pixels, dx * pixels), (0, 1))[inner, inner], other[inner, inner])
        ]
        assert len(matches) == 1
        directions.update(matches)
    assert len(directions) > 1


def test_noise_has_its_level_and_one_galaxy_the_same_noise_at_all_levels() -> None:
    images = np.full((4, 64, 64, 3), 120, dtype=np.uint8)
    ids = ["1", "2", "3", "4"]
    noise = {level: BY_LABEL[f"noise {level}/255"](images, ids, 0).astype(float) - 120 for level in (5, 10)}
    for level, values in noise.items():
        assert values.std() == pytest.approx(level, rel=0.03)
    assert np.corrcoef(noise[5].ravel(), noise[10].ravel())[0, 1] > 0.99
    assert abs(np.corrcoef(noise[10][0].ravel(), noise[10][1].ravel())[0, 1]) < 0.05
    assert (BY_LABEL["noise 5/255"](images, ids, 1) - 120.0 != noise[5]).any()


def test_noise_saturates_and_does_not_wrap() -> None:
    images = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    assert BY_LABEL["noise 10/255"](images, ["1"], 0).max() < 60


def test_psf_and_resolution_keep_light_and_lose_detail(galaxies: tuple[np.ndarray, list[str]]) -> None:
    images, ids = galaxies
    detail = images.astype(float).var(axis=(1, 2)).mean()
    for label in ("PSF 1 px", "PSF 2 px", "resolution 2 px", "resolution 4 px"):
        changed = BY_LABEL[label](images, ids, 0).astype(float)
        np.testing.assert_allclose(changed.mean(axis=(1, 2)), images.mean(axis=(1, 2)), atol=0.3)
        assert changed.var(axis=(1, 2)).mean() < detail


def test_resolution_draws_means_of_blocks_also_where_they_do_not_fit() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 18, 18, 3), dtype=np.uint8)
    coarse = BY_LABEL["resolution 4 px"](images, ["1"], 0)
    np.testing.assert_allclose(
        coarse[0, :4, :4], images[0, :4, :4].mean(axis=(0, 1), keepdims=True).repeat(4, 0).repeat(4, 1), atol=0.5
    )
    assert coarse.shape == images.shape


def test_unusable_images_are_refused() -> None:
    for images, ids in (
        (np.zeros((1, 8, 8, 3)), ["1"]),
        (np.zeros((1, 8, 9, 3), dtype=np.uint8), ["1"]),
        (np.zeros((1, 8, 8, 3), dtype=np.uint8), []),
    ):
        with pytest.raises(ValueError, match="expected"):
            TRANSFORMS[0](images, ids, 0)
