"""Stage prepare-survey: `catalog.parquet` with ids, labels and split, and `images.npy` with every cutout.

How a survey is read is known to its kind, in surveys/<kind>.py.
"""

import logging
from functools import partial
from pathlib import Path

import pandas as pd

from sfnetlab.files import read_array
from sfnetlab.jobs import Metrics, Task
from sfnetlab.plan import CommonSurveySpec, SurveySpec
from sfnetlab.runner import stage_main
from sfnetlab.settings import CatalogColumns
from sfnetlab.stages.wanted import require_wanted
from sfnetlab.surveys.catalog import FOR_PROBES, add_line_logs
from sfnetlab.surveys.columns import measured
from sfnetlab.surveys.split import USUAL_SIDE_ARCSEC, split_catalog
from sfnetlab.surveys.tables import common_galaxies

log = logging.getLogger(__name__)


def build(spec: SurveySpec, task: Task) -> Metrics:
    catalog, facts = spec.survey.read(task.work, partial(_accepted, spec=spec, work=task.work))
    if isinstance(spec, CommonSurveySpec):
        catalog, n_dropped = _with_every_embedding(catalog, spec, task.work)
        facts = {**facts, "n_without_embedding": n_dropped}
    catalog = add_line_logs(catalog)
    parts = pd.Series(split_catalog(catalog, spec.split, _side_arcsec(task.work, facts)), index=catalog.index)
    catalog.insert(1, "split", parts.replace("probe", "train"))
    if spec.split.probe_share > 0:
        catalog[FOR_PROBES] = parts == "probe"
    catalog.to_parquet(task.work / "catalog.parquet", index=False)
    if spec.survey.has_images and spec.survey.is_real:
        facts = {**facts, **_show_levels(task.work)}
    counts = {f"n_{part}": int((catalog["split"] == part).sum()) for part in ("train", "valid", "test")}
    log.info("%d galaxies: %s", len(catalog), ", ".join(f"{n} {part[2:]}" for part, n in counts.items()))
    return {"n_galaxies": len(catalog), **counts, **facts}


def check(spec: SurveySpec, directory: Path) -> None:
    """Refuse a survey, prepared before, that lacks what the experiment wants by now; raises DataError."""
    require_wanted(pd.read_parquet(directory / "catalog.parquet"), spec.wanted)


def _side_arcsec(work: Path, facts: Metrics) -> float:
    """Side of the cutouts as they were prepared."""
    scale, images = facts.get("pixel_scale_arcsec"), work / "images.npy"
    return float(scale) * read_array(images).shape[1] if scale and images.exists() else USUAL_SIDE_ARCSEC


def _accepted(catalog: pd.DataFrame, *, spec: SurveySpec, work: Path) -> pd.DataFrame:
    """The catalogue with its positions and missing values known; `missing_values.csv` counts what was a code of one."""
    settings = spec.survey if isinstance(spec.survey, CatalogColumns) else CatalogColumns()
    catalog, codes = measured(catalog, settings, "catalogue")
    codes.to_csv(work / "missing_values.csv", index=False)
    require_wanted(catalog, spec.wanted)
    return catalog


def _show_levels(work: Path) -> dict[str, float]:
    """Draw `contact_sheet.png`, some cutouts and the histogram of their levels; return the shares at both ends.

    The same survey gives the same cutouts: 32 are shown, and the levels of 1,000 are counted.
    """
    import numpy as np

    from sfnetlab.figures.contact_sheet import plot_levels
    from sfnetlab.surveys.images import level_counts

    images = read_array(work / "images.npy")
    rows = np.random.default_rng(0).permutation(len(images))[:1000]
    counts = level_counts(images, rows)
    plot_levels(images[np.sort(rows[:32])], counts, len(rows)).savefig(work / "contact_sheet.png", dpi=150)
    black, saturated = (float(counts[:, level].sum() / counts.sum()) for level in (0, 255))
    log.info("%.1f %% of pixels are black, %.1f %% saturated: contact_sheet.png", 100 * black, 100 * saturated)
    return {"share_black": black, "share_saturated": saturated}


def _with_every_embedding(catalog: pd.DataFrame, spec: CommonSurveySpec, work: Path) -> tuple[pd.DataFrame, int]:
    """The galaxies that every required table has, and how many others there are: those go on record."""
    kept, dropped = common_galaxies(catalog, spec.required)
    dropped.to_csv(work / "without_embedding.csv", index=False)
    if len(dropped):
        log.warning("%d of %d galaxies dropped, see without_embedding.csv", len(dropped), len(catalog))
    return kept, len(dropped)


main = partial(stage_main, "prepare-survey")

if __name__ == "__main__":
    raise SystemExit(main())
