"""Stage finetune-zoobot: a pretrained encoder trained on for a target, by Zoobot; kept like a dense network."""

import shutil
from functools import partial

import numpy as np

from sfnetlab.artifacts import read_survey
from sfnetlab.jobs import Metrics, Task
from sfnetlab.methods.zoobot import FinetuneSpec
from sfnetlab.runner import stage_main
from sfnetlab.surveys.catalog import target_rows, taught_rows

LIGHTNING = "lightning"
"""Folder of Lightning's checkpoints while it trains: pickles, so it is not kept."""


def build(spec: FinetuneSpec, task: Task) -> Metrics:
    from sfnetlab.models.backbones import local_name
    from sfnetlab.models.sfnet import save_network
    from sfnetlab.training.network import frozen_encoder
    from sfnetlab.training.zoobot import Tuning, finetune

    survey = read_survey(task.inputs["survey"])
    usable = target_rows(survey.catalog, spec.target, str(task.inputs["survey"]))
    is_valid = (survey.catalog["split"] == "valid").to_numpy()
    train, valid = (np.flatnonzero(usable & rows) for rows in (taught_rows(survey.catalog), is_valid))
    zoobot, weights = spec.zoobot, spec.weights.path or spec.weights.source
    network, history = finetune(
        frozen_encoder(zoobot.backbone, weights, spec.seed, zoobot.image_size, survey.cutouts, train),
        local_name(zoobot.backbone),
        survey.cutouts,
        survey.catalog[list(spec.target.columns)].to_numpy(dtype=np.float64, na_value=np.nan),
        train,
        valid,
        epochs=zoobot.epochs,
        batch_size=zoobot.batch_size,
        tuning=Tuning(
            training_mode=zoobot.training_mode,
            layer_decay=zoobot.layer_decay,
            learning_rate=zoobot.learning_rate,
            weight_decay=zoobot.weight_decay,
            head_dropout=zoobot.head_dropout,
        ),
        augment=zoobot.augment,
        seed=spec.seed,
        device=task.device,
        directory=task.work / LIGHTNING,
        report=task.report,
    )
    save_network(task.work, network)
    shutil.rmtree(task.work / LIGHTNING)
    best = min(history, key=lambda record: record["valid_loss"])
    return {name: best[name] for name in ("epoch", "train_loss", "valid_loss", "valid_rmse")}


main = partial(stage_main, "finetune-zoobot")

if __name__ == "__main__":
    raise SystemExit(main())
