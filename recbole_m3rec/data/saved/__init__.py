"""Datasets and loaders that are saved, and the digests of the files that they were made of."""
