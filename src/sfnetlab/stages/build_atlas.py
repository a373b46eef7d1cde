"""Stage build-atlas: the feature atlas, a folder of static pages; `index.html` opens from disk.

`names.toml` in it is one to start from with names and notes of your own; how: results/README.md.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import FeatureTable, SurveyTable, read_embedding, read_features, read_survey
from sfnetlab.atlas.content import Atlas, Evidence, Galaxies, Predictions, Stability, Table
from sfnetlab.atlas.galaxies import choose_galaxies
from sfnetlab.atlas.mapping import HeadOf, Reading, with_maps
from sfnetlab.atlas.names import Given, read_names
from sfnetlab.atlas.site import write_site
from sfnetlab.jobs import Job, Metrics, Task
from sfnetlab.methods.networks import FrozenEmbeddingSpec, TrainedEmbeddingSpec
from sfnetlab.methods.sae import sae_directory
from sfnetlab.plan import AtlasSpec, InterpretSpec, StabilitySpec
from sfnetlab.probes import shown_probe
from sfnetlab.runner import stage_main
from sfnetlab.settings import Target
from sfnetlab.surveys.catalog import measured_labels, target_rows, unit_of

if TYPE_CHECKING:
    from sfnetlab.models.backbones import ImageEncoder
    from sfnetlab.models.sae import SparseAutoencoder
    from sfnetlab.models.sfnet import SparseFeatureNetwork

log = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""Of the sum of contributions against the network's prediction, in label units."""


def build(spec: AtlasSpec, task: Task) -> Metrics:
    survey = read_survey(task.inputs["survey"])
    sources = _sources(task)
    given = _names(spec, sources)
    galaxies = _galaxies(spec, survey)
    tables = [_table(source, task, galaxies, given) for source in sources]
    tables = _with_maps(sources, tables, task, survey, galaxies)
    comparison = task.inputs["comparison"]
    atlas = Atlas(
        experiment=spec.experiment,
        galaxies=galaxies,
        tables=tuple(tables),
        comparison=_csv(comparison / "comparison.csv"),
        classes=_csv(comparison / "classes.csv"),
        predictions=tuple(_predictions(spec, task, galaxies)),
        claims=_claims(task),
        config_toml=_text(task.work / "config.toml"),
    )
    metrics = write_site(task.work, atlas, {source.job.name: source.job.inputs["features"].key for source in sources})
    error = metrics["largest_contribution_error"]
    if error > TOLERANCE:
        log.warning(
            "contributions of features miss the network's prediction by up to %.2g: its features were computed "
            "elsewhere (another device) and near ties fell the other way",
            error,
        )
    return metrics


@dataclass(frozen=True)
class _Source:
    """What interpret-features says of a feature table, and where all that it stands on is."""

    job: Job
    spec: InterpretSpec
    directory: Path
    made: dict[str, Path]

    def input(self, role: str) -> Path | None:
        job = self.job.inputs.get(role)
        return None if job is None else self.made.get(job.key)

    def need(self, role: str) -> Path:
        return self.made[self.job.inputs[role].key]

    def read(self, name: str) -> pd.DataFrame:
        path = self.directory / f"{name}.parquet"
        return pd.read_parquet(path) if path.exists() else pd.DataFrame()

    @property
    def target(self) -> Target | None:
        """What the network's own head predicts, if it is a number."""
        return self.spec.targets.get(self.spec.head_target or "")

    @property
    def embedded(self) -> Job:
        """The job that ran the network whose pooled output the features are made of."""
        return self.job.inputs.get("embedding") or self.job.inputs["features"]


def _sources(task: Task) -> list[_Source]:
    made = {job.key: task.inputs[role] for role, job in task.job.inputs.items()}
    sources = [
        _Source(job, job.spec, path, made)
        for job, path in task.inputs_of("interpret-features").items()
        if isinstance(job.spec, InterpretSpec)
    ]
    first = {kind: place for place, kind in enumerate(("sfnet", "sae", "vae", "pls", "pca"))}
    return sorted(sources, key=lambda source: first.get(source.spec.table.kind, len(first)))


def _names(spec: AtlasSpec, sources: Sequence[_Source]) -> Given:
    if spec.names is None:
        return {}
    return read_names(spec.names, {source.job.name: source.job.inputs["features"].key for source in sources})


def _galaxies(spec: AtlasSpec, survey: SurveyTable) -> Galaxies:
    places = choose_galaxies(survey.catalog)
    catalog = survey.catalog.iloc[places].reset_index(drop=True)
    labels = measured_labels(catalog)
    return Galaxies(
        catalog=catalog,
        labels=labels[[name for name in labels if labels[name].notna().any()]],
        images=survey.images,
        places=places,
        pixel_scale_arcsec=survey.pixel_scale_arcsec,
        is_real=spec.is_real,
        n_survey=len(survey.catalog),
    )


