"""`python -m jobyard`, where the command is not on the path."""

import sys

from jobyard.cli import main

if __name__ == "__main__":
    sys.exit(main())
