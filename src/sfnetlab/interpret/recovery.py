"""How well a feature table recovers the factors that made the galaxies: single features, few features, MCC, DCI.

Features are chosen and fitted on fit rows and scored on test rows; intervals are over test galaxies.
"""

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from sfnetlab.interpret.table import NOTHING, SEED, Answer, DescribedTable
from sfnetlab.metrics.association import pearson
from sfnetlab.metrics.bootstrap import resample_counts
from sfnetlab.metrics.disentanglement import dci, factor_absorption, lasso_importance, match_factors
from sfnetlab.metrics.effective import merged_features
from sfnetlab.metrics.nulls import MAX_ROWS, draws
from sfnetlab.metrics.selection import select_forward
from sfnetlab.metrics.tables import FeatureMatrix, checked_table, columns_of, evenly, rows_of, varying_columns
from sfnetlab.surveys.mock_render import ELLIPTICAL, MERGER, TYPES

ALL_FACTORS = "all"
"""In the column `factor`: a score of all factors together."""
PERIODS_DEG = {"factor_position_angle_deg": 180.0, "factor_companion_angle_deg": 360.0}
"""Angles that come round: 179 and 1 degree of position angle are neighbours."""
FAMILY = {"disc": None, "armed": "disc", "two_armed": "armed", "barred": "disc", "edge_on": "disc", "merger": "disc"}
"""Yes-or-no labels of mock galaxies, each with the more general one that it implies."""
EDGE_ON = 0.25
"""Axis ratio below which a disc is seen from the side: arms are not drawn there."""
REPEATED = 0.9
"""Factors of a larger |correlation| are one: the number of clumps and their strength, the disc's scale and radius."""
N_DRAWN = (4, 16, 64, 256)
"""Numbers of features at which tables of any size are compared; a sparse network may have no more than a few."""
N_DRAWS = 20
"""Draws of as many features."""
COLUMNS = ("factor", "apart", "metric", "k", "n_drawn", "feature", "value", "low", "high")
_WHOLE = {"k": "Int64", "n_drawn": "Int64", "feature": "Int64"}
N_RESAMPLES = 200
"""Resamples of the galaxies for intervals of recovery, of which each is a fit of many scores."""


def ask(table: DescribedTable) -> Answer:
    """Return the table `recovery`, of sparse features also `absorption`; nothing where no factors are known."""
    if not table.has_factors:
        return NOTHING
    # The column k says which feature table this is.
    tables = {"recovery": _recovery(table).rename(columns={"k": "n_features_used"})}
    if sparse.issparse(table.train.values):  # features of a dense table are never silent
        catalog = table.catalog[table.of_interest]
        labels, split = family_labels(catalog), catalog["split"].to_numpy()
        train, test = (labels[split == part] for part in ("train", "test"))
        absorption = family_absorption(table.train.values, train, table.test.values, test)
        tables |= {"absorption": absorption} if len(absorption) else {}
    return Answer(tables=tables)


def _recovery(table: DescribedTable) -> pd.DataFrame:
    """What the table's features recover, on the galaxies by which all tables are compared, beside its nulls."""
    catalog = table.catalog[table.of_all]
    factors = factor_table(catalog)
    parts = [(catalog["split"] == part).to_numpy() for part in ("train", "test")]
    ids = [catalog.loc[part, "id_str"] for part in parts]
    fit, test = (factors[part] for part in parts)
    apart = factors_apart(fit)
    values = [table.values_of(part) for part in ids]

    def recovered(own: Sequence[FeatureMatrix], drawn: Sequence[FeatureMatrix], n_bootstrap: int) -> pd.DataFrame:
        how = {"apart": apart, "n_bootstrap": n_bootstrap, "seed": SEED}
        every, draws_of = (
            recover(part[0], fit, part[1], test, **how)
            for recover, part in ((recover_factors, own), (recover_draws, drawn))
        )
        return pd.concat([every, draws_of], ignore_index=True)

    found = recovered(values, values, N_RESAMPLES)
    rng = np.random.default_rng(SEED)
    permuted = [rows_of(part, rng.permutation(checked_table(part).shape[0])) for part in values]
    nulls = {"permuted": recovered(permuted, permuted, 0)}
    if table.untrained is not None:
        others = [table.untrained(part) for part in ids]
        varying = varying_columns(*others)
        as_many = varying[next(draws(len(varying), len(varying_columns(*values)), SEED))]
        nulls["untrained"] = recovered([columns_of(part, as_many) for part in others], others, 0)
    by = ["factor", "metric", "k", "n_drawn"]
    for name, null in nulls.items():
        found = found.merge(null[[*by, "value"]].rename(columns={"value": name}), on=by, how="left", validate="1:1")
    found = found if "untrained" in found else found.assign(untrained=np.nan)
    return found.assign(excess=found["value"] - found["untrained"])


