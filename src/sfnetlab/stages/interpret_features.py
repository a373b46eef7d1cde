"""Stage interpret-features: what each feature of a table responds to, told by galaxies that it was not fitted on.

`features.parquet`, a row a feature, and what else `interpret.QUESTIONS` find: tidy tables, arrays and texts, by name
(results/README.md lists them). Of SAEs that differ in their seed alone `stability.parquet`, how alike they are, and
`consensus.safetensors`, the atoms that recur.
"""

import logging
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import FeatureTable, SurveyTable, read_embedding, read_features, read_survey
from sfnetlab.files import read_array
from sfnetlab.interpret import QUESTIONS
from sfnetlab.interpret.catalog import summarise_usage
from sfnetlab.interpret.table import Autoencoder, DescribedTable, Perturbed, Sight
from sfnetlab.jobs import Metrics, TableSpec, Task
from sfnetlab.methods import TRAITS, reader_of
from sfnetlab.methods.sae import SAE, load_sae_of
from sfnetlab.methods.vae import VAESpec
from sfnetlab.metrics.matching import Dictionary, consensus_dictionary, seed_stability
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import FeatureMatrix
from sfnetlab.plan import InterpretSpec, StabilitySpec
from sfnetlab.results import with_identity
from sfnetlab.runner import stage_main
from sfnetlab.surveys.catalog import target_rows

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from sfnetlab.models.sfnet import SparseFeatureNetwork


def build(spec: InterpretSpec | StabilitySpec, task: Task) -> Metrics:
    match spec:
        case InterpretSpec():
            return _describe(spec, task)
        case StabilitySpec():
            return _compare_seeds(spec, task)


def _describe(spec: InterpretSpec, task: Task) -> Metrics:
    """Ask all questions; what they say of each feature stands beside each other in the table `features`."""
    table = _described(spec, task)
    tables: dict[str, pd.DataFrame] = {}
    for ask in QUESTIONS:
        answer = ask(table)
        tables |= answer.tables
        if answer.of_features is not None:
            tables["features"] = _beside(tables.get("features"), answer.of_features)
        for name, array in answer.arrays.items():
            np.save(task.work / f"{name}.npy", array)
        for name, text in answer.texts.items():
            (task.work / name).write_text(text, encoding="utf-8")
    for name, tidy in tables.items():
        with_identity(tidy, spec.table).to_parquet(task.work / f"{name}.parquet", index=False)
    return {"n_alive": len(tables["features"])} | summarise_usage(table.test.values)


def _beside(features: pd.DataFrame | None, more: pd.DataFrame) -> pd.DataFrame:
    """The features of the first question, with more columns."""
    return more if features is None else features.merge(more, on="feature", how="left", validate="one_to_one")


# --- what is asked ----------------------------------------------------------------------------------------------------


def _described(spec: InterpretSpec, task: Task) -> DescribedTable:
    survey, inputs = read_survey(task.inputs["survey"]), task.inputs
    settings, where = spec.interpretation, str(task.inputs["survey"])
    has_head = spec.head_target is not None
    return DescribedTable(
        spec=spec.table,
        catalog=survey.catalog,
        targets=spec.targets,
        within={name: target_rows(survey.catalog, target, where) for name, target in spec.targets.items()},
        head_target=spec.head_target,
        morphology=settings.morphology,
        nuisances=settings.nuisances,
        held_fixed=settings.held_fixed,
        n_permutations=settings.n_permutations,
        trivial=settings.told_by_all(spec.targets),
        untrained=read_features(inputs["untrained"]).of if "untrained" in inputs else None,
        another_seed=read_features(inputs["another_seed"]).of if "another_seed" in inputs else None,
        has_factors=spec.mock is not None,
        values_of=read_features(inputs["features"]).of,
        load_reader=partial(reader_of, spec.table, inputs),
        load_head=(lambda: _network(task).head_weights()) if has_head else None,
        load_embedding=FeatureTable(*read_embedding(inputs["embedding"])).of if "embedding" in inputs else None,
        load_perturbed=partial(_perturbed, task) if "perturbed" in inputs else None,
        sight=_sight(spec, task, survey),
        autoencoder=_autoencoder(task),
        cutouts_of=None if survey.images is None else partial(_cutouts, survey),
    )


def _network(task: Task) -> "SparseFeatureNetwork":
    from sfnetlab.models.sfnet import load_network

    return load_network(task.inputs["network"])


