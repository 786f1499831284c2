"""Build a tutor's application for Serve, whose config files name ``import_path: tutor_service.serve_config:build``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tutor_service.gateway.access import HttpConfig
from tutor_service.serving.arguments import resolve

if TYPE_CHECKING:
    from ray.serve import Application


def build(args: dict[str, Any]) -> Application:
    """Return the Serve application of a tutor.

    Args:
        args: See ``BuildArguments``.

    Raises:
        UserError: An argument is wrong, or the token's variable is not set on this node.
    """
    from tutor_service.serving import deployment

    tutor, given = resolve(args)
    return deployment.build(tutor, HttpConfig(token_env=given.token_env).access() if given.token_env else None)
