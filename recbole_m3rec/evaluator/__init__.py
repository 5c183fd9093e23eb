"""Evaluation: ranking in blocks, masking of seen items, NaN checks."""

import recbole  # noqa: F401  (importing it registers the plugin)
