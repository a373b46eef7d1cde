"""What becomes of the latents of a dictionary in a larger one of the same embedding."""

from itertools import permutations

import pandas as pd

from sfnetlab.interpret.related import RelatedTable, RelatedTables
from sfnetlab.metrics.matching import split_latents
from sfnetlab.metrics.sparsity import activation_frequency


def relate(related: RelatedTables) -> dict[str, pd.DataFrame]:
    """Return `splitting`: each dictionary's latents in every larger dictionary of the same embedding.

    The rows of two tables are those of `metrics.matching.split_latents`, with the tables' names in `small` and `large`
    and the number of latents of the small one that are active on train galaxies in `n_alive_small`. Nothing where no
    two dictionaries of one embedding differ in size, or one has no active latent.
    """
    train = related.ids("train")
    dictionaries = {name: table for name, table in related.tables.items() if _is_dictionary(table)}
    parts: list[pd.DataFrame] = []
    for (name_small, small), (name_large, large) in permutations(dictionaries.items(), 2):
        W_small, W_large = small.reader.directions, large.reader.directions
        if small.embedding != large.embedding or W_small is None or W_large is None or len(W_small) >= len(W_large):
            continue
        codes_small, codes_large = small.values_of(train), large.values_of(train)
        n_alive, n_alive_large = (int((activation_frequency(codes) > 0).sum()) for codes in (codes_small, codes_large))
        if min(n_alive, n_alive_large) == 0:
            continue
        split = split_latents(W_small, W_large, codes_small, codes_large)
        parts.append(split.assign(small=name_small, large=name_large, n_alive_small=n_alive))
    return {"splitting": pd.concat(parts, ignore_index=True)} if parts else {}


def _is_dictionary(table: RelatedTable) -> bool:
    """Whether its features are latents that were trained to stand for something, few at a time."""
    return table.traits.role == "decomposition" and table.spec.k is not None
