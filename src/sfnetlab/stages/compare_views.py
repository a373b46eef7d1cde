"""Stage compare-views: what networks lose when they are shown fewer pixels or colours.

`scores.parquet` (test scores of each network's own head), `survival.parquet` (each feature of the first view's network
in the networks of the other views), `views.npy` (n_views, n_examples, side, side, 3): a few galaxies as they are shown.
"""

from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.artifacts import read_features, read_survey
from sfnetlab.files import create_array, finish_array
from sfnetlab.interpret.views import Seen, surviving_features, view_scores
from sfnetlab.jobs import Metrics, Task, Viewed
from sfnetlab.metrics.method_scores import with_method_intervals
from sfnetlab.plan import ViewsSpec
from sfnetlab.runner import stage_main
from sfnetlab.settings import View

N_PERMUTATIONS = 20
"""Permutations of the galaxies, for the null of matched correlations."""
N_EXAMPLES = 6
SEED = 0


def build(spec: ViewsSpec, task: Task) -> Metrics:
    survey = read_survey(task.inputs["survey"])
    side = survey.cutouts.shape[1]
    metrics, methods = (
        pd.read_parquet(task.inputs["comparison"] / f"{name}.parquet") for name in ("metrics", "methods")
    )
    metrics = with_method_intervals(metrics, methods)
    by_name = {spec.tables[name].features: viewed for name, viewed in spec.views.items()}
    scores = view_scores(metrics, pd.DataFrame([_about(name, viewed, side) for name, viewed in by_name.items()]))
    scores.to_parquet(task.work / "scores.parquet", index=False)

    ids = {part: survey.catalog.loc[survey.catalog["split"] == part, "id_str"] for part in ("train", "test")}
    tables = {}
    for name, viewed in spec.views.items():
        table, stored = spec.tables[name], read_features(task.inputs[name])
        seen = Seen(viewed.method, table.k, viewed.view, table.seed)
        tables[seen] = (stored.of(ids["train"]), stored.of(ids["test"]))
    survival = surviving_features(tables, N_PERMUTATIONS, SEED)
    survival.to_parquet(task.work / "survival.parquet", index=False)

    settings = {viewed.view: viewed.settings for viewed in spec.views.values()}
    places = np.flatnonzero(survey.catalog["split"] == "test")
    places = np.sort(np.random.default_rng(SEED).permutation(places)[:N_EXAMPLES])
    shown = create_array(task.work / "views.npy", (len(settings), len(places), side, side, 3), "uint8")
    for out, view in zip(shown, settings.values(), strict=True):
        out[:] = _shown(view, np.asarray(survey.cutouts[places]))
    finish_array(task.work / "views.npy", shown)
    pd.DataFrame({"view": list(settings)}).to_parquet(task.work / "views.parquet", index=False)
    return {"n_views": len(settings), "n_tables": len(tables)}


def _about(features: str, viewed: Viewed, side: int) -> dict[str, str | int | bool]:
    """What `view_scores` wants to know of the view behind these features."""
    return {
        "features": features,
        "method": viewed.method,
        "view": viewed.view,
        "side_px": viewed.settings.degrade_to or side,
        "is_degraded": viewed.settings == View(degrade_to=viewed.settings.degrade_to),
    }


def _shown(view: View, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cutouts as they are shown, always at their own size, rounded to 8 bits for the eye."""
    import torch

    from sfnetlab.models.views import ImageView

    shown = ImageView(**asdict(replace(view, keep_size=True)))(torch.from_numpy(images))
    return shown.round().clamp(0, 255).to(torch.uint8).numpy()


main = partial(stage_main, "compare-views")

if __name__ == "__main__":
    raise SystemExit(main())