def _perturbed(task: Task) -> Perturbed:
    directory = task.inputs["perturbed"]
    embeddings = read_array(directory / "features.npy")
    return Perturbed(embeddings, pd.read_parquet(directory / "transforms.parquet"))


def _cutouts(survey: SurveyTable, ids: "pd.Series[str]") -> NDArray[np.uint8]:
    return np.asarray(survey.cutouts[pd.Index(survey.catalog["id_str"]).get_indexer(pd.Index(ids))])


def _sight(spec: InterpretSpec, task: Task, survey: SurveyTable) -> Sight | None:
    """Where a network that learns features of its own for a target looks, on cutouts of which every part is known."""
    mock = spec.mock
    if mock is None or spec.head_target is None or TRAITS[spec.table.kind].role != "network":
        return None
    return Sight(
        activation_maps=partial(_activation_maps, task, survey),
        component_masks=partial(_component_masks, mock.image_size, mock.field_arcsec, mock.seed),
    )


def _activation_maps(task: Task, survey: SurveyTable, ids: "pd.Series[str]", feature: int) -> NDArray[np.float32]:
    import torch

    with torch.no_grad():
        return _network(task).activation_maps(torch.from_numpy(_cutouts(survey, ids)), feature).numpy()


def _component_masks(
    image_size: int, field_arcsec: float, seed: int, rows: pd.DataFrame, component: str
) -> NDArray[np.bool_]:
    from sfnetlab.surveys.mock_render import component_masks

    return np.stack([component_masks(row, image_size, field_arcsec, seed)[component] for _, row in rows.iterrows()])


def _autoencoder(task: Task) -> Autoencoder | None:
    """The way back of an autoencoder of ours, which runs on the CPU, so that figures are the same everywhere."""
    made = task.job.inputs.get("features")
    if made is None or not isinstance(made.spec, VAESpec):
        return None
    from sfnetlab.models.vae import load_vae
    from sfnetlab.training.pixel_pca import load_pixel_pca
    from sfnetlab.training.vae import decode_batches

    directory = task.inputs["features"]
    vae, pca = load_vae(directory), load_pixel_pca(directory)
    return Autoencoder(
        latents=pd.read_parquet(directory / "latents.parquet"),
        has_prior=made.spec.vae.objective != "none",
        decode=lambda codes: _as_bytes(decode_batches(vae, codes, "cpu")),
        reconstruct_by_pca=lambda images: _as_bytes(pca.reconstruct(images.astype(np.float32) / 255)),
    )


def _as_bytes(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.rint(images * 255).astype(np.uint8)


# --- seeds ------------------------------------------------------------------------------------------------------------


def _compare_seeds(spec: StabilitySpec, task: Task) -> Metrics:
    from safetensors.numpy import save

    tables = {seed: read_features(task.inputs[f"seed{seed}"]) for seed in spec.seeds}
    rows = tables[spec.seeds[0]].rows
    train, test = (rows.loc[rows["split"] == part, "id_str"] for part in ("train", "test"))
    dictionaries: dict[int, Dictionary] = {}
    codes: dict[int, FeatureMatrix] = {}
    for seed, table in tables.items():
        sae = load_sae_of(
            TableSpec(features=spec.features, kind=SAE.kind, k=spec.k, seed=seed), task.inputs[f"saes{seed}"]
        )
        is_alive = activation_frequency(table.of(train)) > 0
        dictionaries[seed] = Dictionary(sae.W_dec.numpy(force=True), sae.W_enc.numpy(force=True), is_alive)
        codes[seed] = table.of(test)
    dead = [seed for seed, dictionary in dictionaries.items() if not np.any(dictionary.is_alive)]
    if dead:
        log.warning("%s k=%d: no latent of the seeds %s is active: seeds are not compared", spec.features, spec.k, dead)
        return {"n_consensus": 0}
    stability = seed_stability(dictionaries, codes).assign(features=spec.features, k=spec.k)
    stability.to_parquet(task.work / "stability.parquet", index=False)
    consensus = consensus_dictionary(list(dictionaries.values()))
    atoms = {
        "W_dec": np.ascontiguousarray(consensus.W_dec, dtype=np.float32),
        "members": np.ascontiguousarray(consensus.members),
    }
    (task.work / "consensus.safetensors").write_bytes(save(atoms))
    means = stability.groupby("metric")["value"].mean()
    return {"n_consensus": len(consensus.members)} | {str(name): float(value) for name, value in means.items()}


main = partial(stage_main, "interpret-features")

if __name__ == "__main__":
    raise SystemExit(main())
