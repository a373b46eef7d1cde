"""What the atlas says of galaxies: which of a survey it shows, their neighbours, planes, and what is odd about them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sfnetlab.atlas.content import Atlas, Galaxies, ShownTable
from sfnetlab.atlas.packing import finite, pack_array, pack_maps, pack_rows
from sfnetlab.metrics.tables import checked_table
from sfnetlab.surveys.lines import KAUFFMANN_POLE, KEWLEY_POLE, kauffmann_2003, kewley_2001, tremonti_2004

N_GALAXIES = 20_000
"""An atlas shows at most so many galaxies: first test ones, then valid ones, then train ones."""
N_NEIGHBOURS = 8
CHUNK = 64
"""Galaxies in one script."""
SPLITS = ("train", "valid", "test")
_BLOCK = 512
"""Galaxies whose similarities to all others are held at a time."""


def choose_galaxies(catalog: pd.DataFrame, n_galaxies: int = N_GALAXIES, seed: int = 0) -> NDArray[np.intp]:
    """Return the rows of at most this many galaxies, rising.

    All test galaxies are chosen before any valid one, and these before any train one; within a part at random.
    """
    rank = catalog["split"].map({"test": 0, "valid": 1, "train": 2}).to_numpy()
    order = np.lexsort((np.random.default_rng(seed).permutation(len(catalog)), rank))
    return np.sort(order[:n_galaxies])


def rows_in(values: "sparse.csr_array") -> int:
    """Return the number of rows."""
    return len(values.indptr) - 1


# --- neighbours -------------------------------------------------------------------------------------------------------


def nearest_by_code(
    values: "sparse.csr_array", n_neighbours: int = N_NEIGHBOURS
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return for each row the other rows whose codes have the largest cosine with its own.

    Returns
    -------
    rows, cosines
        (n, n_neighbours), cosines falling; fewer columns where there are fewer rows. A cosine of 0 is no neighbour:
        a row whose code is zero has none.
    """
    n = rows_in(values)
    size = np.sqrt(np.asarray(values.multiply(values).sum(axis=1)).ravel())
    unit = sparse.csr_array(sparse.diags_array(1 / np.where(size > 0, size, 1)) @ values).astype(np.float32)
    turned = sparse.csr_array(unit.T)
    m = min(n_neighbours, n - 1)
    rows, cosines = np.zeros((n, m), dtype=np.intp), np.zeros((n, m), dtype=np.float32)
    if m == 0:
        return rows, cosines
    for start in range(0, n, _BLOCK):
        block = (unit[start : start + _BLOCK] @ turned).toarray()
        places = np.arange(len(block))
        block[places, start + places] = -np.inf  # no row is its own neighbour
        some = np.argpartition(block, -m, axis=1)[:, -m:]
        found = np.take_along_axis(block, some, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        rows[start : start + len(block)] = np.take_along_axis(some, order, axis=1)
        cosines[start : start + len(block)] = np.take_along_axis(found, order, axis=1)
    return rows, cosines


# --- what is odd ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Oddity:
    """A number by which galaxies are sorted; NaN where it does not apply."""

    name: str
    explanation: str
    unit: str
    values: NDArray[np.floating]


def rare_combinations(values: "sparse.csr_array") -> NDArray[np.float64]:
    """Return how seldom the active features of each row are active together, (n,), in dex.

    It is the mean over pairs of active features of -log10 of the share of rows in which both are active; NaN where
    fewer than two features are active.
    """
    n = rows_in(values)
    active = sparse.csr_array((np.ones(values.nnz), values.indices, values.indptr), shape=values.shape)
    together = sparse.csr_array(active.T @ active)
    together.data = -np.log10(together.data / n)
    n_active = np.diff(values.indptr)
    # The sum over all ordered pairs and the diagonal, in one product; the diagonal is taken off.
    total = np.asarray((active @ together).multiply(active).sum(axis=1)).ravel() - active @ together.diagonal()
    n_pairs = n_active * (n_active - 1)
    return np.divide(total, n_pairs, out=np.full(n, np.nan), where=n_pairs > 0)


def oddities(atlas: Atlas) -> Iterator[Oddity]:
    """Yield by what galaxies stand out: large residuals, rare combinations of features, poor reconstructions."""
    labels = atlas.galaxies.labels
    for table in atlas.tables:
        if table.head is not None:
            for place, column in enumerate(table.head.columns):
                residual = np.abs(table.head.predictions[:, place] - labels[column].to_numpy())
                shown = np.where(table.head.is_of_interest & atlas.galaxies.is_test, residual, np.nan)
                yield Oddity(
                    f"large residual of {column} ({table.name})",
                    "how far the prediction is from the label, among test galaxies within the target's cut",
                    "",
                    shown,
                )
    for table in atlas.tables:
        if is_sparse(table):
            yield Oddity(
                f"rare combination ({table.name})",
                "pairs of its active features are active together in few other galaxies: mean of -log10 of the share",
                "dex",
                rare_combinations(sparse.csr_array(table.values)),
            )
    for table in atlas.tables:
        if table.residuals is not None:
            yield Oddity(
                f"poor reconstruction ({table.name})",
                "squared error of the reconstructed embedding over the variance of embeddings",
                "",
                table.residuals,
            )


def is_sparse(table: ShownTable) -> bool:
    """Return whether most values of the table are zero, so that galaxies have few active features."""
    return sparse.issparse(table.values)


# --- planes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plane:
    """A diagram of two properties of galaxies, with the curves (name, x, y) that the literature draws there."""

    name: str
    x_label: str
    y_label: str
    x: NDArray[np.floating]
    y: NDArray[np.floating]
    curves: tuple[tuple[str, NDArray[np.floating], NDArray[np.floating]], ...] = ()


_MASSES = ("lgm_tot_p50", "log_mass", "logmass", "mass")
_METALLICITIES = ("oh_p50",)
_REDSHIFTS = ("z", "redshift", "factor_redshift")
_SIZES = (
    "petroR50_r",
    "petro_th50",
    "est_petro_th50",
    "petrotheta",
    "factor_effective_radius_arcsec",
    "segmentation_area",
)


def planes(labels: pd.DataFrame) -> Iterator[Plane]:
    """Yield the BPT diagram, the mass-metallicity plane and size against redshift, as far as there are such labels."""
    if {"log_N2", "log_Ha", "log_O3", "log_Hb"} <= set(labels):
        nii = np.linspace(-2, KEWLEY_POLE - 0.12, 60)
        inner = nii[nii < KAUFFMANN_POLE - 0.05]
        yield Plane(
            "BPT diagram",
            "log([N II] 6584 / Hα)",
            "log([O III] 5007 / Hβ)",
            (labels["log_N2"] - labels["log_Ha"]).to_numpy(),
            (labels["log_O3"] - labels["log_Hb"]).to_numpy(),
            (
                ("Kauffmann 2003", inner, kauffmann_2003(inner)),
                ("Kewley 2001", nii, kewley_2001(nii)),
            ),
        )
    mass, metallicity = (_first_of(labels, names) for names in (_MASSES, _METALLICITIES))
    if mass is not None and metallicity is not None:
        masses = np.linspace(8.5, 11.5, 60)
        yield Plane(
            "Mass and metallicity",
            "log stellar mass [M☉]",
            "12 + log(O/H)",
            labels[mass].to_numpy(),
            labels[metallicity].to_numpy(),
            (("Tremonti 2004", masses, tremonti_2004(masses)),),
        )
    redshift, size = (_first_of(labels, names) for names in (_REDSHIFTS, _SIZES))
    if redshift is not None and size is not None:
        unit = " [arcsec]" if "area" not in size else ""
        yield Plane(
            "Size and redshift",
            f"redshift ({redshift})",
            f"{size}{unit}",
            labels[redshift].to_numpy(),
            labels[size].to_numpy(),
        )


def _first_of(labels: pd.DataFrame, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in labels and labels[name].notna().any()), None)


