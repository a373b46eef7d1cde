"""Sparse autoencoders as scikit-learn estimators: one class for each variant, and `fit_many` to train many at once.

`training/sae/` trains them; `models/sae.py` holds what they are once they are trained.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from sfnetlab.errors import DataError, SfnetlabError
from sfnetlab.estimators.checks import check_choice, check_number, invalid
from sfnetlab.estimators.coder import SparseCoder, checked_rows
from sfnetlab.methods.sae import SAE
from sfnetlab.models.sae import SparseAutoencoder
from sfnetlab.runtime import resolve_device
from sfnetlab.settings import Codes
from sfnetlab.training.loop import Record
from sfnetlab.training.sae.rows import Rows, UnevenSpreadWarning, uneven_spread, without_far_rows
from sfnetlab.training.sae.settings import Frozen, SAESettings, Selection, Standardize, Start, Variant, euclid_groups
from sfnetlab.training.sae.trainer import fit_standardisation, train_saes


@dataclass(eq=False, repr=False)
class PretrainedSAE(SparseCoder):
    """A sparse autoencoder that is already trained, as a transformer. `fit` only checks the width of X.

    Parameters
    ----------
    model : SparseAutoencoder
        From `models.sae.load_sae`, or from another library's checkpoint through `models.foreign`.
    codes : {"topk", "refit", "omp"}
        As in `TopKSAE`.
    """

    model: SparseAutoencoder
    codes: Codes = field(default=SAE.codes[0], kw_only=True)

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Check that the rows of X are as wide as the model's embeddings.

        Raises
        ------
        ValueError
            If a parameter is out of range, or X is not a table of the model's width.
        """
        check_choice(self, "codes", get_args(Codes))
        if not isinstance(self.model, SparseAutoencoder):
            raise invalid(self, "model", "a SparseAutoencoder")
        rows = checked_rows(self, X, n_fit=1)
        if rows.shape[1] != self.model.d_in:
            raise ValueError(f"X has {rows.shape[1]} features, but the model takes {self.model.d_in}")
        self.model_ = self.model
        return self


