"""Where the service listens: refused before anything starts if it must not, or cannot."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gad_ray.config.endpoint import EndpointConfig
from gad_ray.config.serve import ServeConfig
from gad_ray.errors import ConfigError
from gad_ray.serving.application.keys import KeyRing, digests_from, require_key
from gad_ray.serving.deployment.settings import ServeSettings

_UNKNOWN = "not open yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingNames:
    """What the settings of an address are called where they were given."""

    host: str = "--host"
    port: str = "--port"
    key_file: str = "--key-file FILE"


_OF_A_RUN = SettingNames(host="serve.host", port="serve.port", key_file="serve.key_file")


def check_address(
    host: str,
    port: int,
    *,
    settings: ServeSettings,
    environment: Mapping[str, str],
    names: SettingNames,
) -> ServeSettings:
    """Refuse an address that must not or cannot be listened on.

    Args:
        host: The address.
        port: The port.
        settings: With the keys that are configured.
        environment: May hold more of them.
        names: For the errors.

    Returns:
        The settings with all keys, those of the environment as digests.

    Raises:
        ConfigError: With the reason.
    """
    digests = [*settings.key_digests, *digests_from(environment)]
    if settings.key_file is not None:
        KeyRing(file=Path(settings.key_file))
    has_keys = bool(digests) or settings.key_file is not None
    require_key(host, has_keys=has_keys, where=names.host, key_file=names.key_file)
    _check_port(host, port, where=f"{names.host} and {names.port}")
    return settings.model_copy(update={"key_digests": digests})


def settings_of_run(config: ServeConfig, *, environment: Mapping[str, str]) -> ServeSettings:
    """The settings with which a run serves its critic, but for the channel, which has a name once it is open.

    Args:
        config: What the run's configuration says.
        environment: May hold keys.

    Raises:
        ConfigError: If it must not or cannot listen where it is to.
    """
    given = config.model_dump(include=set(EndpointConfig.model_fields))
    if config.key_file is not None:
        given["key_file"] = str(Path(config.key_file).expanduser().resolve())
    settings = ServeSettings(channel=_UNKNOWN, **given)
    return check_address(
        config.host, config.port, settings=settings, environment=environment, names=_OF_A_RUN
    )


def url_of(host: str, port: int) -> str:
    """Where clients find it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _check_port(host: str, port: int, *, where: str) -> None:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}",
            where=where,
            hint="choose another port, or end what uses it",
        ) from None
