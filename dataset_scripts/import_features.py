"""Thin door to ``recbole_m3rec.cli.prepare.import_features``; ``--help`` lists the options."""

import sys

from recbole_m3rec.cli.main import call

if __name__ == "__main__":
    sys.exit(call("cli.prepare.import_features", sys.argv[1:]))
