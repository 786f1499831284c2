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
        UserError: An argument is wrong, the token's variable is not set on this node, or nothing says where several
            gateways are to run.
    """
    import ray

    from tutor_service.serving import deployment
    from tutor_service.serving.checks import store_resource

    tutor, given = resolve(args)
    access = HttpConfig(token_env=given.token_env).access() if given.token_env else None
    return deployment.build(tutor, access, store_resource(tutor) if ray.is_initialized() else None)
