"""The connection to Ray: a cluster that is there, or a local one for the length of a run."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

import ray

from gad_ray.activity import activity
from gad_ray.errors import GadError

_CONNECT_S = 10.0
_TOO_SLOW = "timed out during startup"
"""In the message of what ray.init raises after 30 s, a time that cannot be set."""


class RaySession:
    """A context in which Ray is connected; a cluster started here ends with it."""

    def __enter__(self) -> RaySession:
        options: dict[str, Any] = {
            "include_dashboard": False,
            "log_to_driver": False,
            "logging_level": logging.WARNING,
            "configure_logging": True,
        }
        _refuse_silent_address()
        address = os.environ.get("RAY_ADDRESS")
        with activity(f"connecting to Ray at {address}" if address else "starting Ray"):
            self._connect(options)
        return self

    def _connect(self, options: dict[str, Any]) -> None:
        try:
            # Without an address: RAY_ADDRESS, or what `ray start` made, or a cluster of our own. The address "auto"
            # would also take the private cluster of another run, and lose it when that run ends.
            _start(options)
        except ConnectionError:
            if os.environ.get("RAY_ADDRESS"):
                raise GadError(
                    f"the Ray cluster at RAY_ADDRESS={os.environ['RAY_ADDRESS']} does not let us in",
                    hint="where it asks for a token: export RAY_AUTH_MODE=token, with the cluster's token in "
                    "~/.ray/auth_token or RAY_AUTH_TOKEN",
                ) from None
            # `ray start` left the address of a cluster that is gone.
            _start({"address": "local", **options})

    def __exit__(self, *_: object) -> None:
        ray.shutdown()


def _start(options: dict[str, Any]) -> None:
    """Connect; a local cluster that a busy machine did not start in Ray's 30 s is tried once more."""
    # That a cluster of our own asks for a token is good, and nothing to do anything about.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    for attempt in (1, 2):
        try:
            ray.init(**options)
        except Exception as error:  # Ray raises just that
            if _TOO_SLOW not in str(error):
                raise
            if attempt == 2:
                raise GadError(
                    f"Ray did not start on this machine, twice: {error}",
                    hint="see whether memory or cores are all taken ('gad-ray doctor'), and run this again; a run goes "
                    "on with --resume auto",
                ) from error
        else:
            return


def _refuse_silent_address() -> None:
    """Raise at once if nothing listens at RAY_ADDRESS: Ray would try for minutes."""
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise GadError(
            f"no Ray cluster answers at RAY_ADDRESS={address}: {error}",
            hint="start it, correct the address, or unset RAY_ADDRESS for a local cluster",
        ) from None
