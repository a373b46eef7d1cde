"""Sparse autoencoders on scikit-learn's contract: one class a variant, and `fit_many` for many.

How they are trained stands in training/sae/, what they are once trained in models/sae.py.
"""

import math
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self, TypeVar, cast, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, vstack
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data  # pyrefly: ignore[missing-module-attribute]

from sfnetlab.errors import DataError, SfnetlabError
from sfnetlab.methods.sae import SAE
from sfnetlab.models.sae import SparseAutoencoder
from sfnetlab.runtime import resolve_device
from sfnetlab.settings import Codes
from sfnetlab.training.loop import Record
from sfnetlab.training.sae.settings import Frozen, SAESettings, Selection, Start, Variant, euclid_groups
from sfnetlab.training.sae.trainer import Rows, fit_standardisation, train_saes

VALIDATION_FRACTION = 0.1
"""Of the rows: what BatchTopK and JumpReLU set their thresholds on."""

_BLOCK_ROWS = 4096
_PURSUIT_ROWS = 32768
"""Orthogonal matching pursuit takes the products of all atoms anew for each block."""


class _SparseCoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What every sparse autoencoder does once it has a `model_`."""

    codes: Codes
    model_: SparseAutoencoder

    def transform(self, X: ArrayLike) -> csr_array:
        """Latents of each row, on its own: no other row matters.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Read in blocks: a memory-mapped array of any float or integer type may exceed the memory.

        Returns
        -------
        csr_array of shape (n_samples, n_latents)
            float32; of CSR there is no DataFrame, so `set_output` is of no use here. Latents are in units of
            `scale_`, positive for `codes="topk"`; least squares ("refit", "omp") may make some negative.
        """
        check_is_fitted(self)
        latents: Any = vstack([latents for _, latents in self._encoded_blocks(_checked(self, X))], format="csr")
        if latents.nnz < 2**31:  # much of scikit-learn takes no larger indices
            latents.indices, latents.indptr = latents.indices.astype(np.int32), latents.indptr.astype(np.int32)
        return latents

    def inverse_transform(self, X: ArrayLike | csr_array) -> NDArray[np.float32]:
        """What latents (n_samples, n_latents), sparse or dense, stand for: mean_ + scale_ (X components_ + b_dec)."""
        check_is_fitted(self)
        sae = self.model_
        latents: Any = check_array(
            X, accept_sparse="csr", dtype=np.float32, accept_large_sparse=True, estimator=self, input_name="X"
        )
        if latents.shape[1] != sae.n_latents:
            raise ValueError(
                f"X has {latents.shape[1]} latents, but {type(self).__name__} has a dictionary of {sae.n_latents}"
            )
        return sae.decode_csr(latents)

    def score(self, X: ArrayLike, y: object = None) -> float:  # noqa: ARG002
        """Share of the variance of X about its column means that the reconstruction explains, 1 - FVU.

        1 is perfect, 0 what the column means alone achieve. Read in blocks; codes are those that `transform` gives.
        """
        check_is_fitted(self)
        rows = _checked(self, X)
        try:
            spread = fit_standardisation(Rows(rows, np.arange(len(rows)))).scale
        except DataError as error:
            raise ValueError(f"{type(self).__name__}.score: {error}") from error
        squares = 0.0
        for block, latents in self._encoded_blocks(rows):
            errors = block.astype(np.float64) - self.inverse_transform(latents)
            squares += float(np.square(errors).sum())
        return 1 - squares / (rows.size * spread**2)

    def _encoded_blocks(self, rows: NDArray[np.number]) -> Iterator[tuple[NDArray[np.float32], csr_array]]:
        _check_choice(self, "codes", get_args(Codes))
        for block in _blocks(rows, _PURSUIT_ROWS if self.codes == "omp" else _BLOCK_ROWS):
            yield block, self.model_.encode_csr(block, self.codes, batch_size=len(block))

    @property
    def components_(self) -> NDArray[np.float32]:
        """Atoms (n_latents, n_features), `W_dec`: of length 1 when trained here."""
        return _array(self.model_.W_dec)

    @property
    def mean_(self) -> NDArray[np.float32]:
        """(n_features,), taken off each row; zero where centring is off."""
        return _array(self.model_.mean)

    @property
    def scale_(self) -> float:
        """What centred rows are divided by: the root mean square of their entries."""
        return float(self.model_.scale)

    @property
    def thresholds_(self) -> NDArray[np.float32]:
        """(n_latents,), above which a latent is active; only variants that select by threshold have this attribute."""
        if self.model_.rule != "threshold":
            raise AttributeError(f"this {type(self).__name__} selects the k largest latents, not by threshold")
        return _array(self.model_.thresholds)

    @property
    def _n_features_out(self) -> int:
        return self.model_.n_latents

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # pyrefly: ignore[missing-attribute]
        tags.transformer_tags.preserves_dtype = ["float32"]  # everything else becomes that
        return tags


class PretrainedSAE(_SparseCoder):
    """A sparse autoencoder that is there already, as a transformer; `fit` looks at the width of X only.

    Parameters
    ----------
    model : SparseAutoencoder
        From `models.sae.load_sae`, or a checkpoint of another library through `models.foreign`.
    codes : {"topk", "refit", "omp"}
        As of `TopKSAE`.
    """

    def __init__(self, model: SparseAutoencoder, *, codes: Codes = SAE.codes[0]) -> None:
        self.model = model
        self.codes = codes

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Check that rows of X are embeddings of the model's width."""
        _check_choice(self, "codes", get_args(Codes))
        if not isinstance(self.model, SparseAutoencoder):
            raise _invalid(self, "model", "a SparseAutoencoder")
        rows = _checked(self, X, n_fit=1)
        if rows.shape[1] != self.model.d_in:
            raise ValueError(f"X has {rows.shape[1]} features, but the model takes {self.model.d_in}")
        self.model_ = self.model
        return self


