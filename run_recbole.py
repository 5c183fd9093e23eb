"""Train, resume, evaluate or ask for recommendations: ``python run_recbole.py --help``."""

import sys

from recbole_m3rec.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
