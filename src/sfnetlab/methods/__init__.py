"""The methods: a file a kind, with its settings, what it is, the tables that it plans and its reader.

To add one, write its file and add a line to `Features`. contract.py says what a method is.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from sfnetlab.jobs import TableSpec
from sfnetlab.methods.contract import Method, Reader, Role, Traits
from sfnetlab.methods.controls import MassAndColour, Mean, Photometry
from sfnetlab.methods.encoder import Encoder
from sfnetlab.methods.external import External
from sfnetlab.methods.ica import ICA
from sfnetlab.methods.oracle import Oracle
from sfnetlab.methods.pca import PCA
from sfnetlab.methods.pixel_statistics import PixelStatistics
from sfnetlab.methods.pls import PLS
from sfnetlab.methods.sae import SAE, NullSAE
from sfnetlab.methods.sfnet import SFNet
from sfnetlab.methods.vae import VAE
from sfnetlab.methods.zoobot import Zoobot

Features = (
    SFNet | Encoder | Zoobot | PCA | ICA | PLS | SAE | NullSAE | VAE
    | Photometry | PixelStatistics | MassAndColour | Oracle | Mean | External
)  # fmt: skip
"""The settings of one [[features]]: the registry of methods."""

METHODS: Mapping[str, type[Method]] = {method.kind: method for method in get_args(Features)}
"""The methods by kind."""

TRAITS: Mapping[str, Traits] = {kind: method.traits for kind, method in METHODS.items()}
"""What each kind is."""

BOUNDS = tuple(kind for kind, traits in TRAITS.items() if traits.role == "control" and traits.supervised)
"""Controls that were told the labels: bounds of what methods reach, which none of them is judged against."""


def reader_of(table: TableSpec, inputs: Mapping[str, Path]) -> Reader:
    """Return what reads the features of a table in what they are made of; see `contract.Method.reader`."""
    return METHODS[table.kind].reader(table, inputs)


def kinds_of(*roles: Role) -> tuple[str, ...]:
    """Return the kinds with one of these roles, in the order of tables."""
    return tuple(sorted((kind for kind in TRAITS if TRAITS[kind].role in roles), key=lambda kind: TRAITS[kind].rank))


def typical(tables: Iterable[TableSpec]) -> list[TableSpec]:
    """Return one table of each method: the first seed, and the largest k that an SFNet has too (else the largest)."""
    specs = list(tables)
    shared = {spec.k for spec in specs if TRAITS[spec.kind].role == "network"}
    methods: dict[str, list[TableSpec]] = {}
    for spec in specs:
        methods.setdefault(spec.features, []).append(spec)
    return [
        max(of_method, key=lambda spec: (spec.k in shared, spec.k or 0, -(spec.seed or 0)))
        for of_method in methods.values()
    ]
