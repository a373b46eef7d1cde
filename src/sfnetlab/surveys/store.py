"""The store of a survey's cutouts: one .npy file that can be memory-mapped, written in one pass.

The user chooses what a galaxy without a usable cutout means: an error, or a row that is left out and recorded. Missing
cutouts are never filled with zeros.
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

from sfnetlab.errors import DataError
from sfnetlab.jobs import Metrics
from sfnetlab.surveys.images import fit_to_size, trouble_of_one_colour

CHUNK = 256
"""Cutouts that are decoded at a time. No more are in memory."""

_logger = logging.getLogger(__name__)


class Cutout(NamedTuple):
    """A square cutout as it is to be stored."""

    pixels: NDArray[np.uint8]
    """Shape (side, side, 3)."""
    original_side: int
    """Its side in pixels before it was resized and cropped."""


Chunk = Sequence[tuple[str, Cutout | str]]
"""Some ids, each with its cutout or the reason why there is none."""


class Source(NamedTuple):
    """Where cutouts come from, in the words of messages."""

    where: str
    """The place."""
    cutouts: str
    """What its cutouts are called."""
    check: Callable[[], str]
    """Says what to check if no cutout can be used."""


class Stored(NamedTuple):
    """What `write_store` wrote, and what it left out."""

    n_rows: int
    """Cutouts that were to come, usable or not."""
    reasons: dict[str, str]
    """Ids that were left out, each with its reason."""
    original_side: int
    """The side of the first stored cutout in pixels, before it was resized and cropped."""
    n_original_sides: int
    """How many such sides there are."""

    def kept(self, catalog: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a catalogue whose cutouts are stored, index 0..n-1."""
        return catalog[~catalog["id_str"].isin(list(self.reasons))].reset_index(drop=True)

    def bad(self) -> pd.DataFrame:
        """Return the rows that were left out: `id_str` and `reason`."""
        return pd.DataFrame({"id_str": list(self.reasons.keys()), "reason": list(self.reasons.values())}, dtype="str")


def as_cutout(image: NDArray[np.uint8], resize: int | None, crop: int | None) -> Cutout | str:
    """Return an image (height, width, 3) resized and cropped as it is to be stored, or the reason why it cannot be.

    An image of one colour, black or another, shows no galaxy and is refused like one that cannot be read.
    """
    try:
        pixels = fit_to_size(image, resize, crop)
    except ValueError as error:
        return str(error)
    height, width, _ = pixels.shape
    if height != width:
        return f"{width}×{height} pixels: not square, set survey.crop"
    return trouble_of_one_colour(pixels) or Cutout(pixels, len(image))


def write_store(
    images_path: Path,
    chunks: Iterable[Chunk],
    side: int | None,
    source: Source,
    on_bad_image: Literal["error", "drop"],
    n_rows: int | None = None,
) -> Stored:
    """Write cutouts in order into `images_path`: a .npy of (n, side, side, 3) uint8.

    Parameters
    ----------
    chunks : iterable of Chunk
        The cutouts, or the reasons why there are none.
    side : int or None
        The side in pixels; cutouts of another side count as broken. None: the commonest side of the first chunk with a
        usable cutout (at a tie the one seen first).
    source : Source
        For messages.
    on_bad_image : "error" or "drop"
        Whether broken cutouts are an error or are left out.
    n_rows : int or None
        How many cutouts are to come, for the progress bar.

    Raises
    ------
    DataError
        If a cutout is broken (with "drop": if all are). Nothing is left at `images_path` then, nor if reading fails.
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
    """Return the rows of a catalogue that have a stored cutout, and facts; list the others in `bad_images.csv`.

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
    """The commonest side of the first chunk with a usable cutout, 0 if there is none; and an iterator of all chunks."""
    looked_at: list[Chunk] = []
    for chunk in chunks:
        looked_at.append(chunk)
        sides = Counter(len(cutout.pixels) for _, cutout in chunk if not isinstance(cutout, str))
        if sides:
            return sides.most_common(1)[0][0], chain(looked_at, chunks)
    return 0, iter(looked_at)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file, whose length does not depend on the first axis: NumPy pads it."""
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
