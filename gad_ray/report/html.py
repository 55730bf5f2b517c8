"""Pages that need nothing besides themselves: one frame, one style and one script, of the run's report and the data's."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

import gad_ray
from gad_ray.report.overview import duration, moment

_SCRIPTS = ("text.js", "charts.js", "samples.js", "page.js")


def as_json(data: Any) -> str:
    """JSON that may stand inside a ``script`` element: nothing in it can end the element or begin a comment."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate, as a broken emoji leaves behind, is no UTF-8.
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def render(template: str, data: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """A page: its text from a template, its charts drawn by the page's script.

    Args:
        template: The name of an asset that extends ``page.html.jinja``.
        data: What the script draws, as values of JSON.
        context: What the template names.
    """
    style = _asset("report.css")
    script = "\n".join(["(() => {", '"use strict";', *(_asset(name) for name in _SCRIPTS), "})();"])
    environment = Environment(
        loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["duration"] = duration  # pyright: ignore[reportArgumentType]
    environment.globals["moment"] = moment  # pyright: ignore[reportArgumentType]
    # Only this style and this script may run, whatever else should get into the page.
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = environment.get_template(template).render(
        **context, style=style, script=script, policy=policy, data=as_json(data), version=gad_ray.__version__
    )
    return page.encode("utf-8", errors="replace").decode("utf-8")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (resources.files("gad_ray.report") / "assets" / name).read_text(encoding="utf-8")
