"""Conversations to token ids and back, by a tokenizer and its chat template.

Text that people or models wrote stays text: a control token spelled out inside a message or a response
(``<|im_end|>``) is tokenised as the characters it is made of, and ends no turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gad_ray.errors import DataError, ModelError
from gad_ray.models.files import read_json
from gad_ray.models.template import TemplateValue, freeze, packaged_templates, read_template

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from gad_ray.batch import Message
    from gad_ray.config.models import ModelConfig

_ROLES = ("system", "user", "assistant")
_PROBE = "x"


class ChatFormat:
    """A tokenizer with the chat template it is used with. Safe to use from several threads.

    Attributes:
        tokenizer: The Hugging Face tokenizer, its ``chat_template`` set to the one in use.
        template_text: The Jinja text of the template.
        end_of_turn_id: The token that ends a response: the template's own, or the tokenizer's end-of-text.
        stop_token_ids: Tokens at which a generation ends, ``end_of_turn_id`` first.
        pad_token_id: The token for padding; the end of text where the tokenizer has none.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, template_text: str, *, generation_eos: Sequence[int] = ()
    ) -> None:
        """Wrap a tokenizer.

        Args:
            tokenizer: A tokenizer of the ``tokenizers`` library.
            template_text: Jinja text of the chat template.
            generation_eos: Further tokens that end a generation, from the model's generation config.

        Raises:
            ModelError: If the template cannot be rendered, or no token ends a response.
        """
        self.tokenizer = tokenizer
        self.tokenizer.chat_template = template_text
        self.template_text = template_text
        # Own copies: transformers switches such settings on the shared one at every call.
        self._with_control = _encoder(tokenizer, split_special_tokens=False)
        self._as_text = _encoder(tokenizer, split_special_tokens=True)
        special = sorted(
            ((index, token) for index, token in tokenizer.added_tokens_decoder.items() if token.special),
            key=lambda entry: len(entry[1].content),
            reverse=True,  # of two tokens that begin alike, the longer one is meant
        )
        self._control_ids = {token.content: index for index, token in special}
        self._control = _alternatives([re.escape(token.content) for _, token in special])
        # In the template's own text, some control tokens swallow the blanks beside them.
        self._control_with_blanks = _alternatives(
            [
                (r"\s*" if token.lstrip else "")
                + f"(?P<t{index}>{re.escape(token.content)})"
                + (r"\s*" if token.rstrip else "")
                for index, token in special
            ]
        )
        eos = cast("int | None", tokenizer.eos_token_id)
        candidates = [self._find_end_of_turn(), eos, *generation_eos]
        self.stop_token_ids: tuple[int, ...] = tuple(dict.fromkeys(i for i in candidates if i is not None))
        if not self.stop_token_ids:
            raise ModelError(
                "no token ends a response: the tokenizer has no eos_token, and neither the generation config nor "
                "the chat template names one",
                where=str(tokenizer.name_or_path),
                hint="set eos_token in tokenizer_config.json",
            )
        self.end_of_turn_id = self.stop_token_ids[0]
        pad = cast("int | None", tokenizer.pad_token_id)
        self.pad_token_id: int = next(i for i in (pad, eos, self.end_of_turn_id) if i is not None)

    @property
    def largest_id(self) -> int:
        """The largest token id that a text or the template can come to.

        A control token that neither template nor tokenizer uses (Gemma's for images) may have no row in the embedding.
        """
        tokenizer, template = cast("Any", self.tokenizer), self.template_text
        used = {self.pad_token_id, self.end_of_turn_id}
        used |= {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}
        # A template writes a token itself, or by the name that the tokenizer has for it.
        written = [str(token) for name, token in tokenizer.special_tokens_map.items() if name in template]
        unused = {
            index
            for token, index in self._control_ids.items()
            if index not in used and token not in written and token not in template
        }
        # The generation config may name an end of turn that the tokenizer does not have.
        return max({self.pad_token_id, self.end_of_turn_id, *tokenizer.get_vocab().values()} - unused)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Render a conversation up to where the assistant's answer begins.

        For messages without control tokens this is what ``apply_chat_template`` gives, to the token.

        Args:
            messages: At least one message; roles ``system``, ``user`` and ``assistant``.

        Raises:
            DataError: If there is no message, a role is another, or the template refuses the conversation.
        """
        _check_roles(messages)
        contents = [message.content for message in messages]
        if not any(self._control.search(content) for content in contents):
            rendered = self._render(messages, contents)
            return self._with_control.encode(rendered, add_special_tokens=False).ids
        # Control tokens in the contents are taken out while the template is rendered, so that those left are
        # the template's, and put back as text. The template sees all other text as it is and may trim it.
        stand_in = _StandIn(contents)
        rendered = self._render(messages, [self._control.sub(stand_in.put, content) for content in contents])
        ids: list[int] = []
        position = 0
        for match in self._control_with_blanks.finditer(rendered):
            ids += self.response_ids(stand_in.restore(rendered[position : match.start()]))
            ids.append(int(str(match.lastgroup)[1:]))
            position = match.end()
        return ids + self.response_ids(stand_in.restore(rendered[position:]))

    def response_ids(self, text: str) -> list[int]:
        """Tokenise a response: its text alone, without control tokens and without an end-of-turn token."""
        return self._as_text.encode(text, add_special_tokens=False).ids if text else []

    def response_ends(self, text: str) -> list[int]:
        """For every token of :meth:`response_ids`, the index behind its last character in ``text``.

        A character of several tokens ends all of them.
        """
        return (
            [end for _, end in self._as_text.encode(text, add_special_tokens=False).offsets] if text else []
        )

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """What :meth:`prompt_ids` tokenises: the conversation as the template renders it.

        Raises:
            DataError: As :meth:`prompt_ids`.
        """
        _check_roles(messages)
        return self._render(messages, [message.content for message in messages])

    def has_control(self, text: str) -> bool:
        """Whether a text spells out a control token."""
        return self._control.search(text) is not None

    def without_end(self, text: str) -> str:
        """A generation that was decoded with its control tokens, without the stop and padding tokens it ends in."""
        ends = tuple(
            token
            for token, index in self._control_ids.items()
            if index in self.stop_token_ids or index == self.pad_token_id
        )
        length = len(text)  # moved instead of cutting, since padding may be long
        while ends and text.endswith(ends, 0, length):
            length -= max(len(end) for end in ends if text.endswith(end, 0, length))
        return text[:length]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, control tokens left out."""
        return self._with_control.decode(list(ids), skip_special_tokens=True)

    def save(self, directory: Path) -> None:
        """Write the tokenizer and the chat template in use to a directory."""
        self.tokenizer.save_pretrained(str(directory))

    def _render(self, messages: Sequence[Message], contents: Sequence[str]) -> str:
        from jinja2 import TemplateError

        turns = [{"role": m.role, "content": text} for m, text in zip(messages, contents, strict=True)]
        try:
            rendered: Any = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is a program of somebody else: it may raise anything
            kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
            raise DataError(
                f"the chat template{self._of_model} refuses a conversation of the roles "
                f"{[m.role for m in messages]}: {kind}{error}",
                hint="change the rows, or give another template with the key chat_template",
            ) from error
        return cast("str", rendered)

    @property
    def _of_model(self) -> str:
        name = str(self.tokenizer.name_or_path or "")
        return f" of {name}" if name else ""

    def _find_end_of_turn(self) -> int | None:
        """The control token that the template puts right after an assistant's message, if it does."""
        from jinja2 import TemplateSyntaxError

        marked = "\ue000"
        turns = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": marked}]
        try:
            rendered: Any = self.tokenizer.apply_chat_template(turns, tokenize=False)
        except TemplateSyntaxError as error:
            raise ModelError(
                f"chat_template is no Jinja template: line {error.lineno}: {error.message}",
                hint="correct the template that the config's key chat_template names",
            ) from error
        except Exception as error:  # as above
            raise ModelError(
                f"chat_template cannot render a question and its answer: {error!r}",
                hint="give a template for plain chats with the config's key chat_template",
            ) from error
        if _PROBE not in rendered or marked not in rendered:
            raise ModelError(
                "chat_template leaves out the messages' content",
                hint="write message['content'] where the text belongs, in the template that chat_template names",
            )
        match = self._control.match(rendered.rpartition(marked)[2].lstrip())
        return self._control_ids[match.group()] if match else None