@dataclass(eq=False, repr=False, kw_only=True)
class _TrainedSAE(SparseCoder):
    """Base of the variants: the list of all their parameters, in the order of their signatures, and `fit`.

    Only some variants have a parameter with `init=False`: they declare it again, and a dataclass then leaves it in its
    place in the list. For all others, the default here says what they do.
    """

    _variant: ClassVar[Variant] = "topk"
    _frozen: ClassVar[Frozen] = "none"

    n_latents: int = field(default=SAE.n_latents, kw_only=False)
    k: int = field(default=SAE.k[0], kw_only=False)
    group_sizes: Literal["euclid"] | Sequence[int] = field(default=(), init=False)
    selection: Selection = field(default="topk", init=False)
    epochs: int = SAE.epochs
    batch_size: int | None = SAE.batch_size
    learning_rate: float | None = SAE.learning_rate
    auxk: float = field(default=0.0, init=False)
    start: Start = field(default="random", init=False)
    validation_fraction: float = field(default=0.0, init=False)
    center: bool = True
    standardize: Standardize = SAE.standardize
    max_distance: float | None = SAE.max_distance
    codes: Codes = SAE.codes[0]
    random_state: int | np.random.RandomState | None = None
    device: str = "auto"

    n_iter_: int = field(init=False)
    history_: list[Record] = field(init=False)

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Train on the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings in any units. Rows of a memory-mapped array, of any float or integer type, are read as they are
            needed.
        y
            Not used.

        Raises
        ------
        ValueError
            If a parameter is out of range, X is not a table of at least two finite rows, or all rows are the same.
        TrainingError
            If the loss is not finite; the message names the step.

        Warns
        -----
        LargeMeanWarning
            If rows are not centred and their mean is so large that latents will die.
        UnevenSpreadWarning
            If a few rows or columns hold so much of the variance that training and score are about little else.
        """
        return fit_many([self], X)[0]


@dataclass(eq=False, repr=False, kw_only=True)
class _RevivingSAE(_TrainedSAE):
    """Base of the variants that can revive silent latents with an auxiliary loss."""

    auxk: float = SAE.auxk


@dataclass(eq=False, repr=False, kw_only=True)
class _CalibratedSAE(_RevivingSAE):
    """Base of the variants with thresholds, set on held-out rows after training: k latents are active on average."""

    validation_fraction: float = 0.1


class ReLUSAE(_CalibratedSAE):
    """Sparse autoencoder with an L1 penalty (Bricken et al. 2023, "Towards Monosemanticity"; arXiv:2309.08600).

    The recipe raises and lowers the penalty by itself, so there is no weight to tune, until about 2 k latents are
    active. One threshold, set on held-out rows after training, then leaves k active on average. L1 shrinks the latents:
    this variant explains less variance than `TopKSAE` at the same k; use `codes="refit"` to get their size right.

    Parameters
    ----------
    validation_fraction : float
        Share of the rows that are held out to set the threshold, in (0, 1); the same rows for every seed.
    n_latents, k, epochs, batch_size, learning_rate, auxk, center, standardize, max_distance, codes, random_state,
    device
        As in `TopKSAE`, but k is an average.
    """

    _variant = "relu"


@dataclass(eq=False, repr=False, kw_only=True)
class TopKSAE(_RevivingSAE):
    """Sparse autoencoder in which the k largest latents of each row are active (Gao et al. 2024, arXiv:2406.04093).

    Parameters
    ----------
    n_latents : int
        Size of the dictionary.
    k : int
        Number of active latents of a row, at most `n_latents`. A row with fewer positive latents has fewer.
    epochs : int
        Passes over the rows.
    batch_size : int, optional
        Rows in a step. None: the recipe chooses, and takes fewer where there are few rows.
    learning_rate : float, optional
        Peak learning rate. None: the recipe chooses it from variant, n_latents and rows in a step.
    auxk : float
        Weight of the auxiliary loss of silent latents (Gao et al. take 1/32). 0: silent latents are only resampled,
        which is faster.
    start : {"random", "centroids"}
        Where atoms start. Centroids of the data are the same for every seed. They are the control of `ArchetypalSAE`
        (arXiv:2606.02061), because it is the shared start that makes seeds agree. They need n_latents rows.
    center : bool
        Whether to subtract the column means. Without this, latents die on data with a large mean (arXiv:2605.31518).
    standardize : {"one scale", "columns"}
        What centred rows are divided by: one spread for all columns, or each column by its own, so that all columns
        count alike (as in Wu & Walmsley 2025, arXiv:2510.23749). Reconstructions are in the units of X either way.
    max_distance : float, optional
        Rows that are farther from the columns' medians than this many times the median row are left out of the
        training: a broken row cannot spoil it. None: no row is left out.
    codes : {"topk", "refit", "omp"}
        How `transform` finds latents. "topk": as the encoder selects them. "refit": by least squares on the latents
        that the encoder selects. "omp": by orthogonal matching pursuit of k atoms. Each is slower than the one before
        and reconstructs better.
    random_state : int, RandomState or None
        Seed of the start and of the resampling. The order of rows does not depend on it, so that `fit_many` can read
        them once for all seeds.
    device : str
        "auto", "cpu", "cuda", "cuda:1" or "mps".

    Attributes
    ----------
    model_ : SparseAutoencoder
        `models.sae.save_sae(directory, estimator.model_)` writes it; `PretrainedSAE` takes what `load_sae` reads.
    components_, mean_, scale_
        Atoms (n_latents, n_features), column means (n_features,) and one scale, or with standardize="columns" one of
        each column: x_hat = mean_ + scale_ (latents components_ + b_dec).
    history_ : list of dict
        One record for each epoch, see `training.sae.trainer.train_saes`; `pandas.DataFrame(history_)` makes a table.
    n_iter_, n_features_in_ : int
        Passes over the rows; width of X.
    feature_names_in_ : ndarray of str
        Column names of X, if it had any.
    """

    start: Start = SAE.start


class BatchTopKSAE(_CalibratedSAE):
    """Sparse autoencoder with k active latents per row on average over a batch (BatchTopK, arXiv:2412.06410).

    After training, a latent is active above one threshold. It is set on held-out rows, such that k are active on
    average.

    Parameters
    ----------
    validation_fraction : float
        Share of the rows that are held out to set the threshold, in (0, 1); the same rows for every seed.
    n_latents, k, epochs, batch_size, learning_rate, auxk, center, standardize, max_distance, codes, random_state,
    device
        As in `TopKSAE`, but k is an average.
    """

    _variant = "batch_topk"


@dataclass(eq=False, repr=False, kw_only=True)
class MatryoshkaSAE(_CalibratedSAE):
    """Sparse autoencoder with a nested dictionary: each prefix of whole groups reconstructs (arXiv:2503.17547).

    Parameters
    ----------
    group_sizes : "euclid" or sequence of int
        Sizes of the groups, which sum to n_latents. "euclid": 1/32, 1/32, 1/16, 1/8, 1/4 and 1/2 of it (Wu & Walmsley
        2025, arXiv:2510.23749).
    selection : {"topk", "batch_topk"}
        Which latents are active: k of each row, or k per row on average over a batch, and after training those above a
        threshold.
    validation_fraction : float
        Share of the rows that are held out to set that threshold, in (0, 1). selection="topk" holds out none.
    n_latents, k, epochs, batch_size, learning_rate, auxk, center, standardize, max_distance, codes, random_state,
    device
        As in `TopKSAE`.
    """

    _variant = "matryoshka"

    group_sizes: Literal["euclid"] | Sequence[int] = "euclid"
    selection: Selection = SAE.selection


class JumpReLUSAE(_CalibratedSAE):
    """Sparse autoencoder with a learnt threshold for each latent (Rajamanoharan et al. 2024, arXiv:2407.14435).

    The penalty grows with the distance of the mean number of active latents from `k`, so there is no weight to tune.
    After training, all thresholds are multiplied by one factor, such that k latents are active on average on held-out
    rows.

    Parameters
    ----------
    validation_fraction : float
        Share of the rows that are held out to find the factor, in (0, 1); the same rows for every seed.
    n_latents, k, epochs, batch_size, learning_rate, auxk, center, standardize, max_distance, codes, random_state,
    device
        As in `TopKSAE`, but k is an average.
    """

    _variant = "jumprelu"


class ArchetypalSAE(_RevivingSAE):
    """Top-k sparse autoencoder whose atoms stay near the convex hull of the data (RA-SAE, arXiv:2502.12892).

    Atoms are directions of convex combinations of n_latents k-means centroids, each shifted a little. Compare it with
    `TopKSAE(start="centroids")`, which starts at the same atoms and moves them freely: much of the stability over
    seeds comes from the start (arXiv:2606.02061).

    Parameters
    ----------
    n_latents : int
        Size of the dictionary, at most the number of rows.
    auxk : float
        Weight of the auxiliary loss of silent latents, which this variant does not resample. The loss may help: of
        1,024 latents on DINOv2 embeddings of 4,712 galaxies, 58 % (k = 8) and 30 % (k = 32) ended silent with 0, and
        19 % and 20 % with 1, at the same FVU within 3 % (one seed).
    k, epochs, batch_size, learning_rate, center, standardize, max_distance, codes, random_state, device
        As in `TopKSAE`.
    """

    _variant = "archetypal"
    start = "centroids"


class FrozenDecoderSAE(_TrainedSAE):
    """Control: a `TopKSAE` whose atoms stay random; only the encoder learns (arXiv:2602.14111).

    Parameters
    ----------
    n_latents, k, epochs, batch_size, learning_rate, center, standardize, max_distance, codes, random_state, device
        As in `TopKSAE`.
    """

    _frozen = "decoder"


class FrozenEncoderSAE(_TrainedSAE):
    """Control: a `TopKSAE` whose encoder stays random; only the atoms learn (arXiv:2602.14111).

    Parameters
    ----------
    n_latents, k, epochs, batch_size, learning_rate, center, standardize, max_distance, codes, random_state, device
        As in `TopKSAE`.
    """

    _frozen = "encoder"


class RandomDictionarySAE(_TrainedSAE):
    """Control: a `TopKSAE` with one random dictionary as encoder and decoder; only b_dec learns (arXiv:2602.14111).

    Parameters
    ----------
    n_latents, k, epochs, batch_size, learning_rate, center, standardize, max_distance, codes, random_state, device
        As in `TopKSAE`.
    """

    _frozen = "both"


_Trained = TypeVar("_Trained", bound=_TrainedSAE)


def fit_many(estimators: Sequence[_Trained], X: ArrayLike) -> list[_Trained]:
    """Fit estimators of any variants, sizes and seeds in as few passes over X as possible, and return them.

    Estimators with the same `epochs`, `batch_size`, `center`, `standardize`, `max_distance`, `device` and held-out rows
    see the same batches, which are read once. Each ends as `fit` alone would leave it: on the CPU, bit for bit. It
    raises the errors of `fit`.
    """
    together: dict[tuple[Any, ...], list[tuple[_Trained, SAESettings]]] = {}
    rows: NDArray[np.number] = np.empty((0, 0))
    for estimator in estimators:
        settings = _checked_settings(estimator)
        held_out = float(estimator.validation_fraction) if settings.is_calibrated else 0.0
        batch_size = None if estimator.batch_size is None else int(estimator.batch_size)
        scaling = (bool(estimator.center), estimator.standardize, estimator.max_distance)
        key = (int(estimator.epochs), batch_size, *scaling, _checked_device(estimator), held_out)
        together.setdefault(key, []).append((estimator, settings))
        rows = checked_rows(estimator, X, n_fit=3 if held_out else 2)
    for (epochs, batch_size, center, standardize, max_distance, device, held_out), group in together.items():
        train, valid = (
            without_far_rows(Rows(rows, part), max_distance, standardize) for part in _split(len(rows), held_out)
        )
        try:
            standardisation = fit_standardisation(train, center=center, standardize=standardize)
            for message in uneven_spread(train, standardize):
                warnings.warn(message, UnevenSpreadWarning, stacklevel=3)
            saes, history = train_saes(
                train,
                [settings for _, settings in group],
                epochs=epochs,
                batch_size=batch_size,
                standardisation=standardisation,
                valid=valid,
                device=device,
                checkpoint=None,
                report=lambda _: None,
            )
        except DataError as error:
            raise ValueError(f"{type(group[0][0]).__name__}: {error}") from error
        for position, (estimator, _) in enumerate(group):
            estimator.model_ = saes[position]
            estimator.history_ = [
                {name: value for name, value in record.items() if name != "sae"}
                for record in history
                if record["sae"] == position
            ]
            estimator.n_iter_ = epochs
    return list(estimators)


def _split(n_rows: int, held_out: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions of the rows to train on and of the held-out rows, which are the same for every seed."""
    if not held_out:
        return np.arange(n_rows), np.arange(0)
    n_valid = min(max(1, round(held_out * n_rows)), n_rows - 2)
    order = np.random.default_rng(0).permutation(n_rows)
    return np.sort(order[n_valid:]), np.sort(order[:n_valid])


