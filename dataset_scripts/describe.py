"""Thin door to ``recbole_m3rec.cli.prepare.describe``; ``--help`` lists the options."""

import sys

from recbole_m3rec.cli.main import call

if __name__ == "__main__":
    sys.exit(call("cli.prepare.describe", sys.argv[1:]))
