"""Servers as this process uses them: a lane for each, the fleet of one run, what they can do."""
