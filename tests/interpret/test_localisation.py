"""Localisation: shares equal torch's upsampling and sums over pixels; planted maps are inside, flat ones at chance."""

import numpy as np
import pandas as pd
import pytest
import torch

from sfnetlab.interpret.localisation import FACTOR_OF_COMPONENT, ask, localise, summarise_localisation, upsampled
from sfnetlab.interpret.table import Sight
from sfnetlab.surveys.mock_population import make_population
from sfnetlab.surveys.mock_render import MASK_NAMES, component_masks


def maps_and_masks(n: int = 6, cells: int = 4, size: int = 18):
    rng = np.random.default_rng(0)
    return rng.exponential(size=(n, cells, cells)), rng.random((n, size, size)) < 0.2


def test_a_cell_is_centred_where_a_networks_strides_centre_it():
    """On its first pixel, as the gradient of a cell with respect to a long row of pixels says."""
    stride = torch.nn.Conv1d(1, 1, 3, stride=2, padding=1, bias=False)
    torch.nn.init.constant_(stride.weight, 1 / 3)
    pixels = torch.zeros(1, 1, 64, requires_grad=True)
    stride(stride(stride(pixels)))[0, 0, 4].backward()
    centre = int(pixels.grad[0, 0] @ torch.arange(64.0) / pixels.grad.sum() + 0.5)
    one = np.zeros((8, 8))
    one[4, 4] = 1
    fine = upsampled(one, 64, 64)
    assert np.unravel_index(fine.argmax(), fine.shape) == (centre, centre)


def test_upsampling_is_linear_between_cells_and_flat_beyond_the_last():
    np.testing.assert_allclose(upsampled(np.array([[0.0, 1.0]]), 1, 4), [[0, 0.5, 1, 1]])


def test_shares_equal_sums_over_the_pixels_of_upsampled_maps():
    maps, masks = maps_and_masks()
    table = localise(maps, masks)
    fine = upsampled(maps, 18, 18)
    fine /= fine.sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(table["inside"], [m[mask].sum() for m, mask in zip(fine, masks, strict=True)])
    np.testing.assert_allclose(table["area"], masks.mean(axis=(1, 2)))
    others = [np.mean([fine[j][masks[i]].sum() for j in range(6) if j != i]) for i in range(6)]
    np.testing.assert_allclose(table["others"], others)


def test_flat_map_is_inside_by_area():
    _, masks = maps_and_masks()
    table = localise(np.ones((6, 4, 4)), masks)
    np.testing.assert_allclose(table["inside"], table["area"])
    np.testing.assert_allclose(table["others"], table["area"])


def test_map_that_follows_its_galaxy_is_told_from_one_that_looks_at_the_centre():
    rng = np.random.default_rng(1)
    masks = np.zeros((40, 32, 32), dtype=bool)
    maps = np.full((40, 8, 8), 0.01)
    for i, (row, column) in enumerate(rng.integers(1, 6, (40, 2))):
        masks[i, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = True
        maps[i, row, column] = 1.0
    follows = summarise_localisation(localise(maps, masks), n_bootstrap=200, seed=0).set_index("metric")
    still = np.broadcast_to(maps.mean(axis=0), maps.shape)
    looks = summarise_localisation(localise(still, masks), n_bootstrap=200, seed=0).set_index("metric")
    assert follows.loc["inside_minus_others", "low"] > 0.2
    assert looks.loc["inside_minus_area", "low"] > 0
    assert looks.loc["inside_minus_others", "value"] == pytest.approx(0, abs=1e-12)


def test_silent_maps_and_empty_masks_are_not_measured():
    maps, masks = maps_and_masks()
    maps[1], masks[2] = 0, False
    table = localise(maps, masks)
    assert table.index[table.isna().all(axis=1)].tolist() == [1, 2]
    assert table.notna().all(axis=1).sum() == 4
    others = localise(maps[[0, 2, 3, 4, 5]], masks[[0, 2, 3, 4, 5]])["others"]
    np.testing.assert_allclose(table["others"].iloc[[0, 3, 4, 5]], others.iloc[[0, 2, 3, 4]])
    assert (summarise_localisation(table, n_bootstrap=100, seed=0)["n"] == 4).all()


def test_masks_of_the_mock_survey_fit():
    catalog = make_population(30, 0, 38.0)
    assert set(FACTOR_OF_COMPONENT) == set(MASK_NAMES)
    assert set(FACTOR_OF_COMPONENT.values()) <= set(catalog.columns)
    rows = catalog[catalog["factor_bulge_to_total"] > 0.5].to_dict("records")
    masks = np.stack([component_masks(row, 32, 38.0, 0)["bulge"] for row in rows])
    centre = np.zeros((len(rows), 4, 4))
    centre[:, 2, 2] = 1
    table = localise(centre, masks)
    assert table["inside"].mean() > 2 * table["area"].mean()


@pytest.mark.parametrize(
    ("maps", "message"), [(-np.ones((6, 4, 4)), "0 or more"), (np.ones((5, 4, 4)), "expected maps")]
)
def test_maps_that_cannot_be_weighed_are_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        localise(maps, maps_and_masks()[1])


# --- which features look at components --------------------------------------------------------------------------------

N = 90


def looking(described, cells=5):
    """Features 1 and 2 follow the bulge and the arms; maps say which feature they are of, masks of arms are empty."""
    rng = np.random.default_rng(0)
    factors = pd.DataFrame({name: rng.uniform(0.1, 1, N) for name in FACTOR_OF_COMPONENT.values()})
    factors["factor_companion_flux_ratio"] = 0.0
    values = np.stack([rng.random(N), factors["factor_bulge_to_total"], factors["factor_arm_strength"]], axis=1)

    def activation_maps(ids, feature):
        return np.full((len(ids), cells, cells), feature + 1, dtype=np.float32)

    def component_masks(rows, component):
        return np.full((len(rows), 8, 8), component != "arms")

    sight = Sight(activation_maps, component_masks)
    return described(factors.assign(size=1.0), values, "sfnet", sight=sight)


def test_each_component_is_looked_at_by_the_feature_that_follows_its_factor(described):
    localised = ask(looking(described)).tables["localised"]
    assert localised.groupby("component")["feature"].first()["bulge"] == 1
    assert set(localised["component"]) == {"bulge", "clumps"}  # no companion shows, and no mask of arms


def test_maps_and_masks_stand_in_the_order_of_the_galaxies(described):
    table = looking(described)
    answer = ask(table)
    localised, maps, masks = answer.tables["localised"], *(answer.arrays[f"localised_{n}"] for n in ("maps", "masks"))
    assert set(localised["id_str"]) <= set(table.test.rows["id_str"])
    assert (maps.shape, maps.dtype) == ((len(localised), 5, 5), np.float32)
    assert (masks.shape, masks.dtype) == ((len(localised), 8, 8), bool)
    np.testing.assert_array_equal(maps[:, 0, 0], localised["feature"] + 1)


@pytest.mark.parametrize("cells", [1, 2, 4])
def test_a_map_of_fewer_than_five_cells_points_nowhere_and_the_log_says_so(described, caplog, cells):
    with caplog.at_level("WARNING"):
        assert not ask(looking(described, cells=cells)).tables
    assert f"maps of {cells} x {cells} cells" in caplog.text


def test_a_network_whose_maps_are_not_known_looks_nowhere(described):
    assert not ask(described(pd.DataFrame({"size": np.arange(90.0)}), np.ones((90, 2)))).tables
