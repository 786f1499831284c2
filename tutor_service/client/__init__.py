"""Ask a tutor from a student's process, by Serve handle or over HTTP. Knows neither environments nor students."""

from tutor_service.client.client import (
    TOKEN_VARIABLE,
    URL_VARIABLE,
    ClientSettings,
    ClientStats,
    TutorClient,
    app_name,
    connect,
    service_url,
)

__all__ = [
    "TOKEN_VARIABLE",
    "URL_VARIABLE",
    "ClientSettings",
    "ClientStats",
    "TutorClient",
    "app_name",
    "connect",
    "service_url",
]
