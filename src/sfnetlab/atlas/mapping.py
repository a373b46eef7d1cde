"""Gives tables their activation maps, and gives the table that a network's head reads the predictions with their maps.

Networks are run once, whatever number of tables stands on what they give.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sfnetlab.atlas.content import FeatureMaps, Galaxies, Head, ShownTable
from sfnetlab.atlas.features import pairs_to_map
from sfnetlab.atlas.maps import MapRequest, how_maps_are_made, make_maps
from sfnetlab.metrics.maps import is_fine
from sfnetlab.models.backbones import ImageEncoder
from sfnetlab.models.sfnet import SparseFeatureNetwork

log = logging.getLogger(__name__)

N_BY_GRADIENT = 4
"""Maps of a feature where each costs a run of the network: those of its strongest galaxies."""
MAX_BY_GRADIENT = 4000
"""Maps of a table where each costs a run of the network."""


Reading = tuple[NDArray[np.floating], NDArray[np.floating]]
"""How features read an embedding: see `methods.contract.Reader.reading`."""


@dataclass(frozen=True)
class HeadOf:
    """A network, the place of the table that its head reads, and the labels that it predicts."""

    place: int
    network: SparseFeatureNetwork
    columns: tuple[str, ...]


def with_maps(
    tables: Sequence[ShownTable],
    readings: Sequence[Reading],
    encoder: ImageEncoder,
    galaxies: Galaxies,
    head: HeadOf | None,
    *,
    device: str,
) -> list[ShownTable]:
    """Return the tables with maps of what their pages show, and the table that the head reads with that head.

    Maps of fewer than 5 x 5 cells point nowhere: then there are none.

    Parameters
    ----------
    tables, readings
        Tables of features of this encoder, and how each reads it.
    encoder
        On the device, ready to embed; that of the head's network if there is one.
    """
    assert galaxies.images is not None
    how = how_maps_are_made(encoder, galaxies.images[galaxies.places[:8]], device)
    pairs = []
    for table in tables:
        rows, features = pairs_to_map(table, galaxies, None if how == "exact" else N_BY_GRADIENT)
        if how == "gradient" and len(rows) > MAX_BY_GRADIENT:
            log.info("%s: maps for the first %d of %d cutouts, by frequency", table.name, MAX_BY_GRADIENT, len(rows))
            rows, features = rows[:MAX_BY_GRADIENT], features[:MAX_BY_GRADIENT]
        pairs.append((rows, features))
    requests = [
        _feature_request(reading, galaxies.places[rows], features)
        for reading, (rows, features) in zip(readings, pairs, strict=True)
    ]
    if head is not None:
        requests.append(_contribution_request(tables[head.place], head.network, galaxies.places))
    run = encoder if head is None else head.network.predict
    made = make_maps(encoder, run, galaxies.images, requests, how, device=device)
    done = [
        replace(table, maps=FeatureMaps(rows=rows, features=features, maps=maps, how=how)) if is_fine(maps) else table
        for table, (rows, features), maps in zip(tables, pairs, made.maps[: len(tables)], strict=True)
    ]
    if head is not None:
        predictions = made.outputs[np.searchsorted(made.rows, galaxies.places)]
        done[head.place] = replace(done[head.place], head=_head(done[head.place], head, predictions, made.maps[-1]))
    return done


def _feature_request(reading: Reading, rows: NDArray[np.intp], features: NDArray[np.intp]) -> MapRequest:
    directions, offsets = reading
    return MapRequest(rows, lambda entries: directions[features[entries]], offsets[features])


def _contribution_request(table: ShownTable, network: SparseFeatureNetwork, places: NDArray[np.intp]) -> MapRequest:
    """Ask for a map for each galaxy and output, of the weights of its active features.

    The bias is left out: it comes from nowhere.
    """
    weights, _ = network.head_weights()
    n_outputs = len(weights)
    values = sparse.csr_array(table.values)

    def directions(entries: NDArray[np.intp]) -> NDArray[np.floating]:
        active = sparse.csr_array(values[entries // n_outputs]).toarray() != 0
        return active * weights[entries % n_outputs]

    return MapRequest(np.repeat(places, n_outputs), directions, np.zeros(len(places) * n_outputs))


def _head(table: ShownTable, head: HeadOf, predictions: NDArray[np.float32], maps: NDArray[np.float32]) -> Head:
    network = head.network
    weights, bias = network.head_weights()
    if network.quantiles:
        middle = network.quantiles.index(0.5)
        predictions = predictions[:, middle : middle + 1]
    return Head(
        columns=head.columns,
        weights=weights,
        bias=bias,
        predictions=predictions,
        maps=maps.reshape(len(predictions), len(weights), *maps.shape[1:]) if is_fine(maps) else None,
        is_of_interest=table.of_interest,
    )
