"""After training: checkpoints and recommendations."""

import recbole  # noqa: F401  (importing it registers the plugin)
