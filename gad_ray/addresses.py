"""Addresses of services: which only this machine reaches, and where a key would travel in the clear."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Collection
from urllib.parse import urlsplit

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?")

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


def is_own_name(authority: str, allowed: Collection[str] = ()) -> bool:
    """Whether the authority of a Host or Origin header, with or without a port, names loopback or an allowed host.

    A web page may give its own name the address of this machine and then read what listens here (DNS rebinding); the
    browser still sends that name.
    """
    try:
        host = urlsplit(f"//{authority}").hostname
    except ValueError:
        return False
    if host is None or not _AUTHORITY.fullmatch(authority):
        return False
    return is_loopback(host) or host in {name.lower() for name in allowed}


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
