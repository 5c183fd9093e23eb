"""Compatibility patches for RecBole 1.2, one function per bug.

Each function names the line of RecBole that it repairs and does nothing where RecBole or the
library no longer needs it. None of them holds a copy of RecBole's code.
"""

import recbole  # noqa: F401  (importing it registers the plugin)
