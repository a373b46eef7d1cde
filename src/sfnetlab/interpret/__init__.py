"""Evidence: what features are, in tidy tables. It takes arrays and tables, never a path or a config.

To ask something new of every feature table, write a file with its computation and `ask(table)`, and add a line to
`QUESTIONS`; table.py says what a table has and what an answer is made of. To hold tables against each other in a new
way, write a file with `relate(related)`, and add a line to `RELATIONS`; related.py says what it is given.
"""

from collections.abc import Callable, Mapping

import pandas as pd

from sfnetlab.interpret import (
    ablation,
    alignment,
    alignment_nulls,
    catalog,
    confounders,
    equations,
    equivariance,
    explained_variance,
    latents,
    localisation,
    matching,
    reading,
    recovery,
    splitting,
    yields,
)
from sfnetlab.interpret.related import RelatedTables
from sfnetlab.interpret.table import Answer, DescribedTable

QUESTIONS: tuple[Callable[[DescribedTable], Answer], ...] = (
    catalog.ask,
    alignment.ask,
    alignment_nulls.ask,
    confounders.ask,
    equivariance.ask,
    ablation.ask,
    equations.ask,
    explained_variance.ask,
    recovery.ask,
    localisation.ask,
    latents.ask,
)
"""What is asked of every feature table, in the order of the columns of the table `features`."""

RELATIONS: tuple[Callable[[RelatedTables], Mapping[str, pd.DataFrame]], ...] = (
    matching.relate,
    reading.relate,
    splitting.relate,
    yields.relate,
)
"""How feature tables are held against each other."""
