"""Subcommands that prepare data: datasets, features, and a look at them."""
