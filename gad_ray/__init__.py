"""GAD-Ray: generative adversarial distillation of a text-only teacher, on Ray.

    from gad_ray import configure, train, score

    run = train(configure("quickstart"))
    rows = score(run.critic, [{"prompt": "Why is the sky blue?", "response": "Because air scatters blue light."}])

Importing the package loads neither torch nor ray: what is named here is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gad_ray.api import Run, configure, evaluate, score, serve, train

__version__ = "0.1.0"
__all__ = ["Run", "configure", "evaluate", "score", "serve", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gad_ray import api

    return getattr(api, name)
