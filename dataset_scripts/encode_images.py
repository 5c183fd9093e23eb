"""Thin door to ``recbole_m3rec.cli.prepare.encode_images``; ``--help`` lists the options."""

import sys

from recbole_m3rec.cli.prepare.encode_images import main

if __name__ == "__main__":
    sys.exit(main())
