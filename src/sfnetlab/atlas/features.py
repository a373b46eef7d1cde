"""What the atlas says of features: a card for each on the wall of its table, and a page with all the evidence."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sfnetlab.atlas.content import FeatureMaps, Galaxies, ShownTable
from sfnetlab.atlas.names import readable, suggestions_of
from sfnetlab.atlas.packing import finite, pack_array, pack_correlations, pack_maps, pack_rows
from sfnetlab.atlas.sprites import PER_CARD
from sfnetlab.metrics.tables import checked_table

CHUNK = 8
"""Features in one script."""
N_STRONGEST, N_SAMPLE, N_WEAK, N_INACTIVE = 10, 10, 5, 5
N_BINS = 40
N_PARTNERS = 12
ASSOCIATION_NUMBERS = (
    "spearman", "spearman_low", "spearman_high", "pearson", "pearson_low", "pearson_high", "p", "q", "n",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Galaxies shown on a feature's page: a title and places in the atlas."""

    title: str
    rows: NDArray[np.intp]


@dataclass(frozen=True)
class Column:
    """One feature: the galaxies in which it is not zero (rising) and its values there; of dense tables all galaxies."""

    feature: int
    rows: NDArray[np.intp]
    values: NDArray[np.float32]


def columns_of_table(table: ShownTable) -> Iterator[Column]:
    """Yield the features that are described, in the order of the wall."""
    features = table.evidence.features["feature"].to_numpy()
    if sparse.issparse(table.values):
        by_column = sparse.csc_array(checked_table(table.values))
        by_column.sort_indices()
        for feature in features.tolist():
            part = slice(by_column.indptr[feature], by_column.indptr[feature + 1])
            yield Column(feature, by_column.indices[part].astype(np.intp), by_column.data[part].astype(np.float32))
    else:
        dense = np.asarray(table.values, dtype=np.float32)
        for feature in features.tolist():
            yield Column(feature, np.arange(len(dense)), np.ascontiguousarray(dense[:, feature]))


def groups_of(column: Column, is_shown: NDArray[np.bool_], *, is_dense: bool) -> list[Group]:
    """Return the groups of galaxies that the page of a feature shows.

    These are the strongest; a sample at even quantiles of the activation, none of them among the strongest; of sparse
    tables the just active and some inactive galaxies, of dense tables the lowest. Galaxies of equal activation are in
    the order of the atlas. Inactive ones are drawn with the feature's number as seed.

    Parameters
    ----------
    is_shown : (n,)
        The galaxies to choose from: the test galaxies on which the feature is described.
    is_dense
        Whether the feature has a value in every galaxy.
    """
    chosen = is_shown[column.rows]
    rows, values = column.rows[chosen], column.values[chosen]
    falling = rows[np.lexsort((rows, -values))]
    strongest, rest = falling[:N_STRONGEST], falling[N_STRONGEST:]
    weak, middle = rest[len(rest) - min(N_WEAK, len(rest)) :], rest[: max(0, len(rest) - N_WEAK)]
    at = np.unique(np.round(np.linspace(0, len(middle) - 1, N_SAMPLE)).astype(int)) if len(middle) else np.zeros(0, int)
    groups = [Group("Strongest", strongest), Group("At even quantiles between", middle[at])]
    if is_dense:
        return [*groups, Group("Lowest", weak[::-1])]
    is_inactive = is_shown.copy()
    is_inactive[column.rows] = False
    inactive = np.flatnonzero(is_inactive)
    drawn = np.random.default_rng(column.feature).permutation(inactive)[:N_INACTIVE]
    return [*groups, Group("Just active", weak[::-1]), Group("Not active", np.sort(drawn))]


