"""Boards: cells and their latest keyframes, over any number of runs, a log, and other notebooks."""