class _TrainedSAE(_SparseCoder):
    """Parameters that all variants have, and their training."""

    _variant: ClassVar[Variant] = "topk"
    _frozen: ClassVar[Frozen] = "none"

    n_features_in_: int
    n_iter_: int
    history_: list[Record]

    def __init__(
        self,
        n_latents: int = SAE.n_latents,
        k: int = SAE.k[0],
        *,
        epochs: int = SAE.epochs,
        batch_size: int | None = SAE.batch_size,
        learning_rate: float | None = SAE.learning_rate,
        center: bool = True,
        codes: Codes = SAE.codes[0],
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
    ) -> None:
        self.n_latents = n_latents
        self.k = k
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.center = center
        self.codes = codes
        self.random_state = random_state
        self.device = device

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Train on the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            In any units. Rows of a memory-mapped array, of any float or integer type, are read as they are needed.
        y
            Not used.

        Raises
        ------
        ValueError
            If a parameter is out of range, X is not a table of at least two finite rows, or all rows are the same.
        TrainingError
            If the loss is not finite, with the step.

        Warns
        -----
        LargeMeanWarning
            If centring is off and the mean is so large that latents will die.
        """
        return fit_many([self], X)[0]


class _RevivingSAE(_TrainedSAE):
    """Variants of which all is learnt, whose silent latents may get a loss of their own."""

    def __init__(
        self,
        n_latents: int = SAE.n_latents,
        k: int = SAE.k[0],
        *,
        epochs: int = SAE.epochs,
        batch_size: int | None = SAE.batch_size,
        learning_rate: float | None = SAE.learning_rate,
        auxk: float = SAE.auxk,
        center: bool = True,
        codes: Codes = SAE.codes[0],
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
    ) -> None:
        super().__init__(
            n_latents,
            k,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            center=center,
            codes=codes,
            random_state=random_state,
            device=device,
        )
        self.auxk = auxk


class _CalibratedSAE(_RevivingSAE):
    """Thresholds that are set on held-out rows after training, so that k latents are active on average."""

    def __init__(
        self,
        n_latents: int = SAE.n_latents,
        k: int = SAE.k[0],
        *,
        epochs: int = SAE.epochs,
        batch_size: int | None = SAE.batch_size,
        learning_rate: float | None = SAE.learning_rate,
        auxk: float = SAE.auxk,
        validation_fraction: float = VALIDATION_FRACTION,
        center: bool = True,
        codes: Codes = SAE.codes[0],
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
    ) -> None:
        super().__init__(
            n_latents,
            k,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            auxk=auxk,
            center=center,
            codes=codes,
            random_state=random_state,
            device=device,
        )
        self.validation_fraction = validation_fraction


class ReLUSAE(_CalibratedSAE):
    """Sparse autoencoder with an L1 penalty (Bricken et al. 2023, "Towards Monosemanticity"; arXiv:2309.08600).

    The penalty rises and falls by the recipe, so there is no weight to tune, and leaves about 2 k latents active; one
    threshold, set after training on rows that were held out, leaves k on average. L1 shrinks latents: expect less
    variance explained than with `TopKSAE` at the same k, and use `codes="refit"` for their size.

    Parameters
    ----------
    validation_fraction : float
        Share of the rows held out for that, in (0, 1); the same rows for every seed.
    n_latents, k, epochs, batch_size, learning_rate, auxk, center, codes, random_state, device
        As of `TopKSAE`, but k is an average.
    """

    _variant = "relu"


class TopKSAE(_RevivingSAE):
    """Sparse autoencoder whose k largest latents of each row are active (Gao et al. 2024, arXiv:2406.04093).

    Parameters
    ----------
    n_latents : int
        Size of the dictionary.
    k : int
        Active latents a row, at most `n_latents`. A row that has fewer positive ones has fewer.
    epochs : int
        Passes over the rows.
    batch_size : int, optional
        Rows a step; None: by the recipe, fewer where there are few rows.
    learning_rate : float, optional
        Peak; None: by the recipe, from variant, n_latents and rows a step.
    auxk : float
        Weight of the auxiliary loss of silent latents (Gao et al.: 1/32); 0: they are resampled only, which is faster.
    start : {"random", "centroids"}
        Where atoms start. Centroids of the data are the same for every seed: the control of `ArchetypalSAE`
        (arXiv:2606.02061), as what makes seeds agree is the start that they share. Needs n_latents rows.
    center : bool
        Take the column means off; without, latents die on data whose mean is large (arXiv:2605.31518).
    codes : {"topk", "refit", "omp"}
        How `transform` finds latents: as the encoder selects them; by least squares on that support; by orthogonal
        matching pursuit of k atoms. The later, the slower and the better the reconstruction.
    random_state : int, RandomState or None
        Of the start and of resampling. The order of rows is the same for all, so that `fit_many` can share it.
    device : str
        "auto", "cpu", "cuda", "cuda:1", "mps".

    Attributes
    ----------
    model_ : SparseAutoencoder
        `models.sae.save_sae(directory, estimator.model_)` writes it, `PretrainedSAE` takes what `load_sae` reads.
    components_, mean_, scale_
        Atoms (n_latents, n_features), column means, one scale: x_hat = mean_ + scale_ (latents components_ + b_dec).
    history_ : list of dict
        A record an epoch, see `training.sae.trainer.train_saes`; `pandas.DataFrame(history_)` makes a table.
    n_iter_, n_features_in_ : int
        Passes over the rows; width of X.
    feature_names_in_ : ndarray of str
        Where X had column names.
    """

    def __init__(
        self,
        n_latents: int = SAE.n_latents,
        k: int = SAE.k[0],
        *,
        epochs: int = SAE.epochs,
        batch_size: int | None = SAE.batch_size,
        learning_rate: float | None = SAE.learning_rate,
        auxk: float = SAE.auxk,
        start: Start = SAE.start,
        center: bool = True,
        codes: Codes = SAE.codes[0],
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
    ) -> None:
        super().__init__(
            n_latents,
            k,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            auxk=auxk,
            center=center,
            codes=codes,
            random_state=random_state,
            device=device,
        )
        self.start = start


class BatchTopKSAE(_CalibratedSAE):
    """Sparse autoencoder with k active latents a row on average over a batch (BatchTopK, arXiv:2412.06410).

    After training a latent is active above one threshold, set on rows that were held out so that k are on average.

    Parameters
    ----------
    validation_fraction : float
        Share of the rows held out for that, in (0, 1); the same rows for every seed.
    n_latents, k, epochs, batch_size, learning_rate, auxk, center, codes, random_state, device
        As of `TopKSAE`, but k is an average.
    """

    _variant = "batch_topk"


class MatryoshkaSAE(_CalibratedSAE):
    """Sparse autoencoder whose dictionary is nested: each prefix of whole groups reconstructs (arXiv:2503.17547).

    Parameters
    ----------
    group_sizes : "euclid" or sequence of int
        Sizes of the groups, summing to n_latents. "euclid": 1/32, 1/32, 1/16, 1/8, 1/4 and 1/2 of it (Wu & Walmsley
        2025, arXiv:2510.23749).
    selection : {"topk", "batch_topk"}
        Active latents: k of each row, or k a row on average over a batch, and by a threshold after training.
    validation_fraction : float
        Share of the rows held out for that threshold, in (0, 1); none are with selection="topk".
    n_latents, k, epochs, batch_size, learning_rate, auxk, center, codes, random_state, device
        As of `TopKSAE`.
    """

    _variant = "matryoshka"

    def __init__(
        self,
        n_latents: int = SAE.n_latents,
        k: int = SAE.k[0],
        *,
        group_sizes: Literal["euclid"] | Sequence[int] = "euclid",
        selection: Selection = SAE.selection,
        epochs: int = SAE.epochs,
        batch_size: int | None = SAE.batch_size,
        learning_rate: float | None = SAE.learning_rate,
        auxk: float = SAE.auxk,
        validation_fraction: float = VALIDATION_FRACTION,
        center: bool = True,
        codes: Codes = SAE.codes[0],
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
    ) -> None:
        super().__init__(
            n_latents,
            k,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            auxk=auxk,
            validation_fraction=validation_fraction,
            center=center,
            codes=codes,
            random_state=random_state,
            device=device,
        )
        self.group_sizes = group_sizes
        self.selection = selection


class JumpReLUSAE(_CalibratedSAE):
    """Sparse autoencoder with a learnt threshold for each latent (Rajamanoharan et al. 2024, arXiv:2407.14435).

    The penalty is on the distance of the mean number of active latents from `k`, so there is no weight to tune. After
    training all thresholds are multiplied by one factor, so that k are active on average on rows that were held out.

    Parameters
    ----------
    validation_fraction : float
        Share of the rows held out for that, in (0, 1); the same rows for every seed.
    n_latents, k, epochs, batch_size, learning_rate, auxk, center, codes, random_state, device
        As of `TopKSAE`, but k is an average.
    """

    _variant = "jumprelu"


class ArchetypalSAE(_RevivingSAE):
    """Top-k sparse autoencoder whose atoms stay near the convex hull of data (RA-SAE, arXiv:2502.12892).

    Atoms are directions of convex combinations of n_latents k-means centroids, each shifted a little. Compare it with
    `TopKSAE(start="centroids")`, which starts at the same atoms and moves them freely: much of the stability over
    seeds is the start's (arXiv:2606.02061).

    Parameters
    ----------
    n_latents : int
        Size of the dictionary, at most the number of rows.
    auxk : float
        Weight of the auxiliary loss of silent latents, which are not resampled here. It may help: of 1,024 on DINOv2
        embeddings of 4,712 galaxies 58 % (k = 8) and 30 % (k = 32) ended silent with 0, 19 % and 20 % with 1, at the
        same FVU within 3 % (one seed).
    k, epochs, batch_size, learning_rate, center, codes, random_state, device
        As of `TopKSAE`.
    """

    _variant = "archetypal"


class FrozenDecoderSAE(_TrainedSAE):
    """Control: a `TopKSAE` whose atoms stay random, only the encoder learns (arXiv:2602.14111).

    Parameters
    ----------
    n_latents, k, epochs, batch_size, learning_rate, center, codes, random_state, device
        As of `TopKSAE`.
    """

    _frozen = "decoder"


class FrozenEncoderSAE(_TrainedSAE):
    """Control: a `TopKSAE` whose encoder stays random, only the atoms learn (arXiv:2602.14111).

    Parameters
    ----------
    n_latents, k, epochs, batch_size, learning_rate, center, codes, random_state, device
        As of `TopKSAE`.
    """

    _frozen = "encoder"


class RandomDictionarySAE(_TrainedSAE):
    """Control: a `TopKSAE` with one random dictionary as encoder and decoder; only b_dec learns (arXiv:2602.14111).

    Parameters
    ----------
    n_latents, k, epochs, batch_size, learning_rate, center, codes, random_state, device
        As of `TopKSAE`.
    """

    _frozen = "both"


_Trained = TypeVar("_Trained", bound=_TrainedSAE)


def fit_many(estimators: Sequence[_Trained], X: ArrayLike) -> list[_Trained]:
    """Fit several estimators, of any variants, sizes and seeds, in as few passes over X as possible; returns them.

    Those that agree in `epochs`, `batch_size`, `center`, `device` and held-out rows see the same batches, read once.
    Each ends as `fit` alone would leave it; on the CPU bit for bit. Errors are those of `fit`.
    """
    together: dict[tuple[Any, ...], list[tuple[_Trained, SAESettings]]] = {}
    rows: NDArray[np.number] = np.empty((0, 0))
    for estimator in estimators:
        settings = _settings(estimator)
        held_out = float(vars(estimator)["validation_fraction"]) if settings.is_calibrated else 0.0
        batch_size = None if estimator.batch_size is None else int(estimator.batch_size)
        key = (int(estimator.epochs), batch_size, bool(estimator.center), _device(estimator), held_out)
        together.setdefault(key, []).append((estimator, settings))
        rows = _checked(estimator, X, n_fit=3 if held_out else 2)
    for (epochs, batch_size, center, device, held_out), group in together.items():
        train, valid = _split(len(rows), held_out)
        try:
            saes, history = train_saes(
                Rows(rows, train),
                [settings for _, settings in group],
                epochs=epochs,
                batch_size=batch_size,
                standardisation=fit_standardisation(Rows(rows, train), center=center),
                valid=Rows(rows, valid),
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
    """Positions of rows to train on, and of those held out: the same for every seed."""
    if not held_out:
        return np.arange(n_rows), np.arange(0)
    n_valid = min(max(1, round(held_out * n_rows)), n_rows - 2)
    order = np.random.default_rng(0).permutation(n_rows)
    return np.sort(order[n_valid:]), np.sort(order[:n_valid])


# --- rows -------------------------------------------------------------------------------------------------------------


def _checked(estimator: BaseEstimator, X: ArrayLike, *, n_fit: int = 0) -> NDArray[np.number]:
    """X as scikit-learn wants it, but neither copied nor read where it is a numeric array: a block at a time later.

    In `fit`, which needs `n_fit` rows, its width and names are remembered, else compared.
    """
    checked = validate_data(
        estimator, X, reset=n_fit > 0, dtype="numeric", ensure_all_finite=False, ensure_min_samples=max(1, n_fit)
    )
    return cast("NDArray[np.number]", checked)


def _blocks(rows: NDArray[np.number], n_block: int) -> Iterator[NDArray[np.float32]]:
    """Consecutive rows as float32.

    Raises
    ------
    ValueError
        If a value is not finite as float32.
    """
    chosen = np.arange(len(rows))
    for start in range(0, len(rows), n_block):
        block = Rows(rows, chosen).take(chosen[start : start + n_block])
        is_bad = ~np.isfinite(block).all(axis=1)
        if is_bad.any():
            raise ValueError(
                f"Input X contains NaN, inf or values too large for float32: row {start + is_bad.argmax()}"
            )
        yield block


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()


# --- parameters -------------------------------------------------------------------------------------------------------


def _settings(estimator: _TrainedSAE) -> SAESettings:
    """What the trainer is told, from parameters that are checked here: scikit-learn wants no check before `fit`."""
    given = vars(estimator)
    for name in ("n_latents", "k", "epochs"):
        _check_number(estimator, name, Integral, 1)
    if estimator.batch_size is not None:
        _check_number(estimator, "batch_size", Integral, 1)
    if estimator.k > estimator.n_latents:
        raise _invalid(estimator, "k", f"an int in the range [1, n_latents={estimator.n_latents}]")
    if estimator.learning_rate is not None:
        _check_number(estimator, "learning_rate", Real, 0, is_open=True)
    if not isinstance(estimator.center, bool | np.bool_):
        raise _invalid(estimator, "center", "a bool")
    _check_choice(estimator, "codes", get_args(Codes))
    own: dict[str, Any] = {}
    if "auxk" in given:
        _check_number(estimator, "auxk", Real, 0)
        own["auxk"] = float(given["auxk"])
    if "start" in given:
        _check_choice(estimator, "start", get_args(Start))
        own["start"] = given["start"]
    elif estimator._variant == "archetypal":
        own["start"] = "centroids"
    if "selection" in given:
        _check_choice(estimator, "selection", get_args(Selection))
        own |= {"selection": given["selection"], "group_sizes": _groups(estimator, given["group_sizes"])}
    if "validation_fraction" in given:
        _check_number(estimator, "validation_fraction", Real, 0, 1, is_open=True)
    return SAESettings(
        variant=estimator._variant,
        n_latents=int(estimator.n_latents),
        k=int(estimator.k),
        seed=_seed(estimator),
        learning_rate=None if estimator.learning_rate is None else float(estimator.learning_rate),
        frozen=estimator._frozen,
        **own,
    )


def _seed(estimator: _TrainedSAE) -> int:
    given = estimator.random_state
    try:
        random = check_random_state(given)
    except ValueError as error:
        raise _invalid(estimator, "random_state", "an int in the range [0, 2^32), a RandomState or None") from error
    return int(given) if isinstance(given, Integral) else int(random.randint(2**31))


def _groups(estimator: _TrainedSAE, sizes: str | Sequence[int]) -> tuple[int, ...]:
    n_latents = int(estimator.n_latents)
    if isinstance(sizes, str):
        if sizes != "euclid":
            raise _invalid(estimator, "group_sizes", "'euclid' or a sequence of int")
        if n_latents % 32:
            raise _invalid(estimator, "n_latents", "divisible by 32 with group_sizes='euclid'")
        return euclid_groups(n_latents)
    groups = tuple(sizes)
    if not all(isinstance(size, Integral) and size >= 1 for size in groups) or sum(groups) != n_latents:
        raise _invalid(estimator, "group_sizes", f"'euclid' or positive ints that sum to n_latents={n_latents}")
    return tuple(map(int, groups))


def _invalid(estimator: BaseEstimator, name: str, expected: str) -> ValueError:
    found = getattr(estimator, name)
    return ValueError(
        f"The {name!r} parameter of {type(estimator).__name__} must be {expected}. Got {found!r} instead."
    )


def _check_number(
    estimator: BaseEstimator,
    name: str,
    kind: type[Integral] | type[Real],
    low: float,
    high: float = math.inf,
    *,
    is_open: bool = False,
) -> None:
    value: Any = getattr(estimator, name)
    is_number = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(cast("float", value))
    if not is_number or not (low < float(value) < high if is_open else low <= float(value) <= high):
        noun, bracket = "an int" if kind is Integral else "a float", "(" if is_open else "["
        raise _invalid(estimator, name, f"{noun} in the range {bracket}{low}, {high})")


def _check_choice(estimator: BaseEstimator, name: str, choices: Sequence[str]) -> None:
    if getattr(estimator, name) not in choices:
        raise _invalid(estimator, name, f"one of {', '.join(map(repr, choices))}")


def _device(estimator: _TrainedSAE) -> str:
    try:
        return resolve_device(estimator.device)
    except SfnetlabError as error:
        there = "'auto', or a device of this machine: 'cpu', 'cuda', 'cuda:N' or 'mps'"
        raise _invalid(estimator, "device", there) from error
