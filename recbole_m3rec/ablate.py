"""``python -m recbole_m3rec.ablate``: the same as ``recbole-m3rec ablate``."""

import sys

from recbole_m3rec.cli.ablate import main

if __name__ == "__main__":
    sys.exit(main())
