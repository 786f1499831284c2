"""Reach a tutor by a Ray Serve handle, from any process of its Ray cluster. The only client code that knows Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutor_service.client.backend import BackendError, service_share_s
from tutor_service.schema import Advice, AdviceError, AdviceRequest


class ServeHandleBackend:
    """Reach one Serve application's ingress. The handle is made at the first call and never pickled.

    Args:
        app_name: Name of the Serve application.
    """

    def __init__(self, app_name: str) -> None:
        self.app_name = app_name
        self._handle: Any = None

    def advise(self, requests: Sequence[AdviceRequest], timeout_s: float) -> list[Advice | AdviceError]:
        """Call the ingress's ``advise``: see ``Backend``."""
        response = None
        try:
            response = self._connected().advise.remote(list(requests), service_share_s(timeout_s))
            return list(response.result(timeout_s=timeout_s))
        except BackendError:
            raise
        except TimeoutError:
            if response is not None:
                response.cancel()
            raise BackendError(f"'{self.app_name}' did not answer within {timeout_s:.1f} s", retry=True) from None
        except Exception as error:
            # Whatever a dead replica, a restarting controller or a full queue raises: Serve itself retries none of it.
            self._handle = None
            raise BackendError(f"'{self.app_name}' failed: {type(error).__name__}: {error}", retry=True) from error

    def _connected(self) -> Any:
        if self._handle is None:
            import ray
            from ray import serve

            if not ray.is_initialized():  # Serve would start a new, empty Ray here
                raise BackendError("this process is not connected to Ray", retry=False)
            self._handle = serve.get_app_handle(self.app_name)
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {"app_name": self.app_name, "_handle": None}

    def __repr__(self) -> str:
        return f"ServeHandleBackend({self.app_name!r})"
