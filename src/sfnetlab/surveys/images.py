"""Cutouts as uint8 arrays (RGB, row 0 at the top): decoding, resampling, flips and rotations, channel statistics.

store.py and mock_render.py write the cutouts of a whole survey.
"""

import os
import re
import struct
from io import BytesIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from zlib import error as ZlibError  # noqa: N812 - named as the exceptions beside it

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from sfnetlab.errors import DataError
from sfnetlab.surveys.fits_images import Bands, Scaling, read_planes, to_levels

FITS_NAME = re.compile(r"\.(fits?|fts)(\.(gz|fz))?$|\.fz$", re.IGNORECASE)
"""Ends the name of a FITS file."""

N_DIHEDRAL = 8
"""Flips and quarter turns of a square: four rotations, each also mirrored."""


def read_image(
    path: Path,
    *,
    fits_stretch: float,
    fits_q: float,
    fits_scaling: Scaling = "lupton",
    fits_limits: tuple[float, ...] = (),
    fits_percentiles: tuple[float, ...] = (),
    fits_bands: Bands = (),
    fits_hdu: int | str | None = None,
) -> NDArray[np.uint8]:
    """Decode an image file to (height, width, 3) RGB. A file that is cut short is refused.

    JPEG, PNG and the like: see `decode_image`. FITS, also compressed (.fits.fz, .fits.gz): fits_images.py says which
    planes are taken and how they become levels. Rows are flipped, because FITS counts them from the bottom: north-up
    data are north-up here.

    Parameters
    ----------
    fits_stretch, fits_q, fits_scaling, fits_limits, fits_percentiles
        How pixel values become levels: `fits_images.to_levels`. FITS only.
    fits_bands, fits_hdu
        Which planes are taken: `fits_images.read_planes`. FITS only.

    Raises
    ------
    DataError
        If the file is missing, unreadable, no file, truncated, no such image, or FITS with several readings or with
        pixels that are not finite.
    """
    try:
        content = _content_of(path)
        if not content.startswith(b"SIMPLE") and not FITS_NAME.search(path.name):
            return decode_image(content)
        planes = read_planes(content, fits_bands, fits_hdu)
        return to_levels(
            planes, fits_scaling, stretch=fits_stretch, q=fits_q, limits=fits_limits, percentiles=fits_percentiles
        )
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, TypeError, EOFError, ZlibError, KeyError, AttributeError) as error:  # astropy, at damaged files
        raise DataError(f"{path}: cannot be decoded: {error}") from error


