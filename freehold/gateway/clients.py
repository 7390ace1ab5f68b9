"""The HTTP client that processes of a home use between themselves."""

from datetime import timedelta

from pyreqwest.client import Client, ClientBuilder

from freehold.settings import Runtime

SILENCE = 300.0
"""Seconds that processes of a home may keep each other waiting."""


def open_client(settings: Runtime) -> Client:
    """Return a client; it follows no redirects and uses no proxy."""
    return (
        ClientBuilder()
        .no_proxy()
        .follow_redirects(False)
        .connect_timeout(timedelta(seconds=settings.connect_timeout))
        .read_timeout(timedelta(seconds=SILENCE))
        .build()
    )
