"""Where galaxies come from: images, catalogues, ids, labels, splits."""