# --- scripts ----------------------------------------------------------------------------------------------------------


def describe_galaxies(atlas: Atlas) -> dict[str, Any]:
    """Return what every page may need of all galaxies: ids, parts of the split, positions, planes, oddities."""
    galaxies = atlas.galaxies
    data: dict[str, Any] = {
        "ids": galaxies.catalog["id_str"].tolist(),
        "split": pack_array(galaxies.catalog["split"].map({name: i for i, name in enumerate(SPLITS)}).to_numpy(), "u1"),
        "planes": [
            {
                "name": plane.name,
                "x": plane.x_label,
                "y": plane.y_label,
                "xs": pack_array(plane.x, "f4"),
                "ys": pack_array(plane.y, "f4"),
                "curves": [
                    {"name": name, "x": pack_array(x, "f4"), "y": pack_array(y, "f4")} for name, x, y in plane.curves
                ],
            }
            for plane in planes(galaxies.labels)
        ],
        "oddities": [
            {"name": odd.name, "explanation": odd.explanation, "unit": odd.unit, "values": pack_array(odd.values, "f4")}
            for odd in oddities(atlas)
        ],
    }
    if {"ra", "dec"} <= set(galaxies.catalog):
        data |= {name: pack_array(galaxies.catalog[name].to_numpy(dtype=np.float64), "f8") for name in ("ra", "dec")}
    return data


