"""The feature atlas: a static folder of pages to look at features with, from arrays and tables."""
