"""The critic: a backbone with a linear value head."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from gad_ray.batch import Fingerprint
from gad_ray.config.models import ModelConfig
from gad_ray.core.packing import pad_rows
from gad_ray.core.pooling import POOLINGS, PoolingSettings, TokenValues
from gad_ray.errors import ModelError
from gad_ray.models.architecture import check_vocabulary, hidden_size_of
from gad_ray.models.chat import ChatFormat, configured_chat_format
from gad_ray.models.fingerprint import hash_tensors, hash_text, hash_tokenizer
from gad_ray.models.load import (
    TORCH_DTYPES,
    apply_lora,
    is_adapted,
    load_backbone,
    merged_state_dict,
)
from gad_ray.models.onednn_linear import pack_linears
from gad_ray.models.pairs import Pair, PairEncoder, TokenRow, deduplicate
from gad_ray.models.sequence_packing import (
    Packing,
    can_pack,
    packed_states,
    plan_passes,
)
from gad_ray.models.source import resolve_model

_logger = logging.getLogger(__name__)

_SAME_VALUE = {"float32": 1e-4, "bfloat16": 0.05}
"""What two ways to compute one token's value may differ by."""


class ValueHead(nn.Module):
    """Hidden state → one value per token, in float32 whatever the backbone computes in.

    Without a bias: only differences of scores are learned from, so that its gradient would be rounding alone, of which Adam
    makes steps of the learning rate.
    """

    def __init__(self, hidden_size: int, *, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        # Small enough that the first scores are near zero, not zero: the backbone must get a gradient.
        self.weight = nn.Parameter(torch.randn(hidden_size, generator=generator) / (hidden_size + 1))

    def forward(self, hidden: Float[Tensor, "batch seq hidden"]) -> Float[Tensor, "batch seq"]:
        """hidden · weight, in float32."""
        return hidden.float() @ self.weight


class CriticModel(nn.Module):
    """Scores of (prompt, response) pairs. The one scoring path: training, evaluation and serving call it.

    Attributes:
        packing: Whether rows go end to end where the backbone can; see :attr:`packs`.
        updates: Optimiser steps that the critic has taken: a blended pooling depends on them.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: ValueHead,
        *,
        chat: ChatFormat,
        pooling: PoolingSettings,
        max_tokens: int,
        dtype: str,
        packing: bool = True,
        updates: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.encoder = PairEncoder(chat, max_tokens=max_tokens)
        self.pooling = pooling
        self.dtype = dtype
        self.packing = packing
        self.updates = updates
        self._packs: bool | None = None

    @classmethod
    def build(
        cls,
        config: ModelConfig,
        *,
        pooling: PoolingSettings,
        max_tokens: int,
        seed: int,
        packing: bool = True,
    ) -> CriticModel:
        """A new critic on a pretrained backbone, loaded in float32 and cast to ``config.dtype``.

        Args:
            config: The backbone.
            pooling: How the tokens' values become a score.
            max_tokens: Longest prompt plus response.
            seed: Seed of the value head.
            packing: Put the pairs of one forward pass end to end, a common prompt once, in place of padding each.

        Raises:
            ModelError: If the model cannot be found or loaded.
        """
        directory = resolve_model(config.model)
        dtype = TORCH_DTYPES[config.dtype]
        backbone: nn.Module = load_backbone(
            directory, dtype=dtype, gradient_checkpointing=config.gradient_checkpointing
        )
        chat = configured_chat_format(directory, config)
        check_vocabulary(
            chat.largest_id, cast(Any, backbone).get_input_embeddings().num_embeddings, where=config.model
        )
        hidden_size = hidden_size_of(backbone)
        if config.lora is not None:
            backbone = apply_lora(
                cast(Any, backbone),
                rank=config.lora.rank,
                alpha=config.lora.alpha,
                target_modules=config.lora.target_modules,
            )
        return cls(
            backbone,
            ValueHead(hidden_size, seed=seed),
            chat=chat,
            pooling=pooling,
            max_tokens=max_tokens,
            dtype=config.dtype,
            packing=packing,
        )

    def pack(self) -> CriticModel:
        """Make it ready to score for good: on a CPU it gets faster, and cannot be trained or moved any more."""
        self.eval()
        if is_adapted(cast(Any, self.backbone)) or self.device.type != "cpu":
            return self
        pack_linears(self.backbone)
        self.packing, self._packs = True, None
        return self

    @property
    def packs(self) -> bool:
        """Whether rows go end to end, and a prompt that several begin with is computed once: it is tried at first use."""
        if self._packs is None:
            words = int(cast(Any, self.backbone).config.get_text_config().vocab_size)
            self._packs = self.packing and can_pack(
                self.backbone, words=words, tolerance=_SAME_VALUE[self.dtype]
            )
        return self._packs

    @property
    def device(self) -> torch.device:
        """Where the critic computes."""
        return self.head.weight.device

    def values(self, ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
        """Value of every token, in float32."""
        return self.head(self.backbone(input_ids=ids, use_cache=False).last_hidden_state)

    def scores(self, rows: Sequence[TokenRow]) -> Float[Tensor, " batch"]:
        """float32 scores of tokenised pairs in one forward pass, with gradient where that is enabled."""
        return self.pooled(self.row_values(rows), rows)

    def row_values(self, rows: Sequence[TokenRow]) -> Float[Tensor, "batch seq"]:
        """float32 value of every token that is scored, in one forward pass; elsewhere anything."""
        if self.packs:
            return self._packed_values(rows)
        pad_id = self.encoder.chat.pad_token_id
        return self.values(pad_rows([row.ids for row in rows], pad_id=pad_id, device=self.device))

    def pooled(self, values: Float[Tensor, "batch seq"], rows: Sequence[TokenRow]) -> Float[Tensor, " batch"]:
        """The scores that :meth:`row_values` come to."""
        tokens = TokenValues(values=values, mask=self._mask(rows), updates=self.updates)
        return POOLINGS.of(self.pooling)(tokens, self.pooling)

    def _packed_values(self, rows: Sequence[TokenRow]) -> Float[Tensor, "batch seq"]:
        """The same with the rows end to end."""
        packing = Packing(rows, device=self.device)
        values = self.head(packed_states(self.backbone, packing))
        row = np.repeat(np.arange(len(rows)), [len(one) - one.start for one in rows])
        column = np.concatenate([np.arange(one.start, len(one)) for one in rows])
        place = np.concatenate([p[one.start :] for p, one in zip(packing.places, rows, strict=True)])
        row_t, column_t, place_t = (torch.from_numpy(a).to(self.device) for a in (row, column, place))
        shape = (len(rows), max(len(one) for one in rows))
        return values.new_zeros(shape).index_put((row_t, column_t), values[place_t])

    def _mask(self, rows: Sequence[TokenRow]) -> Bool[Tensor, "batch seq"]:
        """True on the tokens that are scored."""
        position = torch.arange(max(len(row) for row in rows), device=self.device)
        start = torch.tensor([row.start for row in rows], device=self.device)
        end = torch.tensor([len(row) for row in rows], device=self.device)
        return (position >= start[:, None]) & (position < end[:, None])

    @torch.no_grad()
    def score(self, pairs: Sequence[Pair], *, micro_batch_tokens: int) -> NDArray[np.float32]:
        """Score pairs of text; equal pairs are scored once and get the same number.

        Args:
            pairs: The pairs.
            micro_batch_tokens: Tokens in one forward pass, padding included.

        Returns:
            [N] float32 scores. Only differences within one prompt mean anything.

        Raises:
            DataError: If a pair is longer than the critic's limit.
        """
        distinct, index = deduplicate(pairs)
        rows = [self.encoder.encode(pair) for pair in distinct]
        scores = np.zeros(len(rows), dtype=np.float32)
        for batch in plan_passes(rows, max_tokens=micro_batch_tokens, packs=self.packs):
            scores[batch] = self.score_rows([rows[i] for i in batch])[0]
        return scores[index]

    @torch.no_grad()
    def score_rows(
        self, rows: Sequence[TokenRow]
    ) -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], ...]]:
        """Score tokenised pairs in one forward pass.

        Returns:
            [N] float32 scores, and for every row the float32 values of the tokens that are scored.
        """
        values = self.row_values(rows)
        scores = self.pooled(values, rows)
        known = values.cpu().numpy()
        return scores.cpu().numpy(), tuple(
            known[i, row.start : len(row)].copy() for i, row in enumerate(rows)
        )

    def state(self) -> dict[str, Tensor]:
        """Backbone weights under their plain names, adapters merged, in the precision that scores."""
        return merged_state_dict(cast(Any, self.backbone), dtype=TORCH_DTYPES[self.dtype])

    def hash_weights(self) -> str:
        """SHA-256 of the backbone's weights as they score."""
        return hash_tensors(self.state())

    def fingerprint(self, *, weights: Mapping[str, Tensor] | None = None) -> Fingerprint:
        """Digest of everything that a score depends on.

        Args:
            weights: The backbone's, as :meth:`state` gives them, from whoever holds them whole; the model's own when None.
        """
        return Fingerprint(
            weights=self.hash_weights() if weights is None else hash_tensors(weights),
            head=hash_tensors(dict(self.head.state_dict())),
            template=hash_text(self.encoder.chat.template_text),
            tokenizer=hash_tokenizer(self.encoder.chat),
            pooling=hash_text(self.pooling.described(self.updates)),
            dtype=self.dtype,
        )

    def check_finite(self) -> None:
        """Refuse a critic that has lost its numbers.

        Raises:
            ModelError: If a weight is not finite.
        """
        bad = [name for name, tensor in self.named_parameters() if not bool(torch.isfinite(tensor).all())]
        if bad:
            raise ModelError(
                f"{len(bad)} of its weights hold numbers that are not finite, e.g. {bad[0]}",
                hint="serve an earlier checkpoint of the run; gad-ray diagnose says what went wrong",
            )
