"""Training of sparse autoencoders: recipe, state, the plain step of each variant, and the kernels that do it faster."""
