"""Claims about predictions: which method errs less, and by how much."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.claims.evidence import (
    CannotTestError,
    ClaimTables,
    Finding,
    Sample,
    finding_of,
    ks_of,
    main_k,
    predictions_of,
    resampled_shares,
    rows_of_kind,
    shared_ks,
)
from sfnetlab.methods import kinds_of
from sfnetlab.methods.controls import Photometry
from sfnetlab.methods.encoder import Encoder
from sfnetlab.methods.pca import PCA
from sfnetlab.methods.sae import SAE
from sfnetlab.methods.sfnet import SFNet
from sfnetlab.metrics.tidy import HEAD

MARGIN = 0.05
"""Relative loss of accuracy that counts as none: twice what the SFNet paper itself calls none (0.087 against 0.085)."""


def _per_galaxy(rows: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels (n,) and predictions (n, n_seeds) of one method, galaxies by id."""
    table = rows.assign(seed=rows["seed"].fillna(-1)).pivot_table(index="id_str", columns="seed", values="y_pred")
    truth = rows.drop_duplicates("id_str").set_index("id_str")["y_true"].loc[table.index]
    return truth.to_numpy(), table.to_numpy()


def _rmse(rows: pd.DataFrame) -> Sample:
    """RMSE of one method, averaged over its seeds."""
    truth, predictions = _per_galaxy(rows)
    return np.sqrt(resampled_shares(len(truth)) @ np.square(predictions - truth[:, None])).mean(axis=1)


def _f1(rows: pd.DataFrame) -> Sample:
    """F1 of the positive class at score 0, averaged over seeds."""
    truth, scores = _per_galaxy(rows)
    is_found = (scores > 0).astype(np.float64)
    weights, is_true = resampled_shares(len(truth)), truth[:, None]
    hits = weights @ (is_found * is_true)
    return (2 * hits / (2 * hits + weights @ (is_found * (1 - is_true)) + weights @ ((1 - is_found) * is_true))).mean(1)


def _explained(rows: pd.DataFrame) -> Sample:
    """Share of the labels' variance that predictions explain, R2, averaged over seeds."""
    truth, predictions = _per_galaxy(rows)
    weights = resampled_shares(len(truth))
    variance = weights @ truth**2 - (weights @ truth) ** 2
    return 1 - (weights @ np.square(predictions - truth[:, None])).mean(axis=1) / variance


def _loss(ours: pd.DataFrame, theirs: pd.DataFrame) -> Sample:
    """By how much the RMSE of one method is above another's, relative."""
    return _rmse(ours) / _rmse(theirs) - 1


def accuracy(tables: ClaimTables) -> Finding:
    """Return by how much the SFNet's head errs more than the dense network's."""
    k = main_k(tables)
    sample = _loss(predictions_of(tables, SFNet.kind, HEAD, k=k), predictions_of(tables, Encoder.kind, HEAD))
    return finding_of(f"relative RMSE of the SFNet with k = {k} above the dense network's", sample, MARGIN, "below")


def two_features(tables: ClaimTables) -> Finding:
    """Return by how much a linear probe on two features of the sparsest SFNet errs more than its head."""
    k = min(ks_of(tables, SFNet.kind), default=None)
    head = predictions_of(tables, SFNet.kind, HEAD, k=k)
    sample = _loss(predictions_of(tables, SFNet.kind, "linear", k=k, budget=2), head)
    return finding_of(
        f"relative RMSE of two features in all above all of the SFNet with k = {k}", sample, MARGIN, "below"
    )


def any_k(tables: ClaimTables) -> Finding:
    """Return how much the errors of SFNets differ over k."""
    ks = ks_of(tables, SFNet.kind)
    if len(ks) < 2:
        raise CannotTestError("fewer than two k of SFNets")
    errors = np.stack([_rmse(predictions_of(tables, SFNet.kind, HEAD, k=k)) for k in ks])
    what = f"spread of the RMSE over k = {', '.join(map(str, ks))}, relative to its mean"
    return finding_of(what, np.ptp(errors, axis=0) / errors.mean(axis=0), MARGIN, "below")


