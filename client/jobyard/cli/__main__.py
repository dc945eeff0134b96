"""`python -m jobyard.cli`, where the command is not installed."""

import sys

from jobyard.cli import main

if __name__ == "__main__":
    sys.exit(main())
