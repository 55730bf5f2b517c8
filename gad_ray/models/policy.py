"""The policy (the student): a causal language model that gives log-probabilities of response tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from gad_ray.batch import Example, Float32, RolloutBatch, TrainBatch
from gad_ray.config.models import ModelConfig
from gad_ray.core.logprobs import token_logprobs
from gad_ray.core.packing import pad_rows
from gad_ray.models.architecture import check_vocabulary
from gad_ray.models.chat import ChatFormat, configured_chat_format
from gad_ray.models.load import TORCH_DTYPES, apply_lora, load_causal_lm, plain_model
from gad_ray.models.output_head import head_logprobs
from gad_ray.models.sequence_packing import Packing, can_pack, packed_states, plan_passes
from gad_ray.models.source import resolve_model

_HEAD_TOLERANCE = 1e-3

_SAME_STATE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""What two ways to compute one token's state may differ by, as a share of the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRow:
    """Prompt and response as the policy's token ids; the response is ``ids[start:]``, never empty."""

    ids: NDArray[np.int32]
    start: int

    @property
    def num_response_tokens(self) -> int:
        """Tokens of the response."""
        return len(self.ids) - self.start

    def __len__(self) -> int:
        return len(self.ids)


def rows_of(samples: RolloutBatch | TrainBatch) -> list[SequenceRow]:
    """The sampled token ids, as they were sampled: not text that was tokenised again."""
    return [
        SequenceRow(ids=np.concatenate([prompt, response]), start=len(prompt))
        for prompt, response in zip(samples.prompt_tokens, samples.response_tokens, strict=True)
    ]


