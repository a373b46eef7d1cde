"""The common probes of feature tables, each behind a protocol: of labels, of two classes, of many.

Train rows fit (scaling too), valid rows choose; whoever scores the test rows calls `predict` or `score` once.
"""
