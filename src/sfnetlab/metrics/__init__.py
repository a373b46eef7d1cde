"""Pure functions on arrays: errors of a prediction, their intervals, reconstruction, sparsity, association, selection."""
