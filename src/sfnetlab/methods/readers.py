"""The readers of embeddings: see `contract.Reader`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from sfnetlab.models.sae import SparseAutoencoder


@dataclass(frozen=True)
class IdentityReader:
    """Features are the dimensions of the embedding themselves."""

    n_features: int

    @property
    def prefixes(self) -> tuple[int, ...]:
        """All features, for they are no dictionary."""
        return (self.n_features,)

    @property
    def directions(self) -> "NDArray[np.floating]":
        """The axes."""
        import numpy as np

        return np.eye(self.n_features, dtype=np.float32)

    @property
    def reading(self) -> "tuple[NDArray[np.floating], NDArray[np.floating]]":
        """The axes, without an offset."""
        import numpy as np

        return self.directions, np.zeros(self.n_features)

    @property
    def writing(self) -> None:
        """None: there is nothing that they would make again."""

    def encode(self, x: "NDArray[np.floating]") -> "NDArray[np.floating]":
        """Return the embedding."""
        return x

    def decode(self, features: "NDArray[np.floating] | csr_array") -> None:
        """Return None: there is nothing that they would make again."""


@dataclass(frozen=True)
class AffineReader:
    """Features are projections of the centred embedding.

    Attributes
    ----------
    mean : (d_in,)
    rotations : (d_in, n_features)
        Features are (x - mean) @ rotations.
    components : (n_features, d_in) or None
        Embeddings are features @ components + mean, if they can be made again.
    """

    mean: "NDArray[np.float64]"
    rotations: "NDArray[np.float64]"
    components: "NDArray[np.float64] | None"

    @property
    def prefixes(self) -> tuple[int, ...]:
        """All features."""
        return (self.rotations.shape[1],)

    @property
    def directions(self) -> "NDArray[np.floating] | None":
        """The components."""
        return self.components

    @property
    def reading(self) -> "tuple[NDArray[np.floating], NDArray[np.floating]]":
        """The rotations, and what the mean gives with them."""
        return self.rotations.T, -self.rotations.T @ self.mean

    @property
    def writing(self) -> "tuple[NDArray[np.floating], NDArray[np.floating]] | None":
        """The components and the mean."""
        return None if self.components is None else (self.components, self.mean)

    def encode(self, x: "NDArray[np.floating]") -> "NDArray[np.floating]":
        """Return the projections, in float64."""
        return (x - self.mean) @ self.rotations

    def decode(self, features: "NDArray[np.floating] | csr_array") -> "NDArray[np.floating] | None":
        """Return the embeddings, in float64."""
        return None if self.components is None else features @ self.components + self.mean


class SAEReader:
    """Features are the latents that the encoder of a sparse autoencoder selects."""

    def __init__(self, sae: "SparseAutoencoder") -> None:
        self.sae = sae

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Sizes of the nested dictionaries."""
        return tuple(self.sae.prefixes)

    @property
    def directions(self) -> "NDArray[np.floating]":
        """The atoms, in units of the embedding's own columns where each has a scale of its own."""
        W_dec, scale = self.sae.W_dec.numpy(force=True), self.sae.scale.numpy(force=True)
        return W_dec * scale if scale.ndim else W_dec

    @property
    def reading(self) -> "tuple[NDArray[np.floating], NDArray[np.floating]]":
        """The encoder, for embeddings that are neither centred nor scaled yet."""
        directions = self.sae.W_enc.numpy(force=True).T / self.sae.scale.numpy(force=True)
        return directions, self.sae.b_enc.numpy(force=True) - directions @ self.sae.mean.numpy(force=True)

    @property
    def writing(self) -> "tuple[NDArray[np.floating], NDArray[np.floating]]":
        """The decoder, in units of the embedding."""
        scale = self.sae.scale.numpy(force=True)
        b_dec = self.sae.mean.numpy(force=True) + self.sae.b_dec.numpy(force=True) * scale
        return self.sae.W_dec.numpy(force=True) * scale, b_dec

    def encode(self, x: "NDArray[np.floating]") -> "csr_array":
        """Return the latents, each row on its own."""
        return self.sae.encode_csr(x)

    def decode(self, features: Any) -> "NDArray[np.floating]":
        """Return the reconstructions, in float32."""
        return self.sae.decode_csr(features)


def identity_of(inputs: Mapping[str, Path]) -> IdentityReader:
    """Return the reader of a table whose features are the embedding itself."""
    from sfnetlab.artifacts import read_features

    return IdentityReader(read_features(inputs["features"]).n_features)


def affine_reader(model: "Mapping[str, NDArray[np.float64]]") -> AffineReader:
    """Return the reader of a model: `mean`, and `components`, `rotations` or both; rotations are else the transpose."""
    components = model.get("components")
    rotations = model["rotations"] if components is None or "rotations" in model else components.T
    return AffineReader(model["mean"], rotations, components)


def affine_of(inputs: Mapping[str, Path]) -> AffineReader:
    """Return the reader of a table that fit-baselines made of an embedding."""
    from safetensors.numpy import load

    return affine_reader(load((inputs["features"] / "model.safetensors").read_bytes()))
