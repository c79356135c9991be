"""The package's version, in one place: read by the build and by `stage.json`."""

__version__ = "0.1.0"
