"""FITS cutouts: which images and planes of a file become red, green and blue, and how pixel values become levels."""

from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sfnetlab.surveys.messages import first_few

if TYPE_CHECKING:
    from astropy.io import fits

Scaling = Literal["lupton", "asinh", "linear", "percentile"]
Bands = tuple[int | str, ...]

_NO_PICTURES = frozenset(
    (
        *("wht", "weight", "weights", "exp", "exptime", "coverage", "ctx", "con", "psf"),
        *("err", "error", "errors", "var", "variance", "ivar", "invvar", "rms", "sigma", "noise"),
        *("dq", "mask", "masks", "flag", "flags", "bpm", "seg", "segm", "segmentation"),
    )
)
"""Names of extensions (lower case) that say something of the pixels of another one. So do names that begin with
"var_"."""

_EXPECTED = "a FITS cutout is (height, width) or (3, height, width) in g, r, i"


def read_planes(content: bytes, bands: Bands, hdu: int | str | None) -> NDArray[np.float64]:
    """Return the planes of a FITS file, (3, height, width) in red, green, blue or (1, height, width), top row first.

    Without settings a file must have exactly one obvious reading: one image with two axes, which is grey; one image of
    three planes (3, height, width), which are g, r, i and become blue, green, red; or three images called G, R and I.
    Axes of length 1 do not count, nor do images that are called weight, error, mask and the like. Three planes count
    beside single ones that have no name. Scaled and compressed pixels are read as the values that they mean.

    Parameters
    ----------
    content : bytes
        The file. It may be compressed by gzip.
    bands : tuple of int or of str
        One (grey) or three (red, green, blue): numbers, from 0, of planes of the image, or of the images where each is
        one plane; or names of extensions, in capitals or not. Empty: the obvious ones.
    hdu : int or str or None
        Number (0: the primary one) or name of the extension to read; None: the obvious one.

    Raises
    ------
    ValueError
        If there is no such image, the file has no obvious reading, or a pixel of a chosen plane is not finite. The
        message lists the images that were found and says what to write.
    OSError
        If it is no FITS file, or it is damaged.
    """
    import gzip

    from astropy.io import fits

    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    with fits.open(BytesIO(content), memmap=False) as hdus:
        planes = _chosen_planes(hdus, bands, hdu)
    n_bad = int((~np.isfinite(planes)).sum())
    if n_bad:
        raise ValueError(f"{n_bad:,} of {planes.size:,} pixels are not finite")
    return planes[:, ::-1]


def to_levels(
    planes: NDArray[np.float64],
    scaling: Scaling,
    *,
    stretch: float,
    q: float,
    limits: tuple[float, ...],
    percentiles: tuple[float, ...],
) -> NDArray[np.uint8]:
    """Return planes, (3, height, width) or (1, height, width), as levels (height, width, 3); one plane is grey.

    - "lupton": the asinh scaling of the bands' mean by Lupton et al. 2004 with black at 0, by `stretch` (in units of
      the pixel values) and `q`. Colours keep their ratios.
    - "linear": from `limits[0]`, black, to `limits[1]`, white, in units of the pixel values.
    - "asinh": asinh(q x) / asinh(q) of that linear x, each band for itself.
    - "percentile": linear between two percentiles of the image's own pixels, all its bands together. Every image then
      looks equally bright: a network cannot see how bright a galaxy is, only its shape and the ratios of its colours.

    Raises
    ------
    ValueError
        If the pixels differ, but all would become one level.

    References
    ----------
    Lupton et al. 2004, PASP 116, 133, equations 2 and 3, as in astropy.visualization.make_lupton_rgb.
    """
    if scaling == "lupton":
        levels = _lupton_rgb(planes, stretch, q)
    else:
        black, white = np.percentile(planes, percentiles) if scaling == "percentile" else limits
        x = np.clip((planes - black) / max(white - black, np.finfo(np.float64).tiny), 0, 1)
        if scaling == "asinh":
            x = np.arcsinh(q * x) / np.arcsinh(q)
        levels = np.rint(255 * x).astype(np.uint8)
        levels = np.moveaxis(np.broadcast_to(levels, (3, *levels.shape[1:])), 0, -1)
    low, high = planes.min(), planes.max()
    if low < high and levels.min() == levels.max():
        raise ValueError(
            f"pixel values from {low:.4g} to {high:.4g} all become level {levels.min()}; set survey.fits_scaling, and "
            "fits_stretch or fits_limits in the units of the pixel values"
        )
    return levels


def _lupton_rgb(planes: NDArray[np.float64], stretch: float, q: float) -> NDArray[np.uint8]:
    from astropy.visualization import make_lupton_rgb

    red, green, blue = np.broadcast_to(planes, (3, *planes.shape[1:]))
    with np.errstate(invalid="ignore"):  # astropy divides by the intensity before it replaces empty pixels by black
        return make_lupton_rgb(red, green, blue, minimum=0, stretch=stretch, Q=q)


