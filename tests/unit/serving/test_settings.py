import os
from pathlib import Path

import pytest
import yaml

from gad_ray.checkpoint.tensors import STATE_FILE
from gad_ray.cli.serve import adapters_of
from gad_ray.errors import ConfigError
from gad_ray.serving.application.follow import critics_of
from gad_ray.serving.deployment.proxy import IMPORT_PATH
from gad_ray.serving.deployment.settings import ServedSource, settings_from
from tests.game import REPOSITORY


def test_the_published_yaml_is_of_settings_that_there_are():
    text = (REPOSITORY / "deployments" / "serve.yaml").read_text()
    [application] = yaml.safe_load(text)["applications"]
    settings = settings_from(application["args"])
    assert application["import_path"] == "gad_ray.serving.deployment.ray_serve:build"
    assert settings.critic == "/srv/gad-ray/critic"
    assert IMPORT_PATH in text


def test_what_is_served_can_change_and_what_serves_it_is_started_anew():
    settings = settings_from({"critic": "/a", "num_replicas": 2, "limits": {"max_pairs": 7}})
    assert settings.source() == {"critic": "/a"}
    started = settings.for_replica()
    assert started["limits"]["max_pairs"] == 7
    assert not {"critic", "follow", "num_replicas"} & set(started)
    assert ServedSource.model_validate(settings.source()).critic == "/a"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "either critic or follow"),
        ({"critic": "/a", "follow": "/b"}, "either critic or follow"),
        ({"critic": "/a", "channel": "b"}, "either critic or follow"),
        ({"critic": "/a", "limits": {"max_bytes": 1}}, "limits.max_bytes"),
        ({"critic": "/a", "num_replicas": 0}, "num_replicas"),
        ({"critic": "/a", "num_replicas": 3, "max_replicas": 2}, "max_replicas is 2, and num_replicas"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_their_name(values: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        settings_from(values)


def test_the_critics_of_a_run_come_newest_first_and_only_those_that_are_whole(tmp_path: Path):
    (tmp_path / "config.yaml").touch()
    places = [
        tmp_path / "checkpoints" / "step-000002" / "critic" / STATE_FILE,
        tmp_path / "checkpoints" / "step-000010" / "critic" / STATE_FILE,
        tmp_path / "exports" / "critic" / "critic.json",
    ]
    assert critics_of(tmp_path) == []
    for age, place in enumerate(places):
        place.parent.mkdir(parents=True)
        place.touch()
        os.utime(place, ns=(0, 1000 + age))
    (tmp_path / "checkpoints" / ".step-000012.staging-host-1-1-x" / "critic").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-000014").mkdir()
    names = ["critic", "step-000010", "step-000002"]
    assert [path.name for _, path in critics_of(tmp_path)] == names
    os.utime(places[0], ns=(0, 5000))
    assert [path.name for _, path in critics_of(tmp_path)] == ["step-000002", "critic", "step-000010"]


def test_adapters_are_named_with_their_directories(tmp_path: Path):
    (tmp_path / "law").mkdir()
    assert adapters_of([f"law={tmp_path / 'law'}"]) == {"law": str(tmp_path / "law")}
    for wrong in (
        [str(tmp_path)],
        ["law="],
        [f"={tmp_path}"],
        [f"law={tmp_path / 'nowhere'}"],
        [f"a={tmp_path}"] * 2,
    ):
        with pytest.raises(ConfigError, match=r"names no directory|given twice"):
            adapters_of(wrong)


@pytest.mark.parametrize("name", ["critic", "", "two words", "x" * 129, "../law"])
def test_an_adapter_has_a_name_of_its_own(name: str):
    with pytest.raises(ConfigError, match=r"adapters|the critic's name"):
        settings_from({"critic": "here", "adapters": {name: "there"}})
