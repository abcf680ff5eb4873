"""The exported page: its style, its script, and what writes it."""
