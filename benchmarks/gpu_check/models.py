"""Models of known shapes with random weights, and rows to compute on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from gad_ray.core.shared_prompts import PackedRows, pack_with_shared_prompts
from gad_ray.models.policy import SequenceRow


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's shape.

    Attributes:
        name: By which tables call it.
        hidden, layers, heads, key_heads, intermediate, words: As transformers' configurations name them.
        tied: Whether the output head is the embedding.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    key_heads: int
    intermediate: int
    words: int
    tied: bool = True

    @property
    def backbone_parameters(self) -> int:
        """Weights that every token is multiplied with, embedding and head left out."""
        size = self.hidden // self.heads
        attention = 2 * self.hidden * self.heads * size + 2 * self.hidden * self.key_heads * size
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    def flops(self, rows: Sequence[SequenceRow], *, with_head: bool) -> float:
        """Of a forward and a backward pass over rows, a common prompt counted once: what must be computed.

        Args:
            rows: The rows.
            with_head: Count the output head on the responses' tokens.
        """
        packed: PackedRows = pack_with_shared_prompts(rows)
        tokens = len(packed.ids)
        pairs = 0.0
        for span in packed.spans:
            own = span.end - span.begin
            before = 0 if span.prompt is None else span.prompt[1] - span.prompt[0]
            pairs += own * before + own * (own + 1) / 2
        flops = 2.0 * self.backbone_parameters * tokens + 4.0 * self.layers * self.hidden * pairs
        if with_head:
            flops += 2.0 * self.words * self.hidden * sum(row.num_response_tokens for row in rows)
        return 3.0 * flops


TOY = Shape("toy", 64, 2, 4, 2, 128, 400)
SMALL = Shape("135M", 576, 30, 9, 3, 1536, 49152)
MEDIUM = Shape("0.5B", 896, 24, 14, 2, 4864, 151936)
LARGE = Shape("1.5B", 1536, 28, 12, 2, 8960, 151936)


def make_model(shape: Shape, directory: Path, *, dtype: torch.dtype, device: torch.device) -> Path:
    """Write a model of this shape, with random weights and a tokenizer of bytes, as transformers loads it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    control = ("<|pad|>", "<|im_start|>", "<|im_end|>")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: i for i, word in enumerate([*control, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(control))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=control[0], eos_token=control[2])
    wrapped.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    wrapped.save_pretrained(str(directory))
    config = LlamaConfig(
        vocab_size=shape.words,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=32768,
        tie_word_embeddings=shape.tied,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    with device:
        model: Any = cast("Any", LlamaForCausalLM(config)).to(dtype)
    model.save_pretrained(str(directory))
    return directory


def draw_rows(
    shape: Shape, prompt: int, answers: Sequence[int], *, groups: int, seed: int = 0
) -> list[SequenceRow]:
    """Rows of random tokens: ``groups`` prompts of so many tokens, with answers of these lengths each."""
    draw = np.random.default_rng(seed)
    rows: list[SequenceRow] = []
    for _ in range(groups):
        start = draw.integers(3, shape.words, prompt)
        rows += [
            SequenceRow(
                ids=np.concatenate([start, draw.integers(3, shape.words, n)]).astype(np.int32), start=prompt
            )
            for n in answers
        ]
    return rows
