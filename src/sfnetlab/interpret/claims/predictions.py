"""Claims about predictions: which method errs less, and by how much."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.claims.evidence import (
    N_RESAMPLES,
    SEED,
    CannotTestError,
    ClaimTables,
    Finding,
    Scored,
    finding_over,
    ks_of,
    main_k,
    predictions_of,
    resampled_shares,
    shared_ks,
)
from sfnetlab.methods import kinds_of
from sfnetlab.methods.controls import Photometry
from sfnetlab.methods.encoder import Encoder
from sfnetlab.methods.pca import PCA
from sfnetlab.methods.sae import SAE
from sfnetlab.methods.sfnet import SFNet
from sfnetlab.metrics.bootstrap import resampled_scores
from sfnetlab.metrics.method_scores import by_run
from sfnetlab.metrics.nulls import curved_predictors
from sfnetlab.metrics.tidy import FAMILY, HEAD

_Resampled = tuple[NDArray[np.float64], NDArray[np.float64]]
"""A score of every run, (n_runs,), and on resamples of the galaxies, (N_RESAMPLES, n_runs)."""

N_FOLDS = 5
LEAST_ROWS = 5
"""Galaxies for each predictor below which nothing is held fixed: least squares would tell anything."""
MARGIN = 0.05
"""Relative loss of accuracy that counts as none: twice what the SFNet paper itself calls none (0.087 against 0.085)."""


def _scored(rows: pd.DataFrame, score: Callable[[NDArray[np.float64], NDArray[np.float64]], _Resampled]) -> Scored:
    """A score, a function of labels (n,) and predictions (n, n_runs), of one method; galaxies by id."""
    trainings, truth, predictions = by_run(rows, [rows["column"].iloc[0]])
    values, resampled = score(truth[:, 0], predictions[:, 0])
    return Scored(values, resampled, (str(rows[FAMILY].iloc[0]),) * len(trainings), tuple(trainings))


def _rmse(rows: pd.DataFrame) -> Scored:
    """RMSE of one method."""
    return _scored(rows, partial(resampled_scores, "rmse", n_resamples=N_RESAMPLES, seed=SEED))


def _auc(rows: pd.DataFrame) -> Scored:
    """Area under the ROC curve, which asks for no threshold."""
    return _scored(rows, partial(resampled_scores, "auc", n_resamples=N_RESAMPLES, seed=SEED))


def _explained(rows: pd.DataFrame) -> Scored:
    """Share of the labels' variance that predictions explain, R2."""
    return _scored(rows, _r2)


def _r2(truth: NDArray[np.float64], predictions: NDArray[np.float64]) -> _Resampled:
    weights = resampled_shares(len(truth))
    variance = weights @ truth**2 - (weights @ truth) ** 2
    values = 1 - (weights @ np.square(predictions - truth[:, None])) / variance[:, None]
    return values[0], values[1:]