class _StandIn:
    """Private-use characters for pieces of text that a template must not see as they are."""

    def __init__(self, contents: Sequence[str]) -> None:
        salt = 0
        while any(f"\ue000{salt}." in content for content in contents):
            salt += 1
        self._salt = salt
        self._pieces: list[str] = []

    def put(self, match: re.Match[str]) -> str:
        self._pieces.append(match.group())
        return f"\ue000{self._salt}.{len(self._pieces) - 1}\ue001"

    def restore(self, text: str) -> str:
        return re.sub(f"\ue000{self._salt}\\.(\\d+)\ue001", lambda m: self._pieces[int(m.group(1))], text)


def load_chat_format(
    model_dir: Path,
    *,
    chat_template: str | None = None,
    variables: Mapping[str, TemplateValue] | None = None,
    day: date | None = None,
) -> ChatFormat:
    """Load the tokenizer of a model and the chat template to use with it.

    Args:
        model_dir: The model's Hugging Face directory.
        chat_template: A Jinja file, or the name of a packaged template; the tokenizer's own when None.
        variables: Values of variables that the template reads.
        day: What the template takes for today; see :func:`gad_ray.models.template.freeze`.

    Raises:
        ModelError: If the tokenizer cannot be loaded, or there is no chat template to use.
    """
    loaded = _load_tokenizer(model_dir)
    text = (
        _own_template(loaded)
        if chat_template is None
        else read_template(chat_template, begins_with_bos=_begins_with_bos(loaded))
    )
    if text is None:
        raise ModelError(
            "its tokenizer has no chat template",
            where=str(model_dir),
            hint=f"set the key chat_template to a .jinja file or to one of {', '.join(packaged_templates())}",
        )
    text = freeze(text, variables=variables or {}, day=day)
    return ChatFormat(loaded, text, generation_eos=_generation_eos(model_dir))


