"""Read a secret where it is used: from this process's environment or a file that only its owner can read.

A secret never travels: Ray shows the arguments of actors and the environments of jobs to everyone who may look at a
cluster. What travels is the name of the variable or of the file.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tutor_service.errors import UserError


def read_secret(what: str, variable: str | None, file: Path | None) -> str | None:
    """Return the secret, or None where neither place is named.

    Args:
        what: What it is, for messages: ``bearer token``.
        variable: Environment variable that holds it.
        file: File that holds it. At most one of the two.

    Raises:
        UserError: Both are named, or the one that is holds nothing on this node; the message never has the secret.
    """
    if variable and file:
        raise UserError(f"give the {what} by an environment variable or by a file, not by both.")
    if variable:
        source = f"environment variable '{variable}'"
        secret = os.environ.get(variable, "").strip()
    elif file:
        source = f"file '{file}'"
        try:
            secret = file.expanduser().read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise UserError(
                f"{source} with the {what} cannot be read on node '{socket.gethostname()}': {reason}."
            ) from None
    else:
        return None
    if not secret:
        raise UserError(
            f"{source} holds no {what} on node '{socket.gethostname()}'. Set it in that node's own environment, or "
            "mount a file: it is not sent there from elsewhere."
        )
    return secret
