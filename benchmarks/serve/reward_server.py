"""A plain FastAPI loop, as trainers' own reward servers have it: one request at a time, padded, one forward pass.

In the manner of OpenRLHF's reward server: the handler is a coroutine that computes in the event loop, so that requests
wait for each other; the texts of a request are padded to the longest and scored by their last token. The backbone and
the head are those of the critic it is compared with.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse


def build_app(critic_dir: Path) -> FastAPI:
    """The application.

    Args:
        critic_dir: An exported critic.
    """
    score = _scorer(critic_dir)
    app = FastAPI()

    async def get_reward(request: Request) -> JSONResponse:
        rewards = score((await request.json())["query"])
        return JSONResponse({"rewards": rewards, "scores": rewards, "extra_logs": {}})

    async def health() -> JSONResponse:
        return JSONResponse({})

    app.add_api_route("/get_reward", get_reward, methods=["POST"])
    app.add_api_route("/health", health, methods=["GET"])
    return app


def _scorer(critic_dir: Path) -> Callable[[list[str]], list[float]]:
    import torch

    from gad_ray.models.critic_export import load_critic

    critic = load_critic(critic_dir)
    tokenizer: Any = critic.encoder.chat.tokenizer
    tokenizer.padding_side = "left"
    backbone: Any = critic.backbone

    @torch.no_grad()
    def score(texts: list[str]) -> list[float]:
        batch = tokenizer(
            texts,
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=critic.encoder.max_tokens,
            add_special_tokens=False,
        )
        hidden = backbone(**batch, use_cache=False).last_hidden_state
        return critic.head(hidden[:, -1:])[:, 0].tolist()

    return score


def _main() -> None:
    import torch
    import uvicorn

    parser = argparse.ArgumentParser()
    parser.add_argument("--critic", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    uvicorn.run(build_app(arguments.critic), host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    _main()
