"""Linear laws between features and a property of galaxies: of a network's head, or fitted by least squares.

A law is a tidy table, a row a term; `equation_text` and `equation_latex` print it.
"""

import logging
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sfnetlab.interpret.table import N_BOOTSTRAP, SEED, Answer, DescribedTable, Part
from sfnetlab.metrics import regression
from sfnetlab.metrics.association import MIN_ROWS
from sfnetlab.metrics.bootstrap import percentile_interval
from sfnetlab.metrics.effective import effective_number
from sfnetlab.metrics.selection import select_forward
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import (
    BLOCK_VALUES,
    CONSTANT_SPREAD,
    FeatureMatrix,
    Table,
    checked_table,
    columns_of,
    evenly,
    rows_of,
    transpose_product,
)
from sfnetlab.surveys.catalog import LINE_FLUXES

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

INTERCEPT = "intercept"
SCALE_QUANTILE = 0.99
"""A feature's unit is this quantile of |activation| over the train galaxies in which it is active: the maximum, as in
the SFNet paper, is one galaxy's, and the paper's differed between train and valid."""
UNIT = f"{100 * SCALE_QUANTILE:.0f}th percentile on train galaxies"
"""`activation_scales` in words, for axes and notes."""
N_LEAST_ACTIVE = 10
"""Train galaxies in which a feature must be active, so that no resample is without it."""
MAX_CONDITION = 1e10
"""Largest condition number of the correlation matrix; beyond it coefficients of collinear features mean nothing."""
N_COPIED = 2**14
"""Train galaxies by which near copies among the features of a law are found, at most."""
N_TERMS = 4
"""Features of a fitted equation, as many as the SFNet paper's."""

_RATIOS = {"log([NII]/Hα)": ("log_N2", "log_Ha"), "log([OIII]/Hβ)": ("log_O3", "log_Hb")}
_LATEX = {character: "\\" + character for character in "_%&#${}"} | {
    "\\": r"\backslash ", "~": r"\sim ", "^": r"\wedge ", "α": r"\alpha ", "β": r"\beta ", " ": r"\ ",
}  # fmt: skip


def ask(table: DescribedTable) -> Answer:
    """Return the laws of the network's own head, and those of least squares for every label that targets name.

    Where a target is the four line fluxes, their two ratios have laws too. `equations.txt` and `equations.tex` hold the
    laws as people read them.
    """
    laws = [_with_effective(law, table.train.values) for law in (*_head_laws(table), *_fitted_laws(table))]
    return Answer(
        tables={"equations": pd.concat(laws, ignore_index=True)} if laws else {},
        texts={
            "equations.txt": "".join(f"{equation_text(law, n_terms=N_TERMS)}\n" for law in laws),
            "equations.tex": "".join(f"\\[ {equation_latex(law, n_terms=N_TERMS)} \\]\n" for law in laws),
        },
    )


def _with_effective(law: pd.DataFrame, train: FeatureMatrix) -> pd.DataFrame:
    """The law with `n_effective`, how many features its terms are where near copies count once."""
    features = law.loc[law["term"] != INTERCEPT, "term"].astype(np.intp).to_numpy()
    train = rows_of(train, evenly(np.arange(checked_table(train).shape[0]), N_COPIED))
    return law.assign(n_effective=effective_number(columns_of(train, features)).n_effective)


def _properties(part: Part, columns: Sequence[str]) -> pd.DataFrame:
    """The label columns, with the line ratios if all fluxes are among them."""
    labels = part.labels[list(columns)]
    return pd.concat([labels, line_ratios(labels)], axis=1) if set(LINE_FLUXES) <= set(columns) else labels


