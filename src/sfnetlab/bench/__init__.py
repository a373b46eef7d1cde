"""`sfnetlab bench`: speeds, each against a reference that runs in turn with it in the same process.

Machines differ and are shared: the ratio is the result, the rates are for orientation.
"""

from collections.abc import Callable, Iterator, Sequence

from sfnetlab.bench import images, network, sae, selection
from sfnetlab.bench.compare import Row, describe
from sfnetlab.errors import SfnetlabError

__all__ = ["BENCHMARKS", "Row", "describe", "run"]

BENCHMARKS: dict[str, Callable[[str], Iterator[Row]]] = {
    "mock": images.mock,
    "survey": images.survey,
    "network": network.network,
    "sae": sae.sae,
    "sae-scaling": sae.scaling,
    "selection": selection.selection,
}


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