def _checked_settings(estimator: _TrainedSAE) -> SAESettings:
    """Return what the trainer needs to know, or raise ValueError if a parameter is out of range."""
    for name in ("n_latents", "k", "epochs"):
        check_number(estimator, name, Integral, 1)
    if estimator.batch_size is not None:
        check_number(estimator, "batch_size", Integral, 1)
    if estimator.k > estimator.n_latents:
        raise invalid(estimator, "k", f"an int in the range [1, n_latents={estimator.n_latents}]")
    if estimator.learning_rate is not None:
        check_number(estimator, "learning_rate", Real, 0, is_open=True)
    if not isinstance(estimator.center, bool | np.bool_):
        raise invalid(estimator, "center", "a bool")
    if estimator.max_distance is not None:
        check_number(estimator, "max_distance", Real, 1, is_open=True)
    choices_of = {"codes": Codes, "start": Start, "selection": Selection, "standardize": Standardize}
    for name, choices in choices_of.items():
        check_choice(estimator, name, get_args(choices))
    check_number(estimator, "auxk", Real, 0)
    if isinstance(estimator, _CalibratedSAE):
        check_number(estimator, "validation_fraction", Real, 0, 1, is_open=True)
    return SAESettings(
        variant=estimator._variant,
        n_latents=int(estimator.n_latents),
        k=int(estimator.k),
        seed=_checked_seed(estimator),
        group_sizes=_checked_groups(estimator) if isinstance(estimator, MatryoshkaSAE) else (),
        selection=estimator.selection,
        learning_rate=None if estimator.learning_rate is None else float(estimator.learning_rate),
        auxk=float(estimator.auxk),
        frozen=estimator._frozen,
        start=estimator.start,
    )


