"""The adapters of the networks to RecBole."""

import recbole  # noqa: F401  (importing it registers the plugin)
