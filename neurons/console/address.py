"""Where a console is opened in a browser."""

from __future__ import annotations

from ipaddress import ip_address

__all__ = ["TOPIC", "address"]

TOPIC = "console"
"""Of the noticeboard: a miner that serves a console says ``{"ip": …, "port": …}`` there."""


def address(ip: str, port: int) -> str:
    """Of the front page; where it is served at every address of the machine, at loopback's."""
    bound = ip_address(ip)
    if bound.is_unspecified:
        bound = ip_address("127.0.0.1" if bound.version == 4 else "::1")
    return f"http://{bound}:{port}/" if bound.version == 4 else f"http://[{bound}]:{port}/"
