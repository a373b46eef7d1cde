"""Sparse autoencoder with an exact top-k for each row, plain or Matryoshka. Its training stands in training/sae.py."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from sfnetlab.models.files import load_state, read_arguments, write_model

KIND = "sae"


class Encoded(NamedTuple):
    """The active latents of each row."""

    values: Tensor
    """(n_samples, k), largest first; 0 or more."""
    indices: Tensor
    """(n_samples, k), which latent each value belongs to."""


class SparseAutoencoder(nn.Module):
    """x to at most k active latents, and back through their atoms (Gao et al. 2024, arXiv:2406.04093).

    With z = (x - mean) / scale, the latents are the k largest of ReLU(z W_enc + b_enc), and x_hat = mean + scale
    (latents W_dec + b_dec). Centring and scale are part of the model, so input and output are in the embedding's own
    units; as z is centred, b_dec is not subtracted again before the encoder. Each row is encoded on its own.

    Parameters
    ----------
    d_in, n_latents, k
        Sizes of the embedding, of the dictionary, and of what is active in a row.
    group_sizes
        Matryoshka (Bussmann et al. 2025, arXiv:2503.17547): the dictionary is nested, and each prefix of whole groups
        is trained to reconstruct on its own. Empty: one group.

    Attributes
    ----------
    W_enc (d_in, n_latents), b_enc (n_latents,), W_dec (n_latents, d_in) with rows of length 1, b_dec (d_in,)
        Parameters; zero until they are trained or loaded.
    mean (d_in,), scale ()
        Buffers.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, d_in: int, n_latents: int, k: int, group_sizes: Sequence[int] = ()) -> None:
        super().__init__()
        if not 1 <= k <= n_latents:
            raise ValueError(f"k must lie in [1, n_latents={n_latents}], got {k}")
        if group_sizes and (min(group_sizes) < 1 or sum(group_sizes) != n_latents):
            raise ValueError(f"group_sizes must be positive and sum to n_latents={n_latents}, got {list(group_sizes)}")
        self.k = k
        self.group_sizes = tuple(group_sizes)
        self.W_enc = nn.Parameter(torch.zeros(d_in, n_latents))
        self.b_enc = nn.Parameter(torch.zeros(n_latents))
        self.W_dec = nn.Parameter(torch.zeros(n_latents, d_in))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_buffer("mean", torch.zeros(d_in))
        self.register_buffer("scale", torch.ones(()))

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    @property
    def n_latents(self) -> int:
        return self.W_dec.shape[0]

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Sizes of the nested dictionaries; the last is n_latents, alone where there are no groups."""
        return tuple(accumulate(self.group_sizes)) or (self.n_latents,)

    def encode(self, x: Tensor) -> Encoded:
        """Active latents of embeddings (n_samples, d_in)."""
        return self.encode_standardised((x - self.mean) / self.scale, self.k)

    def decode(self, encoded: Encoded) -> Tensor:
        """x_hat (n_samples, d_in) from active latents."""
        return self.decode_standardised(encoded) * self.scale + self.mean

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore[missing-override-decorator]
        """x_hat (n_samples, d_in)."""
        return self.decode(self.encode(x))

    def decode_prefixes(self, encoded: Encoded) -> Tensor:
        """x_hat of each nested dictionary, (n_samples, len(prefixes), d_in); the last is that of `decode`."""
        return self.decode_prefixes_standardised(encoded) * self.scale + self.mean

    def encode_standardised(self, z: Tensor, k: int) -> Encoded:
        """As `encode`, of centred and scaled rows and with another k: what training works with."""
        latents = torch.relu(torch.addmm(self.b_enc, z, self.W_enc))
        return Encoded(*latents.topk(k, dim=1))

    def decode_standardised(self, encoded: Encoded) -> Tensor:
        """As `decode`, to centred and scaled rows."""
        # Reads the k atoms of a row instead of all n_latents: a fifth of the arithmetic of a dense decoder.
        sums = embedding_bag(encoded.indices, self.W_dec, per_sample_weights=encoded.values, mode="sum")
        return sums + self.b_dec

    def decode_prefixes_standardised(self, encoded: Encoded) -> Tensor:
        """As `decode_prefixes`, to centred and scaled rows."""
        n, k = encoded.indices.shape
        indices, order = encoded.indices.sort(dim=1)
        values = encoded.values.gather(1, order)
        # In order of index, a row's latents of one group are neighbours: one bag for each row and group, then sums.
        first_latents = torch.tensor((0, *self.prefixes[:-1]), device=indices.device).expand(n, -1).contiguous()
        starts = torch.searchsorted(indices, first_latents) + k * torch.arange(n, device=indices.device)[:, None]
        groups = embedding_bag(
            indices.flatten(), self.W_dec, starts.flatten(), per_sample_weights=values.flatten(), mode="sum"
        )
        return groups.view(n, len(self.prefixes), -1).cumsum(dim=1) + self.b_dec

    @torch.inference_mode()
    def encode_csr(self, x: NDArray[np.floating], batch_size: int = 4096) -> csr_array:
        """Latents of embeddings, float32 CSR of shape (n_samples, n_latents); what is zero is not stored.

        Raises
        ------
        ValueError
            If the width is not d_in, or a value is not finite.
        """
        data: list[NDArray[np.float32]] = []
        columns: list[NDArray[np.int32]] = []
        row_ends: list[NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]
        for batch in self._batches(x, batch_size):
            values, indices = (part.cpu().numpy() for part in self.encode(batch))
            is_active = values > 0
            data.append(values[is_active])
            columns.append(indices[is_active].astype(np.int32))
            row_ends.append(row_ends[-1][-1] + is_active.sum(axis=1).cumsum())
        flat = (
            np.concatenate(parts) if parts else np.zeros(0, dtype) for parts, dtype in ((data, "f4"), (columns, "i4"))
        )
        codes = csr_array((*flat, np.concatenate(row_ends)), shape=(len(x), self.n_latents))
        codes.sort_indices()
        return codes

    @torch.inference_mode()
    def reconstruct(self, x: NDArray[np.floating], batch_size: int = 4096) -> NDArray[np.float32]:
        """x_hat (n_samples, d_in) of embeddings; errors as of `encode_csr`."""
        x_hat = np.empty(x.shape, dtype=np.float32)
        start = 0
        for batch in self._batches(x, batch_size):
            x_hat[start : start + len(batch)] = self(batch).cpu().numpy()
            start += len(batch)
        return x_hat

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
    arguments = {"d_in": sae.d_in, "n_latents": sae.n_latents, "k": sae.k, "group_sizes": list(sae.group_sizes)}
    write_model(directory, KIND, sae, arguments)


def load_sae(directory: Path) -> SparseAutoencoder:
    """The sparse autoencoder that `save_sae` wrote, on the CPU.

    Raises
    ------
    ArtifactError
        If a file is missing or damaged, or does not describe a sparse autoencoder in a known format.
    """
    sae = SparseAutoencoder(**read_arguments(directory, KIND))
    load_state(directory, sae)
    return sae
