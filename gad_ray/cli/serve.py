"""``gad-ray serve``: settings from the command line, a line when it is ready, and the end on a signal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gad_ray.errors import ConfigError


def serve(
    critic: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A checkpoint or an exported critic.")
    ] = None,
    follow: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="A run's name or path: always its newest good critic."),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR", help="A LoRA critic as a further model; may be given several times."
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="What adapters were trained on; else the critic's own."),
    ] = None,
    max_adapters: Annotated[int, typer.Option(min=1, help="Adapters in memory at once.")] = 8,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback need a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    name: Annotated[str, typer.Option(help="What clients call the model.")] = "critic",
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keys, one a line; or set GAD_RAY_SERVE_KEYS."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A host name, besides loopback's, that requests may be addressed to, as behind a proxy.",
        ),
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that share the requests.")] = 1,
    max_replicas: Annotated[
        int, typer.Option(min=0, help="Add replicas up to so many while work waits; 0: as --replicas.")
    ] = 0,
    gpus: Annotated[float, typer.Option(min=0.0, help="GPUs of one replica.")] = 0.0,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of one replica; 0: its share of the cores.")
    ] = 0,
    batch_tokens: Annotated[
        int, typer.Option(min=0, help="Tokens of one forward pass; 0: 1024 on a CPU, 4096 on a GPU.")
    ] = 0,
    cache_tokens: Annotated[
        int, typer.Option(min=0, help="Scored tokens whose scores are kept for equal text; 0: none.")
    ] = 0,
) -> None:
    """Serve a critic over HTTP until a signal. Scores are those of training; see docs/serving.md."""
    settings = {
        "name": name,
        "key_file": None if key_file is None else str(key_file.resolve()),
        "allowed_hosts": list(allowed_host or []),
        "adapters": adapters_of(adapter or []),
        "backbone": backbone,
        "max_adapters": max_adapters,
        "num_replicas": replicas,
        "max_replicas": max_replicas or None,
        "gpus_per_replica": gpus,
        "threads": threads,
        "batching": {"max_batch_tokens": batch_tokens or None, "cache_tokens": cache_tokens},
    }
    if (critic is None) == (follow is None):
        raise typer.BadParameter("give either --critic or --follow")
    from gad_ray.serving.deployment.serve_command import serve_critic

    raise typer.Exit(serve_critic(critic, follow, host=host, port=port, settings=settings))


def adapters_of(given: Sequence[str]) -> dict[str, str]:
    """Names and directories of ``NAME=DIR``.

    Raises:
        ConfigError: If one is none, or has the name of another.
    """
    found: dict[str, str] = {}
    for text in given:
        name, _, place = text.partition("=")
        if not name or not Path(place).is_dir() or not place:
            raise ConfigError(
                f"{text!r} names no directory",
                where="--adapter",
                hint="give NAME=DIR, a LoRA critic's export",
            )
        if name in found:
            raise ConfigError(f"{name!r} is given twice", where="--adapter", hint="give each another name")
        found[name] = str(Path(place).resolve())
    return found
