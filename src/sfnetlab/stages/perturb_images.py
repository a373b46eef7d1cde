"""Stage perturb-images: what a network makes of the same test galaxies turned, shifted, noisier and blurred.

`features.npy` (n_transforms, n, d), `transforms.parquet` (its first axis, identity first), `rows.parquet` (its second).
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import SurveyTable, read_survey, write_rows
from sfnetlab.errors import DataError
from sfnetlab.files import create_array, finish_array
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods.networks import FrozenEmbeddingSpec, TrainedEmbeddingSpec
from sfnetlab.methods.vae import VAESpec
from sfnetlab.plan import PerturbSpec
from sfnetlab.runner import stage_main
from sfnetlab.surveys.perturb import TRANSFORMS

if TYPE_CHECKING:
    from torch import Tensor


def build(spec: PerturbSpec, task: Task) -> Metrics:
    from sfnetlab.training.network import embed_batches

    survey = read_survey(task.inputs["survey"])
    places = chosen_places(survey.catalog, spec.n_galaxies, spec.seed)
    if len(places) == 0:
        raise DataError(f"{task.inputs['survey']}: no test galaxies to perturb; give the test part a greater share")
    rows = survey.catalog.iloc[places]
    ids, images = rows["id_str"].tolist(), np.asarray(survey.cutouts[places])
    encode, n_features = _encoder(task, survey)
    out = create_array(task.work / "features.npy", (len(TRANSFORMS), len(places), n_features), "float32")
    for values, transform in zip(out, TRANSFORMS, strict=True):
        batches = embed_batches(encode, transform(images, ids, spec.seed), device=task.device)
        values[:] = np.concatenate(list(batches))
    finish_array(task.work / "features.npy", out)
    described = [(t.name, float(t.level), t.label, t.is_symmetry) for t in TRANSFORMS]
    transforms = pd.DataFrame(described, columns=["name", "level", "label", "is_symmetry"])
    transforms.to_parquet(task.work / "transforms.parquet", index=False)
    write_rows(task.work, rows)
    return {"n_transforms": len(TRANSFORMS), "n_galaxies": len(places), "n_features": n_features}


def chosen_places(catalog: pd.DataFrame, n_galaxies: int, seed: int) -> NDArray[np.intp]:
    """Return the rows of at most `n_galaxies` test galaxies, rising.

    They are drawn from the ids in order of their text, so that the order of the catalogue does not matter.
    """
    test = np.flatnonzero(catalog["split"] == "test")
    by_id = test[np.argsort(catalog["id_str"].to_numpy(dtype=str)[test], kind="stable")]
    return np.sort(np.random.default_rng(seed).permutation(by_id)[:n_galaxies])


def _encoder(task: Task, survey: SurveyTable) -> "tuple[Callable[[Tensor], Tensor], int]":
    """The network behind the input `embedding`, and how many features it gives."""
    from sfnetlab.models.sfnet import load_network
    from sfnetlab.models.vae import load_vae
    from sfnetlab.training.network import frozen_encoder

    spec: TrainedEmbeddingSpec | VAESpec | FrozenEmbeddingSpec = task.job.inputs["embedding"].spec
    match spec:
        case TrainedEmbeddingSpec():
            network = load_network(task.inputs["network"]).to(task.device)
            return network.features, network.n_features
        case VAESpec():
            vae = load_vae(task.inputs["embedding"]).to(task.device)
            return vae.encode, vae.n_latents
        case FrozenEmbeddingSpec():
            train = np.flatnonzero(survey.catalog["split"] == "train")
            weights = spec.weights.path or spec.weights.source
            encoder = frozen_encoder(spec.backbone, weights, spec.seed, spec.image_size, survey.cutouts, train)
            encoder = encoder.to(task.device)
            return encoder, encoder.n_features


main = partial(stage_main, "perturb-images")

if __name__ == "__main__":
    raise SystemExit(main())
