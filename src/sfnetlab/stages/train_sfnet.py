"""Stage train-sfnet: a network on cutouts, with top-k (an SFNet) or without (the dense control)."""

from dataclasses import asdict
from functools import partial

import numpy as np

from sfnetlab.artifacts import CHECKPOINT, read_survey
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods.networks import NetworkSpec
from sfnetlab.runner import stage_main
from sfnetlab.runtime import resolve_precision
from sfnetlab.surveys.catalog import target_rows, taught_rows


def build(spec: NetworkSpec, task: Task) -> Metrics:
    from sfnetlab.models.backbones import make_backbone
    from sfnetlab.models.sfnet import SparseFeatureNetwork, save_network
    from sfnetlab.models.views import ImageView
    from sfnetlab.training.network import train_network
    from sfnetlab.training.optimizers import Optimization

    survey = read_survey(task.inputs["survey"])
    usable = target_rows(survey.catalog, spec.target, str(task.inputs["survey"]))
    split = survey.catalog["split"].to_numpy()
    network = SparseFeatureNetwork(
        backbone=make_backbone(spec.backbone, spec.weights.path or spec.weights.source, spec.seed),
        backbone_name=spec.backbone,
        n_outputs=len(spec.target.columns),
        k=spec.k,
        seed=spec.seed,
        view=None if spec.view is None else ImageView(**asdict(spec.view)),
        quantiles=spec.target.quantiles,
    )
    training = spec.training
    history = train_network(
        network,
        survey.cutouts,
        survey.catalog[list(spec.target.columns)].to_numpy(dtype=np.float64, na_value=np.nan),
        np.flatnonzero(usable & taught_rows(survey.catalog)),
        np.flatnonzero(usable & (split == "valid")),
        epochs=training.epochs,
        batch_size=training.batch_size,
        optimization=Optimization(
            optimizer=training.optimizer,
            schedule=training.schedule,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
        ),
        loss=training.loss,
        augment=training.augment,
        precision=resolve_precision(training.precision, task.device),
        seed=spec.seed,
        device=task.device,
        checkpoint=task.work / CHECKPOINT,
        report=task.report,
        penalties=spec.penalties,
    )
    save_network(task.work, network)
    last = history[-1]
    return {name: last[name] for name in ("epoch", "train_loss", "valid_rmse", "precision")}


main = partial(stage_main, "train-sfnet")

if __name__ == "__main__":
    raise SystemExit(main())
