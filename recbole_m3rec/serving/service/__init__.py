"""The HTTP service around a Recommender; needs the extra ``serving``."""
