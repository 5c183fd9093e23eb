"""Describe a dataset: its log, its features, one figure."""
