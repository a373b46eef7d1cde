"""Sparse Feature Networks, sparse autoencoders and their controls on galaxy images."""
