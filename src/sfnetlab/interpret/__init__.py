"""Evidence: what features are, in tidy tables. It takes arrays and tables, never a path or a config.

To ask something new of every feature table, write a file with its computation and `ask(table)`, and add a line to
`QUESTIONS`. table.py says what a table has and what an answer is made of.
"""

from collections.abc import Callable

from sfnetlab.interpret import (
    ablation,
    alignment,
    catalog,
    confounders,
    equations,
    equivariance,
    explained_variance,
    latents,
    localisation,
    recovery,
)
from sfnetlab.interpret.table import Answer, DescribedTable

QUESTIONS: tuple[Callable[[DescribedTable], Answer], ...] = (
    catalog.ask,
    alignment.ask,
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
