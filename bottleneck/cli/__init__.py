"""The command line: parse, call the public API, print."""

from bottleneck.cli.main import main

__all__ = ["main"]
