"""``python -m recbole_m3rec.compare``: the same as ``recbole-m3rec compare``."""

import sys

from recbole_m3rec.cli.main import call

if __name__ == "__main__":
    sys.exit(call("cli.compare", sys.argv[1:]))
