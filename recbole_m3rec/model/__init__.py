"""M3Rec: the network in plain PyTorch, and its adapters to RecBole."""

import recbole  # noqa: F401  (importing it registers the plugin)
