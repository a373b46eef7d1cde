"""Whether the atlas's maps point at what is known to be there: planted clumps of mock galaxies, against chance."""

import numpy as np
import pytest

from sfnetlab.atlas.maps import MapRequest, make_maps
from sfnetlab.interpret.localisation import localise
from sfnetlab.metrics.association import spearman
from sfnetlab.models.backbones import make_backbone
from sfnetlab.models.sfnet import SparseFeatureNetwork
from sfnetlab.surveys.mock_population import make_population
from sfnetlab.surveys.mock_render import SPIRAL, component_masks, render_images
from sfnetlab.training.network import embed_batches, train_network
from sfnetlab.training.optimizers import Optimization

N, N_TRAIN, N_VALID, N_SHOWN = 1000, 390, 60, 40
SIDE, FIELD_ARCSEC = 128, 16.0
FACTOR = "factor_clump_strength"


@pytest.mark.slow
def test_the_map_of_the_feature_that_follows_clumps_lies_on_the_clumps(tmp_path):
    """One clump in half of the spirals, which fill the cutout: the map has to find it, not just the galaxy.

    Rounding differs between processors and numbers of threads, and so trains another network; five of them (seed 0 with
    two threads and with one, seeds 1 to 3) had 12.8, 11.6, 11.1, 7.2 and 8.4 % of a map's weight on its clump, which
    covers 6.5, 5.9, 6.2, 5.3 and 5.5 % of the cutout; maps of other galaxies have 7.4, 7.2, 7.5, 5.7 and 6.0 % there.
    At least 31 of 40 maps beat either.
    """
    catalog = with_single_clumps(make_population(N, 0, FIELD_ARCSEC))
    images = np.empty((N, SIDE, SIDE, 3), dtype=np.uint8)
    render_images(catalog, SIDE, FIELD_ARCSEC, 0, images, n_workers=1)
    order = np.random.default_rng(0).permutation(N)
    train, valid, test = np.split(order, [N_TRAIN, N_TRAIN + N_VALID])
    network = SparseFeatureNetwork(make_backbone("resnet18", "random", 0), "resnet18", 1, 4, seed=0)
    train_network(
        network,
        images,
        catalog[[FACTOR]].to_numpy(),
        np.sort(train),
        np.sort(valid),
        epochs=6,
        batch_size=32,
        optimization=Optimization(optimizer="adamw", schedule="one_cycle", learning_rate=1e-3, weight_decay=0.01),
        loss="rmse",
        augment=True,
        precision="float32",
        seed=0,
        device="cpu",
        checkpoint=tmp_path / "checkpoint",
        report=lambda history: None,
    )
    values = np.concatenate(list(embed_batches(network.features, images, device="cpu")))
    known = np.concatenate([train, valid])
    feature = int(np.nanargmax(spearman(values[known], catalog[[FACTOR]].to_numpy()[known])[:, 0]))
    strength = catalog[FACTOR].to_numpy()
    active = test[(values[test, feature] > 0) & (strength[test] > 0)]
    shown = active[np.argsort(-strength[active])][:N_SHOWN]
    unit = np.eye(network.n_features, dtype=np.float32)[[feature] * N_SHOWN]
    request = MapRequest(shown, lambda entries: unit[entries], np.zeros(N_SHOWN))
    (maps,) = make_maps(network.encoder, network.encoder, images, [request], "exact", device="cpu").maps
    masks = [component_masks(catalog.iloc[row], SIDE, FIELD_ARCSEC, 0)["clumps"] for row in shown]
    found = localise(maps, np.stack(masks))
    assert len(found) == N_SHOWN
    for chance in ("area", "others"):
        assert (found["inside"] > found[chance]).sum() >= 28  # of 40: p < 0.01 in a sign test
        assert found["inside"].mean() > 1.2 * found[chance].mean()


def with_single_clumps(catalog):
    """The population without arms, and with one clump or none in each spiral."""
    rng = np.random.default_rng(1)
    has_clump = (catalog["factor_type"] == SPIRAL) & (rng.random(len(catalog)) < 0.5)
    strength = np.where(has_clump, rng.uniform(0.3, 0.8, len(catalog)), 0.0)
    none = dict.fromkeys(["factor_n_arms", "factor_arm_strength"], 0.0)
    return catalog.assign(**none, factor_n_clumps=has_clump.astype(float), **{FACTOR: strength})
