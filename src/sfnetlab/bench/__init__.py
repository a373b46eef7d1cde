"""`sfnetlab bench`: speeds, each against a reference that runs in turn with it, and quality.

References run in the same process if nothing else is said, with OpenMP's threads as torch sets them. Machines differ
and are shared: of speeds the ratio is the result, the rates are for orientation.
"""

from collections.abc import Callable, Iterator, Sequence

from sfnetlab.bench import association, atlas, images, network, sae, sae_quality, selection, statistics
from sfnetlab.bench.compare import Row, describe
from sfnetlab.errors import SfnetlabError

__all__ = ["BENCHMARKS", "Row", "describe", "run"]

BENCHMARKS: dict[str, Callable[[str], Iterator[Row]]] = {
    "mock": images.mock,
    "survey": images.survey,
    "embedding": images.embedding,
    "network": network.network,
    "sae": sae.sae,
    "sae-scaling": sae.scaling,
    "sae-quality": sae_quality.sae_quality,
    "sae-quality-large": sae_quality.sae_quality_large,
    "selection": selection.selection,
    "ridge-path": statistics.ridge_path,
    "association": association.association,
    "atlas": atlas.atlas,
}
ONLY_BY_NAME = ("sae-quality-large",)


def run(names: Sequence[str], device: str) -> Iterator[Row]:
    """Run the named benchmarks, without names all but `ONLY_BY_NAME`; a row each case.

    Raises
    ------
    SfnetlabError
        If a name is unknown.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise SfnetlabError(f"bench: no benchmark {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
    for name in names or [name for name in BENCHMARKS if name not in ONLY_BY_NAME]:
        yield from BENCHMARKS[name](device)
