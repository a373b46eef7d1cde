"""Cutouts as uint8 arrays (RGB, row 0 at the top): decoding, resampling, flips and rotations, channel statistics.

store.py and mock_render.py write the cutouts of a whole survey.
"""

from io import BytesIO
from pathlib import Path
from zlib import error as ZlibError  # noqa: N812 - named as the exceptions beside it

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sfnetlab.errors import DataError

N_DIHEDRAL = 8
"""Flips and quarter turns of a square: four rotations, each also mirrored."""


def read_image(path: Path, *, fits_stretch: float, fits_q: float) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or FITS cutout to (height, width, 3) RGB. A file that is cut short is refused.

    JPEG and PNG: greyscale is repeated in the three channels, alpha is dropped (the colours below it stay), palettes
    are looked up, and of 16 bits the upper 8 are kept: 65535 becomes 255.

    FITS: the first image in the file is read. Three planes (3, height, width) are g, r, i and become blue, green, red;
    an image with two axes is grey. Both go through the asinh scaling of Lupton et al. 2004 with black at 0. Rows are
    flipped, because FITS counts them from the bottom: north-up data are north-up here.

    Parameters
    ----------
    fits_stretch, fits_q : float
        Linear stretch, in units of the pixel values, and asinh softening; FITS only.

    Raises
    ------
    DataError
        If the file is missing, truncated, no such image, or a FITS image of another shape or with non-finite pixels.

    References
    ----------
    Lupton et al. 2004, PASP 116, 133, equations 2 and 3, as in astropy.visualization.make_lupton_rgb.
    """
    try:
        if path.suffix.lower() == ".fits":
            return _lupton_rgb(_read_fits_planes(path), fits_stretch, fits_q)
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: missing") from None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be decoded: {error}") from error
    try:
        return decode_image(content)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def decode_image(content: bytes) -> NDArray[np.uint8]:
    """Decode the bytes of a JPEG or PNG file to (height, width, 3) RGB, by the rules of `read_image`.

    Raises
    ------
    ValueError
        If they are cut short or no such image.
    """
    try:
        return _read_pillow(BytesIO(content))
    except UnidentifiedImageError:
        raise ValueError(f"not a JPEG or PNG, its {len(content):,} bytes begin with {content[:12]!r}") from None
    except (OSError, ValueError, TypeError, SyntaxError, EOFError, ZlibError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be decoded: {error}") from error


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
    counts = np.zeros((3, 256), dtype=np.int64)
    in_file_order = np.sort(rows)
    for start in range(0, len(rows), block):
        pixels = images[in_file_order[start : start + block]].reshape(-1, 3)
        for channel in range(3):
            counts[channel] += np.bincount(pixels[:, channel], minlength=256)
    levels = np.arange(256) / 255
    n_pixels = counts.sum(axis=1)
    mean = counts @ levels / n_pixels
    variance = (counts * (levels - mean[:, None]) ** 2).sum(axis=1) / n_pixels
    return mean, np.sqrt(variance)


def _read_pillow(file: BytesIO) -> NDArray[np.uint8]:
    with Image.open(file, formats=("JPEG", "PNG")) as image:
        image.load()
        if image.mode.startswith("I"):
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        # A palette may hold alpha, which Pillow wants spelt out before it is dropped.
        opened = image.convert("RGBA") if image.mode == "P" else image
        return np.asarray(opened.convert("RGB"))


def _read_fits_planes(path: Path) -> NDArray[np.float64]:
    """The planes, (3, height, width) or (1, height, width), of the first image in the file, rows from the top."""
    from astropy.io import fits

    with fits.open(path, memmap=False) as hdus:
        planes = next(
            (np.array(hdu.data, dtype=np.float64) for hdu in hdus if hdu.is_image and hdu.data is not None), None
        )
    if planes is None:
        raise ValueError("the FITS file holds no image")
    if planes.ndim == 2:
        planes = planes[None]
    if planes.ndim != 3 or len(planes) not in (1, 3):
        raise ValueError(f"a FITS cutout is (height, width) or (3, height, width) in g, r, i; found {planes.shape}")
    n_bad = int((~np.isfinite(planes)).sum())
    if n_bad:
        raise ValueError(f"{n_bad:,} of {planes.size:,} pixels are not finite")
    return planes[:, ::-1]


def _lupton_rgb(planes: NDArray[np.float64], stretch: float, q: float) -> NDArray[np.uint8]:
    from astropy.visualization import make_lupton_rgb

    red, green, blue = planes[::-1] if len(planes) == 3 else np.repeat(planes, 3, axis=0)
    with np.errstate(invalid="ignore"):  # astropy divides by the intensity before it replaces empty pixels by black
        return make_lupton_rgb(red, green, blue, minimum=0, stretch=stretch, Q=q)
