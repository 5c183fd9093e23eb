"""``python -m recbole_m3rec.serving``: the same as ``recbole-m3rec serve``."""

import sys

from recbole_m3rec.serving.serve import main

if __name__ == "__main__":
    sys.exit(main())
