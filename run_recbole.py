"""Train, resume, evaluate or ask for recommendations: ``python run_recbole.py --help``."""

import sys

from recbole_m3rec.cli.main import call

if __name__ == "__main__":
    sys.exit(call("cli.train", sys.argv[1:]))
