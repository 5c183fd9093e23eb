"""Thin door to ``recbole_m3rec.cli.prepare.encode_text``; ``--help`` lists the options."""

import sys

from recbole_m3rec.cli.prepare.encode_text import main

if __name__ == "__main__":
    sys.exit(main())
