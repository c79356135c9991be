"""Version of the package, read by the build and recorded in `stage.json`."""

__version__ = "0.1.0"
