"""The dataset, item features keyed by item token, and packed sequences."""

import recbole  # noqa: F401  (importing it registers the plugin)