def factors_apart(factors: pd.DataFrame) -> dict[str, str]:
    """Return why some factors are listed apart and count for no score of all factors together.

    A factor that repeats an earlier one (|r| above `REPEATED`) would count twice, and an angle of which training turns
    the cutouts is what a network is to forget.

    Parameters
    ----------
    factors : DataFrame
        From `factor_table`, of the galaxies by which all tables are compared.

    Returns
    -------
    dict
        From names to reasons, in plain words.
    """
    turned = {
        f"{angle.removeprefix('factor_').removesuffix('_deg')}_{part}"
        for angle in PERIODS_DEG
        for part in ("cos", "sin")
    }
    apart = {str(name): "removed by augmentation" for name in factors if name in turned}
    others = factors.drop(columns=list(apart))
    cluster = merged_features(others.to_numpy(dtype=np.float64), REPEATED)
    for number in range(cluster.max(initial=-1) + 1):
        first, *repeats = others.columns[cluster == number]
        apart |= {str(name): f"repeats {first}" for name in repeats}
    return apart


class _Series(NamedTuple):
    """A score of one factor on test rows: R² of predictions, or |correlation| with a feature's values."""

    factor: str
    metric: str
    k: int | None
    feature: int | None
    values: NDArray[np.float64]
    """(n_test,), what stands beside the factor."""
    truth: NDArray[np.float64]


def factor_table(catalog: pd.DataFrame) -> pd.DataFrame:
    """Return the mock survey's factors as numbers of which a difference means something, without the "factor_".

    `factor_type`, a nominal code, becomes a column of 0 and 1 for each type ("is_merger"); angles become cosine and
    sine of the whole turn ("position_angle_cos"). Columns that are constant in the catalogue are left out.
    """
    columns: dict[str, NDArray[np.float64]] = {}
    for name in [column for column in catalog.columns if column.startswith("factor_")]:
        values = catalog[name].to_numpy(dtype=np.float64)
        short = name.removeprefix("factor_")
        if name == "factor_type":
            columns |= {f"is_{kind}": (values == code).astype(float) for code, kind in enumerate(TYPES)}
        elif name in PERIODS_DEG:
            turn = 2 * np.pi * values / PERIODS_DEG[name]
            short = short.removesuffix("_deg")
            columns |= {f"{short}_cos": np.cos(turn), f"{short}_sin": np.sin(turn)}
        else:
            columns[short] = values
    table = pd.DataFrame(columns, index=catalog.index)
    return table.loc[:, table.min() < table.max()]


def family_labels(catalog: pd.DataFrame) -> pd.DataFrame:
    """Return the labels of `FAMILY` from the mock survey's factors, bool (n_galaxies, n_labels)."""
    kind = catalog["factor_type"]
    disc = kind != ELLIPTICAL
    labels = {
        "disc": disc,
        "armed": catalog["factor_n_arms"] > 0,
        "two_armed": catalog["factor_n_arms"] == 2,
        "barred": catalog["factor_bar_strength"] > 0,
        "edge_on": disc & (catalog["factor_axis_ratio"] < EDGE_ON),
        "merger": kind == MERGER,
    }
    return pd.DataFrame({name: labels[name] for name in FAMILY})


def family_absorption(
    values_fit: FeatureMatrix, labels_fit: pd.DataFrame, values_test: FeatureMatrix, labels_test: pd.DataFrame
) -> pd.DataFrame:
    """Return whether the feature of a label is silent where that of a more special one speaks.

    Parameters
    ----------
    values_fit, values_test : CSR, (n_fit, d) and (n_test, d)
    labels_fit, labels_test : DataFrame of n_fit and n_test rows
        From `family_labels`.

    Returns
    -------
    DataFrame
        `metrics.disentanglement.factor_absorption`, with the labels' names. A label is left out, and what is below it,
        if all or none of the fit rows that have the label above it have it; empty where none is left.
    """
    names: list[str] = []
    for name, above in FAMILY.items():  # the more general come first
        if above is None or above in names:
            flags = labels_fit[name] if above is None else labels_fit.loc[labels_fit[above], name]
            names += [name] if flags.any() and not flags.all() else []
    parent = np.array([-1 if (above := FAMILY[name]) is None else names.index(above) for name in names])
    if not (parent >= 0).any():
        return pd.DataFrame()
    found = factor_absorption(
        values_fit, labels_fit[names].to_numpy(), values_test, labels_test[names].to_numpy(), parent
    )
    return found.assign(**{side: [names[label] for label in found[side]] for side in ("parent", "child")})