def teacher_row(chat: ChatFormat, example: Example, *, end_of_turn: bool) -> SequenceRow:
    """The teacher's text as the policy would have had to write it.

    Args:
        chat: The policy's tokenizer and template.
        example: Prompt and teacher's text.
        end_of_turn: Append the end-of-turn token (for training; likelihoods are of the text alone).
    """
    prompt = chat.prompt_ids(example.messages)
    response = chat.response_ids(example.teacher_response) + ([chat.end_of_turn_id] if end_of_turn else [])
    return SequenceRow(ids=np.asarray(prompt + response, dtype=np.int32), start=len(prompt))


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Of a micro-batch, by response position.

    Attributes:
        logprobs: [batch, longest response] float32 nats, 0 outside the mask.
        entropy: The same of the distributions' entropies, without gradient unless it was asked for.
        mask: True on response tokens.
    """

    logprobs: Float[Tensor, "batch seq"]
    entropy: Float[Tensor, "batch seq"]
    mask: Bool[Tensor, "batch seq"]


class PolicyModel(nn.Module):
    """A causal language model whose output head is applied to response positions only.

    Attributes:
        packing: Whether rows go end to end where the model can; see :attr:`packs`.
    """

    def __init__(self, lm: nn.Module, chat: ChatFormat, *, packing: bool = True) -> None:
        super().__init__()
        self.lm = lm
        self.chat = chat
        self.packing = packing
        self._packs: bool | None = None
        plain = cast(Any, plain_model(cast(Any, lm)))
        # In a tuple, so that torch does not register these parts of ``lm`` under a second name.
        self._parts: tuple[Any, Any] = (plain.get_decoder(), plain.get_output_embeddings())
        self._words: int = plain.get_input_embeddings().num_embeddings
        self._head_is_plain = self._check_head()

    @classmethod
    def build(cls, config: ModelConfig, *, packing: bool = True) -> PolicyModel:
        """Load a pretrained model and its chat format.

        Args:
            config: The model.
            packing: Put the rows of one forward pass end to end, a common prompt once, in place of padding each.

        Raises:
            ModelError: If the model cannot be found or loaded.
        """
        directory = resolve_model(config.model)
        lm: nn.Module = load_causal_lm(
            directory,
            dtype=TORCH_DTYPES[config.dtype],
            gradient_checkpointing=config.gradient_checkpointing,
        )
        chat = configured_chat_format(directory, config)
        check_vocabulary(
            chat.largest_id, cast(Any, lm).get_input_embeddings().num_embeddings, where=config.model
        )
        if config.lora is not None:
            lm = apply_lora(
                cast(Any, lm),
                rank=config.lora.rank,
                alpha=config.lora.alpha,
                target_modules=config.lora.target_modules,
            )
        return cls(lm, chat, packing=packing)

    @property
    def device(self) -> torch.device:
        """Where the policy computes."""
        return next(self.lm.parameters()).device

    @property
    def decoder(self) -> nn.Module:
        """The model without its output head."""
        return self._parts[0]

    @property
    def packs(self) -> bool:
        """Whether rows go end to end, and a prompt that several begin with is computed once: it is tried at first use."""
        if self._packs is None:
            decoder = self.decoder
            self._packs = (
                self.packing
                and self._head_is_plain
                and can_pack(
                    decoder,
                    words=self._words,
                    tolerance=_SAME_STATE.get(next(decoder.parameters()).dtype, 1e-6),
                )
            )
        return self._packs

    def forward(
        self,
        ids: Int[Tensor, "batch seq"] | Packing,
        row: Int[Tensor, " tokens"],
        column: Int[Tensor, " tokens"],
        targets: Int[Tensor, " tokens"],
        temperature: float = 1.0,
        entropy_gradient: bool = False,
    ) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
        """Log-probability of ``targets``, each predicted at position (row, column), and the entropies there."""
        decoder, head = self._parts
        if isinstance(ids, Packing):
            hidden = packed_states(decoder, ids)[column]
        elif self._head_is_plain:
            hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state[row, column]
        else:
            logits = self.lm(input_ids=ids, use_cache=False).logits[row, column]
            return token_logprobs(logits, targets, temperature=temperature, entropy_gradient=entropy_gradient)
        return head_logprobs(
            hidden,
            head,
            targets,
            words=self._words,
            temperature=temperature,
            entropy_gradient=entropy_gradient,
        )

    def token_logprobs(
        self,
        rows: Sequence[SequenceRow],
        *,
        temperature: float = 1.0,
        reference: Mapping[str, Tensor] | None = None,
        entropy_gradient: bool = False,
    ) -> TokenLogprobs:
        """Log-probabilities of the response tokens of a micro-batch, in one forward pass.

        Args:
            rows: Prompts and responses.
            temperature: At which the responses were sampled; 1 for text that is to be fitted or judged.
            reference: Weights to use in place of the model's own of these names (see ``trainable``).
            entropy_gradient: Whether the entropies carry their gradient.
        """
        lengths = np.asarray([r.num_response_tokens for r in rows])
        row = np.repeat(np.arange(len(rows)), lengths)
        place = np.concatenate([np.arange(n) for n in lengths])
        # The token at position p is predicted at p − 1.
        column = np.repeat([r.start for r in rows], lengths) + place - 1
        targets = np.concatenate([r.ids[r.start :] for r in rows]).astype(np.int64)
        ids: Tensor | Packing
        if self.packs:
            ids = Packing(rows, device=self.device)
            column = np.concatenate([p[r.start - 1 : -1] for p, r in zip(ids.places, rows, strict=True)])
        else:
            ids = pad_rows([r.ids for r in rows], pad_id=self.chat.pad_token_id, device=self.device)
        row_t, place_t, column_t, targets_t = (
            torch.from_numpy(a).to(self.device) for a in (row, place, column, targets)
        )
        arguments = (ids, row_t, column_t, targets_t, temperature, entropy_gradient)
        if reference is None:
            flat, flat_entropy = self(*arguments)
        else:
            flat, flat_entropy = torch.func.functional_call(self, dict(reference), arguments)
        shape = (len(rows), int(lengths.max()))
        mask = torch.zeros(shape, dtype=torch.bool, device=self.device)
        mask[row_t, place_t] = True
        logprobs = flat.new_zeros(shape).index_put((row_t, place_t), flat)
        entropy = flat_entropy.new_zeros(shape).index_put((row_t, place_t), flat_entropy)
        return TokenLogprobs(logprobs, entropy, mask)

    @torch.no_grad()
    def teacher_nll(self, examples: Sequence[Example], *, micro_batch_tokens: int) -> Float32:
        """[N] mean negative log-likelihood (nats a token) of each teacher's text, end of turn left out.

        At temperature 1, whatever the responses are sampled at.

        Args:
            examples: Prompts with the teacher's text.
            micro_batch_tokens: Tokens, padding included, in one forward pass.
        """
        rows = [teacher_row(self.chat, example, end_of_turn=False) for example in examples]
        nll = np.zeros(len(rows), dtype=np.float32)
        for index in plan_passes(rows, max_tokens=micro_batch_tokens, packs=self.packs):
            out = self.token_logprobs([rows[i] for i in index])
            nll[index] = (-out.logprobs.sum(-1) / out.mask.sum(-1)).cpu().numpy()
        return nll

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name → parameter of what is trained: all weights, or the adapters."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def _check_head(self) -> bool:
        """Whether logits are the head applied to the last hidden state, with nothing in between.

        Some architectures scale or cap their logits: for them the whole model must be called.
        """
        decoder, head = self._parts
        if head is None:
            return False
        ids = torch.tensor([[self.chat.end_of_turn_id, self.chat.pad_token_id]], device=self.device)
        whole = self.lm(input_ids=ids, use_cache=False).logits.float()
        ours = head(decoder(input_ids=ids, use_cache=False).last_hidden_state).float()
        return bool(torch.allclose(whole, ours, rtol=_HEAD_TOLERANCE, atol=_HEAD_TOLERANCE))
