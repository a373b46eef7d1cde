"""One pass from decoded cutouts, or reasons why there are none, to the memory-mappable store of a survey.

What a galaxy without a usable cutout means is the user's choice: an error, or a row left out on record. Never zeros.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from sfnetlab.artifacts import Metrics
from sfnetlab.errors import DataError
from sfnetlab.surveys.images import fit_to_size

CHUNK = 256
"""Cutouts decoded at a time; no more than these are in memory."""

_logger = logging.getLogger(__name__)


class Cutout(NamedTuple):
    """A square cutout (side, side, 3) as it is stored, and the side that it had before it was resized and cropped."""

    pixels: NDArray[np.uint8]
    original_side: int


Chunk = Sequence[tuple[str, Cutout | str]]
"""Ids, each with its cutout or the reason why there is none."""


class Source(NamedTuple):
    """How messages name what the cutouts come from: a place, its cutouts, and what to check if none can be used."""

    where: str
    cutouts: str
    check: Callable[[], str]


class Stored(NamedTuple):
    """What `write_store` wrote and left out; `original_side` is that of the first cutout stored."""

    n_rows: int
    reasons: dict[str, str]
    original_side: int
    n_original_sides: int

    def kept(self, catalog: pd.DataFrame) -> pd.DataFrame:
        """The catalogue's rows of the stored cutouts, index 0..n-1."""
        return catalog[~catalog["id_str"].isin(list(self.reasons))].reset_index(drop=True)

    def bad(self) -> pd.DataFrame:
        """`id_str` and `reason` of the rows left out."""
        return pd.DataFrame({"id_str": list(self.reasons.keys()), "reason": list(self.reasons.values())}, dtype="str")


def as_cutout(image: NDArray[np.uint8], resize: int | None, crop: int | None) -> Cutout | str:
    """The cutout to store of an image (height, width, 3), or the reason why it gives none."""
    try:
        pixels = fit_to_size(image, resize, crop)
    except ValueError as error:
        return str(error)
    height, width, _ = pixels.shape
    if height != width:
        return f"{width}×{height} pixels: not square, set survey.crop"
    return Cutout(pixels, len(image))


def write_store(
    images_path: Path,
    chunks: Iterable[Chunk],
    side: int | None,
    source: Source,
    on_bad_image: Literal["error", "drop"],
    n_rows: int | None = None,
) -> Stored:
    """Write the cutouts in order into `images_path`: a .npy of (n, side, side, 3) uint8.

    Parameters
    ----------
    side : int or None
        Cutouts of another side are as bad as broken ones. None: the commonest side of the first chunk with a usable
        cutout (at a tie the one seen first).
    n_rows : int or None
        How many are to come, for the progress bar.

    Raises
    ------
    DataError
        If cutouts are bad (with "drop": if all are). Nothing is left at `images_path` then, nor if reading fails.
    """
    iterator = iter(chunks)
    if side is None:
        side, iterator = _commonest_side(iterator)
    seen = 0
    reasons: dict[str, str] = {}
    originals: Counter[int] = Counter()
    try:
        with images_path.open("wb") as file, tqdm(total=n_rows, desc="cutouts", unit="image", disable=None) as bar:
            _write_header(file, (0, side, side, 3))
            for chunk in iterator:
                for id_str, cutout in chunk:
                    if isinstance(cutout, str):
                        reasons[id_str] = cutout
                    elif len(cutout.pixels) != side:
                        found = len(cutout.pixels)
                        reasons[id_str] = f"expected {side}×{side} pixels, found {found}×{found}"
                    else:
                        originals[cutout.original_side] += 1
                        file.write(cutout.pixels.tobytes())
                seen += len(chunk)
                bar.update(len(chunk))
            file.seek(0)
            _write_header(file, (seen - len(reasons), side, side, 3))
        if seen == 0:
            raise DataError(f"{source.where}: there are no rows")
        if len(reasons) == seen or (reasons and on_bad_image == "error"):
            raise DataError(_complaint(source, reasons, seen))
    except BaseException:
        images_path.unlink(missing_ok=True)
        raise
    return Stored(seen, reasons, next(iter(originals)), len(originals))


def rows_with_cutouts(
    catalog: pd.DataFrame, stored: Stored, work: Path, pixel_scale_arcsec: float | None, resize: int | None
) -> tuple[pd.DataFrame, Metrics]:
    """The rows of a catalogue that have a cutout in the store, and facts; `work/bad_images.csv` lists the others.

    Parameters
    ----------
    pixel_scale_arcsec : float or None
        Arcseconds a pixel of the original cutouts; None where unknown.
    resize : int or None
        The side in pixels to which cutouts were resampled before cropping.

    Returns
    -------
    catalog : DataFrame
        Index 0..n-1, in the order of the store.
    facts : mapping
        `n_bad_images`, and `pixel_scale_arcsec` of the stored cutouts where it is known.
    """
    bad = stored.bad()
    bad.to_csv(work / "bad_images.csv", index=False)
    if len(bad):
        _logger.warning("%d of %d galaxies dropped for their images, see bad_images.csv", len(bad), len(catalog))
    facts: dict[str, float] = {"n_bad_images": len(bad)}
    if pixel_scale_arcsec is not None:
        if resize is not None and stored.n_original_sides > 1:
            _logger.warning("cutouts of %d sizes were resized: scale bars hold for the first", stored.n_original_sides)
        enlarged = stored.original_side / resize if resize else 1
        facts["pixel_scale_arcsec"] = pixel_scale_arcsec * enlarged
    return stored.kept(catalog), facts


def _commonest_side(chunks: Iterator[Chunk]) -> tuple[int, Iterator[Chunk]]:
    """Of the first chunk with a usable cutout, 0 if there is none; and all chunks, those looked at included."""
    looked_at: list[Chunk] = []
    for chunk in chunks:
        looked_at.append(chunk)
        sides = Counter(len(cutout.pixels) for _, cutout in chunk if not isinstance(cutout, str))
        if sides:
            return sides.most_common(1)[0][0], chain(looked_at, chunks)
    return 0, iter(looked_at)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """NumPy pads its header so that a change of the first axis leaves its length as it is."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _complaint(source: Source, reasons: dict[str, str], n_rows: int) -> str:
    n_shown = 10
    lines = [f"{source.where}: {len(reasons):,} of {n_rows:,} {source.cutouts} cannot be used:"]
    lines += [f"  {id_str}: {reason}" for id_str, reason in list(reasons.items())[:n_shown]]
    if len(reasons) > n_shown:
        lines.append(f"  ... and {len(reasons) - n_shown:,} more")
    if len(reasons) == n_rows:
        lines.append(f"None is left: check {source.check()}")
    else:
        lines.append('Mend them, or leave these galaxies out, on record, with survey.on_bad_image = "drop"')
    return "\n".join(lines)
