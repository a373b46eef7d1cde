"""The training step on a CPU, compiled by Numba: one dense product, then only the active latents are touched.

step.py is what the trainer calls: it shares rows and latents among threads. selection.py finds the active latents,
update.py decodes them and moves their weights; parts.py is what both need, bundles.py the arrays that they take
together, lanes.py blocks of columns in the processor's registers.
"""
