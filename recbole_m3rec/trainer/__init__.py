"""Training beside RecBole's trainer: exact resume, checkpoints, schedules, stages."""

import recbole  # noqa: F401  (importing it registers the plugin)
