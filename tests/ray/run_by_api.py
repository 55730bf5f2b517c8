"""A run from Python, in a process of its own: ``python -m tests.ray.run_by_api train CONFIG OVERRIDE…``."""

import json
import sys

from gad_ray import configure, evaluate, score, train


def main(recipe: str, *overrides: str) -> None:
    run = train(configure(recipe, *overrides))
    (scored,) = score(run.critic, [{"prompt": "Say one.", "response": "One."}])
    told = {
        "finished": run.is_finished,
        "root": str(run.root),
        "policy": run.policy.is_dir(),
        "d_acc": evaluate(run.root).metrics["eval/d_acc"],
        "score": scored["score"],
    }
    sys.stdout.write(f"\n{json.dumps(told)}\n")


if __name__ == "__main__":
    main(*sys.argv[2:])
