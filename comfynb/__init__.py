"""comfynb."""
