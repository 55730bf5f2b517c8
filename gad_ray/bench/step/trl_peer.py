"""GRPO steps of TRL, timed. It runs in TRL's own environment, where nothing of ours is imported.

    python trl_peer.py TASK RESULT

TASK is a JSON file: ``model`` (directory), ``prompts`` (rendered texts, in order), ``prompts_per_step``,
``responses_per_prompt``, ``response_tokens``, ``precision``, ``temperature``, ``threads``. RESULT becomes one: ``versions``,
and for every step ``seconds``, ``rollout`` and ``update`` (seconds), ``prompt_tokens`` and ``response_tokens`` (of all rows).
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main(task_file: str, result_file: str) -> None:
    """Train for as many steps as there are prompts for."""
    task: dict[str, Any] = json.loads(Path(task_file).read_text(encoding="utf-8"))
    torch, transformers, trl, datasets = (
        importlib.import_module(name) for name in ("torch", "transformers", "trl", "datasets")
    )
    torch.set_num_threads(task["threads"])
    steps: list[dict[str, float]] = []

    class Trainer(trl.GRPOTrainer):
        """Its step in two parts: what it trains on, and the update."""

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            began = time.perf_counter()
            found = super()._generate_and_score_completions(inputs)
            steps.append(
                {
                    "began": began,
                    "rollout": time.perf_counter() - began,
                    "prompt_tokens": float(found["prompt_mask"].sum()),
                    "response_tokens": float(found["completion_mask"].sum()),
                }
            )
            return found

    class Clock(transformers.TrainerCallback):
        """Notes when a step ends."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps[-1]["seconds"] = time.perf_counter() - steps[-1].pop("began")
            steps[-1]["update"] = steps[-1]["seconds"] - steps[-1]["rollout"]

    def reward(completions: list[str], **_: Any) -> list[float]:
        """Differs within a group, so that every response has an advantage."""
        return [float(len(set(text))) for text in completions]

    bfloat16 = task["precision"] == "bfloat16"
    rows = task["prompts_per_step"] * task["responses_per_prompt"]
    with tempfile.TemporaryDirectory() as scratch:
        config = trl.GRPOConfig(
            output_dir=scratch,
            per_device_train_batch_size=rows,
            num_generations=task["responses_per_prompt"],
            max_completion_length=task["response_tokens"],
            generation_kwargs={"min_new_tokens": task["response_tokens"]},
            max_steps=len(task["prompts"]) // task["prompts_per_step"],
            temperature=task["temperature"],
            shuffle_dataset=False,
            learning_rate=1e-5,
            bf16=bfloat16,
            use_cpu=not torch.cuda.is_available(),
            # As fast as it goes: it is on by default, and computes every layer twice.
            gradient_checkpointing=False,
            model_init_kwargs={"dtype": torch.float32},
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=task["model"],
            reward_funcs=reward,
            args=config,
            train_dataset=datasets.Dataset.from_list([{"prompt": text} for text in task["prompts"]]),
            callbacks=[Clock()],
        )
        trainer.train()
    versions = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    Path(result_file).write_text(json.dumps({"versions": versions, "steps": steps}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