def recover_factors(
    values_fit: FeatureMatrix,
    factors_fit: pd.DataFrame,
    values_test: FeatureMatrix,
    factors_test: pd.DataFrame,
    ks: Sequence[int] = (1, 2, 5, 10),
    *,
    apart: Mapping[str, str] = MappingProxyType({}),
    n_bootstrap: int,
    seed: int,
) -> pd.DataFrame:
    """Return how well features recover the factors that made the galaxies, by every score.

    Parameters
    ----------
    values_fit, values_test : (n_fit, d) and (n_test, d)
    factors_fit, factors_test : DataFrame of n_fit and n_test rows
        Numeric and finite, from `factor_table`; factors that are constant on either sample are left out. A nominal
        code has no correlation: pass indicators.
    ks
        Numbers of features for R².
    apart
        Factors that count for no score of all together, and why: they have R² and informativeness of their own, and no
        feature is matched with them.
    n_bootstrap, seed
        Resamples of the test galaxies for the 95 % percentile intervals (0: none); the seed also chooses the lasso's
        held-out rows.

    Returns
    -------
    DataFrame
        `COLUMNS`, `factor` "all" for the mean over the factors that are not `apart`; all depend on how many features
        there are, `n_drawn` is missing. Metrics, all on test rows but for the two of DCI that are properties of the fit
        (NaN interval):
        `r2` (of least squares on the best `k` features, chosen by forward selection on fit rows; `feature` is the
        first; NaN where the table has fewer than k to choose from), `correlation` and `rank_correlation` (|Pearson|,
        |Spearman| with the one `feature` that Hungarian matching gives the factor; "all" is MCC), `informativeness`
        (R² of a lasso from all features), `completeness`, and `disentanglement` ("all" only). Intervals of Spearman
        hold the ranks of the whole sample fixed.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or fewer than two factors vary.
    """
    if list(factors_fit.columns) != list(factors_test.columns):
        raise ValueError(f"factors differ: {list(factors_fit.columns)} and {list(factors_test.columns)}")
    varies = (factors_fit.min() < factors_fit.max()) & (factors_test.min() < factors_test.max())
    names = [str(name) for name in factors_fit.columns[varies]]
    counted = np.flatnonzero([name not in apart for name in names])
    if len(counted) < 2:
        raise ValueError(f"recovery needs two factors or more that vary on fit and test rows, got {names}")
    fit, test = (table.loc[:, varies].to_numpy(dtype=np.float64) for table in (factors_fit, factors_test))
    series = [
        *_best_features(values_fit, fit, values_test, test, names, ks),
        *_matched(values_fit, fit[:, counted], values_test, test[:, counted], [names[i] for i in counted]),
    ]
    lasso = lasso_importance(values_fit, fit, values_test, seed)
    series += [
        _Series(name, "informativeness", None, None, lasso.predictions[:, i], test[:, i])
        for i, name in enumerate(names)
    ]
    importance = _dci_rows(lasso.importance[:, counted], [names[i] for i in counted])
    table = pd.concat([_scored(series, apart, n_bootstrap, seed), importance], ignore_index=True)
    n_features = checked_table(values_fit).shape[1]
    missing = [(name, "r2", k) for name in names for k in ks if k > n_features]
    unknown = pd.DataFrame(missing, columns=["factor", "metric", "k"])
    table = pd.concat([table, unknown], ignore_index=True) if missing else table
    table = table.assign(apart=[apart.get(name, "") for name in table["factor"]], n_drawn=None)
    return table[list(COLUMNS)].astype(_WHOLE)


