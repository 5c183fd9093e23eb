"""Several processes as one training: how they start, meet, share batches and watch each other."""

import recbole  # noqa: F401  (importing it registers the plugin)
