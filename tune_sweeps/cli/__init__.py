"""Offer the command ``tutor``, one module per subcommand; heavy imports wait until the command line is parsed."""

from tune_sweeps.cli.app import main

__all__ = ["main"]
