"""Chat templates that imitate the families people train with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ROLE_LOOP = "{% for m in messages %}"
GENERATE = "{% endfor %}{% if add_generation_prompt %}"


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of template.

    Attributes:
        template: Jinja text.
        control: Its control tokens; the last ends a turn.
        words: Tokens of their own that are no control tokens.
        system: What it makes of a system message: a block of its own, a part of the user's message, or an error.
        empty_system: What an empty system message reads as: none, a part of the user's message, or what it is.
        separator: Text that it puts between messages or before an answer, and that a user may write.
        opening: What stands before an answer, where that has no control token and a user may write all of it.
    """

    template: str
    control: tuple[str, ...]
    words: tuple[str, ...] = ()
    system: Literal["block", "merged", "refused"] = "block"
    empty_system: Literal["none", "merged", "empty"] = "empty"
    separator: str = "\n"
    opening: str | None = None


FAMILIES = {
    # A system message of its own where none is given; no thoughts.
    "chatml with a default": Family(
        template="{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
        + ROLE_LOOP
        + "<|im_start|>{{ m['role'] }}\n{{ m['content'].split('</think>')[-1] }}<|im_end|>\n"
        + GENERATE
        + "<|im_start|>assistant\n{% endif %}",
        control=("<|im_start|>", "<|im_end|>"),
        separator="\nassistant\n",
    ),
    # A system block that is always there, with the date, and holds a system message if there is one.
    "llama 3.1": Family(
        template="{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] | trim %}"
        "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
        "<|head|>system<|/head|>\n\nDate: {{ strftime_now('%d %b %Y') }}\n\n{{ s }}<|eot|>"
        + ROLE_LOOP
        + "<|head|>{{ m['role'] }}<|/head|>\n\n{{ m['content'] | trim }}<|eot|>"
        + GENERATE
        + "<|head|>assistant<|/head|>\n\n{% endif %}",
        control=("<|head|>", "<|/head|>", "<|eot|>"),
        empty_system="none",
        separator="\n\nDate: 26 Jul 2024\n\n",
    ),
    # The system message goes into the user's; its brackets are plain text.
    "llama 2": Family(
        template="{% if messages[0]['role'] == 'system' %}"
        "{% set s = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
        + ROLE_LOOP
        + "{% if m['role'] == 'user' %}{{ bos_token }}[INST] {{ (s + m['content']) | trim }} [/INST]"
        "{% else %} {{ m['content'] }}<|eot|>{% endif %}{% endfor %}",
        control=("<|eot|>",),
        system="merged",
        empty_system="merged",
        separator="\n<</SYS>>\n\n",
        opening=" [/INST]",
    ),
    # The same with brackets that are control tokens.
    "mistral": Family(
        template="{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] + '\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
        + ROLE_LOOP
        + "{% if m['role'] == 'user' %}[INST] {{ s }}{{ m['content'] }} [/INST]"
        "{% else %}{{ m['content'] }}<|eot|>{% endif %}{% endfor %}",
        control=("[INST]", "[/INST]", "<|eot|>"),
        system="merged",
        empty_system="merged",
        separator="\n\n",
    ),
    "gemma": Family(
        template="{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + ROLE_LOOP
        + "<|turn|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<|/turn|>\n"
        + GENERATE
        + "<|turn|>model\n{% endif %}",
        control=("<|turn|>", "<|/turn|>"),
        system="refused",
        separator="\nmodel\n",
    ),
    # Nothing stands between the beginning and a system message; a prompt ends inside a thought; a reply's is dropped.
    # The tokens of the roles are no control tokens.
    "r1": Family(
        template="{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}"
        "{% set messages = messages[1:] %}{% endif %}"
        + ROLE_LOOP
        + "{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}{% else %}"
        "<｜Assistant｜>{{ m['content'].split('</think>')[-1] }}<|eot|>{% endif %}"
        + GENERATE
        + "<｜Assistant｜><think>\n{% endif %}",
        control=("<|eot|>",),
        words=("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
        empty_system="none",
        separator="<｜User｜>",
        opening="<｜Assistant｜><think>\n",
    ),
    "phi": Family(
        template=ROLE_LOOP
        + "<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n"
        + GENERATE
        + "<|assistant|>\n{% endif %}",
        control=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    ),
    # The names of the roles are plain text: the end of a turn alone is a control token.
    "zephyr": Family(
        template=ROLE_LOOP
        + "<|{{ m['role'] }}|>\n{{ m['content'] }}<|eot|>\n"
        + GENERATE
        + "<|assistant|>\n{% endif %}",
        control=("<|eot|>",),
        separator="\n<|assistant|>\n",
    ),
    # It says the user's message twice.
    "echo": Family(
        template=ROLE_LOOP
        + "<|{{ m['role'] }}|>\n{{ m['content'] }}{% if m['role'] == 'user' %}\nAgain: {{ m['content'] }}{% endif %}<|end|>\n"
        + GENERATE
        + "<|assistant|>\n{% endif %}",
        control=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        separator="\nAgain: ",
    ),
    # No control token at all: a response ends with the tokenizer's own.
    "plain": Family(
        template=ROLE_LOOP
        + "{% if m['role'] == 'system' %}{{ m['content'] }}\n\n{% elif m['role'] == 'user' %}"
        "User: {{ m['content'] }}\n\n{% else %}Assistant: {{ m['content'] }}\n\n{% endif %}"
        + GENERATE
        + "Assistant: {% endif %}",
        control=("<|eot|>",),
        separator="\n\nUser: ",
        opening="\n\nAssistant: ",
    ),
}

OPEN = [name for name, family in FAMILIES.items() if family.opening]
"""Those of which a query alone can have several readings."""
