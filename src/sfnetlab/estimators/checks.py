"""Checks of an estimator's parameters, made in `fit`: scikit-learn wants constructors that check nothing."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, cast

from sklearn.base import BaseEstimator


def invalid(estimator: BaseEstimator, name: str, expected: str) -> ValueError:
    """Return the error that says which parameter is wrong, what it must be and what was found."""
    found = getattr(estimator, name)
    return ValueError(
        f"The {name!r} parameter of {type(estimator).__name__} must be {expected}. Got {found!r} instead."
    )


def check_number(
    estimator: BaseEstimator,
    name: str,
    kind: type[Integral] | type[Real],
    low: float,
    high: float = math.inf,
    *,
    is_open: bool = False,
) -> None:
    """Raise ValueError unless a parameter is a finite number in [low, high), or in (low, high) if `is_open`.

    A bool is not a number here.
    """
    value: Any = getattr(estimator, name)
    is_number = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(cast("float", value))
    if not is_number or not (low < float(value) < high if is_open else low <= float(value) <= high):
        noun, bracket = "an int" if kind is Integral else "a float", "(" if is_open else "["
        raise invalid(estimator, name, f"{noun} in the range {bracket}{low}, {high})")


def check_choice(estimator: BaseEstimator, name: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless a parameter is one of `choices`."""
    if getattr(estimator, name) not in choices:
        raise invalid(estimator, name, f"one of {', '.join(map(repr, choices))}")
