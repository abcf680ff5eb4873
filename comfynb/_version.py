"""The version of comfynb, read by the build and by `comfynb.__version__`."""

__version__ = "0.1.0"
