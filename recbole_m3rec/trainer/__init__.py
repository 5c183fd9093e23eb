"""Training beside RecBole's trainer: several processes, pretraining."""

import recbole  # noqa: F401  (importing it registers the plugin)
