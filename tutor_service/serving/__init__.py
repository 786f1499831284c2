"""Run tutors as applications on Ray Serve.

Owns deployments, what must hold before one is tried, and Serve's config files. Ray is imported when it is needed.
"""

from tutor_service.gateway.access import HttpConfig
from tutor_service.serving.checks import ON_DEMAND_VARIABLE, STORE_RESOURCE, nodes_on_demand
from tutor_service.serving.leases import Lease, lease_holders
from tutor_service.serving.lifecycle import TutorStatus, delete, deploy, start, status, wait_until_ready

__all__ = [
    "ON_DEMAND_VARIABLE",
    "STORE_RESOURCE",
    "HttpConfig",
    "Lease",
    "TutorStatus",
    "delete",
    "deploy",
    "lease_holders",
    "nodes_on_demand",
    "start",
    "status",
    "wait_until_ready",
]