def _loss(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much the RMSE in the first column is above that in the second, relative."""
    return scores[:, 0] / scores[:, 1] - 1


def _largest_loss(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much the RMSE in the first column is above the least of the others, relative."""
    return (scores[:, [0]] / scores[:, 1:] - 1).max(axis=1)


def _difference(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores[:, 0] - scores[:, 1]


def accuracy(tables: ClaimTables) -> Finding:
    """Return by how much the SFNet's head errs more than the dense network's."""
    k = main_k(tables)
    methods = [_rmse(predictions_of(tables, SFNet.kind, HEAD, k=k)), _rmse(predictions_of(tables, Encoder.kind, HEAD))]
    what = f"relative RMSE of the SFNet with k = {k} above the dense network's"
    return finding_over(what, _loss, methods, MARGIN, "below")


def two_features(tables: ClaimTables) -> Finding:
    """Return by how much a linear probe on two features of the SFNet that is best so errs more than its head."""
    two = predictions_of(tables, SFNet.kind, "linear", budget=2)
    k = int(two["k"].iloc[0])
    methods = [_rmse(two), _rmse(predictions_of(tables, SFNet.kind, HEAD, k=k))]
    what = f"relative RMSE of two features in all above all of the SFNet with k = {k}"
    return finding_over(what, _loss, methods, MARGIN, "below")


def any_k(tables: ClaimTables) -> Finding:
    """Return how much the errors of SFNets differ over k."""
    ks = ks_of(tables, SFNet.kind)
    if len(ks) < 3:
        raise CannotTestError(f'"any k" asks for three values of k or more, there are SFNets with k = {ks}')
    methods = [_rmse(predictions_of(tables, SFNet.kind, HEAD, k=k)) for k in ks]
    what = f"spread of the RMSE over k = {', '.join(map(str, ks))}, relative to its mean"
    return finding_over(what, lambda errors: np.ptp(errors, axis=1) / errors.mean(axis=1), methods, MARGIN, "below")


def components_do_worse(tables: ClaimTables) -> Finding:
    """Return by how much k principal components err more than an SFNet with k, for the k where it is least."""
    methods: list[Scored] = []
    for k in ks_of(tables, SFNet.kind):
        try:
            components = predictions_of(tables, PCA.kind, "linear", budget=k)
        except CannotTestError:
            continue
        methods += [_rmse(components), _rmse(predictions_of(tables, SFNet.kind, HEAD, k=k))]
    if not methods:
        raise CannotTestError("no k at which there are an SFNet and as many principal components; see probes.budgets")
    what = f"least over {len(methods) // 2} values of k: relative RMSE of k principal components above the SFNet's"
    return finding_over(what, lambda s: (s[:, ::2] / s[:, 1::2] - 1).min(axis=1), methods, 0.0, "above")


def frozen_encoder(tables: ClaimTables) -> Finding:
    """Return what ridge on the encoder explains that is best on valid galaxies of those that were trained elsewhere."""
    if not tables.pretrained:
        raise CannotTestError("no encoder that was trained elsewhere (weights from a file or a hub)")
    frozen = predictions_of(tables, Encoder.kind, "ridge", features=tables.pretrained)
    what = f"R2 of ridge on all dimensions of {frozen['features'].iloc[0]}"
    return finding_over(what, lambda r2: r2[:, 0], [_explained(frozen)], 0.5, "below")


def photometry_is_worse(tables: ClaimTables) -> Finding:
    """Return by how much the dense network's head errs more than XGBoost on photometry."""
    head = predictions_of(tables, Encoder.kind, HEAD)
    photometry = predictions_of(tables, Photometry.kind, "xgboost")
    what = "relative RMSE of the dense network above XGBoost on photometry"
    return finding_over(what, _loss, [_rmse(head), _rmse(photometry)], 0.0, "below")


def beyond_mass_and_colour(tables: ClaimTables) -> Finding:
    """Return how much R2 the SFNet's prediction adds to mass, colours, size and inclination."""
    k = main_k(tables)
    rows = predictions_of(tables, SFNet.kind, HEAD, k=k)
    trainings, truth, predictions = by_run(rows, [tables.column])
    held = tables.held_fixed.reindex(sorted(rows["id_str"].unique()))
    held = held.loc[:, held.notna().any()]
    if held.shape[1] == 0:
        raise CannotTestError("the catalogue has no mass, colour, size or inclination; see [interpretation] trivial")
    without, with_features = r2_beside(truth[:, 0], held.to_numpy(dtype=np.float64), predictions[:, 0])
    family = str(rows[FAMILY].iloc[0])
    methods = [
        Scored(*with_features, (family,) * len(trainings), tuple(trainings)),
        Scored(*without, ("held fixed",), (None,)),
    ]
    columns = ", ".join(map(str, held.columns))
    what = f"R2 that the SFNet with k = {k} adds to {columns} (splines, cross-fitted on test galaxies)"
    return finding_over(what, _difference, methods, 0.0, "above")


def r2_beside(
    truth: NDArray[np.float64], held: NDArray[np.float64], predictions: NDArray[np.float64]
) -> tuple[_Resampled, _Resampled]:
    """Return R2 of labels by what is held fixed alone, and by that and each run's prediction.

    Both are least squares on linear splines of what is held fixed, fitted on four fifths of the galaxies and scored on
    the fifth that is left, so that a prediction which says nothing new adds nothing.

    Parameters
    ----------
    truth : ndarray of shape (n,)
    held : ndarray of shape (n, m)
        NaN where not measured.
    predictions : ndarray of shape (n, n_runs)

    Raises
    ------
    CannotTestError
        If there are too few galaxies for so many columns.
    """
    fold = np.random.default_rng(SEED).permutation(len(truth)) % N_FOLDS
    fitted = np.zeros((len(truth), 1 + predictions.shape[1]))
    for place in range(N_FOLDS):
        train, test = fold != place, fold == place
        parts = curved_predictors(held[train], [held[test]])
        if np.count_nonzero(train) < LEAST_ROWS * (1 + parts[0].shape[1]):
            raise CannotTestError(
                f"{len(truth)} test galaxies are too few to hold {held.shape[1]} columns fixed; use more galaxies"
            )
        design, design_test = (np.column_stack([np.ones(len(part)), part]) for part in parts)
        for column, more in enumerate([predictions[:, :0], *np.split(predictions, predictions.shape[1], axis=1)]):
            weights = np.linalg.lstsq(np.hstack([design, more[train]]), truth[train])[0]
            fitted[test, column] = np.hstack([design_test, more[test]]) @ weights
    return _r2(truth, fitted[:, :1]), _r2(truth, fitted[:, 1:])


def fewer_is_better_for_agn(tables: ClaimTables) -> Finding:
    """Return by how much four SFNet features tell classes better than all of them."""
    k = main_k(tables)
    few = _auc(predictions_of(tables, SFNet.kind, "linear_svm", k=k, budget=4, of_classes=True))
    every = _auc(predictions_of(tables, SFNet.kind, "linear_svm", k=k, of_classes=True))
    return finding_over("AUC of a linear SVM on four features minus on all", _difference, [few, every], 0.0, "above")


def better_than_photometry_for_agn(tables: ClaimTables) -> Finding:
    """Return by how much four SFNet features tell classes better than photometry."""
    k = main_k(tables)
    few = _auc(predictions_of(tables, SFNet.kind, "linear_svm", k=k, budget=4, of_classes=True))
    colours = _auc(predictions_of(tables, Photometry.kind, "logistic", of_classes=True))
    what = "AUC of a linear SVM on four features minus logistic regression on photometry"
    return finding_over(what, _difference, [few, colours], 0.0, "above")


def trained_sparse_is_better(tables: ClaimTables) -> Finding:
    """Return by how much ridge on SFNet features errs more than on latents, of the SAE that is best on valid."""
    k = shared_ks(tables, SAE.kind)[0]
    ours, theirs = (predictions_of(tables, kind, "ridge", k=k) for kind in (SFNet.kind, SAE.kind))
    what = f"relative RMSE of ridge on SFNet features above latents of {theirs['features'].iloc[0]}, both k = {k}"
    return finding_over(what, _loss, [_rmse(ours), _rmse(theirs)], 0.0, "below")


def better_than_null(tables: ClaimTables) -> Finding:
    """Return by how much ridge on SAE latents errs more than on those of a null arm, for the arm where it is most."""
    nulls = tables.predictions[tables.predictions["kind"].isin(kinds_of("null"))]
    arms = dict(sorted(nulls.groupby("features")["kind"].first().items()))
    shared = set(ks_of(tables, SAE.kind))
    for _, arm in nulls.groupby("features"):
        shared &= set(arm["k"])
    if not arms or not shared:
        raise CannotTestError("no SAE and null arms of the same k")
    k = max(shared)
    latents = predictions_of(tables, SAE.kind, "ridge", k=k)
    of_arms = [predictions_of(tables, kind, "ridge", k=k, features=(str(name),)) for name, kind in arms.items()]
    what = f"largest over {len(arms)} null arms: relative RMSE of ridge on SAE latents above the arm's, k = {k}"
    return finding_over(what, _largest_loss, [_rmse(rows) for rows in (latents, *of_arms)], 0.0, "below")
