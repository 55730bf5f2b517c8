"""The run that broken ones are compared with."""

from tests.ray.conftest import whole_run

__all__ = ["whole_run"]
