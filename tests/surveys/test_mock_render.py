"""Mock cutouts: the same pixels whoever renders them, oriented on the sky, with components where their masks say."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import gammainc, gammaincinv

from sfnetlab.surveys import mock_render
from sfnetlab.surveys.mock_population import make_population
from sfnetlab.surveys.mock_render import (
    ELLIPTICAL,
    RENDER_FACTORS,
    SPIRAL,
    band_fluxes,
    component_masks,
    render_galaxy,
    render_images,
    sersic_gaussians,
)

SIZE, FIELD_ARCSEC, SEED = 48, 38.0, 5


@pytest.fixture(scope="module")
def catalog() -> pd.DataFrame:
    return make_population(80, 11, FIELD_ARCSEC)


def images_of(catalog: pd.DataFrame, **options: int) -> np.ndarray:
    out = np.zeros((len(catalog), SIZE, SIZE, 3), dtype=np.uint8)
    render_images(catalog, SIZE, FIELD_ARCSEC, SEED, out, **options)
    return out


def a_galaxy(**factors: float) -> dict[str, object]:
    """A bright, bulgeless, smooth disc alone in its cutout, in a quiet sky."""
    plain = dict.fromkeys(RENDER_FACTORS, 0.0) | {
        "factor_type": float(SPIRAL),
        "factor_r_mag": 14.5,
        "factor_redshift": 0.03,
        "factor_bulge_radius_arcsec": 1.0,
        "factor_bulge_sersic_n": 2.0,
        "factor_bulge_gr": 0.75,
        "factor_disc_scale_arcsec": 3.0,
        "factor_disc_gr": 0.5,
        "factor_axis_ratio": 0.5,
        "factor_psf_fwhm_arcsec": 1.3,
        "factor_sky_noise": 0.01,
    }
    unknown = factors.keys() - plain.keys()
    assert not unknown
    return {"id_str": "1237648720693755918"} | plain | factors


def moments(image: np.ndarray) -> tuple[float, float, float]:
    """Second moments of a grey image: rows, columns, and their product."""
    light = image.astype(float).mean(axis=-1)
    light = np.where(light > 30, light, 0)[8:-8, 8:-8]
    row, column = np.indices(light.shape) - (len(light) - 1) / 2
    total = light.sum()
    return float((light * row**2).sum() / total), float((light * column**2).sum() / total), float(
        (light * row * column).sum() / total
    )  # fmt: skip


def test_workers_blocks_and_single_galaxies_give_the_same_pixels(
    catalog: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = images_of(catalog)
    monkeypatch.setattr(mock_render, "IN_PROCESS_LIMIT", 0)
    np.testing.assert_array_equal(images_of(catalog, n_workers=2), whole)
    part = images_of(catalog, start=30, stop=75, n_workers=1)
    np.testing.assert_array_equal(part[30:75], whole[30:75])
    assert not part[:30].any()
    assert not part[75:].any()
    np.testing.assert_array_equal(render_galaxy(catalog.iloc[40], SIZE, FIELD_ARCSEC, SEED), whole[40])


def test_a_galaxy_looks_the_same_in_another_order(catalog: pd.DataFrame) -> None:
    np.testing.assert_array_equal(images_of(catalog.iloc[::-1])[::-1], images_of(catalog))


def test_another_seed_changes_the_noise(catalog: pd.DataFrame) -> None:
    row = catalog.iloc[0]
    assert (render_galaxy(row, SIZE, FIELD_ARCSEC, 0) != render_galaxy(row, SIZE, FIELD_ARCSEC, 1)).any()


def test_cutouts_are_dark_sky_around_a_bright_centre(catalog: pd.DataFrame) -> None:
    images = images_of(catalog).astype(float)
    middle = slice(SIZE // 2 - 2, SIZE // 2 + 2)
    assert np.median(images[:, :6]) < 12
    assert np.median(images[:, middle, middle]) > 60
    assert (images == 255).mean() < 0.01


@pytest.mark.parametrize("size", [16, 64, 150])
def test_any_image_size_shows_the_same_light(size: int) -> None:
    mean = render_galaxy(a_galaxy(), size, FIELD_ARCSEC, SEED).mean()
    assert mean == pytest.approx(render_galaxy(a_galaxy(), SIZE, FIELD_ARCSEC, SEED).mean(), rel=0.1)


def test_position_angle_0_stands_upright() -> None:
    rows, columns, _ = moments(render_galaxy(a_galaxy(), SIZE, FIELD_ARCSEC, SEED))
    assert rows > 1.5 * columns


def test_position_angle_90_lies_flat() -> None:
    rows, columns, _ = moments(render_galaxy(a_galaxy(factor_position_angle_deg=90.0), SIZE, FIELD_ARCSEC, SEED))
    assert columns > 1.5 * rows


def test_position_angle_45_leans_to_the_left_at_the_top() -> None:
    rows, columns, product = moments(render_galaxy(a_galaxy(factor_position_angle_deg=45.0), SIZE, FIELD_ARCSEC, SEED))
    assert product > 0.2 * rows
    assert rows == pytest.approx(columns, rel=0.1)


def test_companion_to_the_east_is_on_the_left() -> None:
    row = a_galaxy(
        factor_companion_flux_ratio=0.5,
        factor_companion_separation_arcsec=11.0,
        factor_companion_angle_deg=90.0,
        factor_companion_radius_arcsec=1.0,
        factor_companion_gr=0.6,
    )
    mask = component_masks(row, SIZE, FIELD_ARCSEC, SEED)["companion"]
    assert mask[SIZE // 2, round((SIZE - 1) / 2 - 11.0 * SIZE / FIELD_ARCSEC)]
    assert not mask[:, SIZE // 2 :].any()


def test_bulge_mask_is_the_centre() -> None:
    row = a_galaxy(factor_bulge_to_total=0.4)
    mask = component_masks(row, SIZE, FIELD_ARCSEC, SEED)["bulge"]
    assert mask[SIZE // 2, SIZE // 2]
    assert 4 <= mask.sum() < 0.1 * mask.size


def test_masks_of_components_that_are_not_there_are_empty() -> None:
    masks = component_masks(a_galaxy(), SIZE, FIELD_ARCSEC, SEED)
    assert masks.keys() == {"bulge", "arms", "clumps", "companion"}
    assert not any(mask.any() for mask in masks.values())
    assert all(mask.dtype == bool and mask.shape == (SIZE, SIZE) for mask in masks.values())


def test_arms_and_clumps_are_bluer_than_the_rest_of_the_disc() -> None:
    row = a_galaxy(
        factor_axis_ratio=0.9,
        factor_n_arms=2.0,
        factor_arm_strength=1.0,
        factor_pitch_angle_deg=20.0,
        factor_n_clumps=12.0,
        factor_clump_strength=0.2,
        factor_disc_scale_arcsec=4.0,
    )
    image = render_galaxy(row, SIZE, FIELD_ARCSEC, SEED).astype(float)
    masks = component_masks(row, SIZE, FIELD_ARCSEC, SEED)
    blueness = image[..., 2] / (image[..., 0] + 1)
    disc = (image.mean(axis=-1) > 40) & ~masks["arms"] & ~masks["clumps"]
    assert masks["arms"].sum() > 20
    assert blueness[masks["arms"]].mean() > blueness[disc].mean()
    assert blueness[masks["clumps"]].mean() > blueness[masks["arms"]].mean()


def test_parts_sum_to_the_magnitude(catalog: pd.DataFrame) -> None:
    fluxes = band_fluxes({name: catalog[name].to_numpy() for name in RENDER_FACTORS})
    total = np.sum([flux[:, 1] for flux in fluxes.values()], axis=0)
    np.testing.assert_allclose(22.5 - 2.5 * np.log10(total), catalog["factor_r_mag"])


def test_dust_reddens_inclined_discs_more() -> None:
    def gr(axis_ratio: float) -> float:
        row = a_galaxy(factor_dust=1.0, factor_axis_ratio=axis_ratio)
        disc = band_fluxes({name: float(str(row[name])) for name in RENDER_FACTORS})["disc"]
        return float(-2.5 * np.log10(disc[0] / disc[1]))

    assert gr(0.2) > gr(0.9)


@pytest.mark.parametrize("sersic_n", [1.0, 2.0, 4.0])
def test_gaussian_mixture_holds_the_light_of_a_sersic_profile(sersic_n: float) -> None:
    radius = np.geomspace(0.1, 5, 30)
    expected = _sersic_light_within(radius, sersic_n) / _sersic_light_within(8.0, sersic_n)
    weights, sigmas = sersic_gaussians(sersic_n)
    found = (weights * -np.expm1(-0.5 * (radius[:, None] / sigmas) ** 2)).sum(axis=1)
    np.testing.assert_allclose(found, expected, atol=0.015)


def _sersic_light_within(radius: np.ndarray | float, sersic_n: float) -> np.ndarray:
    return gammainc(2 * sersic_n, gammaincinv(2 * sersic_n, 0.5) * np.asarray(radius) ** (1 / sersic_n))


def test_rendered_light_is_the_catalogue_flux(monkeypatch: pytest.MonkeyPatch) -> None:
    row = a_galaxy(factor_type=float(ELLIPTICAL), factor_bulge_to_total=1.0, factor_r_mag=17.0)
    seen: list[np.ndarray] = []
    monkeypatch.setattr(mock_render, "_as_rgb", lambda gri: seen.append(gri) or np.zeros((SIZE, SIZE, 3), np.uint8))
    monkeypatch.setattr(mock_render, "_field", lambda frame, rng: np.zeros((3, *2 * frame.centres.shape), np.float32))
    render_galaxy(row, SIZE, FIELD_ARCSEC, SEED)
    camera_pixels = (FIELD_ARCSEC / SIZE / mock_render.PIXEL_ARCSEC) ** 2
    assert seen[0][1].sum() * camera_pixels == pytest.approx(10 ** (0.4 * 5.5), rel=0.03)


def test_out_of_another_shape_is_refused(catalog: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"out must be uint8 of shape \(80, 48, 48, 3\)"):
        render_images(catalog, SIZE, FIELD_ARCSEC, SEED, np.zeros((3, SIZE, SIZE, 3), dtype=np.uint8))


def test_rows_beyond_the_catalogue_are_refused(catalog: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="got 70 and 81"):
        images_of(catalog, start=70, stop=81)
