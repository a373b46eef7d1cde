"""The sparse autoencoder as it is used once it is trained, in every variant. Its training stands in training/sae/."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from sfnetlab.metrics.tables import FeatureMatrix, checked_table, stacked
from sfnetlab.models.files import load_state, read_arguments, write_model
from sfnetlab.settings import Codes

KIND = "sae"


class Encoded(NamedTuple):
    """The active latents of each row."""

    values: Tensor
    """Values (n_samples, m), 0 or more, largest first; zeros fill up a row that has fewer than m active latents."""
    indices: Tensor
    """Latents (n_samples, m) that the values belong to."""


Rule = Literal["topk", "threshold"]


class SparseAutoencoder(nn.Module):
    """A network from embeddings x to few active latents, and back to x_hat through the latents' atoms.

    With z = (x - mean) / scale, of one scale or of one a column, and pre = z W_enc + b_enc, the latents are pre where
    it is selected and positive, else 0, and x_hat = mean + scale (latents W_dec + b_dec). Centring and scale are part
    of the model, so input and output are in the embedding's own units. As z is centred, b_dec is not subtracted again
    before the encoder. Each row is encoded on its own, also where the training looked at whole batches.

    Parameters
    ----------
    d_in, n_latents
        Sizes of the embedding and of the dictionary.
    k
        Active latents a row: at most k with the rule "topk"; with "threshold" the mean that training aimed at, or None.
    group_sizes
        Matryoshka (Bussmann et al. 2025, arXiv:2503.17547): the dictionary is nested, and each prefix of whole groups
        is trained to reconstruct on its own. Empty: one group.
    rule
        "topk": the k largest of a row are selected (Gao et al. 2024, arXiv:2406.04093). "threshold": those above
        `thresholds` are (JumpReLU, Rajamanoharan et al. 2024, arXiv:2407.14435). Thresholds of 0 make it a plain ReLU;
        one value for all latents makes it a trained BatchTopK (Bussmann et al. 2024, arXiv:2412.06410).
    by_column
        Whether each column of the embedding has a scale of its own.

    Attributes
    ----------
    W_enc (d_in, n_latents), b_enc (n_latents,), W_dec (n_latents, d_in), b_dec (d_in,)
        Parameters; zero until they are trained or loaded. Rows of W_dec have length 1 when trained here.
    mean (d_in,), scale () or by column (d_in,), thresholds (n_latents,)
        Buffers; 0, 1 and 0 until they are set.

    Raises
    ------
    ValueError
        If k is not in [1, n_latents] or is missing for "topk", or group sizes are not positive with sum n_latents.
    """

    mean: Tensor
    scale: Tensor
    thresholds: Tensor

    def __init__(
        self,
        d_in: int,
        n_latents: int,
        k: int | None,
        group_sizes: Sequence[int] = (),
        rule: Rule = "topk",
        by_column: bool = False,
    ) -> None:
        super().__init__()
        if (k is None and rule == "topk") or (k is not None and not 1 <= k <= n_latents):
            raise ValueError(f"k must lie in [1, n_latents={n_latents}], got {k}")
        if group_sizes and (min(group_sizes) < 1 or sum(group_sizes) != n_latents):
            raise ValueError(f"group_sizes must be positive and sum to n_latents={n_latents}, got {list(group_sizes)}")
        self.k = k
        self.rule: Rule = rule
        self.group_sizes = tuple(group_sizes)
        self.W_enc = nn.Parameter(torch.zeros(d_in, n_latents))
        self.b_enc = nn.Parameter(torch.zeros(n_latents))
        self.W_dec = nn.Parameter(torch.zeros(n_latents, d_in))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_buffer("mean", torch.zeros(d_in))
        self.register_buffer("scale", torch.ones(d_in if by_column else ()))
        self.register_buffer("thresholds", torch.zeros(n_latents))

    @property
    def d_in(self) -> int:
        """Width of the embedding."""
        return self.W_dec.shape[1]

    @property
    def n_latents(self) -> int:
        """Size of the dictionary."""
        return self.W_dec.shape[0]

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Sizes of the nested dictionaries; the last is n_latents, and the only one where there are no groups."""
        return tuple(accumulate(self.group_sizes)) or (self.n_latents,)

    def standardise(self, x: Tensor) -> Tensor:
        """Return centred and scaled embeddings, z (n_samples, d_in)."""
        return (x - self.mean) / self.scale

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return the value of each latent before any is selected, (n_samples, n_latents)."""
        return torch.addmm(self.b_enc, self.standardise(x), self.W_enc)

    def encode(self, x: Tensor) -> Encoded:
        """Return the active latents of embeddings (n_samples, d_in)."""
        pre = self.pre_activations(x)
        if self.rule == "topk":
            assert self.k is not None
            return Encoded(*torch.relu(pre).topk(self.k, dim=1))
        latents = torch.where(pre > self.thresholds, torch.relu(pre), 0.0)
        widest = int((latents > 0).sum(dim=1).max()) if len(latents) else 0
        return Encoded(*latents.topk(max(1, widest), dim=1))

    def decode(self, encoded: Encoded) -> Tensor:
        """Return x_hat (n_samples, d_in) of active latents."""
        # Reads the atoms of a row's active latents instead of all: a fifth of the arithmetic of a dense decoder.
        sums = embedding_bag(encoded.indices, self.W_dec, per_sample_weights=encoded.values, mode="sum")
        return (sums + self.b_dec) * self.scale + self.mean

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore[missing-override-decorator]
        """Return x_hat (n_samples, d_in) of embeddings."""
        return self.decode(self.encode(x))

    def decode_prefixes(self, encoded: Encoded) -> Tensor:
        """Return x_hat of each nested dictionary, (n_samples, len(prefixes), d_in); the last is that of `decode`."""
        return torch.stack(
            [
                self.decode(Encoded(torch.where(encoded.indices < prefix, encoded.values, 0.0), encoded.indices))
                for prefix in self.prefixes
            ],
            dim=1,
        )

    def encode_csr(self, x: NDArray[np.floating], codes: Codes = "topk", batch_size: int = 4096) -> csr_array:
        """Return the latents of embeddings as float32 CSR, (n_samples, n_latents); zeros are not stored.

        Parameters
        ----------
        codes
            How latents are found. "topk": the encoder selects them. "refit": least squares of those that the encoder
            selects. "omp": at most k by orthogonal matching pursuit, without the encoder. The latter two may have
            negative values (codes.py).

        Raises
        ------
        ValueError
            If the width is not d_in, a value is not finite, or matching pursuit has no k.
        """
        return stacked(self.encode_blocks(x, codes, batch_size), len(x), self.n_latents)

    def encode_blocks(
        self, x: NDArray[np.floating], codes: Codes = "topk", batch_size: int = 4096
    ) -> Iterator[csr_array]:
        """Yield what `encode_csr` returns, `batch_size` rows at a time, for embeddings of any number of rows."""
        for batch in self._batches(x, batch_size):
            with torch.inference_mode():
                values, indices = self._codes(batch, codes)
            row_ends = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
            columns = indices.ravel().astype(np.int32)
            part = csr_array((values.ravel(), columns, row_ends), shape=(len(batch), self.n_latents))
            part.eliminate_zeros()
            part.sort_indices()
            yield part

    def _codes(self, batch: Tensor, codes: Codes) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if codes == "topk":
            values, indices = (part.cpu().numpy() for part in self.encode(batch))
            return values, indices
        from sfnetlab.models.codes import orthogonal_matching_pursuit, refit

        z = (self.standardise(batch) - self.b_dec).cpu().numpy()
        atoms = self.W_dec.detach().cpu().numpy()
        if codes == "refit":
            values, indices = (part.cpu().numpy() for part in self.encode(batch))
            return refit(z, atoms, values, indices), indices
        if self.k is None:
            raise ValueError("matching pursuit needs to know how many latents to take: this SAE has no k")
        return orthogonal_matching_pursuit(z, atoms, self.k)

    def decode_csr(self, latents: FeatureMatrix) -> NDArray[np.float32]:
        """Return x_hat (n_samples, d_in) of latents that `encode_csr` gave, with any codes.

        Latents (n_samples, m) of a prefix, with m up to n_latents, are decoded with the first m atoms.

        Raises
        ------
        ValueError
            If there are more than n_latents columns, or a value is not finite.
        """
        table = checked_table(latents, "latents")
        if table.shape[1] > self.n_latents:
            raise ValueError(f"expected latents (n_samples, n_latents={self.n_latents}), got {table.shape}")
        W_dec, b_dec, mean, scale = (part.numpy(force=True) for part in (self.W_dec, self.b_dec, self.mean, self.scale))
        return ((table @ W_dec[: table.shape[1]] + b_dec) * scale + mean).astype(np.float32)

    def reconstruct(self, x: NDArray[np.floating], codes: Codes = "topk") -> NDArray[np.float32]:
        """Return x_hat (n_samples, d_in) of embeddings; errors are those of `encode_csr`."""
        return self.decode_csr(self.encode_csr(x, codes))

    def _batches(self, x: NDArray[np.floating], batch_size: int) -> Iterator[Tensor]:
        if x.ndim != 2 or x.shape[1] != self.d_in:
            raise ValueError(f"expected embeddings (n_samples, d_in={self.d_in}), got {x.shape}")
        for start in range(0, len(x), batch_size):
            # A copy: torch warns about memory-mapped arrays, which are read-only.
            batch = np.array(x[start : start + batch_size], dtype=np.float32)
            if not np.isfinite(batch).all():
                row = start + int(np.flatnonzero(~np.isfinite(batch).all(axis=1))[0])
                raise ValueError(f"embeddings must be finite, row {row} is not")
            yield torch.from_numpy(batch).to(self.mean.device)


def save_sae(directory: Path, sae: SparseAutoencoder) -> None:
    """Write `model.safetensors` and `model.json` into a directory."""
    arguments = {
        "d_in": sae.d_in,
        "n_latents": sae.n_latents,
        "k": sae.k,
        "group_sizes": list(sae.group_sizes),
        "rule": sae.rule,
        "by_column": sae.scale.ndim > 0,
    }
    write_model(directory, KIND, sae, arguments)


def load_sae(directory: Path) -> SparseAutoencoder:
    """Return the sparse autoencoder that `save_sae` wrote, on the CPU.

    Raises
    ------
    ArtifactError
        If a file is missing or damaged, or does not describe a sparse autoencoder in a known format.
    """
    sae = SparseAutoencoder(**read_arguments(directory, KIND))
    load_state(directory, sae)
    return sae
