"""Put a build on every host over SSH and make it live everywhere, or change nothing."""

__version__ = "0.1.0"
