"""How much of an embedding the features explain, with only some of them kept."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sfnetlab.interpret.ablation import doubling
from sfnetlab.interpret.table import NOTHING, Answer, DescribedTable
from sfnetlab.metrics.dictionary import fvu_of_blocks
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.metrics.tables import BLOCK_VALUES, FeatureMatrix, checked_table, column_mean_sd


def ask(table: DescribedTable) -> Answer:
    """Return the table `explained_variance`; nothing where the features do not make an embedding again.

    Components are kept by number, latents by their frequency on train galaxies, those of nested dictionaries as these
    have them. What is left out has its train mean; nested dictionaries do without it.
    """
    writing = table.reader.writing
    if table.load_embedding is None or writing is None:
        return NOTHING
    values = table.train.values
    fill = column_mean_sd(checked_table(values))[0]
    order = np.arange(len(fill))
    if len(table.reader.prefixes) > 1:
        fill = np.zeros_like(fill)
    elif not table.traits.is_ordered:
        order = np.argsort(-activation_frequency(values), kind="stable")
    embedding = np.asarray(table.load_embedding(table.test.rows["id_str"]))
    explained = explained_variance(embedding, table.test.values, *writing, order, fill)
    return Answer(tables={"explained_variance": explained})


def explained_variance(
    embedding: NDArray[np.floating],
    values: FeatureMatrix,
    W_dec: NDArray[np.floating],
    b_dec: NDArray[np.floating],
    order: NDArray[np.integer],
    fill: NDArray[np.floating],
) -> pd.DataFrame:
    """Return how much of an embedding's variance its reconstruction from the first few features alone explains.

    That is 1 - FVU of x_hat = sum over features of value times atom, plus `b_dec`, where the features not kept have the
    value `fill`; nothing is fitted again. PCA is a dictionary too: scores, components and mean. FVU is about the column
    means of these rows.

    Parameters
    ----------
    embedding : ndarray of shape (n, d_in)
        Test galaxies, on the scale on which `W_dec` reconstructs.
    values : ndarray or CSR of shape (n, d)
        Their scores or latents.
    W_dec, b_dec : ndarray of shapes (d, d_in), (d_in,)
    order : ndarray of shape (d,)
        Features in the order in which they are kept, judged on other galaxies: PCA by number, SAE latents by frequency
        or as Matryoshka groups have them.
    fill : ndarray of shape (d,)
        Train means, so that features left out cost their variance alone, as those of PCA (means 0) do; zeros give what
        a Matryoshka prefix is trained for.

    Returns
    -------
    DataFrame
        `n_components` (features kept, 1, 2, 4, ... and all of `order`), `l0` (mean number of kept features that are
        active a galaxy), `explained_variance` (share; below 0 where worse than the column means).

    Raises
    ------
    ValueError
        If shapes do not fit or a value is not finite.
    """
    x, table = np.asarray(checked_table(embedding, "embedding")), checked_table(values, "values")
    n, d = table.shape
    if len(x) != n or W_dec.shape != (d, x.shape[1]) or b_dec.shape != (x.shape[1],) or fill.shape != (d,):
        raise ValueError(
            f"embedding {x.shape}, values {table.shape}, W_dec {W_dec.shape}, b_dec {b_dec.shape}, "
            f"fill {fill.shape} do not fit together"
        )
    sizes = doubling(len(order))
    steps = [order[low:high] for low, high in zip([0, *sizes], sizes, strict=False)]

    constant = b_dec + fill @ W_dec

    def reconstructions() -> Iterator[tuple[NDArray[np.floating], NDArray[np.float64]]]:
        n_rows = max(1, BLOCK_VALUES // (len(sizes) * x.shape[1]))
        for start in range(0, n, n_rows):
            block = table[start : start + n_rows]
            added = [(block[:, step] @ W_dec[step]).astype(np.float64) - fill[step] @ W_dec[step] for step in steps]
            yield x[start : start + n_rows], np.cumsum(np.stack(added, axis=1), axis=1) + constant

    fvu = fvu_of_blocks(reconstructions())
    n_active = np.cumsum(activation_frequency(values)[order])
    return pd.DataFrame({"n_components": sizes, "l0": n_active[np.array(sizes) - 1], "explained_variance": 1 - fvu})
