"""Stage embed-images: the feature table of a network, for every galaxy of the survey.

An SFNet gives what its head sees (at most k values a galaxy, CSR); a dense network or encoder its pooled output.
"""

from functools import partial

import numpy as np
from scipy import sparse

from sfnetlab.artifacts import Metrics, create_array, read_survey, write_csr_features, write_rows
from sfnetlab.plan import FrozenEmbeddingSpec, TrainedEmbeddingSpec
from sfnetlab.runner import Task, stage_main


def build(spec: TrainedEmbeddingSpec | FrozenEmbeddingSpec, task: Task) -> Metrics:
    from sfnetlab.models.sfnet import load_network
    from sfnetlab.training.network import embed_batches, frozen_encoder

    survey = read_survey(task.inputs["survey"])
    write_rows(task.work, survey.catalog)
    match spec:
        case TrainedEmbeddingSpec():
            network = load_network(task.inputs["network"]).to(task.device)
            batches = embed_batches(network.features, survey.images, device=task.device)
            if network.k is not None:
                features = sparse.csr_array(sparse.vstack([sparse.csr_array(batch) for batch in batches]))
                write_csr_features(task.work, features)
                return {"n_features": network.n_features, "l0": features.nnz / len(survey.images)}
            n_features = network.n_features
        case FrozenEmbeddingSpec():
            train = np.flatnonzero(survey.catalog["split"] == "train")
            weights = spec.weights.path or spec.weights.source
            encoder = frozen_encoder(spec.backbone, weights, spec.seed, spec.image_size, survey.images, train)
            encoder = encoder.to(task.device)
            batches = embed_batches(encoder, survey.images, device=task.device)
            n_features = encoder.n_features
    out = create_array(task.work / "features.npy", (len(survey.images), n_features), "float32")
    start = 0
    for batch in batches:
        out[start : start + len(batch)] = batch
        start += len(batch)
    return {"n_features": n_features}


main = partial(stage_main, "embed-images")

if __name__ == "__main__":
    raise SystemExit(main())