def _checked_seed(estimator: _TrainedSAE) -> int:
    given = estimator.random_state
    try:
        random = check_random_state(given)
    except ValueError as error:
        raise invalid(estimator, "random_state", "an int in the range [0, 2^32), a RandomState or None") from error
    return int(given) if isinstance(given, Integral) else int(random.randint(2**31))


def _checked_groups(estimator: MatryoshkaSAE) -> tuple[int, ...]:
    n_latents, sizes = int(estimator.n_latents), estimator.group_sizes
    if isinstance(sizes, str):
        if sizes != "euclid":
            raise invalid(estimator, "group_sizes", "'euclid' or a sequence of int")
        if n_latents % 32:
            raise invalid(estimator, "n_latents", "divisible by 32 with group_sizes='euclid'")
        return euclid_groups(n_latents)
    groups = tuple(sizes)
    if not all(isinstance(size, Integral) and size >= 1 for size in groups) or sum(groups) != n_latents:
        raise invalid(estimator, "group_sizes", f"'euclid' or positive ints that sum to n_latents={n_latents}")
    return tuple(map(int, groups))


def _checked_device(estimator: _TrainedSAE) -> str:
    try:
        return resolve_device(estimator.device)
    except SfnetlabError as error:
        there = "'auto', or a device of this machine: 'cpu', 'cuda', 'cuda:N' or 'mps'"
        raise invalid(estimator, "device", there) from error
