"""The connection to Ray: a cluster that is there, or a local one for the length of a run."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray

from gad_ray.errors import GadError


class RaySession:
    """A context in which Ray is connected; a cluster started here ends with it.

    Attributes:
        started_here: True if no cluster was found and a local one was started.
    """

    def __init__(self) -> None:
        self.started_here = False

    def __enter__(self) -> RaySession:
        options: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": logging.WARNING,
            "configure_logging": True,
        }
        try:
            ray.init(address="auto", **options)
        except ConnectionError:
            if os.environ.get("RAY_ADDRESS"):
                raise GadError(
                    f"no Ray cluster answers at RAY_ADDRESS={os.environ['RAY_ADDRESS']}",
                    mend="start it, correct the address, or unset RAY_ADDRESS for a local cluster",
                ) from None
            ray.init(address="local", include_dashboard=False, **options)
            self.started_here = True
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()
