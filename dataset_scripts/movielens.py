"""Thin door to ``recbole_m3rec.cli.prepare.movielens``; ``--help`` lists the options."""

import sys

from recbole_m3rec.cli.prepare.movielens import main

if __name__ == "__main__":
    sys.exit(main())
