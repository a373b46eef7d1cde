"""How models are trained: one loop with checkpoints, and what is particular to networks and to sparse autoencoders."""
