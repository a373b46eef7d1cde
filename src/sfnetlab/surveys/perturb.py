"""Changed cutouts of the same galaxies: turned, mirrored, shifted, or as a worse telescope would show them.

Noise and blur act on the stretched 8-bit colours, not on fluxes: they show that a feature reacts, not at which seeing.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Cutouts = NDArray[np.uint8]
"""Shape (n, height, width, 3)."""
Apply = Callable[[Cutouts, float, Sequence[str], int], Cutouts]


@dataclass(frozen=True)
class Transform:
    """A change of cutouts, of a certain strength."""

    name: str
    level: float
    unit: str
    is_symmetry: bool
    """Whether only the place or orientation of the galaxy changes. A feature about the galaxy must not change then."""
    change: Apply

    @property
    def label(self) -> str:
        """The change in words, such as "rotation 90°", "shift 2 px", "flip east-west"."""
        name = self.name.replace("_", " ").replace("psf", "PSF")
        return f"{name} {self.level:g}{self.unit}" if self.unit else name

    def __call__(self, images: Cutouts, ids: Sequence[str], seed: int) -> Cutouts:
        """The changed cutouts, of the same shape. Each depends on its own pixels, its id, the seed and the level alone.

        Raises
        ------
        ValueError
            If images are not square uint8 cutouts (n, side, side, 3), or there is not one id for each.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
            raise ValueError(f"expected uint8 images (n, side, side, 3), got {images.dtype} of shape {images.shape}")
        if len(ids) != len(images):
            raise ValueError(f"expected an id for each of {len(images)} images, got {len(ids)}")
        return np.ascontiguousarray(self.change(images, self.level, ids, seed))


def _unchanged(images: Cutouts, _level: float, _ids: Sequence[str], _seed: int) -> Cutouts:
    return images


def _rotated(images: Cutouts, degrees: float, _ids: Sequence[str], _seed: int) -> Cutouts:
    """Counter-clockwise. Other than by quarter turns: cubic splines, corners filled by mirroring the frame."""
    if degrees % 90 == 0:
        return np.rot90(images, int(degrees // 90), axes=(1, 2))
    turned = ndimage.rotate(images.astype(np.float32), degrees, axes=(2, 1), reshape=False, order=3, mode="reflect")
    return _as_uint8(turned)


def _mirrored_east_west(images: Cutouts, _level: float, _ids: Sequence[str], _seed: int) -> Cutouts:
    return images[:, :, ::-1]


def _mirrored_north_south(images: Cutouts, _level: float, _ids: Sequence[str], _seed: int) -> Cutouts:
    return images[:, ::-1]


def _shifted(images: Cutouts, pixels: float, ids: Sequence[str], seed: int) -> Cutouts:
    """North, south, east or west, as the galaxy's id says; the border that this uncovers mirrors what is beside it."""
    n, margin = images.shape[1], int(pixels)
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    out = np.empty_like(images)
    for i, id_str in enumerate(ids):
        down, right = ((0, 1), (0, -1), (1, 0), (-1, 0))[_generator("shift", id_str, seed).integers(4)]
        top, left = margin - margin * down, margin - margin * right
        out[i] = padded[i, top : top + n, left : left + n]
    return out


def _noisier(images: Cutouts, sd: float, ids: Sequence[str], seed: int) -> Cutouts:
    """Gaussian noise, independent for pixels and channels; each level scales the same noise of a galaxy."""
    out = np.empty_like(images)
    for i, id_str in enumerate(ids):
        noise = _generator("noise", id_str, seed).standard_normal(images.shape[1:], dtype=np.float32)
        out[i] = _as_uint8(images[i] + np.float32(sd) * noise)
    return out


def _blurred(images: Cutouts, sigma_px: float, _ids: Sequence[str], _seed: int) -> Cutouts:
    blurred = ndimage.gaussian_filter(images.astype(np.float32), (0, sigma_px, sigma_px, 0), mode="reflect")
    return _as_uint8(blurred)


def _coarser(images: Cutouts, factor: float, _ids: Sequence[str], _seed: int) -> Cutouts:
    """Means of blocks of pixels, each drawn as a block; a last block that is not whole is filled up by mirroring."""
    n, side, block = len(images), images.shape[1], int(factor)
    padded = np.pad(images, ((0, 0), (0, -side % block), (0, -side % block), (0, 0)), mode="symmetric")
    m = padded.shape[1] // block
    means = padded.reshape(n, m, block, m, block, 3).mean(axis=(2, 4), dtype=np.float32)
    return _as_uint8(means).repeat(block, axis=1).repeat(block, axis=2)[:, :side, :side]


def _as_uint8(values: NDArray[np.float32]) -> Cutouts:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _generator(what: str, id_str: str, seed: int) -> np.random.Generator:
    digest = hashlib.blake2b(f"{what}:{seed}:{id_str}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


TRANSFORMS: tuple[Transform, ...] = (
    Transform("identity", 0, "", True, _unchanged),
    Transform("rotation", 90, "°", True, _rotated),
    Transform("rotation", 180, "°", True, _rotated),
    Transform("rotation", 270, "°", True, _rotated),
    Transform("flip_east-west", 0, "", True, _mirrored_east_west),
    Transform("flip_north-south", 0, "", True, _mirrored_north_south),
    Transform("shift", 1, " px", True, _shifted),
    Transform("shift", 2, " px", True, _shifted),
    # Splines blur a little and corners are made up; 4 px bring a new border: reported, but no reason for a warning.
    Transform("rotation", 45, "°", False, _rotated),
    Transform("shift", 4, " px", False, _shifted),
    Transform("noise", 2, "/255", False, _noisier),
    Transform("noise", 5, "/255", False, _noisier),
    Transform("noise", 10, "/255", False, _noisier),
    Transform("psf", 1, " px", False, _blurred),
    Transform("psf", 2, " px", False, _blurred),
    Transform("resolution", 2, " px", False, _coarser),
    Transform("resolution", 4, " px", False, _coarser),
)
"""Every change, the identity first. Levels are degrees of a rotation, pixels of a shift, the standard deviation of
noise in steps of the 8-bit scale, the sigma of a Gaussian blur in pixels, and the side of averaged blocks in pixels."""
