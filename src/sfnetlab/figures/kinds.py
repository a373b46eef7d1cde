"""Which kinds of features figures treat alike. `methods.TRAITS` says it: no figure asks for a kind by its name."""

from collections.abc import Callable

import pandas as pd

from sfnetlab.methods import TRAITS, Traits


def kinds_that(hold: Callable[[Traits], bool]) -> tuple[str, ...]:
    """Return the kinds whose traits fulfil a condition, in the order of tables: controls first."""
    return tuple(sorted(filter(lambda kind: hold(TRAITS[kind]), TRAITS), key=lambda kind: TRAITS[kind].rank))


NETWORKS = kinds_that(lambda traits: traits.role == "network" and traits.supervised)
"""Networks whose own features are learnt for a target."""
TRAINED_DICTIONARIES = kinds_that(lambda traits: traits.role == "decomposition" and traits.is_sparse)
NULL_DICTIONARIES = kinds_that(lambda traits: traits.role == "null")
"""Dictionaries of which a part stays random: controls of the trained ones."""
DICTIONARIES = (*NULL_DICTIONARIES, *TRAINED_DICTIONARIES)
COMPONENTS = kinds_that(lambda traits: traits.is_ordered)
"""Decompositions of which the first features are a choice of their own."""
DENSE = kinds_that(lambda traits: traits.role != "control" and not traits.is_sparse and not traits.is_ordered)
"""Kinds that use every feature of every galaxy, in no order."""
EMBEDDINGS = kinds_that(lambda traits: traits.role == "embedding")
"""Kinds that are there to be decomposed: their own dimensions are no method."""
CONTROLS = kinds_that(lambda traits: traits.role == "control")

PREDICT_THE_MEAN = "predict the mean"
"""What figures call the control without features."""


def predicts_the_mean(metrics: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows of a metrics table are of the control without features: its probes predict the train mean."""
    return metrics["kind"].isin(CONTROLS) & (metrics["n_features_used"] == 0)
