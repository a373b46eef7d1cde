"""How well a decision score tells two classes of galaxies apart; a galaxy counts as positive where its score is > 0.

Labels are 0 or 1, scores any finite numbers. All raise ValueError for other values, shapes and for a missing class.
"""

import numpy as np
from numpy.typing import NDArray


def auc(y_true: NDArray[np.number], score: NDArray[np.floating]) -> float:
    """Return the area under the ROC curve: how often a positive galaxy scores higher than a negative one, ties half.

    It is for scores, never for hard labels, whose "AUC" is the balanced accuracy; arrays of shape (n,).
    """
    truth, scores = _checked(y_true, score)
    return float(placements(truth, scores)[truth].mean())


def best_threshold(y_true: NDArray[np.number], score: NDArray[np.floating]) -> float:
    """Return the threshold above which scores (n,) have the largest F1: between two of them, or below all.

    Classifiers put their zero elsewhere (a margin, log odds of classes that weigh the same); with this threshold, of
    valid galaxies, what they find is compared, not where they draw a line. Of equals it is the highest.
    """
    truth, scores = _checked(y_true, score)
    order = np.argsort(-scores, kind="stable")
    found, n_true = scores[order], np.cumsum(truth[order])
    f1 = 2 * n_true / (np.arange(1, len(found) + 1) + n_true[-1])
    ends = np.flatnonzero(np.append(found[1:] < found[:-1], True))
    best = int(ends[np.argmax(f1[ends])])
    below = found[best + 1] if best + 1 < len(found) else found[best] - 1
    return float((found[best] + below) / 2)


def outcomes(truth: NDArray[np.bool_], score: NDArray[np.floating]) -> dict[str, NDArray[np.bool_]]:
    """Return which galaxies are which of the four, in the shape of the scores, (n,), or (n, m) with truth (n, 1)."""
    found = score > 0
    return {
        "true_positive": found & truth,
        "false_positive": found & ~truth,
        "true_negative": ~found & ~truth,
        "false_negative": ~found & truth,
    }


def label_scores(
    y_true: NDArray[np.integer], y_pred: NDArray[np.integer], weights: NDArray[np.floating]
) -> dict[str, NDArray[np.float64]]:
    """Return accuracy and balanced accuracy of several predictions among many classes, for several weights of galaxies.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        Class numbers, from 0.
    y_pred : ndarray of int, shape (n, m)
        A column a prediction.
    weights : ndarray of shape (r, n)
        A row a weighting, for example how often a resample draws each galaxy; not negative.

    Returns
    -------
    dict of ndarray of shape (r, m)
        `accuracy` and `balanced_accuracy`: the mean over classes of the share of each that is found; NaN where a
        weighting leaves out one of the classes of `y_true`.
    """
    truth, found = np.asarray(y_true), np.asarray(y_pred)
    if truth.ndim != 1 or found.shape[:1] != truth.shape or found.ndim != 2 or truth.size == 0:
        raise ValueError(f"expected y_true (n,) and y_pred (n, m), got {truth.shape} and {found.shape}")
    is_right = (found == truth[:, None]).astype(np.float64)
    recalls = []
    for label in np.unique(truth):
        of_label = truth == label
        total = weights[:, of_label].sum(axis=1, keepdims=True)
        right = weights[:, of_label] @ is_right[of_label]
        recalls.append(np.divide(right, total, out=np.full_like(right, np.nan), where=total > 0))
    return {
        "accuracy": weights @ is_right / weights.sum(axis=1, keepdims=True),
        "balanced_accuracy": np.mean(recalls, axis=0),
    }


def confusion_matrix(y_true: NDArray[np.integer], y_pred: NDArray[np.integer], n_classes: int) -> NDArray[np.int64]:
    """Return the numbers of galaxies (n_classes, n_classes): true classes are rows, predicted ones columns."""
    for name, labels in (("y_true", y_true), ("y_pred", y_pred)):
        if labels.shape != y_true.shape or labels.ndim != 1 or not np.isin(labels, np.arange(n_classes)).all():
            raise ValueError(f"{name}: expected {y_true.shape} class numbers in [0, {n_classes}), got {labels}")
    return np.bincount(y_true * n_classes + y_pred, minlength=n_classes**2).reshape(n_classes, n_classes)


def placements(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each galaxy's share of right pairs with the other class: for a positive, the share of negatives below it.

    The mean over the positives, and that over the negatives, is the AUC.

    References
    ----------
    DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44, 837, equations 4 and 5.
    """
    positive, negative = np.sort(score[truth]), np.sort(score[~truth])
    share = np.empty(score.size)
    n_pairs = [np.searchsorted(negative, score[truth], side=side) for side in ("left", "right")]
    share[truth] = np.mean(n_pairs, axis=0) / negative.size
    n_pairs = [np.searchsorted(positive, score[~truth], side=side) for side in ("left", "right")]
    share[~truth] = 1 - np.mean(n_pairs, axis=0) / positive.size
    return share


def checked_classes(
    y_true: NDArray[np.number], score: NDArray[np.floating]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return labels (n,) as bool and scores, (n,) or (n, m), in float64, if they are 0 and 1 and finite numbers."""
    labels, scores = np.asarray(y_true), np.asarray(score, dtype=np.float64)
    if labels.ndim != 1 or scores.shape[:1] != labels.shape or scores.ndim > 2:
        raise ValueError(f"expected y_true (n,) and scores of as many rows, got {labels.shape} and {scores.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"y_true: expected 0 and 1, got {np.unique(labels)[:5].tolist()}")
    if labels.size == 0 or labels.min() == labels.max():
        raise ValueError(f"y_true: expected both classes among its {labels.size} values")
    if n_bad := np.count_nonzero(~np.isfinite(scores)):
        raise ValueError(f"score: {n_bad} of {scores.size} values are not finite")
    return labels.astype(np.bool_), scores


def _checked(y_true: NDArray[np.number], score: NDArray[np.floating]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    if np.ndim(score) != 1:
        raise ValueError(f"expected scores of shape (n,), got {np.shape(score)}")
    return checked_classes(y_true, score)
