"""Thin door to ``recbole_m3rec.cli.prepare.encode_text``; ``--help`` lists the options."""

import sys

from recbole_m3rec.cli.main import call

if __name__ == "__main__":
    sys.exit(call("cli.prepare.encode_text", sys.argv[1:]))
