"""Speeds of making mock galaxies and of reading a survey's cutouts."""

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sfnetlab import runtime
from sfnetlab.bench.compare import Row, compare


def mock(device: str) -> Iterator[Row]:
    from sfnetlab.surveys.mock_population import make_population
    from sfnetlab.surveys.mock_render import render_images

    n, field_arcsec = 1500, 38.0
    catalog = make_population(n, 0, field_arcsec)
    for size in (64, 144):
        out = np.empty((n, size, size, 3), dtype=np.uint8)

        def render(n_workers: int, size: int = size, out: np.ndarray = out) -> None:
            render_images(catalog, size, field_arcsec, 0, out, n_workers=n_workers)

        case = f"mock galaxies at {size} px, all cores against one"
        yield compare(
            "mock", case, "galaxies/s", n, lambda r=render: r(runtime.n_threads()), lambda r=render: r(1), device
        )


def survey(device: str) -> Iterator[Row]:
    from PIL import Image

    n, size = 2000, 144
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        smooth = rng.integers(0, 255, (n, 12, 12, 3), dtype=np.uint8)
        pictures = [Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC) for image in smooth]
        np.save(path, np.stack([np.asarray(picture) for picture in pictures]))
        files = []
        for picture in pictures:
            buffer = io.BytesIO()
            picture.save(buffer, "jpeg", quality=90)
            files.append(buffer.getvalue())
        store = np.load(path, mmap_mode="r")
        order = rng.permutation(n)

        def read() -> None:
            for start in range(0, n, 64):
                np.array(store[order[start : start + 64]])

        def decode() -> None:
            for i in order:
                np.asarray(Image.open(io.BytesIO(files[i])).convert("RGB"))

        case = f"reading cutouts at {size} px, survey store against JPEG"
        yield compare("survey", case, "images/s", n, read, decode, device)
