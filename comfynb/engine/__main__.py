"""Run the engine: `python -m comfynb.engine`."""

from comfynb.engine.process import run

if __name__ == "__main__":
    run()
