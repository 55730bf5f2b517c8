"""The connection to Ray: a cluster that is there, or a local one for the length of a run."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray

from gad_ray.errors import GadError


class RaySession:
    """A context in which Ray is connected; a cluster started here ends with it."""

    def __enter__(self) -> RaySession:
        options: dict[str, Any] = {
            "include_dashboard": False,
            "log_to_driver": False,
            "logging_level": logging.WARNING,
            "configure_logging": True,
        }
        try:
            # Without an address: RAY_ADDRESS, or what `ray start` made, or a cluster of our own. The address "auto"
            # would also take the private cluster of another run, and lose it when that run ends.
            ray.init(**options)
        except ConnectionError:
            if os.environ.get("RAY_ADDRESS"):
                raise GadError(
                    f"no Ray cluster answers at RAY_ADDRESS={os.environ['RAY_ADDRESS']}",
                    mend="start it, correct the address, or unset RAY_ADDRESS for a local cluster",
                ) from None
            # `ray start` left the address of a cluster that is gone.
            ray.init(address="local", **options)
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()
