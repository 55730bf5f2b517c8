import re
import socket
import textwrap
from pathlib import Path

import pytest
import yaml

from gad_ray.config import ServeConfig
from gad_ray.errors import ConfigError
from gad_ray.serving.application.batcher import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS
from gad_ray.serving.application.keys import KEYS_VARIABLE
from gad_ray.serving.deployment.address import settings_of_run
from gad_ray.serving.deployment.settings import ServeSettings

ROOT = Path(__file__).resolve().parents[3]
KEY = "key-" + "k" * 30


@pytest.fixture
def port() -> int:
    """One that is free."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_run_serves_its_critic_with_its_own_settings(port: int, tmp_path: Path):
    (tmp_path / "keys").write_text(f"{KEY}\n")
    config = ServeConfig(
        enabled=True,
        port=port,
        name="judge",
        key_file=str(tmp_path / "keys"),
        num_replicas=2,
        batch_tokens=99,
    )
    settings = settings_of_run(config, environment={KEYS_VARIABLE: KEY})
    assert (settings.name, settings.num_replicas, settings.batching.max_batch_tokens) == ("judge", 2, 99)
    assert (settings.critic, settings.follow, settings.keep_versions) == (None, None, 0)
    assert settings.key_file == str(tmp_path / "keys")
    assert len(settings.key_digests) == 1
    assert KEY not in settings.model_dump_json()


def test_a_runs_endpoint_differs_from_the_application_in_what_it_says_and_in_nothing_else(port: int):
    run = settings_of_run(ServeConfig(enabled=True, port=port), environment={}).model_dump(
        exclude={"channel"}
    )
    alone = ServeSettings(critic="x").model_dump(exclude={"critic"})
    differing = {name for name, value in alone.items() if name in run and run[name] != value}
    assert differing == {"cpus_per_replica", "threads", "drain_s", "keep_versions"}
    # What the documentation says of a pass where nothing is set, on either endpoint.
    assert run["batching"]["max_batch_tokens"] is None
    assert (CPU_BATCH_TOKENS, GPU_BATCH_TOKENS) == (1024, 4096)
    told = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    assert "1024 on a CPU, where larger passes are slower, and 4096 on a GPU, if left out" in told
    (block,) = re.findall(r"^    serve:\n(?:      .*\n)+", told, flags=re.MULTILINE)
    shown = yaml.safe_load(textwrap.dedent(block))["serve"]
    assert ServeConfig(**{**shown, "enabled": False}) == ServeConfig()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.200", "::"])
def test_without_a_key_a_run_serves_on_loopback_alone(host: str):
    with pytest.raises(ConfigError, match=r"serve\.host: .* no key is set") as refused:
        settings_of_run(ServeConfig(enabled=True, host=host), environment={})
    assert "serve.key_file" in str(refused.value.hint)


def test_a_key_in_the_environment_opens_other_addresses(port: int):
    config = ServeConfig(enabled=True, host="0.0.0.0", port=port)
    assert settings_of_run(config, environment={KEYS_VARIABLE: KEY}).key_digests


def test_keys_that_cannot_be_read_are_told_before_the_run(tmp_path: Path):
    config = ServeConfig(enabled=True, key_file=str(tmp_path / "keys"))
    with pytest.raises(ConfigError, match="the keys cannot be read"):
        settings_of_run(config, environment={})


def test_a_port_in_use_is_told_before_the_run():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = ServeConfig(enabled=True, port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match=r"serve\.host and serve\.port: .* cannot be listened on"):
            settings_of_run(config, environment={})


def test_a_run_without_an_endpoint_reserves_nothing_for_it():
    assert ServeConfig(num_replicas=3).bundles == []
    assert ServeConfig(enabled=True, num_replicas=3).bundles == [{"CPU": 0.25, "GPU": 0.0}] * 3