def recover_draws(
    values_fit: FeatureMatrix,
    factors_fit: pd.DataFrame,
    values_test: FeatureMatrix,
    factors_test: pd.DataFrame,
    *,
    apart: Mapping[str, str] = MappingProxyType({}),
    n_bootstrap: int,
    seed: int,
) -> pd.DataFrame:
    """Return how well equal numbers of features recover the factors: of tables of any size, comparable.

    Of each of `N_DRAWN` numbers that the table has, as many features are drawn `N_DRAWS` times from those that vary.

    Parameters
    ----------
    values_fit, values_test, factors_fit, factors_test, apart
        As for `recover_factors`; factors that are `apart` are left out.
    n_bootstrap, seed
        Resamples of the test galaxies and of the draws for the 95 % percentile intervals (0: none), and their seed.

    Returns
    -------
    DataFrame
        `COLUMNS`, `factor` "all", a row each of `n_drawn` and metric: `correlation` (MCC) and `r2` with k = 1 (from the
        best feature of each factor, chosen on fit rows), means over factors and draws.
    """
    rows = [evenly(np.arange(len(table)), MAX_ROWS) for table in (factors_fit, factors_test)]
    varies = (factors_fit.min() < factors_fit.max()) & (factors_test.min() < factors_test.max())
    counted = [str(name) for name in factors_fit.columns[varies] if name not in apart]
    fit, test = (
        table[counted].to_numpy(dtype=np.float64)[chosen]
        for table, chosen in zip((factors_fit, factors_test), rows, strict=True)
    )
    values = [rows_of(part, chosen) for part, chosen in zip((values_fit, values_test), rows, strict=True)]
    varying = varying_columns(*values)
    size = np.nan_to_num(np.abs(pearson(columns_of(values[0], varying), fit)))
    found: list[dict[str, object]] = []
    for n in [n for n in N_DRAWN if n <= len(varying)]:
        scores = [
            _drawn_scores(values, varying[drawn], size[drawn], fit, test, n_bootstrap, seed)
            for drawn in draws(len(varying), n, seed, N_DRAWS)
        ]
        value, resampled = (np.stack(part) for part in zip(*scores, strict=True))
        for metric, (name, k) in enumerate((("correlation", pd.NA), ("r2", 1))):
            low, high = _over_draws(resampled[:, :, metric], seed)
            about = {"factor": ALL_FACTORS, "apart": "", "metric": name, "k": k, "n_drawn": n}
            found.append(about | {"value": value[:, metric].mean(), "low": low, "high": high})
    return pd.DataFrame(found, columns=list(COLUMNS)).astype(_WHOLE)