def _head_laws(table: DescribedTable) -> Iterator[pd.DataFrame]:
    if table.head is None:
        return
    labels = _properties(table.test, table.head_columns)
    weights, bias = (pd.DataFrame(np.atleast_2d(each.T), columns=list(table.head_columns)) for each in table.head)
    if set(LINE_FLUXES) <= set(table.head_columns):
        weights = pd.concat([weights, line_ratios(weights)], axis=1)
        bias = pd.concat([bias, line_ratios(bias)], axis=1)
    for name in labels:
        law = head_equation(
            str(name),
            weights[name].to_numpy(),
            float(bias[name].iloc[0]),
            table.train.values,
            table.test.values,
            labels[name].to_numpy(),
        )
        yield law.assign(origin="head")


def _fitted_laws(table: DescribedTable) -> Iterator[pd.DataFrame]:
    fitted: set[Hashable] = set()
    for target in table.targets.values():
        train, test = (_properties(part, target.columns) for part in (table.train, table.test))
        for name in [name for name in train if name not in fitted]:
            fitted.add(name)  # two targets may name one column: its law is the same
            y_train, y_test = train[name].to_numpy(), test[name].to_numpy()
            known = np.flatnonzero(np.isfinite(y_train))
            values = rows_of(table.train.values, known)
            usable = np.flatnonzero(activation_frequency(values) * len(known) >= N_LEAST_ACTIVE)
            if len(usable) == 0 or np.isfinite(y_test).sum() < MIN_ROWS:
                log.info("no equation for %s: no feature is active in %d galaxies that have it", name, N_LEAST_ACTIVE)
                continue
            n_terms = min(N_TERMS, len(usable))
            if np.ptp(y_train[known]) == 0:
                log.info("no equation for %s: it has one value in all %d train galaxies", name, len(known))
                continue
            chosen = usable[select_forward(columns_of(values, usable), y_train[known][:, None], n_terms)]
            if len(chosen) == 0:
                log.info("no equation for %s: no feature varies on the galaxies that have it", name)
                continue
            law = regression_equation(
                str(name),
                chosen,
                table.train.values,
                y_train,
                table.test.values,
                y_test,
                n_resamples=N_BOOTSTRAP,
                seed=SEED,
            )
            yield law.assign(origin="regression")


def line_ratios(labels: pd.DataFrame) -> pd.DataFrame:
    """Return log([NII]/Hα) and log([OIII]/Hβ), dex, from the columns `log_N2`, `log_Ha`, `log_O3`, `log_Hb`.

    The columns are called as equations and the axes of the BPT diagram call them. NaN where a flux is NaN.
    """
    return pd.DataFrame(
        {name: labels[upper].astype(np.float64) - labels[lower] for name, (upper, lower) in _RATIOS.items()},
        index=labels.index,
    )


def activation_scales(train: FeatureMatrix, features: NDArray[np.integer]) -> Array:
    """Return the unit of each chosen feature, (n_chosen,): see `SCALE_QUANTILE`; NaN where no train galaxy has it."""
    columns = sparse.csc_array(columns_of(train, features))
    columns.eliminate_zeros()
    active = [columns.data[start:stop] for start, stop in zip(columns.indptr[:-1], columns.indptr[1:], strict=True)]
    return np.array([np.quantile(np.abs(values), SCALE_QUANTILE) if len(values) else np.nan for values in active])


def normalised_activations(values: FeatureMatrix, features: NDArray[np.integer], scales: Array) -> Array:
    """Return the activations of chosen features in units of `activation_scales`, dense (n, n_chosen): 1 is strong."""
    return _dense(checked_table(columns_of(values, features))) / scales


