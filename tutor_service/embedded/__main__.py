"""Prepare an embedded model from the command line: ``python -m tutor_service.embedded [NAME] [--verify]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tutor_service.embedded.conversion import convert_here
from tutor_service.embedded.preparation import prepare
from tutor_service.embedded.table import DEFAULT, MODELS
from tutor_service.errors import UserError


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tutor_service.embedded", description="Prepares an embedded model.")
    parser.add_argument("name", nargs="?", default=DEFAULT, help=f"one of {', '.join(MODELS)} (default: {DEFAULT})")
    parser.add_argument("--verify", action="store_true", help="hash every file of a model that is already there")
    parser.add_argument("--convert", nargs=2, metavar=("GGUF", "FOLDER"), type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        if arguments.convert:
            convert_here(*arguments.convert)
        else:
            prepare(arguments.name, verify=arguments.verify)
    except UserError as error:
        print(f"[tutor] error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("[tutor] stopped; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
