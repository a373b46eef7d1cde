"""Pure functions on arrays: regression errors and their intervals, reconstruction, sparsity, association, selection."""
