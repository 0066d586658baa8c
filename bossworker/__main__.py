"""``python -m bossworker``."""

import sys

from bossworker.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