# --- tables -----------------------------------------------------------------------------------------------------------


def _table(source: _Source, task: Task, galaxies: Galaxies, given: Given) -> Table:
    spec = source.spec
    stored = read_features(source.need("features"))
    ids = galaxies.catalog["id_str"]
    values = stored.of(ids)
    of_interest = np.ones(len(ids), dtype=bool)
    if source.target is not None:
        of_interest = target_rows(galaxies.catalog, source.target, str(task.inputs["survey"]))
    evidence = Evidence(
        features=source.read("features"),
        associations=source.read("associations"),
        alignment=source.read("alignment"),
        nuisances=source.read("nuisances"),
        partial=source.read("partial"),
        equations=source.read("equations"),
        recovery=source.read("recovery"),
        localisation=source.read("localisation"),
        changes=source.read("changes"),
        partners=_partners(source.job.name, task),
        stability=_stability(source, task),
    )
    table = spec.table
    return Table(
        name=source.job.name,
        features=table.features,
        kind=table.kind,
        k=table.k,
        seed=table.seed,
        values=values,
        of_interest=of_interest,
        evidence=evidence,
        residuals=_residuals(source, ids, values),
        names=given.get(source.job.name, {}),
    )


def _partners(name: str, task: Task) -> pd.DataFrame:
    """The feature of each other table that each feature is matched with."""
    path = task.inputs["relations"] / "pairs.parquet"
    if not path.exists():
        return pd.DataFrame()
    pairs = pd.read_parquet(path)
    numbers = ["correlation_fit", "correlation_test", "p"]
    sides = []
    for own, other in (("a", "b"), ("b", "a")):
        rows = pairs[pairs[f"table_{own}"] == name]
        columns = {f"feature_{own}": "feature", f"table_{other}": "table", f"feature_{other}": "partner"}
        sides.append(rows.rename(columns=columns)[[*columns.values(), *numbers]])
    return pd.concat(sides, ignore_index=True)


def _stability(source: _Source, task: Task) -> Stability | None:
    """Of an SAE's latents how many other seeds have the same atom; of SFNets how well other seeds' features match."""
    from safetensors.numpy import load_file

    own = source.spec.table
    for job, path in task.inputs_of("interpret-features").items():
        spec = job.spec
        if (
            isinstance(spec, StabilitySpec)
            and (spec.features, spec.k) == (own.features, own.k)
            and own.seed in spec.seeds
        ):
            members = load_file(path / "consensus.safetensors")["members"]
            others = (np.count_nonzero(members >= 0, axis=1) - 1) / (members.shape[1] - 1)
            latents = members[:, spec.seeds.index(own.seed)]
            has = latents >= 0
            known = source.read("features")["feature"]
            values = pd.Series(others[has], index=latents[has]).reindex(known).fillna(0.0)
            return Stability("share of the other seeds that have the same atom, where at least half do; else 0", values)
    tables = task.job.inputs["relations"].spec.tables
    seeds = [
        name
        for name, table in tables.items()
        if (table.features, table.k) == (own.features, own.k) and table.seed != own.seed
    ]
    partners = _partners(source.job.name, task)
    if not seeds or len(partners) == 0:
        return None
    matched = partners[partners["table"].isin(seeds)]
    values = matched.groupby("feature")["correlation_test"].sum() / len(seeds)
    known = source.read("features")["feature"]
    return Stability("correlation with its match in another seed, mean over seeds", values.reindex(known).fillna(0.0))


def _residuals(source: _Source, ids: "pd.Series[str]", values: object) -> NDArray[np.float64] | None:
    """Of an SAE: squared error of each galaxy's reconstruction over the variance of embeddings."""
    if source.spec.table.kind != "sae":
        return None
    rows, embedding = read_embedding(source.need("embedding"))
    x = np.asarray(FeatureTable(rows, embedding).of(ids), dtype=np.float64)
    x_hat = _sae(source).decode_csr(values)  # pyrefly: ignore[bad-argument-type]
    variance = np.square(x - x.mean(axis=0)).sum(axis=1).mean()
    return np.square(x - x_hat).sum(axis=1) / variance


def _sae(source: _Source) -> "SparseAutoencoder":
    from sfnetlab.models.sae import load_sae

    table = source.spec.table
    assert table.k is not None
    assert table.seed is not None
    return load_sae(sae_directory(source.need("saes"), table.k, table.seed))


# --- maps -------------------------------------------------------------------------------------------------------------


