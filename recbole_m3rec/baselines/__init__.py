"""What RecBole's own models require: item columns, item vectors, single settings."""

import recbole  # noqa: F401  (importing it registers the plugin)
