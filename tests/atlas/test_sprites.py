"""Sheets of cutouts: every tile is where the page looks for it."""

import numpy as np
from PIL import Image

from sfnetlab.atlas.sprites import (
    ACROSS,
    CARD_ACROSS,
    CARDS_ACROSS,
    CARDS_PER_SHEET,
    PER_SHEET,
    write_sheets,
    write_wall,
)

SIDE = 24


def flat(n):
    """Cutouts of one colour each."""
    colours = np.random.default_rng(0).integers(0, 256, (n, 3), dtype=np.uint8)
    return np.broadcast_to(colours[:, None, None], (n, SIDE, SIDE, 3)).copy()


def opened(path):
    with Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGB"))


def assert_tile(sheet, row, column, colour):
    middle = sheet[row * SIDE + SIDE // 2, column * SIDE + SIDE // 2].astype(int)
    assert np.abs(middle - colour.astype(int)).max() < 12


def test_each_galaxy_is_at_its_place_on_its_sheet(tmp_path):
    images, rows = flat(50), np.random.default_rng(1).permutation(50)[:37]
    assert write_sheets(tmp_path, images, rows) == 3
    for place, row in enumerate(rows):
        sheet = opened(tmp_path / f"{place // PER_SHEET}.webp")
        at = place % PER_SHEET
        assert_tile(sheet, at // ACROSS, at % ACROSS, images[row, 0, 0])
    assert opened(tmp_path / "2.webp").shape == (2 * SIDE, ACROSS * SIDE, 3)


def test_a_card_is_a_square_of_four(tmp_path):
    images = flat(30)
    cards = np.random.default_rng(2).integers(0, 30, (21, 4))
    cards[20, 2:] = -1
    assert write_wall(tmp_path, images, cards) == 2
    for place, card in enumerate(cards):
        sheet = opened(tmp_path / f"{place // CARDS_PER_SHEET}.webp")
        at = place % CARDS_PER_SHEET
        top, left = CARD_ACROSS * (at // CARDS_ACROSS), CARD_ACROSS * (at % CARDS_ACROSS)
        for i, row in enumerate(card):
            colour = images[row, 0, 0] if row >= 0 else np.zeros(3, np.uint8)
            assert_tile(sheet, top + i // CARD_ACROSS, left + i % CARD_ACROSS, colour)


def test_large_cutouts_are_made_smaller(tmp_path):
    write_sheets(tmp_path, np.zeros((1, 200, 200, 3), np.uint8), np.array([0]))
    assert opened(tmp_path / "0.webp").shape == (128, 4 * 128, 3)
