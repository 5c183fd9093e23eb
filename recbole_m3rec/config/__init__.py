"""Configuration: layers of YAML files and checks of their values."""

import recbole  # noqa: F401  (importing it registers the plugin)
