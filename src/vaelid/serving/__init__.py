"""A server for this machine alone: pages, built assets, and desks that answer over a WebSocket."""

from vaelid.serving.desks import Cancelled, Desk, Progress, job, op
from vaelid.serving.launch import serve
from vaelid.serving.site import Page, Site, application

__all__ = ["Cancelled", "Desk", "Page", "Progress", "Site", "application", "job", "op", "serve"]
