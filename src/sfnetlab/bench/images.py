"""Speeds of making mock galaxies, of reading a survey's cutouts, and of embedding JPEG files."""

import functools
import io
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfnetlab import runtime
from sfnetlab.bench.compare import Row, compare

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor, nn


def mock(device: str) -> Iterator[Row]:
    """Yield a row for each image size: mock galaxies rendered per second, on all cores against one core."""
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
    """Yield one row: cutouts read per second in random order, from a survey's array against JPEG files in memory."""
    from PIL import Image

    n, size = 2000, 144
    pictures = _pictures(n, size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, np.stack([np.asarray(picture) for picture in pictures]))
        files = []
        for picture in pictures:
            buffer = io.BytesIO()
            picture.save(buffer, "jpeg", quality=90)
            files.append(buffer.getvalue())
        store = np.load(path, mmap_mode="r")
        order = np.random.default_rng(0).permutation(n)

        def read() -> None:
            for start in range(0, n, 64):
                np.array(store[order[start : start + 64]])

        def decode() -> None:
            for i in order:
                np.asarray(Image.open(io.BytesIO(files[i])).convert("RGB"))

        case = f"reading cutouts at {size} px, survey store against JPEG"
        yield compare("survey", case, "images/s", n, read, decode, device)


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FILE_SIDE, _CROP = 160, 144


def embedding(device: str) -> Iterator[Row]:
    """Yield one row: images per second from 160-pixel JPEG files to the features of their central 144 pixels.

    The lab decodes the files into a survey's array and embeds that; both parts count. The reference is what the
    papers' notebooks do: a dataset opens each image with Pillow and applies torchvision's transforms, and a DataLoader
    with one process per core makes contiguous batches. It runs in turn with ours, but in a Python process of its own
    with the defaults of OpenMP and malloc, as a notebook would.

    Raises
    ------
    AssertionError
        If the two do not agree.
    """
    import pandas as pd

    from sfnetlab.models.backbones import ImageEncoder, for_inference, make_backbone
    from sfnetlab.surveys.folder import FolderSurvey, build_folder_survey
    from sfnetlab.training.network import embed_batches

    n = 768
    backbone = make_backbone("resnet18", "random", 0).eval().to(device)
    encoder = for_inference(ImageEncoder(backbone, _MEAN, _STD).eval().to(device))
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=spawn) as notebook,
    ):
        ids = [f"{i:04d}" for i in range(n)]
        for id_str, picture in zip(ids, _pictures(n, _FILE_SIDE), strict=True):
            picture.save(Path(folder) / f"{id_str}.jpg", quality=90)
        catalog = pd.DataFrame({"id_str": ids}, dtype="str")
        settings = FolderSurvey(catalog=Path(folder) / "unused.csv", images=Path(folder), crop=_CROP)
        store = Path(folder) / "images.npy"

        def ours() -> "NDArray[np.float32]":
            build_folder_survey(settings, catalog, store)
            return np.concatenate(list(embed_batches(encoder, np.load(store, mmap_mode="r"), device=device)))

        def theirs() -> "NDArray[np.float32]":
            return notebook.submit(_embed_as_a_notebook, Path(folder), ids, device).result()

        np.testing.assert_allclose(ours(), theirs(), rtol=1e-3, atol=1e-4)
        case = f"JPEG files to ResNet18 embeddings at {_CROP} px, against a DataLoader"
        yield compare("embedding", case, "images/s", n, ours, theirs, device)


@functools.cache
def _notebook_backbone(device: str) -> "nn.Module":
    from sfnetlab.models.backbones import make_backbone

    return make_backbone("resnet18", "random", 0).eval().to(device)


def _embed_as_a_notebook(folder: Path, ids: list[str], device: str) -> "NDArray[np.float32]":
    """Return the features of the images `<id>.jpg` in a folder, made as the papers' notebooks make them."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    prepare = transforms.Compose(
        [transforms.CenterCrop(_CROP), transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)]
    )

    class Files(Dataset["Tensor"]):
        def __len__(self) -> int:
            return len(ids)

        def __getitem__(self, index: int) -> "Tensor":  # pyrefly: ignore[missing-override-decorator]
            return prepare(Image.open(folder / f"{ids[index]}.jpg").convert("RGB"))

    backbone = _notebook_backbone(device)
    with torch.inference_mode():
        batches = DataLoader(Files(), batch_size=64, num_workers=runtime.n_threads(), multiprocessing_context="fork")
        return np.concatenate([backbone(batch.to(device)).cpu().numpy() for batch in batches])


def _pictures(n: int, size: int) -> "list[Image.Image]":
    """Return n smooth random colour images of size x size pixels, which compress about as well as cutouts do."""
    from PIL import Image

    smooth = np.random.default_rng(0).integers(0, 255, (n, 12, 12, 3), dtype=np.uint8)
    return [Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC) for image in smooth]