@dataclass(frozen=True)
class _Codes:
    """A table's values by galaxy, with the neighbours that they give."""

    table: ShownTable
    values: "sparse.csr_array | NDArray[np.floating]"
    neighbours: tuple[NDArray[np.intp], NDArray[np.float32]] | None


def galaxy_chunks(atlas: Atlas) -> Iterator[dict[str, Any]]:
    """Yield what only the pages of galaxies themselves need, for `CHUNK` galaxies at a time."""
    galaxies = atlas.galaxies
    numbers = galaxies.labels.to_numpy(dtype=np.float64)
    texts = galaxies.catalog[text_columns(galaxies)].astype("string").fillna("").to_numpy()
    codes = [_codes(table) for table in atlas.tables]
    for start in range(0, len(numbers), CHUNK):
        rows = slice(start, min(start + CHUNK, len(numbers)))
        yield {
            "first": start,
            "labels": pack_array(numbers[rows], "f4"),
            "texts": texts[rows].tolist(),
            "tables": [_of_table(each, rows) for each in codes],
            "predictions": [
                {"y": pack_array(each.y_true[rows], "f4"), "values": pack_array(each.values[rows], "f4")}
                for each in atlas.predictions
            ],
        }


def text_columns(galaxies: Galaxies) -> list[str]:
    """Return the names of the catalogue's columns of words, other than the id and the split."""
    words = galaxies.catalog.select_dtypes(exclude="number").columns
    return [str(name) for name in words if name not in ("id_str", "split")]


def _codes(table: ShownTable) -> _Codes:
    if not is_sparse(table):
        return _Codes(table, np.asarray(table.values, dtype=np.float32), None)
    values = sparse.csr_array(checked_table(table.values)).astype(np.float32)
    return _Codes(table, values, nearest_by_code(values))


def _of_table(codes: _Codes, rows: slice) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if isinstance(codes.values, np.ndarray):
        data["values"] = pack_array(codes.values[rows], "f4")
    else:
        active = sparse.csr_array(codes.values[rows])
        data |= {
            "ends": pack_rows(active.indptr),
            "features": pack_rows(active.indices),
            "values": pack_array(active.data, "f4"),
        }
    if codes.neighbours is not None:
        near, cosines = codes.neighbours
        data["neighbours"] = {
            "rows": pack_rows(near[rows]),
            "cosines": pack_array(cosines[rows], "f4"),
            "n": near.shape[1],
        }
    head = codes.table.head
    if head is not None:
        data["predictions"] = pack_array(head.predictions[rows], "f4")
        data["of_interest"] = pack_array(head.is_of_interest[rows], "u1")
        if head.maps is not None:
            head_maps = head.maps[rows]
            data["maps"] = pack_maps(head_maps.reshape(-1, *head_maps.shape[2:]))
    return data


def largest_contribution_error(table: ShownTable) -> float:
    """Return by how much the sum of weights times features, plus the bias, misses the network's prediction at most.

    It is in label units, over all galaxies and outputs; the table must have a head.
    """
    assert table.head is not None
    sums = checked_table(table.values) @ table.head.weights.T + table.head.bias
    return finite(float(np.abs(sums - table.head.predictions).max())) or 0.0
