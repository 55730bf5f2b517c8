"""Generative adversarial distillation in one process: plain torch and transformers, nothing of GAD-Ray.

    python examples/minimal_gad.py --model DIR_OR_HUB_ID --data pairs.jsonl

The student writes, a critic learns to tell its answers from the teacher's, the critic's score is the student's reward, and both
keep learning (arXiv 2511.10643). Read it from `main` down; GAD-Ray does the same with actors, checks and recovery around it.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

TEMPERATURE = (
    0.8  # of sampling, and of the log-probabilities that are trained: another would bias the gradient
)


@dataclass(frozen=True)
class Pair:
    """A prompt's token ids, and the teacher's answer to it as text: all that is known of the teacher."""

    prompt: list[int]
    teacher: str


class Critic(nn.Module):
    """A language model's backbone with a value head: D(x, y) is the mean value of the answer's tokens."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.backbone = AutoModel.from_pretrained(model, dtype=torch.float32)
        self.head = nn.Linear(self.backbone.config.hidden_size, 1, bias=False)

    def forward(self, prompt: list[int], answer: list[int]) -> Tensor:
        """The score of an answer: a scalar."""
        ids = torch.tensor([prompt + answer])
        hidden = self.backbone(input_ids=ids).last_hidden_state
        return self.head(hidden)[0, len(prompt) :, 0].mean()


class Game:
    """Policy and critic from the same model, and an optimiser for each."""

    def __init__(self, model: str, *, policy_lr: float, critic_lr: float, max_tokens: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.policy: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.critic = Critic(model).eval()
        self.max_tokens = max_tokens
        self.policy_optimizer = torch.optim.AdamW(self.policy.parameters(), lr=policy_lr, weight_decay=0.0)
        self.critic_optimizer = torch.optim.AdamW(self.critic.parameters(), lr=critic_lr, weight_decay=0.0)

    def prompt_ids(self, text: str) -> list[int]:
        """A user's message in the model's chat template, up to where the answer begins."""
        turn = [{"role": "user", "content": text}]
        return list(self.tokenizer.apply_chat_template(turn, add_generation_prompt=True)["input_ids"])

    def text_ids(self, text: str) -> list[int]:
        """An answer as the critic reads it: its text alone, on both sides, without an end of turn."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.no_grad()
    def sample(self, prompt: list[int], count: int) -> list[list[int]]:
        """Answers of the policy: token ids as they were sampled."""
        out = self.policy.generate(
            torch.tensor([prompt]),
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            top_p=1.0,
            num_return_sequences=count,
            max_new_tokens=self.max_tokens,
            pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
        )
        end = self.tokenizer.eos_token_id
        rows = [row[len(prompt) :].tolist() for row in out]
        return [row[: row.index(end) + 1] if end in row else row for row in rows]

    def train_critic(self, pair: Pair, answers: Sequence[str], *, tau: float) -> tuple[Tensor, float]:
        """One step of −log σ((s_T − s_S)/τ); the scores from before it, and the share of pairs ranked rightly."""
        teacher = self.critic(pair.prompt, self.text_ids(pair.teacher))
        student = torch.stack([self.critic(pair.prompt, self.text_ids(text)) for text in answers])
        loss = -F.logsigmoid((teacher - student) / tau).mean()
        step(self.critic_optimizer, loss, self.critic)
        return student.detach(), float((teacher > student).float().mean())

    def train_policy(self, prompt: list[int], rows: Sequence[list[int]], rewards: Tensor) -> None:
        """One step of policy gradient on advantages within the group: (r − mean) / max(std, 0.1)."""
        advantages = (rewards - rewards.mean()) / rewards.std().clamp_min(0.1)
        num_tokens = sum(map(len, rows))
        loss = torch.zeros(())
        for row, advantage in zip(rows, advantages, strict=True):
            logits = self.policy(input_ids=torch.tensor([prompt + row])).logits[0, len(prompt) - 1 : -1]
            logprobs = torch.log_softmax(logits.float() / TEMPERATURE, -1).gather(
                -1, torch.tensor(row)[:, None]
            )
            loss = loss - advantage * logprobs.sum() / num_tokens
        step(self.policy_optimizer, loss, self.policy)


def step(optimizer: torch.optim.Optimizer, loss: Tensor, module: nn.Module) -> None:
    """Take one optimiser step on a loss."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()


def play(
    game: Game, pairs: Sequence[Pair], *, warmup: int, steps: int, count: int, seed: int
) -> list[dict[str, float]]:
    """The critic learns alone in the warm-up; then both play. Returns the course."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    course: list[dict[str, float]] = []
    for number in range(1, warmup + steps + 1):
        pair = draw.choice(pairs)
        rows = [row for row in game.sample(pair.prompt, count) if row]
        texts = [game.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]
        kept = [i for i, text in enumerate(texts) if text]  # nothing can be read in an empty answer
        if len(kept) < 2:
            continue
        rewards, d_acc = game.train_critic(pair, [texts[i] for i in kept], tau=2.0)
        if number > warmup:
            game.train_policy(pair.prompt, [rows[i] for i in kept], rewards)
        course.append({"step": number, "reward": float(rewards.mean()), "d_acc": d_acc})
    return course


def main(arguments: Sequence[str] | None = None) -> list[dict[str, float]]:
    """Play from the command line; returns the course."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a Hugging Face directory or hub id")
    parser.add_argument("--data", type=Path, required=True, help="JSONL with content and teacher_response")
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--responses", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--policy-lr", type=float, default=1e-5)
    parser.add_argument("--critic-lr", type=float, default=2e-4)
    options = parser.parse_args(arguments)
    game = Game(
        options.model,
        policy_lr=options.policy_lr,
        critic_lr=options.critic_lr,
        max_tokens=options.max_tokens,
    )
    rows = [json.loads(line) for line in options.data.read_text(encoding="utf-8").splitlines()]
    pairs = [Pair(game.prompt_ids(row["content"]), row["teacher_response"]) for row in rows]
    course = play(game, pairs, warmup=options.warmup, steps=options.steps, count=options.responses, seed=0)
    for row in course:
        print(f"step {row['step']:3.0f}  d_acc {row['d_acc']:.2f}  reward {row['reward']:+.3f}", flush=True)  # noqa: T201
    return course


if __name__ == "__main__":
    main()
