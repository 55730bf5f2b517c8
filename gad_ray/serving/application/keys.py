"""Bearer keys: several at once, from a file that may change or from the environment, kept as digests alone."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from gad_ray.addresses import is_loopback
from gad_ray.errors import ConfigError

KEYS_VARIABLE = "GAD_RAY_SERVE_KEYS"
"""Environment variable with keys, separated by commas or white space."""

_MIN_CHARACTERS = 16
_LOOK_AGAIN_S = 1.0

_logger = logging.getLogger(__name__)


class KeyRing:
    """Tells whether a request brings one of the keys.

    The file is read again when it changes, so that keys come and go without a restart. A file that cannot be read
    lets nobody in: keys that somebody has withdrawn must not live on.

    Args:
        digests: SHA-256 (hex) of keys that hold for good.
        file: One key a line; empty lines and those that begin with # do not count.
        clock: Seconds of a monotonic clock.

    Raises:
        ConfigError: If the file cannot be read now, or holds no key.
    """

    def __init__(
        self,
        digests: Sequence[str] = (),
        *,
        file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fixed = [bytes.fromhex(digest) for digest in digests]
        self._file = file
        self._clock = clock
        self._from_file: list[bytes] = []
        self._seen: tuple[int, int, int] | None = None
        self._looked_at = clock()
        if file is not None:
            self._from_file, self._seen = _read(file), _stamp(file)

    @property
    def required(self) -> bool:
        """Whether requests need a key: where any is configured, even if none is valid at the moment."""
        return bool(self._fixed) or self._file is not None

    def accepts(self, key: bytes) -> bool:
        """Whether this is a key; takes as long for a wrong one as for a right one."""
        self._refresh()
        digest = hashlib.sha256(key).digest()
        found = False
        for known in (*self._fixed, *self._from_file):
            found |= hmac.compare_digest(known, digest)
        return found

    def _refresh(self) -> None:
        if self._file is None or self._clock() - self._looked_at < _LOOK_AGAIN_S:
            return
        self._looked_at = self._clock()
        stamp = _stamp(self._file)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._from_file = _read(self._file)
            _logger.info("keys read again: there are %d", len(self._from_file))
        except ConfigError as error:
            self._from_file = []
            _logger.error("no key from the file is accepted any more: %s", error.message)


def digests_from(environment: Mapping[str, str]) -> list[str]:
    """SHA-256 (hex) of the keys in the environment; whoever sees these cannot tell the keys.

    Raises:
        ConfigError: If a key is too short to be one.
    """
    keys = environment.get(KEYS_VARIABLE, "").replace(",", " ").split()
    return [digest.hex() for digest in _digests(enumerate(keys, start=1), where=KEYS_VARIABLE)]


def require_key(
    host: str, *, has_keys: bool, where: str = "--host", key_file: str = "--key-file FILE"
) -> None:
    """Refuse to listen where others can reach, without a key.

    Args:
        host: Address to listen on.
        has_keys: Whether requests need one.
        where: What the setting of the address is called.
        key_file: What the setting of the keys is called.

    Raises:
        ConfigError: With the reason.
    """
    if has_keys or is_loopback(host):
        return
    raise ConfigError(
        f"{host} can be reached from other machines, and no key is set: anyone could use the critic",
        where=where,
        hint=f"set keys with {key_file} or {KEYS_VARIABLE}, or keep to 127.0.0.1",
    )


def _read(file: Path) -> list[bytes]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"the keys cannot be read: {reason}", where=str(file), hint="give a file with one key a line"
        ) from None
    keys = [
        (number, text)
        for number, line in enumerate(lines, start=1)
        if (text := line.strip()) and not text.startswith("#")
    ]
    found = _digests(keys, where=str(file))
    if not found:
        raise ConfigError("there is no key", where=str(file), hint="write one key a line")
    return found


def _digests(keys: Iterable[tuple[int, str]], *, where: str) -> list[bytes]:
    """Digests of keys; an error tells where a key stands, never what it is."""
    found: list[bytes] = []
    for number, key in keys:
        if len(key) < _MIN_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                f"key {number} is no key: at least {_MIN_CHARACTERS} visible ASCII characters without blanks are "
                "needed",
                where=where,
                hint="make one with: openssl rand -hex 32",
            )
        found.append(hashlib.sha256(key.encode()).digest())
    return found


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - the file may be gone
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
