"""Tiny random models with real tokenizers, made in a second: what most tests use in place of a real model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Style = Literal["chatml", "bracket"]

_CORPUS = [
    "The quick brown fox jumps over the lazy dog. Please explain why the sky is blue.",
    "Write a short list of fruits: apples, oranges, pears and plums.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))",
    "What is 17 times 23? It is 391, because 17 * 20 = 340 and 17 * 3 = 51.",
    "Hello! How are you today? I am fine, thank you. And what about you?",
    "你好，世界。请解释一下天空为什么是蓝色的。",
]

_CONTROL: dict[Style, tuple[str, str, str]] = {
    "chatml": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "bracket": ("<pad>", "<s>", "</s>"),
}

_TEMPLATES: dict[Style, str] = {
    "chatml": (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
        "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "bracket": (
        "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] | trim }}</s>"
        "{% else %}<s>[{{ message['role'] }}] {{ message['content'] | trim }} [/]{% endif %}{% endfor %}"
    ),
}


def make_tiny_model(
    directory: Path,
    *,
    style: Style = "chatml",
    vocab_size: int = 384,
    chat: bool = True,
    seed: int = 0,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 4,
    max_positions: int = 512,
    tied: bool = True,
) -> Path:
    """Save a random-weight Llama with a byte-level BPE tokenizer as a Hugging Face directory.

    Args:
        directory: Where to; made if need be.
        style: Which control tokens and chat template the tokenizer has: the two share no control token and
            tokenise text differently.
        vocab_size: Size of the vocabulary, at least 259.
        chat: Whether the tokenizer has a chat template.
        seed: Seed of the weights.
        hidden: Width.
        layers: Blocks.
        heads: Attention heads; half as many for keys and values.
        max_positions: Longest sequence, in tokens.
        tied: Whether the output head shares the embedding's weights.

    Returns:
        The directory.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    pad, bos, eos = 0, 1, 2
    make_tiny_tokenizer(directory, style=style, vocab_size=vocab_size, chat=chat)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        max_position_embeddings=max_positions,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(pad_token_id=pad, bos_token_id=bos, eos_token_id=eos)
    model.save_pretrained(str(directory))
    return directory


def make_tiny_tokenizer(
    directory: Path, *, style: Style = "chatml", vocab_size: int = 384, chat: bool = True
) -> Path:
    """Train and save a byte-level BPE tokenizer; ids 0, 1, 2 are padding, beginning and end of turn.

    Args:
        directory: Where to; made if need be.
        style: As for ``make_tiny_model``.
        vocab_size: Size of the vocabulary, at least 259.
        chat: Whether it has a chat template.

    Returns:
        The directory.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    control = _CONTROL[style]
    tokenizer = Tokenizer(models.BPE())
    split_digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = (
        byte_level if style == "chatml" else pre_tokenizers.Sequence([split_digits, byte_level])
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(control),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The second style learns from half of the text: other merges.
    tokenizer.train_from_iterator(_CORPUS if style == "chatml" else _CORPUS[::2], trainer)
    pad, bos, eos = control
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos)
    if chat:
        wrapped.chat_template = _TEMPLATES[style]
    directory.mkdir(parents=True, exist_ok=True)
    wrapped.save_pretrained(str(directory))
    return directory
