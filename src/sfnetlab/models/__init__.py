"""Torch modules that know no paths of an experiment and no configuration; constructors take plain numbers."""
