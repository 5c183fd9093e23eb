"""Thin door to ``recbole_m3rec.cli.prepare.import_features``; ``--help`` lists the options."""

import sys

from recbole_m3rec.cli.prepare.import_features import main

if __name__ == "__main__":
    sys.exit(main())
