"""``python -m recbole_m3rec.ablate``: the same as ``recbole-m3rec ablate``."""

import sys

from recbole_m3rec.cli.main import call

if __name__ == "__main__":
    sys.exit(call("cli.ablate", sys.argv[1:]))