def _with_maps(
    sources: Sequence[_Source], tables: Sequence[Table], task: Task, survey: SurveyTable, galaxies: Galaxies
) -> list[Table]:
    """Tables with activation maps and heads, as far as there are images and a network here that was run on them."""
    if galaxies.images is None:
        return list(tables)
    done = list(tables)
    groups: dict[str, list[int]] = {}
    for place, source in enumerate(sources):
        if isinstance(source.embedded.spec, TrainedEmbeddingSpec | FrozenEmbeddingSpec):
            groups.setdefault(source.embedded.key, []).append(place)
    for places in groups.values():
        log.info("maps of %s", ", ".join(tables[place].name for place in places))
        encoder, network = _encoder(sources[places[0]], task, survey, galaxies.images)
        readings = [_reading(sources[place], encoder.n_features) for place in places]
        heads = [
            HeadOf(i, network, target.columns)
            for i, place in enumerate(places)
            if (target := sources[place].target) is not None and network is not None
        ]
        own = [tables[place] for place in places]
        mapped = with_maps(own, readings, encoder, galaxies, next(iter(heads), None), device=task.device)
        for place, table in zip(places, mapped, strict=True):
            done[place] = table
    return done


def _encoder(
    source: _Source, task: Task, survey: SurveyTable, images: NDArray[np.uint8]
) -> "tuple[ImageEncoder, SparseFeatureNetwork | None]":
    from sfnetlab.models.sfnet import load_network
    from sfnetlab.training.network import frozen_encoder

    job = source.embedded
    spec: TrainedEmbeddingSpec | FrozenEmbeddingSpec = job.spec
    match spec:
        case TrainedEmbeddingSpec():
            network = load_network(source.made[job.inputs["network"].key]).to(task.device)
            return network.encoder, network
        case FrozenEmbeddingSpec():
            train = np.flatnonzero(survey.catalog["split"] == "train")
            weights = spec.weights.path or spec.weights.source
            encoder = frozen_encoder(spec.backbone, weights, spec.seed, spec.image_size, images, train)
            return encoder.to(task.device), None


def _reading(source: _Source, n_dimensions: int) -> Reading:
    match source.spec.table.kind:
        case "sae":
            sae = _sae(source)
            directions = sae.W_enc.numpy(force=True).T / float(sae.scale)
            return Reading(directions, sae.b_enc.numpy(force=True) - directions @ sae.mean.numpy(force=True))
        case "pca" | "pls" as kind:
            from safetensors.numpy import load_file

            model = load_file(source.need("features") / "model.safetensors")
            directions = model["components"] if kind == "pca" else model["rotations"].T
            return Reading(directions, -directions @ model["mean"])
        case _:
            return Reading(np.eye(n_dimensions, dtype=np.float32), np.zeros(n_dimensions))


# --- what else is known -----------------------------------------------------------------------------------------------


def _predictions(spec: AtlasSpec, task: Task, galaxies: Galaxies) -> list[Predictions]:
    """Of test galaxies by one run of each method: a network by its own head, others by a probe on all features."""
    ids = galaxies.catalog["id_str"]
    probed = {job: path for job, path in task.inputs_of("fit-probes").items() if hasattr(job.spec, "table")}
    tables = {job: pd.read_parquet(path / "predictions.parquet") for job, path in probed.items()}
    found = []
    for name, target in spec.targets.items():
        for column in target.columns:
            of_column: dict[str, pd.DataFrame] = {}
            for job, rows in tables.items():
                own = rows[(rows["target"] == name) & (rows["column"] == column)]
                probe = shown_probe(set(own["probe"]))
                if probe is None or job.spec.table.kind == "mean":
                    continue
                own = own[own["probe"] == probe]
                own = own[own["n_features_used"] == own["n_features_used"].max()]
                of_column[f"{job.name}, {probe}"] = own.set_index("id_str")
            if of_column:
                y_true = next(iter(of_column.values()))["y_true"].reindex(ids).to_numpy()
                values = np.stack([rows["y_pred"].reindex(ids).to_numpy() for rows in of_column.values()], axis=1)
                found.append(
                    Predictions(
                        target=name,
                        column=column,
                        unit=unit_of(column),
                        y_true=y_true,
                        methods=tuple(of_column),
                        values=values,
                    )
                )
    return found


def _claims(task: Task) -> tuple[dict[str, str], ...]:
    claims = json.loads((task.inputs["claims"] / "claims.json").read_text())["claims"]
    return tuple(
        {key: claim[key] for key in ("name", "statement", "source", "what", "verdict", "why")} for claim in claims
    )


def _csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


main = partial(stage_main, "build-atlas")

if __name__ == "__main__":
    raise SystemExit(main())