def pairs_to_map(
    table: ShownTable, galaxies: Galaxies, n_each: int | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the galaxies and the features (m,), pair by pair, that pages show with an activation map.

    `n_each` limits each feature to so many galaxies, its strongest; None: all that its page shows as active.
    """
    is_dense = not sparse.issparse(table.values)
    is_shown = galaxies.is_test & table.of_interest
    rows: list[NDArray[np.intp]] = []
    features: list[NDArray[np.intp]] = []
    for column in columns_of_table(table):
        groups = groups_of(column, is_shown, is_dense=is_dense)
        active = np.concatenate([group.rows for group in groups if group.title != "Not active"])[:n_each]
        rows.append(active)
        features.append(np.full(len(active), column.feature))
    return np.concatenate(rows), np.concatenate(features)


# --- the wall ---------------------------------------------------------------------------------------------------------


def describe_wall(table: ShownTable, galaxies: Galaxies, labels: list[str]) -> tuple[dict[str, Any], NDArray[np.intp]]:
    """Return what the wall of a table says of each feature, and which galaxies each card shows.

    Returns
    -------
    dict
        Data of the script `wall<i>.js`: arrays with a value a feature.
    rows : (n_features, 4)
        The strongest galaxies of each feature; -1 where there are fewer.
    """
    features = table.evidence.features
    numbers = features["feature"].to_numpy()
    rho = _rho_matrix(table.evidence.associations, numbers, labels)
    place = {label: i for i, label in enumerate(labels)}
    suggested = suggestions_of(features)
    warnings = [
        "; ".join(text for text in texts if isinstance(text, str) and text)
        for texts in zip(
            *(features.get(name, pd.Series("", index=features.index)) for name in ("warning", "equivariance_warning")),
            strict=True,
        )
    ]
    data: dict[str, Any] = {
        "feature": pack_rows(numbers),
        "names": features["name"].tolist(),
        "suggested": [suggested[int(feature)] for feature in numbers],
        "given": [
            {"feature": feature, "name": given.name, "note": given.note, "old": given.is_old}
            for feature, given in sorted(table.names.items())
        ],
        "best": pack_array([place.get(label, -1) for label in features["best_label"]], "i2"),
        "rho": pack_correlations(rho),
        "warnings": warnings,
        "numbers": [
            {
                "key": key,
                "title": title,
                "help": explanation,
                "values": pack_array(features[key].to_numpy(dtype=float), "f4"),
            }
            for key, title, explanation in _numbers(features)
        ],
        "n_all": table.n_features,
        "n_interest": int((galaxies.is_test & table.of_interest).sum()),
        "chunk": CHUNK,
    }
    if table.evidence.stability is not None:
        stability = table.evidence.stability
        values = pack_array(stability.values.reindex(numbers).to_numpy(dtype=float), "f4")
        data["numbers"].append(
            {"key": "stability", "title": "stability", "help": stability.explanation, "values": values}
        )
    if table.head is not None:
        data["head"] = {
            "columns": list(table.head.columns),
            "weights": pack_array(table.head.weights, "f8"),
            "bias": pack_array(table.head.bias, "f8"),
        }
    return data, _thumbnails(table, galaxies)


def _numbers(features: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Yield by what cards are sorted: a column of features.parquet, its title and its explanation."""
    known = (
        ("frequency", "frequency", "share of the test galaxies in which it is active"),
        ("mean_activation", "mean activation", "over the galaxies in which it is active"),
        ("max_activation", "largest activation", "over the test galaxies"),
        ("novelty", "novelty", "share of variance that morphology labels do not predict, if another seed finds it"),
        ("p_corrected", "p of the best label", "permutations of the galaxies, corrected for the number of labels"),
        ("redundancy", "redundancy", "largest correlation with another feature of the table"),
        ("r2_nuisances", "R² of nuisances", "share of its variance that distance, size, brightness, seeing predict"),
        ("symmetry_change", "change under symmetries", "how much turning and flipping the cutout changes it"),
    )
    for key, title, explanation in known:
        if key in features and features[key].notna().any():
            yield key, title, explanation
    for name in features.columns:
        for prefix, title, explanation in (
            ("weight_", "weight", "of the network's head, in label units for an activation of 1"),
            ("variance_share_", "share of variance", "of the head's prediction"),
        ):
            if name.startswith(prefix):
                yield name, f"{title}: {name.removeprefix(prefix)}", explanation


def _rho_matrix(associations: pd.DataFrame, features: NDArray[np.int64], labels: list[str]) -> NDArray[np.float64]:
    """Return Spearman's rho (n_features, n_labels), NaN where it is not known."""
    wide = associations.pivot_table(index="feature", columns="label", values="spearman", dropna=False)
    return wide.reindex(index=features, columns=labels).to_numpy(dtype=np.float64)


def _thumbnails(table: ShownTable, galaxies: Galaxies) -> NDArray[np.intp]:
    is_dense = not sparse.issparse(table.values)
    is_shown = galaxies.is_test & table.of_interest
    rows = np.full((len(table.evidence.features), PER_CARD), -1, dtype=np.intp)
    for place, column in enumerate(columns_of_table(table)):
        strongest = groups_of(column, is_shown, is_dense=is_dense)[0].rows[:PER_CARD]
        rows[place, : len(strongest)] = strongest
    return rows


# --- pages ------------------------------------------------------------------------------------------------------------


def feature_chunks(table: ShownTable, galaxies: Galaxies, labels: list[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the pages of `CHUNK` features at a time, in the order of the wall."""
    pages = _Pages(table, galaxies, labels)
    chunk: list[dict[str, Any]] = []
    for place, column in enumerate(columns_of_table(table)):
        chunk.append(pages.page(place, column))
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Pages:
    """Makes the pages of a table; its evidence is grouped by feature once."""

    def __init__(self, table: ShownTable, galaxies: Galaxies, labels: list[str]) -> None:
        evidence = table.evidence
        self.table = table
        self.labels = labels
        self.is_dense = not sparse.issparse(table.values)
        self.is_shown = galaxies.is_test & table.of_interest
        self.features = evidence.features.set_index("feature")
        self.associations = _by_feature(evidence.associations)
        self.alignment = _by_feature(evidence.alignment)
        self.nuisances = _by_feature(evidence.nuisances)
        self.partial = _by_feature(evidence.partial)
        self.partners = _by_feature(evidence.partners)
        self.changes = _by_feature(evidence.changes)
        recovery = evidence.recovery
        if len(recovery):
            recovery = recovery[
                (recovery["metric"] == "r2") & (recovery["n_features_used"] == 1) & recovery["n_drawn"].isna()
            ]
        self.recovery = _by_feature(recovery)
        self.localisation = _by_feature(evidence.localisation)
        self.laws = _laws(evidence.equations)
        self.maps = _maps_by_feature(table.maps)

    def page(self, place: int, column: Column) -> dict[str, Any]:
        """Return the page of a feature; `place` is where its card stands on the wall."""
        feature = column.feature
        groups = groups_of(column, self.is_shown, is_dense=self.is_dense)
        page: dict[str, Any] = {
            "feature": feature,
            "place": place,
            "groups": [{"title": group.title, "rows": pack_rows(group.rows)} for group in groups],
            "rows": None if self.is_dense else pack_rows(column.rows),
            "values": pack_array(column.values, "f4"),
            "histogram": _histogram(column, self.is_shown),
            "associations": self._associations(feature),
            "alignment": _records(
                self.alignment.get(feature), ("best_label", "rho", "null_mean", "null_q95", "p_corrected")
            ),
            "nuisances": _records(self.nuisances.get(feature), ("nuisance", "rho", "low", "high", "n")),
            "partial": _records(
                self.partial.get(feature),
                ("target", "rho", "low", "high", "partial_rho", "partial_low", "partial_high", "n"),
            ),
            "partners": self._partners(feature),
            "changes": _records(self.changes.get(feature), ("label", "is_symmetry", "change", "low", "high")),
            "recovery": self._recovery(feature),
            "localisation": _records(
                self.localisation.get(feature), ("component", "metric", "value", "low", "high", "n")
            ),
            "laws": self.laws.get(feature, []),
        }
        mapped = self.maps.get(feature)
        if mapped is not None:
            rows, maps = mapped
            page["maps"] = {"rows": pack_rows(rows), "how": self.table.maps.how if self.table.maps else ""} | pack_maps(
                maps
            )
        return page

    def _associations(self, feature: int) -> dict[str, str] | None:
        associations = self.associations.get(feature)
        if associations is None:
            return None
        by_label = associations.set_index("label").reindex(self.labels)
        return pack_array(by_label[list(ASSOCIATION_NUMBERS)].to_numpy(dtype=np.float64), "f4")

    def _recovery(self, feature: int) -> list[dict[str, Any]]:
        rows = _records(self.recovery.get(feature), ("factor", "value", "low", "high"))
        return [row | {"factor": readable(f"factor_{row['factor']}")} for row in rows]

    def _partners(self, feature: int) -> list[dict[str, Any]]:
        partners = self.partners.get(feature)
        if partners is None:
            return []
        falling = partners["correlation_test"].abs().sort_values(ascending=False).index
        strongest = partners.reindex(falling).head(N_PARTNERS)
        return _records(strongest, ("table", "partner", "correlation_fit", "correlation_test", "p"))


def _histogram(column: Column, is_shown: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the counts of the activation, over the test galaxies in which the feature is active."""
    values = column.values[is_shown[column.rows]]
    counts, edges = np.histogram(values, bins=N_BINS) if len(values) else (np.zeros(1, int), np.array([0.0, 1.0]))
    return {
        "counts": counts.tolist(),
        "low": finite(edges[0]),
        "high": finite(edges[-1]),
        "n_shown": int(is_shown.sum()),
    }


def _by_feature(table: pd.DataFrame) -> dict[int, pd.DataFrame]:
    if "feature" not in table:
        return {}
    known = table.dropna(subset=["feature"])
    return {int(feature): rows for feature, rows in known.groupby("feature", sort=False)}  # pyrefly: ignore[bad-argument-type]


def _records(rows: pd.DataFrame | None, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    if rows is None:
        return []
    known = [name for name in columns if name in rows]
    return [
        {name: _plain(value) for name, value in zip(known, values, strict=True)}
        for values in rows[known].itertuples(index=False, name=None)
    ]


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA:
        return None
    if isinstance(value, (float, np.floating)):
        return finite(float(value))
    return value.item() if isinstance(value, np.generic) else value


def _laws(equations: pd.DataFrame) -> dict[int, list[dict[str, Any]]]:
    """Return the terms of each feature in equations."""
    found: dict[int, list[dict[str, Any]]] = {}
    if len(equations) == 0:
        return found
    for (name, origin), law in equations.groupby(["property", "origin"], sort=False):
        terms = law[law["term"].str.isdigit()].reset_index(drop=True)
        intercept = law.loc[law["term"] == "intercept", "coefficient"]
        for rank, term in enumerate(terms.to_dict("records")):
            about = {
                "property": str(name),
                "origin": str(origin),
                "rank": rank,
                "n_terms": len(terms),
                "intercept": _plain(intercept.iloc[0]) if len(intercept) else None,
            }
            numbers = ("coefficient", "low", "high", "scale", "share", "r2_test", "rmse_test", "n_test")
            about |= {key: _plain(term[key]) for key in numbers}
            found.setdefault(int(term["term"]), []).append(about)
    return found


def _maps_by_feature(maps: FeatureMaps | None) -> dict[int, tuple[NDArray[np.intp], NDArray[np.float32]]]:
    if maps is None or len(maps.features) == 0:
        return {}
    starts = np.flatnonzero(np.diff(maps.features, prepend=maps.features[0] - 1))
    ends = [*starts[1:], len(maps.features)]
    return {int(maps.features[a]): (maps.rows[a:b], maps.maps[a:b]) for a, b in zip(starts, ends, strict=True)}
