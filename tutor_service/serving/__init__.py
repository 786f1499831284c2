"""Run tutors as applications on Ray Serve.

Owns deployments, what must hold before one is tried, and Serve's config files. Ray is imported when it is needed.
"""

from tutor_service.gateway.access import HttpConfig
from tutor_service.serving.checks import ON_DEMAND_VARIABLE, nodes_on_demand
from tutor_service.serving.lifecycle import STORE_RESOURCE, TutorStatus, delete, deploy, status

__all__ = [
    "ON_DEMAND_VARIABLE",
    "STORE_RESOURCE",
    "HttpConfig",
    "TutorStatus",
    "delete",
    "deploy",
    "nodes_on_demand",
    "status",
]
