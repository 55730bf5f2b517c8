"""The mode in which the learners run their models: no dropout, whether activations are kept or not."""

from __future__ import annotations

from torch import nn


def without_dropout(model: nn.Module, *, gradient_checkpointing: bool) -> None:
    """Put a model into evaluation mode; with gradient checkpointing, all but the blocks that recompute.

    A block recomputes its activations in training mode only, and training mode would also turn on the dropout
    that some models are configured with: the same text would then score differently in every pass, and the
    first pass over fresh samples would not have a ratio of 1.

    Args:
        model: The model; changed in place.
        gradient_checkpointing: Whether it was loaded with gradient checkpointing.
    """
    model.eval()
    if not gradient_checkpointing:
        return
    from transformers.modeling_layers import GradientCheckpointingLayer

    for block in model.modules():
        if isinstance(block, GradientCheckpointingLayer):
            # The block's own flag alone: what it is made of stays in evaluation mode.
            block.training = True
            for name, value in vars(block).items():
                if "dropout" in name and isinstance(value, float):
                    setattr(block, name, 0.0)
