"""Addresses of services: which only this machine reaches, and where a key would travel in the clear."""

from __future__ import annotations

import ipaddress
import logging
from urllib.parse import urlsplit

_logger = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address. A name counts only if it is ``localhost``."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def warn_of_plain_key(url: str, key: str | None) -> None:
    """Log a warning if a key is about to travel unencrypted to another machine.

    Args:
        url: Where requests go.
        key: What is sent with them; a password in the URL counts as well.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return  # whoever sends to it tells what is wrong with it
    if parts.scheme.lower() != "http" or not (key or parts.password) or is_loopback(host):
        return
    shown = f"[{host}]" if ":" in host else host
    _logger.warning(
        "the key for http://%s is sent unencrypted: whoever is between can read it; use https, or a tunnel to 127.0.0.1",
        shown if port is None else f"{shown}:{port}",
    )
