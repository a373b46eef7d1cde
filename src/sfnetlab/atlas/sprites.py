"""Cutouts as sheets of small WebP tiles: few files, each small enough that a page loads only what it shows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILE_PX = 128
"""Largest side of a cutout in the atlas."""
ACROSS = 4
"""Cutouts across and down a sheet."""
PER_SHEET = ACROSS * ACROSS
WALL_TILE_PX = 96
CARD_ACROSS = 2
"""Cutouts across and down a card of the wall."""
PER_CARD = CARD_ACROSS * CARD_ACROSS
CARDS_ACROSS = 4
"""Cards across a sheet."""
CARDS_PER_SHEET = 16
QUALITY = 90
_METHOD = 2
"""WebP's effort: at 2 a sheet is 4 % larger than at 4, in half the time."""


def tile_side(images: NDArray[np.uint8], largest: int = TILE_PX) -> int:
    """Return the side of the tiles of these cutouts (n, height, width, 3), in pixels."""
    return min(largest, images.shape[1])


def write_sheets(directory: Path, images: NDArray[np.uint8], rows: NDArray[np.integer]) -> int:
    """Write the cutouts of `rows` as `0.webp`, `1.webp`, ...: 16 on a sheet, left to right and top to bottom.

    Returns how many sheets there are. `images` may be memory-mapped; it is read a sheet at a time.
    """
    directory.mkdir(parents=True, exist_ok=True)
    side = tile_side(images)
    starts = range(0, len(rows), PER_SHEET)
    for number, start in enumerate(starts):
        tiles = [_tile(images[row], side) for row in rows[start : start + PER_SHEET]]
        _write_sheet(directory / f"{number}.webp", tiles, side, ACROSS)
    return len(starts)


def write_wall(directory: Path, images: NDArray[np.uint8], cards: NDArray[np.integer]) -> int:
    """Write the sheets of a wall of cards; `cards` (n, 4) are rows of `images`, -1 for an empty place.

    A card is a square of four, cards stand four across. Returns how many sheets there are.
    """
    directory.mkdir(parents=True, exist_ok=True)
    side = tile_side(images, WALL_TILE_PX)
    known: dict[int, NDArray[np.uint8]] = {}
    starts = range(0, len(cards), CARDS_PER_SHEET)
    for number, start in enumerate(starts):
        shown = cards[start : start + CARDS_PER_SHEET]
        full = np.full((-(-len(shown) // CARDS_ACROSS) * CARDS_ACROSS, PER_CARD), -1)
        full[: len(shown)] = shown
        squares = full.reshape(-1, CARDS_ACROSS, CARD_ACROSS, CARD_ACROSS).transpose(0, 2, 1, 3)
        tiles = []
        for row in squares.ravel().tolist():
            if row >= 0 and row not in known:
                known[row] = _tile(images[row], side)
            tiles.append(known[row] if row >= 0 else None)
        _write_sheet(directory / f"{number}.webp", tiles, side, CARDS_ACROSS * CARD_ACROSS)
    return len(starts)


def _tile(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (side, side):
        return np.asarray(image)
    return np.asarray(Image.fromarray(np.asarray(image)).resize((side, side), Image.Resampling.LANCZOS))


def _write_sheet(path: Path, tiles: "Sequence[NDArray[np.uint8] | None]", side: int, across: int) -> None:
    down = -(-len(tiles) // across)
    sheet = np.zeros((down * side, across * side, 3), dtype=np.uint8)
    for place, tile in enumerate(tiles):
        if tile is not None:
            top, left = side * (place // across), side * (place % across)
            sheet[top : top + side, left : left + side] = tile
    Image.fromarray(sheet).save(path, quality=QUALITY, method=_METHOD)
