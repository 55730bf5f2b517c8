"""Which way imports point: read from the sources, and tried in fresh interpreters."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "gad_ray"

FLOORS: dict[str, int] = {
    "errors": 0,
    "strict_model": 0,
    "registry": 1,
    "failure": 1,
    "findings": 1,
    "interrupt": 0,
    "addresses": 0,
    "activity": 1,
    "batch": 1,
    "config": 2,
    "machine": 1,
    "core": 2,
    "data": 3,
    "models": 3,
    "memory_estimate": 4,
    "auto": 4,
    "learners": 4,
    "client": 4,
    "critics": 5,
    "rewards": 4,
    "rollout": 4,
    "checkpoint": 4,
    "observability": 4,
    "health": 5,
    "evaluation": 5,
    "planning": 5,
    "report": 5,
    "actors": 6,
    "quality": 6,
    "fitting": 7,
    "serving": 7,
    "controller": 8,
    "bench": 9,
    "doctor": 9,
    "dry_run": 9,
    "dry_run_models": 9,
    "api": 10,
    "cli": 10,
    "__main__": 11,
}
"""Room → its floor. A room may import from its own floor and those below, never from above."""

MAY_IMPORT_RAY = {
    "actors",
    "fitting",
    "controller",
    "serving",
    "cli",
    "__main__",
    "observability",
}
SERVING_WITH_RAY = {
    f"gad_ray.serving.deployment.{name}" for name in ("ray_serve", "serve_command", "run_channel")
}
WITHOUT_TORCH = {
    "errors",
    "addresses",
    "activity",
    "batch",
    "config",
    "rewards",
    "strict_model",
    "registry",
    "machine",
    "health",
    "doctor",
    "data",
    "report",
    "cli",
    "planning",
}


def modules() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def imports(tree: ast.AST, *, only_at_import: bool) -> Iterator[str]:
    """Names of imported modules; ``only_at_import`` leaves out functions and what only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if only_at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            # `from gad_ray import machine` imports a module, `from gad_ray.machine import GIB` a name.
            yield from (name for alias in node.names if (name := f"{node.module}.{alias.name}") in MODULES)
        else:
            yield from imports(node, only_at_import=only_at_import)


def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def loaded_by(module: str) -> set[str]:
    """All that is imported when a module is: directly, by what it imports of ours, and by its packages."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if "." in name and name.startswith("gad_ray"):
            waiting.append(name.rpartition(".")[0])
        if name in MODULES:
            waiting.extend(imports(parsed(name), only_at_import=True))
    return {name.partition(".")[0] for name in seen}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_own_floor_and_below(module: str) -> None:
    room = room_of(module)
    if room is None:
        return
    assert room in FLOORS, f"gad_ray.{room} is new: give it a floor"
    used = {
        room_of(name) for name in imports(parsed(module), only_at_import=False) if name.startswith("gad_ray.")
    }
    above = sorted(name for name in used if name is not None and FLOORS[name] > FLOORS[room])
    assert not above, f"{module} imports from {', '.join(above)}"


def graph_of(names: Callable[[str], str | None]) -> dict[str, set[str]]:
    """Who needs whom as soon as it is imported, by module or by room."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        used = list(imports(parsed(module), only_at_import=True))
        # `from gad_ray.health import rules` is of a module alone: the package has been imported before either.
        packages = {name.rpartition(".")[0] for name in used if name in MODULES}
        for name in used:
            here, there = names(module), names(name)
            if name in MODULES and name not in packages and here and there and here != there:
                found.setdefault(here, set()).add(there)
    return found


@pytest.mark.parametrize("names", [lambda module: module, room_of], ids=["files", "rooms"])
def test_there_is_no_circle(names: Callable[[str], str | None]) -> None:
    graph = graph_of(names)
    list(TopologicalSorter(graph).static_order())  # raises where there is one, and names it


@pytest.mark.parametrize(
    "module",
    # The controller's bench stands actors of its own in the places of engines and learners.
    [m for m in MODULES if room_of(m) not in MAY_IMPORT_RAY and ".bench.controller" not in m],
)
def test_only_the_shells_around_the_work_import_ray(module: str) -> None:
    used = {name.partition(".")[0] for name in imports(parsed(module), only_at_import=False)}
    assert "ray" not in used


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) == "serving"])
def test_of_serving_only_the_application_and_its_command_know_ray(module: str) -> None:
    used = {name.partition(".")[0] for name in imports(parsed(module), only_at_import=False)}
    assert ("ray" in used) is (module in SERVING_WITH_RAY)


@pytest.mark.parametrize("name", ["client", "serving.deployment.channel"])
def test_a_client_of_the_endpoint_and_a_runs_channel_load_neither_torch_nor_ray(name: str) -> None:
    assert not {"torch", "ray", "transformers", "fastapi"} & loaded_by(f"gad_ray.{name}")


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("gad_ray.serving.application")])
def test_the_application_knows_nothing_of_its_deployment(module: str) -> None:
    used = set(imports(parsed(module), only_at_import=False))
    assert not [name for name in used if name.startswith("gad_ray.serving.deployment")]


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) == "client"])
def test_a_client_knows_nothing_of_the_server(module: str) -> None:
    used = {
        room_of(name) for name in imports(parsed(module), only_at_import=False) if name.startswith("gad_ray.")
    }
    assert "serving" not in used


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) in {None, *WITHOUT_TORCH}])
def test_light_modules_load_neither_torch_nor_ray_nor_transformers(module: str) -> None:
    assert not {"torch", "ray", "transformers", "vllm"} & loaded_by(module)


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) == "core"])
def test_core_knows_nothing_of_ours_but_containers_and_the_base_of_settings(module: str) -> None:
    used = {
        room_of(name) for name in imports(parsed(module), only_at_import=False) if name.startswith("gad_ray.")
    }
    assert used <= {"core", "batch", "errors", "strict_model", "registry"}


@pytest.mark.parametrize("module", MODULES)
def test_the_package_needs_nothing_that_stands_beside_it(module: str) -> None:
    used = {name.partition(".")[0] for name in imports(parsed(module), only_at_import=False)}
    assert not {"benchmarks", "examples", "tests"} & used


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_vllm_or_deepspeed_before_it_is_used(module: str) -> None:
    used = {name.partition(".")[0] for name in imports(parsed(module), only_at_import=True)}
    assert not {"vllm", "deepspeed"} & used


@pytest.mark.parametrize(
    ("rooms", "forbidden"),
    [
        (
            {"errors", "batch", "config", "machine", "doctor", "health", "data", "report"},
            {"torch", "ray", "transformers"},
        ),
        ({"core"}, {"ray", "transformers"}),
        ({"rewards"}, {"ray", "transformers", "torch"}),
        ({"models", "learners", "rollout"}, {"ray", "vllm", "deepspeed"}),
    ],
)
def test_a_fresh_interpreter_loads_what_the_sources_say(rooms: set[str], forbidden: set[str]) -> None:
    names = [module for module in MODULES if room_of(module) in rooms]
    code = (
        "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert not forbidden & set(done.stdout.split())
