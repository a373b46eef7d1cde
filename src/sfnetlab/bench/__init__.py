"""`sfnetlab bench`: speeds of the lab, each against a reference that runs in turn with it, and quality of its SAEs.

A reference runs in the same process unless its benchmark says otherwise, with as many OpenMP threads as torch sets.
Machines differ and are shared, so the ratio of two speeds is the result; the rates themselves are for orientation.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sfnetlab.bench import (
    association,
    atlas,
    coverage,
    images,
    network,
    sae,
    sae_peers,
    sae_quality,
    scale,
    selection,
    speedrun,
    statistics,
)
from sfnetlab.bench.compare import Row, describe
from sfnetlab.errors import SfnetlabError

__all__ = ["BENCHMARKS", "Row", "describe", "run"]


def _mock_survey(device: str) -> Iterator[Row]:
    from sfnetlab.bench.mock_survey import mock_survey  # methods and scikit-learn take long to load

    yield from mock_survey(device)


def _claims_null(device: str) -> Iterator[Row]:
    from sfnetlab.bench.claims_null import claims_null  # methods take long to load

    yield from claims_null(device)


def _workers(device: str) -> Iterator[Row]:
    from sfnetlab.bench.workers import workers  # needs the extra `cluster`

    yield from workers(device)


BENCHMARKS: dict[str, Callable[[str], Iterator[Row]]] = {
    "mock": images.mock,
    "survey": images.survey,
    "mock-survey": _mock_survey,
    "embedding": images.embedding,
    "network": network.network,
    "sae": sae.sae,
    "sae-scaling": sae.scaling,
    "sae-quality": sae_quality.sae_quality,
    "sae-quality-large": sae_quality.sae_quality_large,
    "sae-peers": sae_peers.sae_peers,
    "selection": selection.selection,
    "ridge-path": statistics.ridge_path,
    "coverage": coverage.coverage,
    "claims-null": _claims_null,
    "association": association.association,
    "atlas": atlas.atlas,
    "scale": scale.scale,
    "scale-large": scale.scale_large,
    "scale-million": scale.scale_million,
    "speedrun": speedrun.speedrun,
    "speedrun-small": speedrun.speedrun_small,
    "workers": _workers,
}
ONLY_BY_NAME = (
    "claims-null",
    "coverage",
    "sae-quality-large",
    "sae-peers",
    "scale",
    "scale-large",
    "scale-million",
    "speedrun",
    "speedrun-small",
)
"""Benchmarks that run only if they are named, because they take much memory or long, or fetch packages."""


def run(names: Sequence[str], device: str, embeddings: Path | None = None) -> Iterator[Row]:
    """Run benchmarks and yield one row for each of their cases.

    Parameters
    ----------
    names
        Names from `BENCHMARKS`. None given: all except those in `ONLY_BY_NAME`.
    device
        A device of torch, such as "cpu" or "cuda".
    embeddings
        What "sae-peers" decomposes in place of planted rows; see `sae_peers.read_data`.

    Raises
    ------
    SfnetlabError
        If a name is unknown, or another benchmark than "sae-peers" is given embeddings.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise SfnetlabError(f"bench: no benchmark {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
    if embeddings is not None:
        if list(names) != ["sae-peers"]:
            raise SfnetlabError(f"bench: --embeddings is for sae-peers alone, got {', '.join(names) or 'all'}")
        yield from sae_peers.sae_peers(device, embeddings)
        return
    for name in names or [name for name in BENCHMARKS if name not in ONLY_BY_NAME]:
        yield from BENCHMARKS[name](device)
