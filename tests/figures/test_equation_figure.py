"""Equations with galaxies as symbols: what is drawn is the law."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sfnetlab.figures.equations import plot_equations

IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
PREFIXES = {"12 + log(O/H)": "Z", "log([NII]/Hα)": "SL"}


def law(name: str, values: list[float], half_width: float = np.nan) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "property": name,
            "term": ["intercept", *(str(61 + i) for i in range(len(values) - 1))],
            "value": values,
            "half_width": half_width,
            "n_decimals": 3,
            "share": [np.nan, *np.full(len(values) - 1, 0.25)],
            "n_effective": 2,
            "n_test": 23444,
            "r2_test": 0.831,
            "rmse_test": 0.0855,
        }
    )


def table() -> pd.DataFrame:
    ratio = law("log([NII]/Hα)", [-0.346, 0.163, -0.286, 0.574, -1.087, 0.2, 0.1], half_width=0.012)
    return pd.concat([law("12 + log(O/H)", [8.716, 0.503, -0.593]), ratio], ignore_index=True)


def cutouts() -> dict[tuple[str, str], np.ndarray]:
    return {(row["property"], row["term"]): IMAGE for row in table().to_dict("records") if row["term"] != "intercept"}


def drawn() -> Figure:
    return plot_equations(table(), cutouts(), PREFIXES, "99th percentile")


def texts(fig: Figure) -> list[str]:
    return [text.get_text() for text in fig.axes[0].texts]


def test_every_feature_is_drawn_as_its_galaxy_behind_its_coefficient() -> None:
    fig = drawn()
    numbers = [
        (text.get_position(), text.get_text()) for text in fig.axes[0].texts if text.get_text()[:2] in ("+ ", "− ")
    ]
    assert len(fig.axes[0].images) == len(numbers) == 8
    for image, ((x, y), _) in zip(fig.axes[0].images, numbers, strict=True):
        left, _, bottom, top = image.get_extent()
        assert 0 < left - x < 0.3
        assert top < y < bottom
        assert image.origin == "upper"
    assert [number for _, number in numbers[:2]] == ["+ 0.503", "− 0.593"]


def test_names_shares_intervals_and_quality_are_written() -> None:
    written = texts(drawn())
    assert {"8.716", "−0.346", "± 0.012", "Z61 · 25 %", "SL63 · 25 %"} <= set(written)
    assert "R² = 0.83\nRMSE 0.0855\nn = 23,444\n2 effective" in written
    assert any("99th percentile" in text for text in written)
    assert sum(text.startswith("±") for text in written) == 7  # the first law has no intervals


def test_texts_do_not_overlap_and_stay_on_the_page() -> None:
    fig = drawn()
    assert fig.get_figwidth() <= 7.2
    fig.draw_without_rendering()
    boxes = [text.get_window_extent() for text in fig.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert max(box.x1 for box in boxes) <= fig.bbox.x1


def test_incomplete_equations_are_refused() -> None:
    with pytest.raises(ValueError, match="no cutout"):
        plot_equations(table(), {}, PREFIXES, "")
    with pytest.raises(ValueError, match="intercept"):
        plot_equations(table()[1:], cutouts(), PREFIXES, "")
    with pytest.raises(ValueError, match="lacks"):
        plot_equations(table().drop(columns="share"), cutouts(), PREFIXES, "")