def configured_chat_format(model_dir: Path, config: ModelConfig) -> ChatFormat:
    """The tokenizer and the chat template of a model that a run's settings name.

    Args:
        model_dir: Where the model lies.
        config: Its settings.

    Raises:
        ModelError: As :func:`load_chat_format`.
    """
    return load_chat_format(
        model_dir,
        chat_template=config.chat_template,
        variables=config.template_variables,
        day=config.template_day,
    )


def _load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(directory), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # `tokenizers` raises a bare one for a damaged file
        raise ModelError(
            f"its tokenizer cannot be loaded ({error})",
            where=str(directory),
            hint="check that tokenizer.json and tokenizer_config.json are there and whole",
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"its tokenizer is a {type(tokenizer).__name__}, which is not of the `tokenizers` library",
            where=str(directory),
            hint="give a directory with a tokenizer.json",
        )
    return cast("PreTrainedTokenizerFast", tokenizer)


def _own_template(tokenizer: PreTrainedTokenizerFast) -> str | None:
    own: Any = tokenizer.chat_template
    if isinstance(own, dict):  # several under names, for tools and documents
        return cast("dict[str, str]", own).get("default")
    return cast("str | None", own)


def _begins_with_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer itself begins every text with its beginning-of-sequence token."""
    ids = cast("list[int]", tokenizer(_PROBE)["input_ids"])
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def _generation_eos(directory: Path) -> list[int]:
    path = directory / "generation_config.json"
    if not path.is_file():
        return []
    value = read_json(path).get("eos_token_id")
    if value is None:
        return []
    ids = cast("list[object]", value) if isinstance(value, list) else [value]
    numbers = [index for index in ids if isinstance(index, int)]
    if len(numbers) < len(ids):
        raise ModelError(
            f"eos_token_id = {value!r} is neither a token id nor several",
            where=str(path),
            hint="write the ids of the tokens that end a response",
        )
    return numbers


def _encoder(tokenizer: PreTrainedTokenizerFast, *, split_special_tokens: bool) -> Tokenizer:
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_str(cast("Any", tokenizer.backend_tokenizer).to_str())
    encoder.encode_special_tokens = split_special_tokens
    encoder.no_truncation()
    encoder.no_padding()
    return encoder


def _alternatives(patterns: Sequence[str]) -> re.Pattern[str]:
    """A pattern for any of the patterns; for none of them, one that matches nothing."""
    return re.compile("|".join(patterns) if patterns else r"(?!)")


def _check_roles(messages: Sequence[Message]) -> None:
    if not messages:
        raise DataError("a conversation has no messages", hint="give every row at least one user message")
    for index, message in enumerate(messages):
        if message.role not in _ROLES:
            raise DataError(
                f"message {index} has the role {message.role!r}", hint=f"use one of {', '.join(_ROLES)}"
            )