def _drawn_scores(
    values: Sequence[FeatureMatrix],
    features: NDArray[np.intp],
    size: NDArray[np.float64],
    fit: NDArray[np.float64],
    test: NDArray[np.float64],
    n_bootstrap: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """MCC and mean R² from the best feature of each factor, (2,), and of each resample of the galaxies, (n, 2).

    `size` is the |correlation| of each feature with each factor on fit rows.
    """
    matched, factor = linear_sum_assignment(size, maximize=True)
    beside = np.zeros_like(test)  # a factor without a feature correlates 0
    beside[:, factor] = _dense(columns_of(values[1], features[matched]))
    best = features[size.argmax(axis=0)]
    x, x_test = (_dense(columns_of(part, best)) for part in values)
    centred = x - x.mean(axis=0)
    slope = (centred * fit).sum(axis=0) / (centred**2).sum(axis=0)
    predicted = fit.mean(axis=0) + slope * (x_test - x.mean(axis=0))
    m = test.shape[1]
    is_r2 = np.repeat([False, True], m)
    value, resampled = _resampled(np.hstack([beside, predicted]), np.hstack([test, test]), is_r2, n_bootstrap, seed)
    of_metric = [np.stack([each[..., :m], each[..., m:]], axis=-2).mean(axis=-1) for each in (value, resampled)]
    return of_metric[0], of_metric[1]


def _over_draws(resampled: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """The interval of a mean over draws, of resamples (n_draws, n_bootstrap) of the galaxies: draws are drawn too."""
    n_draws, n_bootstrap = resampled.shape
    chosen = np.random.default_rng(seed).integers(n_draws, size=(n_draws, n_bootstrap))
    return _interval(np.take_along_axis(resampled, chosen, axis=0).mean(axis=0))


def _best_features(
    values_fit: FeatureMatrix,
    fit: NDArray[np.float64],
    values_test: FeatureMatrix,
    test: NDArray[np.float64],
    names: Sequence[str],
    ks: Sequence[int],
) -> list[_Series]:
    series: list[_Series] = []
    n_features = checked_table(values_fit).shape[1]
    for i, name in enumerate(names):
        chosen = select_forward(values_fit, fit[:, [i]], min(max(ks), n_features))
        train, new = (_dense(columns_of(values, chosen)) for values in (values_fit, values_test))
        for k in [k for k in ks if k <= n_features]:
            # fewer may have been left to choose: then the others were constant or collinear and would add nothing
            design = np.column_stack([np.ones(len(train)), train[:, :k]])
            weights = np.linalg.lstsq(design, fit[:, i])[0]
            predicted = weights[0] + new[:, :k] @ weights[1:]
            series.append(_Series(name, "r2", k, int(chosen[0]) if len(chosen) else None, predicted, test[:, i]))
    return series


def _matched(
    values_fit: FeatureMatrix,
    fit: NDArray[np.float64],
    values_test: FeatureMatrix,
    test: NDArray[np.float64],
    names: Sequence[str],
) -> list[_Series]:
    from scipy.stats import rankdata

    series: list[_Series] = []
    for metric, method in (("correlation", "pearson"), ("rank_correlation", "spearman")):
        match = match_factors(values_fit, fit, values_test, test, method)
        matched = _dense(columns_of(values_test, np.maximum(match.feature, 0)))
        matched[:, match.feature < 0] = 0
        beside, truth = matched, test
        if method == "spearman":
            beside, truth = rankdata(matched, axis=0), rankdata(test, axis=0)
        for i, name in enumerate(names):
            feature = int(match.feature[i]) if match.feature[i] >= 0 else None
            series.append(_Series(name, metric, None, feature, beside[:, i], truth[:, i]))
    return series


def _scored(series: Sequence[_Series], apart: Mapping[str, str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Values and intervals of all series and of means over factors that are not apart, from the same resamples."""
    x = np.column_stack([one.values for one in series])
    y = np.column_stack([one.truth for one in series])
    is_r2 = np.array([one.metric in ("r2", "informativeness") for one in series])
    value, resampled = _resampled(x, y, is_r2, n_bootstrap, seed)
    rows = pd.DataFrame([one[:4] for one in series], columns=["factor", "metric", "k", "feature"])
    low, high = _interval(resampled)
    table = [rows.assign(value=value, low=low, high=high)]
    for (metric, k), of_metric in rows[~rows["factor"].isin(list(apart))].groupby(
        ["metric", "k"], dropna=False, sort=False
    ):
        low, high = _interval(resampled[:, of_metric.index].mean(axis=1))
        mean = {"factor": ALL_FACTORS, "metric": metric, "k": k, "value": value[of_metric.index].mean()}
        table.append(pd.DataFrame([mean | {"feature": np.nan, "low": low, "high": high}]))
    return pd.concat(table, ignore_index=True)


def _resampled(
    x: NDArray[np.float64], y: NDArray[np.float64], is_r2: NDArray[np.bool_], n_bootstrap: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scores of series (n, n_series), and those on resamples of the galaxies, (n_bootstrap, n_series)."""
    x, y = x - np.where(is_r2, y.mean(axis=0), x.mean(axis=0)), y - y.mean(axis=0)
    columns = np.stack([x, y, x * x, y * y, x * y])
    n = len(y)
    value = _scores(columns.mean(axis=1), is_r2)
    resampled = [_scores(counts @ columns / n, is_r2) for counts in resample_counts(n, n_bootstrap, seed)]
    return value, np.stack(resampled) if resampled else np.empty((0, len(is_r2)))


def _scores(moments: NDArray[np.float64], is_r2: NDArray[np.bool_]) -> NDArray[np.float64]:
    """R² or |correlation| of each series from its moments (5, n_series); a feature that is constant correlates 0.

    NaN where the factor is constant in a resample.
    """
    x, y, xx, yy, xy = moments
    variance_x, variance_y = xx - x**2, yy - y**2
    known = variance_y > 1e-12 * yy
    total = np.where(known, variance_y, np.nan)
    r2 = 1 - (xx - 2 * xy + yy) / total
    varies = variance_x > 1e-12 * xx
    correlation = np.abs(np.where(varies, xy - x * y, 0)) / np.sqrt(np.where(varies, variance_x, 1) * total)
    return np.where(is_r2, r2, correlation)


def _interval(resampled: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(resampled) == 0:
        return np.full((2, *resampled.shape[1:]), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a factor that is constant in every resample has no interval
        return np.nanquantile(resampled, [0.025, 0.975], axis=0)


def _dci_rows(importance: NDArray[np.float64], names: Sequence[str]) -> pd.DataFrame:
    if not importance.any() or importance.shape[0] < 2:
        scores, completeness = np.nan, np.full(len(names), np.nan)
    else:
        scores, completeness = dci(importance)
    rows = [(name, "completeness", value) for name, value in zip(names, completeness, strict=True)]
    mean = float(np.nanmean(completeness)) if np.isfinite(completeness).any() else np.nan
    rows += [(ALL_FACTORS, "completeness", mean), (ALL_FACTORS, "disentanglement", scores)]
    return pd.DataFrame(rows, columns=["factor", "metric", "value"])


def _dense(table: FeatureMatrix) -> NDArray[np.float64]:
    return np.asarray(table if isinstance(table, np.ndarray) else table.toarray(), dtype=np.float64)