def _chosen_planes(hdus: "fits.HDUList", bands: Bands, hdu: int | str | None) -> NDArray[np.float64]:
    images = {number: each for number, each in enumerate(hdus) if each.is_image and len(_shape(each)) > 1}
    if not images:
        raise ValueError(f"the FITS file holds no image; {_EXPECTED}")
    found = first_few((f"{number} {each.name!r} {each.shape}" for number, each in images.items()), 8)
    named = [band for band in bands if isinstance(band, str)]
    if named:
        return _stacked([_called(band, images, found) for band in named], found)
    if hdu is not None:
        return _of_cube(_cube(_called(hdu, images, found), found), bands, found)
    pictures = [each for each in images.values() if not _is_beside(each.name)] or list(images.values())
    cubes = [each for each in pictures if len(_shape(each)) > 2]
    if len(pictures) == 1 or len(cubes) == 1:
        return _of_cube(_cube((cubes or pictures)[0], found), bands, found)
    by_name = {each.name.lower(): each for each in pictures}
    if not bands and len(pictures) == 3 and by_name.keys() == {"g", "r", "i"}:
        return _stacked([by_name[name] for name in "irg"], found)
    if cubes or not bands:
        raise ValueError(
            f"several images in the FITS file: {found}; write which one, such as survey.fits_hdu = {min(images)}, or "
            'which become red, green and blue, such as survey.fits_bands = ["I", "R", "G"] or [2, 1, 0]'
        )
    return _of_cube((_stacked(pictures, found), 0), bands, found)


def _is_beside(name: str) -> bool:
    return name.lower() in _NO_PICTURES or name.lower().startswith("var_")


def _shape(hdu: Any) -> tuple[int, ...]:
    """The shape of an image without axes of length 1, as far as two axes are left."""
    shape = tuple(hdu.shape)
    while len(shape) > 2 and 1 in shape:
        place = shape.index(1)
        shape = shape[:place] + shape[place + 1 :]
    return shape


def _pixels(hdu: Any) -> NDArray[np.float64]:
    return np.array(hdu.data, dtype=np.float64).reshape(_shape(hdu))


def _called(hdu: int | str, images: dict[int, Any], found: str) -> Any:
    named = [
        each
        for number, each in images.items()
        if hdu == number or str(hdu).strip().lower() == each.name.strip().lower()
    ]
    if len(named) != 1:
        raise ValueError(f"{len(named) or 'no'} images {hdu!r} in the FITS file, it holds {found}")
    return named[0]


def _stacked(hdus: list[Any], found: str) -> NDArray[np.float64]:
    """Images of one plane each as (n, height, width)."""
    shapes = {_shape(each) for each in hdus}
    if len(shapes) > 1 or len(next(iter(shapes))) != 2:
        raise ValueError(f"bands must be images (height, width) of the same shape; the FITS file holds {found}")
    return np.stack([_pixels(each) for each in hdus])


def _cube(hdu: Any, found: str) -> tuple[NDArray[np.float64], int]:
    """An image as (n_bands, height, width), and which of its axes are the bands."""
    shape = _shape(hdu)
    if len(shape) == 2:
        return _pixels(hdu)[None], 0
    others = [shape[:axis] + shape[axis + 1 :] for axis in range(3)] if len(shape) == 3 else []
    square = [axis for axis, (height, width) in enumerate(others) if height == width]
    shortest = [axis for axis in range(len(others)) if shape[axis] < min(others[axis])]
    axes = square or shortest
    if len(axes) != 1:
        raise ValueError(
            f"{_EXPECTED}, or has other planes, of which survey.fits_bands chooses; found {found}, where it is not "
            "clear which axis the bands are on"
        )
    return np.moveaxis(_pixels(hdu), axes[0], 0), axes[0]


def _of_cube(cube: tuple[NDArray[np.float64], int], bands: Bands, found: str) -> NDArray[np.float64]:
    planes, axis = cube
    n = len(planes)
    places = [band for band in bands if isinstance(band, int)]
    if not places and n == 1:
        return planes
    if not places and n == 3 and axis == 0:
        return planes[::-1]
    if not places:
        raise ValueError(
            f"{_EXPECTED}; found {found}, with {n} bands on axis {axis}; write which become red, green and blue, such "
            f"as survey.fits_bands = {[min(2, n - 1), 1, 0]} (from 0 to {n - 1})"
        )
    if max(places) >= n:
        raise ValueError(f"survey.fits_bands = {places} of {n} bands, which are 0 to {n - 1}; found {found}")
    return planes[places]
