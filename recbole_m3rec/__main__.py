"""``python -m recbole_m3rec``: the same as ``recbole-m3rec``."""

import sys

from recbole_m3rec.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
