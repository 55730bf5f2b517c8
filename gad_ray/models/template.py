"""Chat templates: where they come from, and how one is made to render the same text always."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from gad_ray.errors import ModelError

DEFAULT_DATE = date(2024, 7, 26)
"""The day that a template which prints today's date is given: Llama 3's own where it is told none."""

TemplateValue = bool | int | float | str

_CLOCK = "strftime_now"  # what Hugging Face gives a template to tell today's date by
_END = '{#- end of what GAD-Ray has frozen -#}{{ "" }}'
# An expression, not a block, stands last: a newline behind a block would be cut off with it.
_DIRECTIVES = [f"%{dash}{letter}" for letter in "aAbBcdfGHIjmMpSuUVwWxXyY" for dash in ("", "-")]
_GIVEN = frozenset(
    {"messages", "add_generation_prompt", "continue_final_message", "tools", "documents", _CLOCK}
    | {"raise_exception", "range", "dict", "namespace", "cycler", "joiner", "lipsum"}
)
_CHANCE = re.compile(r"\|\s*random\b|\blipsum\s*\(")


def packaged_templates() -> list[str]:
    """Names of the chat templates that come with GAD-Ray."""
    folder = resources.files("gad_ray.models") / "templates"
    return sorted(
        file.name.removesuffix(".jinja") for file in folder.iterdir() if file.name.endswith(".jinja")
    )


def read_template(name: str, *, begins_with_bos: bool) -> str:
    """The text of a Jinja file, or of a packaged template.

    Args:
        name: The file's path or the template's name.
        begins_with_bos: Whether the tokenizer begins every text with its beginning-of-sequence token: a packaged template
            then does so too. A file is taken as it is.

    Raises:
        ModelError: If there is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(
                f"chat_template {name} cannot be read: {error}", hint="give a UTF-8 file"
            ) from None
    packaged = packaged_templates()
    if name in packaged:
        text = (resources.files("gad_ray.models") / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
        return "{{ bos_token }}" + text if begins_with_bos else text
    close = get_close_matches(name, packaged, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ModelError(
        f"chat_template {name!r} is neither a file nor a packaged template{hint}",
        hint=f"give the path of a .jinja file, or one of {', '.join(packaged)}",
    )


def freeze(text: str, *, variables: Mapping[str, TemplateValue], day: date | None) -> str:
    """A template with its variables and its date written into it.

    What it renders then depends on the messages alone: the text, and with it a critic's fingerprint, covers the rest, and an
    export renders the same wherever it is read. A template that needs neither stays as it is.

    Args:
        text: The Jinja text; what was frozen in it before stays, and yields to what is given now.
        variables: Names that the template reads, with their values.
        day: What the template takes for today; None: what it was frozen at before, or :data:`DEFAULT_DATE`.

    Raises:
        ModelError: If the template does not read a variable, or draws by chance.
    """
    frozen, _, body = text.rpartition(_END)
    if _CHANCE.search(body):
        raise ModelError(
            "chat_template draws by chance: it renders a conversation differently each time",
            hint="take the filter random, or lipsum(), out of it, and name the copy with the key chat_template",
        )
    for name in variables:
        _check_read(name, body)
    header = "".join(f"{{%- set {name} = {_literal(value)} -%}}" for name, value in variables.items())
    if _CLOCK in body and (day is not None or _CLOCK not in frozen):
        header += _clock(body, day or DEFAULT_DATE)
    if not header:
        return text
    if re.match(r"[ \t]+\{[%#]", body):  # blanks before a block are no text at the beginning of a line
        body = body.lstrip(" \t")
    return f"{frozen}{header}{_END}{body}"


def prints_date(text: str) -> bool:
    """Whether a template may print today's date."""
    return _CLOCK in text.rpartition(_END)[2]


def template_variables(text: str) -> list[str]:
    """Names that a template reads beside the conversation and the tokenizer's tokens; none where it cannot be told."""
    from jinja2 import Environment, TemplateSyntaxError, meta

    body = text.rpartition(_END)[2]
    try:
        # It is parsed only, never rendered.
        grammar = Environment(autoescape=True, extensions=["jinja2.ext.loopcontrols"])
        found = meta.find_undeclared_variables(grammar.parse(body))
    except TemplateSyntaxError:  # Hugging Face's own blocks are not known here
        return []
    return sorted(name for name in found - _GIVEN if not name.endswith("_token"))


def _check_read(name: str, body: str) -> None:
    if not name.isidentifier() or name in _GIVEN:
        raise ModelError(
            f"template_variables cannot set {name!r}",
            hint="give names that the chat template reads beside the conversation, such as enable_thinking",
        )
    if not re.search(rf"\b{name}\b", body):
        known = template_variables(body)
        close = get_close_matches(name, known, n=1)
        raise ModelError(
            f"template_variables: the chat template reads no {name!r}"
            + (f"; did you mean {close[0]!r}?" if close else ""),
            hint=f"it reads {', '.join(known)}" if known else "leave it out",
        )


def _literal(value: TemplateValue) -> str:
    """A value as Jinja writes it: as JSON does, true and false too."""
    return json.dumps(value, ensure_ascii=False)


def _clock(body: str, day: date) -> str:
    """A macro in place of the clock."""
    parts = [f'replace("{part}", "{day.strftime(part)}")' for part in _DIRECTIVES if part in body]
    return f"{{%- macro {_CLOCK}(format) -%}}{{{{ {' | '.join(['format', *parts])} }}}}{{%- endmacro -%}}"
