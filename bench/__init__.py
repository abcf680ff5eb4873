"""What comfynb costs beside the plainest way of doing the same: `python -m bench`, `make bench`.

Every figure stands beside its yardstick, taken in the same run against the same engine process,
in turns: machines are noisy, and only what was measured side by side can be compared.
"""
