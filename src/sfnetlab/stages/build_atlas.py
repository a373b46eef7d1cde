"""Stage build-atlas: the feature atlas, a folder of static pages; `index.html` opens from disk.

`names.toml` in it is one to start from with names and notes of your own; how: results/README.md.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.atlas.content import Atlas, Evidence, Galaxies, Predictions, ShownTable, Stability
from sfnetlab.atlas.galaxies import choose_galaxies
from sfnetlab.atlas.mapping import HeadOf, with_maps
from sfnetlab.atlas.names import GivenName, read_names
from sfnetlab.atlas.site import write_site
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods.networks import FrozenEmbeddingSpec
from sfnetlab.plan import AtlasSpec
from sfnetlab.probes import shown_probe
from sfnetlab.results import Record, Results, TableResult
from sfnetlab.runner import stage_main
from sfnetlab.surveys.catalog import labels_and_targets, target_rows, unit_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from sfnetlab.models.backbones import ImageEncoder
    from sfnetlab.models.sfnet import SparseFeatureNetwork

log = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""How far contributions may add up to another number than the network's prediction, in label units."""


def build(spec: AtlasSpec, task: Task) -> Metrics:
    """Write the atlas into the task's folder; return counts, bytes, and by how much contributions miss predictions."""
    results = Results.of_task(task)
    described = [table for table in results.tables if table.has("description")]
    described.sort(key=lambda table: table.traits.rank, reverse=True)
    keys = {table.name: table.key for table in described}
    names = {} if spec.names is None else read_names(spec.names, keys)
    galaxies = _galaxies(spec, results)
    shown = [_shown(table, spec, results, galaxies, names.get(table.name, {})) for table in described]
    if galaxies.images is not None:
        shown = _with_maps(described, shown, spec, results, galaxies, task.device)
    comparison = task.inputs["comparison"]
    atlas = Atlas(
        experiment=spec.experiment,
        galaxies=galaxies,
        tables=tuple(shown),
        comparison=_csv(comparison / "comparison.csv"),
        classes=_csv(comparison / "classes.csv"),
        predictions=tuple(_predictions(spec, results, galaxies)),
        claims=_claims(task.inputs["claims"]),
        config_toml=_text(task.work / "config.toml"),
    )
    metrics = write_site(task.work, atlas, keys)
    error = metrics["largest_contribution_error"]
    if error > TOLERANCE:
        log.warning(
            "contributions of features miss the network's prediction by up to %.2g: its features were computed "
            "elsewhere (another device) and near ties fell the other way",
            error,
        )
    return metrics


def _galaxies(spec: AtlasSpec, results: Results) -> Galaxies:
    places = choose_galaxies(results.catalog)
    catalog = results.catalog.iloc[places].reset_index(drop=True)
    labels = labels_and_targets(catalog, [name for target in spec.targets.values() for name in target.columns])
    return Galaxies(
        catalog=catalog,
        labels=labels[[name for name in labels if labels[name].notna().any()]],
        images=results.survey.images,
        places=places,
        pixel_scale_arcsec=results.pixel_scale_arcsec,
        is_real=spec.is_real,
        n_survey=len(results.catalog),
    )


# --- tables -----------------------------------------------------------------------------------------------------------


def _shown(
    table: TableResult, spec: AtlasSpec, results: Results, galaxies: Galaxies, names: dict[int, GivenName]
) -> ShownTable:
    ids = galaxies.catalog["id_str"]
    of_interest = np.ones(len(ids), dtype=bool)
    if (target := spec.targets.get(table.head_target or "")) is not None:
        of_interest = target_rows(galaxies.catalog, target, str(results.record("prepare-survey").directory))

    def read(name: str) -> pd.DataFrame:
        found = table.read(name)
        return pd.DataFrame() if found is None else found

    features, partners, values = read("features"), _partners(table.name, results), table.values(ids)
    return ShownTable(
        spec=table.spec,
        values=values,
        of_interest=of_interest,
        evidence=Evidence(
            features=features,
            associations=read("associations"),
            alignment=read("alignment"),
            nuisances=read("nuisances"),
            partial=read("partial"),
            equations=read("equations"),
            recovery=read("recovery"),
            localisation=read("localisation"),
            changes=read("changes"),
            partners=partners,
            stability=_stability(table, features["feature"], partners, results),
        ),
        residuals=_residuals(table, ids, values),
        names=names,
    )


def _partners(name: str, results: Results) -> pd.DataFrame:
    """The feature of each other table that each feature is matched with."""
    pairs = results.relations("pairs")
    if pairs is None:
        return pd.DataFrame()
    numbers = ["correlation_fit", "correlation_test", "p"]
    sides = []
    for side, other in (("a", "b"), ("b", "a")):
        rows = pairs[pairs[f"table_{side}"] == name]
        columns = {f"feature_{side}": "feature", f"table_{other}": "table", f"feature_{other}": "partner"}
        sides.append(rows.rename(columns=columns)[[*columns.values(), *numbers]])
    return pd.concat(sides, ignore_index=True)


