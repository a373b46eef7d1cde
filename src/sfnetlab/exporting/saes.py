"""Sparse autoencoders of an experiment in the layout of SAELens."""

from collections.abc import Iterator
from pathlib import Path

from sfnetlab.exporting.items import Item
from sfnetlab.jobs import Run
from sfnetlab.methods.sae import load_sae_of
from sfnetlab.results import TableResult


def sae_items(table: TableResult) -> Iterator[Item]:
    """Yield the autoencoder behind a table, if there is one, for `sae_lens.SAE.load_from_disk`.

    Tables of refitted codes yield the same one as that of what its encoder selects.
    """
    saes = table.record("saes")
    if saes is None:
        return

    def write(path: Path) -> None:
        from sfnetlab.models.foreign import export_saelens

        export_saelens(path, load_sae_of(table.spec, saes.directory))

    run = Run.of(table.spec.seed or 0)
    yield Item(f"saelens/{saes.settings['sae']['name']}-k{table.spec.k}-{run.name}", saes, write)
