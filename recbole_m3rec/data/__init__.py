"""The dataset, item features keyed by item token, and packed sequences."""
