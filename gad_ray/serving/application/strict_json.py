"""JSON without its loopholes: no NaN, no key twice, no lone surrogate, nothing deeper than it need be."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn, cast

from gad_ray.serving.application.errors import ApiError

# The standard library's parser with its hooks, because pydantic-core's lets a repeated key and 1e999 pass.
_SHOWN = 40


def parse_json(body: bytes, *, max_nesting: int) -> object:
    """Parse a request's body.

    Args:
        body: The bytes, decompressed.
        max_nesting: Deepest objects and lists.

    Raises:
        ApiError: 400, for everything that is no JSON by RFC 8259 in UTF-8, and for what parsers disagree about:
            repeated keys, NaN and infinities (also as a number that is too large), lone surrogates.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(f"the body is not UTF-8: byte {error.start} cannot be read", "invalid_utf8") from None
    try:
        value: object = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_number
        )
    except RecursionError:
        raise _too_deep(max_nesting) from None
    except json.JSONDecodeError as error:
        raise _refused(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}", "invalid_json"
        ) from None
    except ValueError:  # of an integer with thousands of digits
        raise _refused("a number in the body has too many digits", "invalid_number") from None
    _check(value, max_nesting=max_nesting)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise _refused(f"the key {_shown(twice)} is given more than once", "duplicate_key")
    return found


def _no_constant(name: str) -> NoReturn:
    raise _refused(f"{name} is no JSON number", "invalid_number")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _refused(f"the number {_shown(text)} is out of range", "invalid_number")
    return value


def _check(value: object, *, max_nesting: int) -> None:
    """Refuse lone surrogates anywhere, and depth."""
    level: list[object] = [value]
    depth = 0
    while level:
        inner: list[object] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict | list):
                inner.extend(_children(cast("dict[str, object] | list[object]", item)))
                if depth >= max_nesting:
                    raise _too_deep(max_nesting)
        level, depth = inner, depth + 1


def _children(item: dict[str, object] | list[object]) -> Iterator[object]:
    if isinstance(item, dict):
        yield from item.keys()
        yield from item.values()
    else:
        yield from item


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _refused(
            f"U+{ord(text[error.start]):04X} stands alone in a text, at character {error.start}: no Unicode",
            "lone_surrogate",
        ) from None


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _refused(message: str, code: str) -> ApiError:
    return ApiError(message, code=code)


def _too_deep(max_nesting: int) -> ApiError:
    return _refused(f"the body is nested more than {max_nesting} levels deep", "nested_too_deeply")
