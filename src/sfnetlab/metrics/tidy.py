"""The words of the tidy tables of fit-probes, a row a number: their columns, and names of predictions beside probes."""

IDENTITY = ("features", "kind", "k", "seed")
"""Columns that tell which feature table a row is about; k and seed are <NA> where a table has none."""
FAMILY, TRAINING = STANDS_ON = ("family", "training")
"""Columns of predictions that say on which training a feature table stands: name of the network whose embedding it
decomposes (else of its own method), and the seed, <NA> where nothing is random. Tables of one family and training share
what is random in it, others are independent."""
EFFECTIVE = ("n_effective", "participation")
"""Columns beside the number of features used in all: how many they effectively are, on train rows, see
`metrics.effective`; NaN where that is not known."""
COLUMNS = (
    *IDENTITY, "probe", "n_features_used", *EFFECTIVE, "target", "column", "split", "metric", "value", "low", "high",
    "n",
)  # fmt: skip
"""Columns of `metrics.parquet`."""
PARTS = ("train", "valid", "test")
"""Parts of the split."""
HEAD = "head"
"""Stands for the network's own head."""
IN_SAMPLE = "_in_sample"
"""Ends the names of probes that were fitted to the very test rows that they are scored on."""
ON_SEEN = "_on_seen_rows"
"""Ends the names of probes that were fitted to train rows whose labels the features have learnt."""
AUGMENTED = "_augmented"
"""Ends the names of predictions that are means over the 8 symmetries of a cutout."""
ENSEMBLE = "_ensemble"
"""Ends the names of predictions that are means over seeds."""
CALIBRATED = "_calibrated"
"""Ends the names of quantiles that were calibrated on valid rows."""
