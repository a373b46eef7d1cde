"""How models are trained: one loop with checkpoints, and what is particular to each kind of model."""
