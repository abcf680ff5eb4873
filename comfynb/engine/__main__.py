"""Run the engine: `python -m comfynb.engine`."""

import sys

from comfynb.engine.process import main

if __name__ == "__main__":
    sys.exit(main())
