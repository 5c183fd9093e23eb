"""Thin door to ``recbole_m3rec.cli.prepare.amazon``; ``--help`` lists the options."""

import sys

from recbole_m3rec.cli.main import call

if __name__ == "__main__":
    sys.exit(call("cli.prepare.amazon", sys.argv[1:]))