def head_equation(
    name: str, weights: Array, bias: float, train: FeatureMatrix, test: FeatureMatrix, y_test: NDArray[np.floating]
) -> pd.DataFrame:
    """Return the law that a linear head applies to its features.

    Parameters
    ----------
    name : str
        The property.
    weights : ndarray of shape (d,)
        In label units an activation unit. A head on log fluxes gives ratios too: differences of its weights and biases.
    train, test : ndarray or CSR of shape (n, d)
        What the head sees; train gives the scales.
    y_test : ndarray of shape (n_test,)
        Label units; galaxies with NaN are left out.

    Returns
    -------
    DataFrame
        `property, term, coefficient, low, high, scale, share, n_train, n_test, r2_test, rmse_test`: first the
        intercept, then the features (numbers as text) by falling |share|. `coefficient` is in label units an
        activation unit, times `scale` an `activation_scales` unit. `low` and `high` are NaN: weights of one trained
        network have no interval. `share` is the covariance of the term with the prediction over the prediction's
        variance, on test galaxies; all sum to 1, a term that works against the others is negative. Features without
        a weight, or that no train galaxy activates, are left out; `r2_test` and `rmse_test` are of the whole head.
    """
    train_table = checked_table(train, "train")
    test_table, y = _with_label(test, y_test, "test")
    if not len(weights) == train_table.shape[1] == test_table.shape[1]:
        raise ValueError(f"{len(weights)} weights, but features of shapes {train_table.shape} and {test_table.shape}")
    scales = activation_scales(train, np.arange(len(weights)))
    terms = np.flatnonzero(np.isfinite(scales) & (weights != 0))
    law = pd.DataFrame(
        {"term": terms, "coefficient": weights[terms], "low": np.nan, "high": np.nan, "scale": scales[terms]}
    )
    prediction = test_table @ weights + bias
    return _table(name, law, (bias, np.nan, np.nan), test_table[:, terms], prediction, y, train_table.shape[0])


