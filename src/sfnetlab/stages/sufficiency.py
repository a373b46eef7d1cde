"""Whether a survey has what an experiment asks for: told as soon as the survey is prepared, before anything is trained.

A later stage would refuse the same, but after minutes or days of training.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from sfnetlab.artifacts import SurveyTable, read_survey
from sfnetlab.errors import DataError
from sfnetlab.interpret.yields import rare_flags, too_few_rare
from sfnetlab.methods.contract import Demanding, Wide
from sfnetlab.metrics.quantiles import n_to_calibrate
from sfnetlab.schema import Experiment
from sfnetlab.settings import Target
from sfnetlab.stages.class_probes import class_numbers
from sfnetlab.stages.samples import too_few
from sfnetlab.surveys.catalog import target_rows

log = logging.getLogger(__name__)


def lacking(experiment: Experiment, survey: Path) -> list[str]:
    """Return all that a prepared survey lacks for an experiment, a sentence each.

    Parameters
    ----------
    survey
        Directory that stage prepare-survey wrote.
    """
    return list(_lacking(experiment, read_survey(survey)))


def _lacking(experiment: Experiment, survey: SurveyTable) -> Iterator[str]:
    catalog = survey.catalog
    for name, target in experiment.targets.items():
        yield from _lacks_target(name, target, catalog)
    for name, classes in experiment.classes.items():
        try:
            class_numbers(catalog, name, classes)
        except DataError as error:
            yield str(error)
    yield from _lacks_rare(experiment, catalog)
    yield from _lacks_pixels(experiment, survey)
    wide = {feature.name: feature for feature in experiment.features if isinstance(feature, Wide)}
    for feature in experiment.features:
        if isinstance(feature, Demanding):
            yield from feature.lacking(survey, lambda name: wide[name].width() if name in wide else None)


def _lacks_target(name: str, target: Target, catalog: pd.DataFrame) -> Iterator[str]:
    try:
        rows = catalog[target_rows(catalog, target, f"target {name!r}")]
    except DataError as error:
        yield str(error)
        return
    split = rows["split"].to_numpy()
    if few := too_few(name, split):
        yield few
        return
    train = rows.loc[split == "train", list(target.columns)].to_numpy(dtype=np.float64)
    for column, spread in zip(target.columns, np.ptp(train, axis=0), strict=True):
        if spread == 0:
            yield (
                f"target {name!r}: {column!r} has one and the same value in all {len(train)} train galaxies; "
                f"use more galaxies or another split"
            )
    n_valid = int(np.count_nonzero(split == "valid"))
    if target.quantiles and n_valid < (needed := n_to_calibrate(target.quantiles)):
        yield (
            f"target {name!r}: quantiles {list(target.quantiles)} need {needed} valid galaxies to be calibrated on, "
            f"and there are {n_valid}; give the valid part a greater share in split.fractions"
        )


def _lacks_rare(experiment: Experiment, catalog: pd.DataFrame) -> Iterator[str]:
    """What is wrong with [rare]; that one kind of several is too seldom is only said in the log."""
    is_test = (catalog["split"] == "test").to_numpy()
    few: list[str] = []
    for name, rare in experiment.rare.items():
        try:
            flags = rare_flags(catalog, rare.column, above=rare.above, below=rare.below, where=f"[rare.{name}]")
        except DataError as error:
            yield str(error)
            continue
        if message := too_few_rare(name, flags, is_test):
            few.append(message)
    if few and len(few) == len(experiment.rare):
        yield from few
    else:
        for message in few:
            log.warning("%s: left out", message)


def _lacks_pixels(experiment: Experiment, survey: SurveyTable) -> Iterator[str]:
    """Views that would show cutouts with more pixels than they have."""
    used = {view for feature in experiment.features for view in getattr(feature, "views", ())}
    for name, view in experiment.views.items():
        side = min(survey.cutouts.shape[1:3]) if name in used else 0
        if name in used and view.degrade_to is not None and view.degrade_to > side:
            yield f"view {name!r}: degrade_to must be at most {side}, the side of a cutout, got {view.degrade_to}"
