"""How well the features of each method go with labels of morphology, at equal numbers of features."""

from sfnetlab.figures import style
from sfnetlab.figures.equal_numbers import plot_at_equal_numbers
from sfnetlab.figures.findings import Figures, Findings, every_seed, methods_of
from sfnetlab.interpret.alignment_nulls import NUMBERS

_LABEL = "alignment with labels: 2 AUC − 1, of the largest possible"


def draw(findings: Findings) -> Figures:
    """Draw all methods in one figure, in every run: of each the most frequent features."""
    aligned = findings.gathered("alignment_nulls", methods_of(every_seed(findings)))
    if aligned is None:
        return
    columns = {"n_features": "n", "score": "value", "untrained_score": "untrained", "permuted_score": "permuted"}
    table = aligned[aligned["n_features"].isin(NUMBERS)].rename(columns=columns)
    table = table.drop_duplicates(["features", "seed", "n"])
    yield from style.drawn("alignment", plot_at_equal_numbers, table, _LABEL)