def regression_equation(
    name: str,
    features: NDArray[np.integer],
    train: FeatureMatrix,
    y_train: NDArray[np.floating],
    test: FeatureMatrix,
    y_test: NDArray[np.floating],
    *,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return the law that least squares finds on train galaxies between a few features and a property.

    Parameters
    ----------
    features : ndarray of int
        Columns to use, chosen on train galaxies: the most active, or `metrics.selection.select_forward`.
    train, test : ndarray or CSR of shape (n, d)
    y_train, y_test : ndarray of shape (n,)
        Label units; galaxies with NaN are left out.
    n_resamples, seed
        Resamples for the 95 % percentile intervals, and their seed: train galaxies are resampled whole, so residuals
        may be of any shape. Features count as given: that they were chosen on the same galaxies is not in the
        intervals.

    Returns
    -------
    DataFrame
        As `head_equation`, with intervals.

    Raises
    ------
    ValueError
        If shapes differ, a feature is active in fewer than `N_LEAST_ACTIVE` labelled train galaxies, is constant or
        collinear with others, or there are not more train galaxies than terms.
    """
    train_table, y = _with_label(train, y_train, "train")
    X = _dense(train_table[:, features])
    _require_regressors(X, features)
    coefficients, resampled = _least_squares(X, y, n_resamples, seed)
    low, high, n_undefined = percentile_interval(resampled)
    if n_undefined.any():
        log.info("equation for %s: %d resamples leave a feature constant and do not count", name, n_undefined.max())
    law = pd.DataFrame(
        {
            "term": features,
            "coefficient": coefficients[1:],
            "low": low[1:],
            "high": high[1:],
            "scale": activation_scales(X, np.arange(X.shape[1])),
        }
    )
    test_table, truth = _with_label(test, y_test, "test")
    used = test_table[:, features]
    prediction = coefficients[0] + used @ coefficients[1:]
    return _table(name, law, (coefficients[0], low[0], high[0]), used, prediction, truth, len(y))


def printed_terms(table: pd.DataFrame, *, normalised: bool = True) -> pd.DataFrame:
    """Return the table with what to print of each term: `value`, `half_width` (of its interval, or NaN), `n_decimals`.

    Three significant digits of the value, fewer where the second digit of the half-width stands before.

    Parameters
    ----------
    table : DataFrame
        From `head_equation` or `regression_equation`; several may stand one under the other.
    normalised : bool
        Activations in units of `scale`, which makes coefficients comparable; else as they are.
    """
    unit = table["scale"] if normalised else 1.0
    value, half_width = table["coefficient"] * unit, (table["high"] - table["low"]) / 2 * unit
    n_decimals = [_n_decimals(*pair) for pair in zip(value, half_width, strict=True)]
    return table.assign(value=value, half_width=half_width, n_decimals=n_decimals)


def equation_text(table: pd.DataFrame, *, n_terms: int | None = None, normalised: bool = True) -> str:
    """Return a law as text: `Z = 8.72 + 0.503 A61 - 0.593 A256 (test R² 0.75, RMSE 0.086, n = 23444; A: ...)`.

    Parameters
    ----------
    table : DataFrame
        From `head_equation` or `regression_equation`, one property.
    n_terms : int, optional
        Features to write, the foremost; how many are left out is said.
    normalised : bool
        See `printed_terms`.
    """
    _require_one(table)
    written = printed_terms(table if n_terms is None else table.head(1 + n_terms), normalised=normalised)
    text = ""
    for term, value, n_decimals in written[["term", "value", "n_decimals"]].itertuples(index=False):
        number = f"{abs(value):.{n_decimals}f}"
        if term == INTERCEPT:
            text += "-" * (value < 0) + number
        else:
            text += f" {'-' if value < 0 else '+'} {number} A{term}"
    if n_left_out := len(table) - len(written):
        text += f" + {n_left_out} weaker"
    first = table.iloc[0]
    notes = f"test R² {first['r2_test']:.3g}, RMSE {first['rmse_test']:.3g}, n = {first['n_test']}"
    notes += f"; A: activation / its {UNIT}" if normalised else ""
    return f"{first['property']} = {text} ({notes})"


def equation_latex(table: pd.DataFrame, *, n_terms: int | None = None, normalised: bool = True) -> str:
    """Return a law in LaTeX's mathematics, without dollars.

    Parameters and digits are those of `equation_text`, intervals are written with ±.
    """
    _require_one(table)
    written = printed_terms(table if n_terms is None else table.head(1 + n_terms), normalised=normalised)
    parts = []
    columns = ["term", "value", "half_width", "n_decimals"]
    for term, value, half_width, n_decimals in written[columns].itertuples(index=False):
        number = f"{abs(value):.{n_decimals}f}"
        if np.isfinite(half_width):
            number = rf"({number} \pm {half_width:.{n_decimals}f})"
        sign = "-" if value < 0 else "" if term == INTERCEPT else "+"
        parts.append(f"{sign} {number}".strip() + ("" if term == INTERCEPT else rf"\,A_{{{term}}}"))
    if len(written) < len(table):
        parts.append(r"+ \ldots")
    name = "".join(_LATEX.get(character, character) for character in str(table["property"].iloc[0]))
    return rf"\mathrm{{{name}}} = " + " ".join(parts)


def _require_one(table: pd.DataFrame) -> None:
    if len(table["property"].unique()) != 1 or table["term"].iloc[0] != INTERCEPT:
        raise ValueError("an equation is the rows of one property, the intercept first")


def _n_decimals(value: float, half_width: float) -> int:
    n_decimals = 2 - _exponent(value) if value else 2
    if np.isfinite(half_width) and half_width > 0:
        n_decimals = min(n_decimals, 1 - _exponent(half_width))
    return max(0, n_decimals)


def _exponent(value: float) -> int:
    return int(np.floor(np.log10(abs(value))))


def _with_label(values: FeatureMatrix, y: NDArray[np.floating], name: str) -> tuple[Table, Array]:
    """The rows that have a label, and their labels."""
    table, labels = checked_table(values, name), np.asarray(y, dtype=np.float64)
    if labels.shape != (table.shape[0],):
        raise ValueError(f"{name}: {table.shape[0]} rows of features need as many labels, got shape {labels.shape}")
    known = np.flatnonzero(np.isfinite(labels))
    return table[known], labels[known]


def _dense(table: Table) -> Array:
    return (table if isinstance(table, np.ndarray) else table.toarray()).astype(np.float64)


def _require_regressors(X: Array, features: Sequence[int] | NDArray[np.integer]) -> None:
    n, m = X.shape
    if m == 0 or len(set(np.asarray(features).tolist())) != m:
        raise ValueError(f"features must name at least one column, each once, got {list(features)}")
    if n <= m + 1:
        raise ValueError(f"{m} features and an intercept need more than {m + 1} labelled train galaxies, got {n}")
    n_active = np.count_nonzero(X, axis=0)
    if rare := [int(f) for f, count in zip(features, n_active, strict=True) if count < N_LEAST_ACTIVE]:
        raise ValueError(f"features {rare} are active in fewer than {N_LEAST_ACTIVE} labelled train galaxies")
    if constant := [int(f) for f, x in zip(features, X.T, strict=True) if x.std() <= CONSTANT_SPREAD * np.abs(x).max()]:
        raise ValueError(f"features {constant} are constant")
    if m > 1 and np.linalg.cond(np.corrcoef(X.T)) > MAX_CONDITION:
        raise ValueError(
            f"features {[int(f) for f in features]} are collinear; select_forward passes over such columns"
        )


def _least_squares(X: Array, y: Array, n_resamples: int, seed: int) -> tuple[Array, Array]:
    """Intercept and coefficients, (1 + m,), and those of resamples of the rows, (n_resamples, 1 + m).

    NaN in resamples in which a column is constant or collinear with others.
    """
    mean, sd = X.mean(axis=0), X.std(axis=0)
    D = np.column_stack([np.ones(len(y)), (X - mean) / sd])
    n, p = D.shape
    i, j = np.triu_indices(p)
    # Normal equations are sums over galaxies, so those of resamples are products of counts with one matrix.
    products = np.hstack([D[:, i] * D[:, j], D * y[:, None]])
    rng = np.random.default_rng(seed)
    parts = [products.sum(axis=0, keepdims=True)]  # the sample itself
    n_block = max(1, BLOCK_VALUES // n)
    for start in range(0, n_resamples, n_block):
        rows = np.arange(min(n_block, n_resamples - start))[:, None]
        drawn = rng.integers(n, size=(len(rows), n)) + n * rows
        parts.append(np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape) @ products)
    sums = np.concatenate(parts)
    gram = np.empty((len(sums), p, p))
    gram[:, i, j] = gram[:, j, i] = sums[:, : len(i)]
    spread = np.linalg.eigvalsh(gram)  # rising
    is_known = spread[:, 0] * MAX_CONDITION > spread[:, -1]
    is_known[0] = True
    solutions = np.full((len(sums), p), np.nan)
    solutions[is_known] = np.linalg.solve(gram[is_known], sums[is_known, len(i) :, None])[:, :, 0]
    solutions[:, 1:] /= sd
    solutions[:, 0] -= solutions[:, 1:] @ mean
    return solutions[0], solutions[1:]


def _table(
    name: str,
    law: pd.DataFrame,
    intercept: tuple[float, float, float],
    used: Table,
    prediction: Array,
    y_test: Array,
    n_train: int,
) -> pd.DataFrame:
    deviation = prediction - prediction.mean()
    variance = float(deviation @ deviation)
    covariance = law["coefficient"].to_numpy() * transpose_product(used, deviation)
    law = law.assign(share=covariance / variance if variance > 0 else np.nan)
    law = law.iloc[np.argsort(-np.abs(law["share"].to_numpy()), kind="stable")]
    value, low, high = intercept
    first = {"term": INTERCEPT, "coefficient": value, "low": low, "high": high, "scale": 1.0, "share": np.nan}
    rows = pd.concat([pd.DataFrame([first]), law.astype({"term": str})], ignore_index=True)
    rows.insert(0, "property", name)
    return rows.assign(
        n_train=n_train,
        n_test=len(y_test),
        r2_test=regression.r2(y_test, prediction),
        rmse_test=regression.rmse(y_test, prediction),
    )
