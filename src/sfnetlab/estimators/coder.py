"""What every sparse autoencoder estimator does once it is fitted: encode, decode, score and show its weights."""

from collections.abc import Iterator
from typing import Any, cast, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, vstack
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data  # pyrefly: ignore[missing-module-attribute]

from sfnetlab.errors import DataError
from sfnetlab.estimators.checks import check_choice
from sfnetlab.metrics.reconstruction import robust_fvus
from sfnetlab.models.sae import SparseAutoencoder
from sfnetlab.settings import Codes
from sfnetlab.training.sae.rows import Rows
from sfnetlab.training.sae.trainer import fit_standardisation

_BLOCK_ROWS = 4096
_PURSUIT_ROWS = 32768
"""Rows a block with codes="omp", which multiplies all atoms with each other again for each block."""


class SparseCoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base of all estimators; `fit` of a subclass sets `model_`."""

    codes: Codes
    model_: SparseAutoencoder

    def transform(self, X: ArrayLike) -> csr_array:
        """Return the latents of each row. They do not depend on the other rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings in the units of those that the estimator was fitted on. X is read in blocks, so that a
            memory-mapped array of any float or integer type may be larger than the memory.

        Returns
        -------
        csr_array of shape (n_samples, n_latents)
            float32, in units of `scale_`. Latents are positive with `codes="topk"`; the least squares of "refit" and
            "omp" may make some negative. `set_output` cannot make a DataFrame of a sparse array.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If X has another width or other column names than in `fit`, or a value is not finite as float32.
        """
        check_is_fitted(self)
        latents: Any = vstack([latents for _, latents in self._encoded_blocks(checked_rows(self, X))], format="csr")
        if latents.nnz < 2**31:  # much of scikit-learn takes no larger indices
            latents.indices, latents.indptr = latents.indices.astype(np.int32), latents.indptr.astype(np.int32)
        return latents

    def inverse_transform(self, X: ArrayLike | csr_array) -> NDArray[np.float32]:
        """Return the rows that latents stand for: mean_ + scale_ (X components_ + b_dec).

        Parameters
        ----------
        X : array-like or sparse array of shape (n_samples, n_latents)
            Latents as `transform` returns them.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            In the units of the embeddings.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            If X has another number of latents than the dictionary, or a value is not finite.
        """
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
        """Return 1 - FVU: the share of the variance of X about its column means that the reconstruction explains.

        1 is a perfect reconstruction, 0 is what the column means alone achieve. The latents are those that `transform`
        returns; X is read in blocks, as there.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        ValueError
            As `transform`, and if all rows of X are the same.
        """
        check_is_fitted(self)
        rows = checked_rows(self, X)
        try:
            spread = float(fit_standardisation(Rows(rows, np.arange(len(rows)))).scale)
        except DataError as error:
            raise ValueError(f"{type(self).__name__}.score: {error}") from error
        squares = 0.0
        for block, latents in self._encoded_blocks(rows):
            errors = block.astype(np.float64) - self.inverse_transform(latents)
            squares += float(np.square(errors).sum())
        return 1 - squares / (rows.size * spread**2)

    def fvus(self, X: ArrayLike) -> dict[str, float]:
        """Return the fraction of variance unexplained in three ways, which differ where a few rows or columns rule.

        `fvu` is 1 - `score(X)`; `fvu_by_column` and `fvu_median_row` are those of `metrics.reconstruction.robust_fvus`:
        every column counts alike, and the median row counts. X and its reconstruction are held in memory; errors are
        those of `score`.
        """
        fvu = 1 - self.score(X)
        rows = np.concatenate(list(_blocks(checked_rows(self, X), _BLOCK_ROWS)))
        return {"fvu": fvu} | robust_fvus(rows, self.model_.reconstruct(rows, self.codes))

    def _encoded_blocks(self, rows: NDArray[np.number]) -> Iterator[tuple[NDArray[np.float32], csr_array]]:
        check_choice(self, "codes", get_args(Codes))
        for block in _blocks(rows, _PURSUIT_ROWS if self.codes == "omp" else _BLOCK_ROWS):
            yield block, self.model_.encode_csr(block, self.codes, batch_size=len(block))

    @property
    def components_(self) -> NDArray[np.float32]:
        """The atoms (n_latents, n_features), which are `W_dec`; they have length 1 when they were trained here."""
        return _array(self.model_.W_dec)

    @property
    def mean_(self) -> NDArray[np.float32]:
        """The vector (n_features,) that is subtracted from each row; zero if rows are not centred."""
        return _array(self.model_.mean)

    @property
    def scale_(self) -> float | NDArray[np.float32]:
        """What centred rows are divided by: the root mean square of their entries, or of each column's.

        One number, or an array (n_features,).
        """
        return _array(self.model_.scale) if self.model_.scale.ndim else float(self.model_.scale)

    @property
    def thresholds_(self) -> NDArray[np.float32]:
        """The values (n_latents,) above which each latent is active.

        Raises
        ------
        AttributeError
            If the model selects the k largest latents instead.
        """
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


def checked_rows(estimator: BaseEstimator, X: ArrayLike, *, n_fit: int = 0) -> NDArray[np.number]:
    """Return X as an array that scikit-learn accepts. A numeric array is neither copied nor read.

    Values are checked later, a block at a time.

    Parameters
    ----------
    estimator
        In `fit`, it remembers the width and the column names of X; later, X is compared with these.
    n_fit
        The number of rows that `fit` needs; 0 outside `fit`.

    Raises
    ------
    ValueError
        If X is not a table of numbers, has too few rows, or has another width or other names than in `fit`.
    """
    checked = validate_data(
        estimator, X, reset=n_fit > 0, dtype="numeric", ensure_all_finite=False, ensure_min_samples=max(1, n_fit)
    )
    return cast("NDArray[np.number]", checked)


def _blocks(rows: NDArray[np.number], n_block: int) -> Iterator[NDArray[np.float32]]:
    """Yield consecutive rows as float32; raise ValueError at the first row with a value that is not finite then."""
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