def components_do_worse(tables: ClaimTables) -> Finding:
    """Return by how much k principal components err more than an SFNet with k, for the k where it is least."""
    losses = []
    for k in ks_of(tables, SFNet.kind):
        try:
            components = predictions_of(tables, PCA.kind, "linear", budget=k)
        except CannotTestError:
            continue
        losses.append(_loss(components, predictions_of(tables, SFNet.kind, HEAD, k=k)))
    if not losses:
        raise CannotTestError("no k at which there are an SFNet and as many principal components; see probes.budgets")
    what = f"least over {len(losses)} values of k: relative RMSE of k principal components above the SFNet's"
    return finding_of(what, np.min(losses, axis=0), 0.0, "above")


def frozen_encoder(tables: ClaimTables) -> Finding:
    """Return what ridge on the best of the encoders that were trained elsewhere explains."""
    if not tables.pretrained:
        raise CannotTestError("no encoder that was trained elsewhere (weights from a file or a hub)")
    shares = [
        _explained(predictions_of(tables, Encoder.kind, "ridge", features=name)) for name in sorted(tables.pretrained)
    ]
    return finding_of("R2 of ridge on all dimensions, best encoder", np.max(shares, axis=0), 0.5, "below")


def photometry_is_worse(tables: ClaimTables) -> Finding:
    """Return by how much the dense network's head errs more than XGBoost on photometry."""
    head = predictions_of(tables, Encoder.kind, HEAD)
    photometry = predictions_of(tables, Photometry.kind, "xgboost")
    what = "relative RMSE of the dense network above XGBoost on photometry"
    return finding_of(what, _loss(head, photometry), 0.0, "below")


def fewer_is_better_for_agn(tables: ClaimTables) -> Finding:
    """Return by how much four SFNet features tell classes better than all of them."""
    k = main_k(tables)
    few = _f1(predictions_of(tables, SFNet.kind, "linear_svm", k=k, budget=4, of_classes=True))
    every = _f1(predictions_of(tables, SFNet.kind, "linear_svm", k=k, of_classes=True))
    return finding_of("F1 of a linear SVM on four features minus on all", few - every, 0.0, "above")


def better_than_photometry_for_agn(tables: ClaimTables) -> Finding:
    """Return by how much four SFNet features tell classes better than photometry."""
    k = main_k(tables)
    few = _f1(predictions_of(tables, SFNet.kind, "linear_svm", k=k, budget=4, of_classes=True))
    colours = _f1(predictions_of(tables, Photometry.kind, "logistic", of_classes=True))
    return finding_of(
        "F1 of a linear SVM on four features minus logistic regression on photometry", few - colours, 0.0, "above"
    )


def trained_sparse_is_better(tables: ClaimTables) -> Finding:
    """Return by how much ridge on SFNet features errs more than on latents, for the SAE where it is most."""
    k = shared_ks(tables, SAE.kind)[0]
    saes = rows_of_kind(tables, tables.predictions, SAE.kind)
    names = sorted(saes.loc[saes["k"] == k, "features"].unique())
    ours = predictions_of(tables, SFNet.kind, "ridge", k=k)
    losses = [_loss(ours, predictions_of(tables, SAE.kind, "ridge", k=k, features=name)) for name in names]
    what = f"largest over {len(losses)} SAEs: relative RMSE of ridge on SFNet features above SAE latents, both k = {k}"
    return finding_of(what, np.max(losses, axis=0), 0.0, "below")


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
    losses = [
        _loss(latents, predictions_of(tables, kind, "ridge", k=k, features=str(name))) for name, kind in arms.items()
    ]
    what = f"largest over {len(losses)} null arms: relative RMSE of ridge on SAE latents above the arm's, k = {k}"
    return finding_of(what, np.max(losses, axis=0), 0.0, "below")