def decode_image(content: bytes) -> NDArray[np.uint8]:
    """Decode the bytes of a JPEG, PNG, TIFF, GIF or WebP file to (height, width, 3) RGB.

    Greyscale is repeated in the three channels, alpha is dropped (the colours below it stay), palettes are looked up,
    and of 16 bits the upper 8 are kept: 65535 becomes 255. An image is turned as its EXIF orientation says.

    Raises
    ------
    ValueError
        If they are cut short, no such image, several images, or pixels of more than 16 bits, of which nobody says which
        are black and white.
    """
    try:
        return _read_pillow(content)
    except UnidentifiedImageError:
        raise ValueError(f"not a JPEG or PNG, its {len(content):,} bytes begin with {content[:12]!r}") from None
    except _OtherImageError as error:
        raise ValueError(str(error)) from None
    except (OSError, ValueError, TypeError, SyntaxError, EOFError, ZlibError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be decoded: {error}") from error


def trouble_of_one_colour(image: NDArray[np.uint8]) -> str | None:
    """Return why an image (height, width, 3) shows nothing, if all of its pixels are the same; None if they differ."""
    return None if (image != image[0, 0]).any() else "an image of one colour: outside the survey's footprint"


def fit_to_size(image: NDArray[np.uint8], resize: int | None, crop: int | None) -> NDArray[np.uint8]:
    """Resample a square cutout (height, width, 3) to `resize` pixels a side, then keep the central `crop` pixels.

    Resampling is Pillow's bicubic, which widens its kernel when it shrinks an image, so that fine detail does not
    alias. Where the number of surplus rows or columns is odd, one more is cut off at the bottom or right.

    Raises
    ------
    ValueError
        If the cutout to resample is not square, since galaxies would change their axis ratio, or smaller than `crop`.
    """
    height, width = image.shape[:2]
    if resize is not None and (height, width) != (resize, resize):
        if height != width:
            raise ValueError(f"{width}×{height} pixels: only square cutouts can be resized")
        image = np.asarray(Image.fromarray(image).resize((resize, resize), Image.Resampling.BICUBIC))
        height = width = resize
    if crop is None:
        return image
    if crop > min(height, width):
        raise ValueError(f"{width}×{height} pixels: smaller than crop = {crop}")
    top, left = (height - crop) // 2, (width - crop) // 2
    return image[top : top + crop, left : left + crop]


def dihedral(images: NDArray[np.uint8], ops: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return copies of square images (n, side, side, 3), each flipped and rotated in its own way.

    Parameters
    ----------
    ops : ndarray of int of shape (n,)
        How: op % 4 quarter turns anticlockwise, then a left-right mirror if op >= 4. 0 changes nothing.

    Raises
    ------
    ValueError
        If the images are not square, or an op lies outside 0..7.
    """
    if images.shape[1] != images.shape[2]:
        raise ValueError(f"flips and rotations need square images, got shape {images.shape}")
    if ops.shape != images.shape[:1] or not np.isin(ops, np.arange(N_DIHEDRAL)).all():
        raise ValueError(f"ops must be {len(images)} integers in 0..{N_DIHEDRAL - 1}, got {ops}")
    turned = np.empty_like(images)
    for op in range(N_DIHEDRAL):
        rows = np.flatnonzero(ops == op)
        rotated = np.rot90(images[rows], op % 4, axes=(1, 2))
        turned[rows] = rotated[:, :, ::-1] if op >= 4 else rotated
    return turned


def random_dihedral(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return copies of square images (n, side, side, 3), each flipped and rotated as `rng` draws."""
    return dihedral(images, rng.integers(N_DIHEDRAL, size=len(images)))


def level_counts(images: NDArray[np.uint8], rows: NDArray[np.integer], block: int = 128) -> NDArray[np.int64]:
    """Return how many pixels of some images (n, height, width, 3) have each level, of shape (3, 256).

    Parameters
    ----------
    rows, block
        Which images to take, and how many are read at a time.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    in_file_order = np.sort(rows)
    for start in range(0, len(rows), block):
        pixels = images[in_file_order[start : start + block]].reshape(-1, 3)
        for channel in range(3):
            counts[channel] += np.bincount(pixels[:, channel], minlength=256)
    return counts


def channel_statistics(
    images: NDArray[np.uint8], rows: NDArray[np.integer], block: int = 128
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and standard deviation (ddof 0) of each channel over all pixels of some images.

    Black is 0 and white is 1. The numbers are exact, from the counts of the 256 levels.

    Parameters
    ----------
    images : ndarray of uint8 of shape (n, height, width, 3)
        May be memory-mapped.
    rows : ndarray of int
        Which images to take.
    block : int
        Images that are read at a time.

    Returns
    -------
    mean, standard_deviation : ndarray of shape (3,)

    Raises
    ------
    ValueError
        If there are no rows.
    """
    if len(rows) == 0:
        raise ValueError("channel statistics need at least one image")
    counts = level_counts(images, rows, block)
    levels = np.arange(256) / 255
    n_pixels = counts.sum(axis=1)
    mean = counts @ levels / n_pixels
    variance = (counts * (levels - mean[:, None]) ** 2).sum(axis=1) / n_pixels
    return mean, np.sqrt(variance)


class _OtherImageError(Exception):
    """An image that was decoded, but does not say what a cutout looks like."""


def _content_of(path: Path) -> bytes:
    """The bytes of a file, or a ValueError that says why there are none."""
    try:
        mode = path.stat().st_mode
        if not S_ISREG(mode):  # reading a pipe would wait for ever
            raise ValueError("a folder, not an image file" if S_ISDIR(mode) else "neither a file nor a folder")
        return path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"missing, a link to {os.readlink(path)}" if path.is_symlink() else "missing") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def _read_pillow(content: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(content), formats=("JPEG", "PNG", "TIFF", "GIF", "WEBP")) as image:
        kind = "JPEG" if image.format == "MPO" else image.format
        image.load()
        # Pillow is content with a JPEG that lacks only its last bytes; some writers add bytes after the end marker.
        if kind == "JPEG" and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
            raise _OtherImageError(f"cut off: {len(content):,} bytes without the end marker of a JPEG")
        if kind != "JPEG" and (n_frames := getattr(image, "n_frames", 1)) > 1:
            raise _OtherImageError(f"a {kind} of {n_frames} images, expected one")
        if image.mode == "F" or (image.mode == "I" and kind != "PNG"):
            pixels = "floats" if image.mode == "F" else "integers of more than 16 bits or with a sign"
            raise _OtherImageError(
                f"a {kind} with {pixels} for pixels, which do not say what is black and white; save it with 8 or 16 "
                "bits, or as FITS"
            )
        turn = _TURNS.get(_orientation(image))
        opened = image if turn is None else image.transpose(turn)
        if image.mode.startswith("I"):
            grey = (np.asarray(opened) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        # A palette may hold alpha, which Pillow wants spelt out before it is dropped.
        return np.asarray((opened.convert("RGBA") if image.mode == "P" else opened).convert("RGB"))


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image upright, by its EXIF orientation."""


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, ValueError, TypeError, KeyError, SyntaxError, struct.error):
        return 1  # damaged EXIF says nothing of the pixels
