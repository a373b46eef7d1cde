"""`sfnetlab bench`: speeds, each against a reference that runs in turn with it in the same process.

Machines differ and are shared: the ratio is the result, the rates are for orientation.
"""

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfnetlab import runtime
from sfnetlab.errors import SfnetlabError

N_TURNS = 3


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. `ours` and `reference` are rates in `unit`, medians over turns; `ratio` is ours over theirs."""

    name: str
    case: str
    ours: float
    reference: float
    unit: str
    ratio: float
    threads: int
    device: str


def run(names: Sequence[str], device: str) -> Iterator[Row]:
    """Run the named benchmarks (all of them when none is named), a row each case.

    Raises
    ------
    SfnetlabError
        If a name is unknown.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise SfnetlabError(f"bench: no benchmark {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        yield from BENCHMARKS[name](device)


def describe(row: Row) -> str:
    return (
        f"{row.name:12} {row.case:58} {row.ours:10.1f} {row.unit}, {row.ratio:6.2f} x the reference "
        f"({row.reference:.1f}), {row.threads} threads, {row.device}"
    )


def _compare(
    name: str, case: str, unit: str, n: int, ours: Callable[[], object], reference: Callable[[], object], device: str
) -> Row:
    """Time both in turns, after one warm-up each; `n` is how many units one call does."""
    ours()
    reference()
    times: dict[str, list[float]] = {"ours": [], "reference": []}
    for _ in range(N_TURNS):
        for which, function in (("ours", ours), ("reference", reference)):
            started = time.perf_counter()
            function()
            times[which].append(time.perf_counter() - started)
    rates = {which: n / statistics.median(seconds) for which, seconds in times.items()}
    ratio = statistics.median(b / a for a, b in zip(times["ours"], times["reference"], strict=True))
    return Row(
        name=name,
        case=case,
        unit=unit,
        ours=rates["ours"],
        reference=rates["reference"],
        ratio=ratio,
        threads=runtime.n_threads(),
        device=device,
    )


def _mock(device: str) -> Iterator[Row]:
    from sfnetlab.surveys.mock_population import make_population
    from sfnetlab.surveys.mock_render import render_images

    n, field_arcsec = 1500, 38.0
    catalog = make_population(n, 0, field_arcsec)
    for size in (64, 144):
        out = np.empty((n, size, size, 3), dtype=np.uint8)

        def render(n_workers: int, size: int = size, out: np.ndarray = out) -> None:
            render_images(catalog, size, field_arcsec, 0, out, n_workers=n_workers)

        case = f"mock galaxies at {size} px, all cores against one"
        yield _compare(
            "mock", case, "galaxies/s", n, lambda r=render: r(runtime.n_threads()), lambda r=render: r(1), device
        )


def _survey(device: str) -> Iterator[Row]:
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
        yield _compare("survey", case, "images/s", n, read, decode, device)


def _network(device: str) -> Iterator[Row]:
    import torch
    from torch import nn

    from sfnetlab.models.backbones import make_backbone
    from sfnetlab.models.sfnet import SparseFeatureNetwork

    def make_contiguous(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(x.contiguous() for x in inputs)

    def stepper(size: int, layout: torch.memory_format) -> Callable[[], None]:
        images = torch.randint(0, 255, (n, size, size, 3), dtype=torch.uint8, device=device)
        labels = torch.randn(n, 1, device=device)
        network = SparseFeatureNetwork(make_backbone("resnet18", "random", 0), "resnet18", 1, 4).to(device)
        network.to(memory_format=layout)
        if layout == torch.contiguous_format:
            first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
            first.register_forward_pre_hook(make_contiguous)
        optimizer = torch.optim.AdamW(network.parameters())

        def step() -> None:
            optimizer.zero_grad()
            (network(images) - labels).square().mean().backward()
            optimizer.step()

        return step

    n = 64
    for size in (64, 144):
        ours, reference = stepper(size, torch.channels_last), stepper(size, torch.contiguous_format)
        case = f"SFNet training at {size} px, channels last against contiguous"
        yield _compare("network", case, "images/s", n, ours, reference, device)


def _sae(device: str) -> Iterator[Row]:
    import torch

    from sfnetlab.models.sae import SparseAutoencoder

    n, d_in, n_latents, k = 1024, 512, 2048, 32
    z = torch.randn(n, d_in, device=device)
    sae = SparseAutoencoder(d_in, n_latents, k).to(device)
    torch.nn.init.normal_(sae.W_enc)
    torch.nn.init.normal_(sae.W_dec)

    def sparse() -> None:
        sae.zero_grad()
        encoded = sae.encode_standardised(z, k)
        (sae.decode_standardised(encoded) - z).square().mean().backward()

    def dense() -> None:
        sae.zero_grad()
        encoded = sae.encode_standardised(z, k)
        latents = torch.zeros(n, n_latents, device=device).scatter(1, encoded.indices, encoded.values)
        (latents @ sae.W_dec + sae.b_dec - z).square().mean().backward()

    case = f"top-k SAE gradient, d {d_in}, {n_latents} latents, k {k}; sparse decode against dense"
    yield _compare("sae", case, "rows/s", n, sparse, dense, device)


def _selection(device: str) -> Iterator[Row]:
    from sfnetlab.metrics.selection import select_forward

    rng = np.random.default_rng(0)
    n, d, k = 1000, 64, 4
    X = rng.standard_normal((n, d))
    Y = X[:, :6] @ rng.standard_normal((6, 1)) + rng.standard_normal((n, 1))

    def loop() -> list[int]:
        chosen: list[int] = []
        for _ in range(k):
            rest = [j for j in range(d) if j not in chosen]
            columns = [np.column_stack([np.ones(n), X[:, [*chosen, j]]]) for j in rest]
            losses = [float(np.linalg.lstsq(design, Y)[1].sum()) for design in columns]
            chosen.append(rest[int(np.argmin(losses))])
        return chosen

    if select_forward(X, Y, k).tolist() != loop():
        raise AssertionError("forward selection does not agree with the loop over least squares")
    case = f"best {k} of {d} features of {n} rows, against a loop over least squares"
    yield _compare("selection", case, "selections/s", 1, lambda: select_forward(X, Y, k), loop, device)


BENCHMARKS: dict[str, Callable[[str], Iterator[Row]]] = {
    "mock": _mock,
    "survey": _survey,
    "network": _network,
    "sae": _sae,
    "selection": _selection,
}