def _stability(
    table: TableResult, features: "pd.Series[int]", partners: pd.DataFrame, results: Results
) -> Stability | None:
    """How many other seeds have the atom of each latent of an SAE; else how well features of other seeds match."""
    spec = table.spec
    record = results.across_seeds(table)
    if record is not None and (record.directory / "consensus.safetensors").exists():
        from safetensors.numpy import load

        members = load((record.directory / "consensus.safetensors").read_bytes())["members"]
        others = (np.count_nonzero(members >= 0, axis=1) - 1) / (members.shape[1] - 1)
        latents = members[:, record.settings["seeds"].index(spec.seed)]
        has = latents >= 0
        values = pd.Series(others[has], index=latents[has]).reindex(features).fillna(0.0)
        return Stability("share of the other seeds that have the same atom, where at least half do; else 0", values)
    seeds = [
        name
        for name, other in results.related.items()
        if (other.features, other.k) == (spec.features, spec.k) and other.seed != spec.seed
    ]
    if not seeds or len(partners) == 0:
        return None
    matched = partners[partners["table"].isin(seeds)]
    values = matched.groupby("feature")["correlation_test"].sum() / len(seeds)
    return Stability(
        "correlation with its match in another seed, mean over seeds", values.reindex(features).fillna(0.0)
    )


def _residuals(
    table: TableResult, ids: "pd.Series[str]", values: "NDArray[np.floating] | csr_array"
) -> NDArray[np.float64] | None:
    """Squared error of each galaxy's reconstruction over the variance of embeddings, of sparse codes that have one."""
    if table.spec.k is None or table.embedding is None:
        return None
    x_hat = table.reader.decode(values)
    if x_hat is None:
        return None
    x = np.asarray(table.embedding.of(ids), dtype=np.float64)
    variance = np.square(x - x.mean(axis=0)).sum(axis=1).mean()
    return np.square(x - x_hat).sum(axis=1) / variance


# --- maps -------------------------------------------------------------------------------------------------------------


def _with_maps(
    tables: Sequence[TableResult],
    shown: Sequence[ShownTable],
    spec: AtlasSpec,
    results: Results,
    galaxies: Galaxies,
    device: str,
) -> list[ShownTable]:
    """Tables with activation maps and heads, as far as there is a network here that was run on the cutouts."""
    done = list(shown)
    groups: dict[str, list[int]] = {}
    for place, table in enumerate(tables):
        groups.setdefault(table.embedding_key, []).append(place)
    for places in groups.values():
        first = tables[places[0]]
        embedded = first.record("embedding") or first.source
        if embedded.stage != "embed-images":
            continue
        log.info("maps of %s", ", ".join(tables[place].name for place in places))
        encoder, network = _encoder(embedded, results, device)
        heads = [
            HeadOf(i, network, target.columns)
            for i, place in enumerate(places)
            if (target := spec.targets.get(tables[place].head_target or "")) is not None and network is not None
        ]
        mapped = with_maps(
            [shown[place] for place in places],
            [tables[place].reader.reading for place in places],
            encoder,
            galaxies,
            next(iter(heads), None),
            device=device,
        )
        for place, table in zip(places, mapped, strict=True):
            done[place] = table
    return done


def _encoder(embedded: Record, results: Results, device: str) -> "tuple[ImageEncoder, SparseFeatureNetwork | None]":
    """The encoder that made an embedding, and the network that it is part of if it was trained here."""
    from sfnetlab.models.sfnet import load_network
    from sfnetlab.training.network import frozen_encoder

    if (trained := results.input(embedded, "network")) is not None:
        network = load_network(trained.directory).to(device)
        return network.encoder, network
    assert embedded.job is not None, "a stage knows the jobs of its results"
    spec: FrozenEmbeddingSpec = embedded.job.spec
    train = np.flatnonzero(results.catalog["split"] == "train")
    weights = spec.weights.path or spec.weights.source
    images = results.survey.cutouts
    encoder = frozen_encoder(spec.backbone, weights, spec.seed, spec.image_size, images, train)
    return encoder.to(device), None


# --- what else is known -----------------------------------------------------------------------------------------------


def _predictions(spec: AtlasSpec, results: Results, galaxies: Galaxies) -> Iterator[Predictions]:
    """Predictions for test galaxies by one run of each method: its network's own head, else a probe on all features."""
    ids = galaxies.catalog["id_str"]
    probed = {table.name: table.need("predictions") for table in results.tables if table.has("probes")}
    for name, target in spec.targets.items():
        for column in target.columns:
            of_column: dict[str, pd.DataFrame] = {}
            for table_name, predictions in probed.items():
                rows = predictions[(predictions["target"] == name) & (predictions["column"] == column)]
                probe = shown_probe(set(rows["probe"]))
                rows = rows[rows["probe"] == probe]
                n_used = rows["n_features_used"].max()
                if probe is not None and n_used > 0:
                    of_column[f"{table_name}, {probe}"] = rows[rows["n_features_used"] == n_used].set_index("id_str")
            if of_column:
                y_true = next(iter(of_column.values()))["y_true"].reindex(ids).to_numpy()
                yield Predictions(
                    target=name,
                    column=column,
                    unit=unit_of(column),
                    y_true=y_true,
                    methods=tuple(of_column),
                    values=np.stack([rows["y_pred"].reindex(ids).to_numpy() for rows in of_column.values()], axis=1),
                )


def _claims(directory: Path) -> tuple[dict[str, str], ...]:
    claims = json.loads((directory / "claims.json").read_text())["claims"]
    return tuple(
        {key: claim[key] for key in ("name", "statement", "source", "what", "verdict", "why")} for claim in claims
    )


def _csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


main = partial(stage_main, "build-atlas")

if __name__ == "__main__":
    raise SystemExit(main())
