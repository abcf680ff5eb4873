"""`python -m comfynb`, the same as the command `comfynb`."""

import sys

from comfynb.cli import main

if __name__ == "__main__":
    sys.exit(main())
