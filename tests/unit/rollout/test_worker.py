import dataclasses
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gad_ray.batch import Float32, RolloutBatch, SamplingSettings, StopReason, WeightsSnapshot
from gad_ray.config.models import LoraConfig, OptimizerConfig
from gad_ray.config.rollout import RolloutConfig
from gad_ray.config.run import LimitsConfig
from gad_ray.errors import RolloutError, SyncError
from gad_ray.models.arrays import from_numpy
from gad_ray.models.chat import ChatFormat
from gad_ray.models.load import TORCH_DTYPES, load_causal_lm, merged_state_dict
from gad_ray.models.policy import SequenceRow
from gad_ray.rollout.adapters import MergedWeights
from gad_ray.rollout.engine import Generation, GenerationRequest
from gad_ray.rollout.transformers_engine import TransformersEngine
from gad_ray.rollout.worker import RolloutWorker, probe_row, response_seed
from tests.unit.builders import TEACHER, policy_config, policy_learner, prompt_batch, sampling
from tests.unit.rollout.faults import FAULTS

PROBE = np.asarray([-1.0, -2.0, -3.0], dtype=np.float32)


@dataclass
class ScriptedEngine:
    """Draws the seed's own token; fails and answers the probe as told."""

    failures: dict[int, int] = field(default_factory=dict)
    """Seed → how often its generation fails."""
    broken_calls: int = 0
    """Calls that raise as a whole."""
    bad: dict[int, Generation] = field(default_factory=dict)
    """Seed → what is returned in place of a good generation, always."""
    answer: Float32 = field(default_factory=PROBE.copy)
    follows: bool = True
    """Whether new weights take effect."""
    calls: list[list[int]] = field(default_factory=list)
    closed: bool = False

    def generate(
        self, requests: Sequence[GenerationRequest], settings: SamplingSettings
    ) -> list[Generation | Exception]:
        self.calls.append([request.seed for request in requests])
        if self.broken_calls > 0:
            self.broken_calls -= 1
            raise MemoryError("out of memory")
        return [self._one(request.seed) for request in requests]

    def _one(self, seed: int) -> Generation | Exception:
        if self.failures.get(seed, 0) > 0:
            self.failures[seed] -= 1
            return OSError("lost")
        return self.bad.get(seed) or generation((10 + seed % 300, 2))

    def load_weights(self, weights: WeightsSnapshot) -> None:
        if self.follows:
            self.answer = weights.probe_logprobs + np.float32(1e-4)

    def probe(self, row: SequenceRow) -> Float32:
        return self.answer

    def close(self) -> None:
        self.closed = True


def generation(token_ids: tuple[int, ...], logprob: float = -0.5) -> Generation:
    return Generation(
        token_ids=token_ids,
        logprobs=np.full(len(token_ids), logprob, dtype=np.float32),
        stop_reason=StopReason.STOP,
    )


def snapshot(*, probe: Float32 = PROBE - 1, dtype: str = "float32", version: int = 3) -> WeightsSnapshot:
    return WeightsSnapshot(
        version=version,
        dtype=dtype,
        tensors={},
        probe_ids=np.arange(2 + len(probe), dtype=np.int32),
        probe_start=2,
        probe_logprobs=probe,
    )


@pytest.fixture
def worker_of(chat: ChatFormat) -> Callable[..., RolloutWorker]:
    def build(
        engine: Any, *, sync_tolerance: float | None = None, base: Any = None, **config: Any
    ) -> RolloutWorker:
        limits = LimitsConfig(sync_tolerance=sync_tolerance)
        return RolloutWorker(engine, chat, RolloutConfig(**config), limits, base=base)

    return build


def seeds(step: int = 1, seed: int = 0, prompts: int = 4, responses: int = 3) -> list[int]:
    return [response_seed(seed, step, f"e{p}", i) for p in range(prompts) for i in range(responses)]


def ids(batch: RolloutBatch) -> list[tuple[str, list[int]]]:
    return list(zip(batch.example_ids, [row.tolist() for row in batch.response_tokens], strict=True))


# -- responses ---------------------------------------------------------------------------------------


def test_every_prompt_gets_its_responses_side_by_side(worker_of, chat: ChatFormat):
    prompts = prompt_batch()
    batch = worker_of(ScriptedEngine()).generate(prompts, sampling())
    assert batch.example_ids == tuple(e.id for e in prompts.examples for _ in range(3))
    for i, seed in enumerate(seeds()):
        example = prompts.examples[i // 3]
        assert batch.response_tokens[i].tolist() == [10 + seed % 300, 2]
        assert batch.texts[i] == chat.decode([10 + seed % 300])
        assert batch.prompt_tokens[i].tolist() == chat.prompt_ids(example.messages)
        assert batch.logprobs[i].tolist() == [-0.5, -0.5]
        assert batch.teacher_lengths[i] == len(chat.response_ids(TEACHER[i // 3]))
    assert (batch.step, batch.num_failed, batch.num_retried, batch.oldest_version) == (1, 0, 0, 0)


def test_seeds_differ_by_run_step_prompt_and_place_and_nothing_else():
    assert response_seed(0, 1, "a", 0) == response_seed(0, 1, "a", 0)
    varied = [(0, 1, "a", 0), (1, 1, "a", 0), (0, 2, "a", 0), (0, 1, "b", 0), (0, 1, "a", 1)]
    found = {response_seed(*parts) for parts in varied}
    assert len(found) == len(varied)
    assert all(0 <= seed < 2**31 for seed in found)


@pytest.mark.parametrize("count", [2, 3])
def test_responses_do_not_depend_on_how_prompts_are_shared_out(worker_of, count: int):
    prompts = prompt_batch()
    whole = worker_of(ScriptedEngine()).generate(prompts, sampling())
    parts = [
        worker_of(ScriptedEngine()).generate(shard, sampling())
        for shard in (prompts.shard(i, count) for i in range(count))
        if shard is not None
    ]
    assert sorted(ids(RolloutBatch.concat(parts))) == sorted(ids(whole))


def test_the_next_step_draws_other_responses_to_the_same_prompt(worker_of):
    worker = worker_of(ScriptedEngine())
    first, second = (worker.generate(prompt_batch(step=step), sampling()) for step in (1, 2))
    assert ids(first) != ids(second)


# -- failures ----------------------------------------------------------------------------------------


def test_a_failed_generation_is_repeated_with_its_own_seed_and_counted(worker_of):
    wanted = ids(worker_of(ScriptedEngine()).generate(prompt_batch(), sampling()))
    lost, slow = seeds()[4], seeds()[9]
    engine = ScriptedEngine(failures={lost: 1, slow: 2})
    batch = worker_of(engine, max_retries=2).generate(prompt_batch(), sampling())
    assert ids(batch) == wanted
    assert engine.calls == [seeds(), [lost, slow], [slow]]
    assert (batch.num_failed, batch.num_retried) == (0, 3)


def test_a_call_that_fails_as_a_whole_is_repeated(worker_of):
    engine = ScriptedEngine(broken_calls=1)
    batch = worker_of(engine).generate(prompt_batch(), sampling())
    assert engine.calls == [seeds(), seeds()]
    assert (len(batch), batch.num_failed, batch.num_retried) == (12, 0, 12)


def test_a_generation_that_keeps_failing_is_left_out_and_counted(worker_of):
    lost = seeds()[4]
    batch = worker_of(ScriptedEngine(failures={lost: 99}), max_retries=2).generate(prompt_batch(), sampling())
    assert [batch.example_ids.count(f"e{i}") for i in range(4)] == [3, 2, 3, 3]
    assert (batch.num_failed, batch.num_retried) == (1, 2)
    assert [10 + lost % 300, 2] not in [row.tolist() for row in batch.response_tokens]


def test_a_prompt_that_lost_all_its_responses_is_not_in_the_batch(worker_of):
    failures = dict.fromkeys(seeds()[3:6], 99)
    batch = worker_of(ScriptedEngine(failures=failures), max_failed_fraction=0.3).generate(
        prompt_batch(), sampling()
    )
    assert set(batch.example_ids) == {"e0", "e2", "e3"}
    assert batch.num_failed == 3


@pytest.mark.parametrize(
    "unusable", [generation(()), generation((11, 2), float("nan")), generation((11, 2), float("-inf"))]
)
def test_a_response_that_cannot_be_trained_on_counts_as_failed(worker_of, unusable: Generation):
    lost = seeds()[0]
    batch = worker_of(ScriptedEngine(bad={lost: unusable}), max_retries=1).generate(
        prompt_batch(), sampling()
    )
    assert (len(batch), batch.num_failed, batch.num_retried) == (11, 1, 1)


def test_too_many_failures_stop_the_run_with_their_cause(worker_of):
    # 3 of 12 are above 0.2; 2 of 12 are not.
    tolerable = dict.fromkeys(seeds()[:2], 99)
    assert (
        worker_of(ScriptedEngine(failures=tolerable), max_failed_fraction=0.2)
        .generate(prompt_batch(), sampling())
        .num_failed
        == 2
    )
    too_many = dict.fromkeys(seeds()[:3], 99)
    with pytest.raises(RolloutError, match=r"3 of 12 generations failed.*0\.2 allows.*OSError\('lost'\)"):
        worker_of(ScriptedEngine(failures=too_many), max_failed_fraction=0.2).generate(
            prompt_batch(), sampling()
        )


def test_failures_are_a_share_of_the_step_also_where_it_is_asked_for_in_parts(worker_of):
    # The second call, for one prompt as in a refill, loses one response of three: 1 of 15 in the step.
    lost = response_seed(sampling().seed, 1, "more", 1)
    worker = worker_of(ScriptedEngine(failures={lost: 99}), max_failed_fraction=0.2)
    first = prompt_batch()
    worker.generate(first, sampling())
    refill = dataclasses.replace(first, examples=(dataclasses.replace(first.examples[0], id="more"),))
    assert worker.generate(refill, sampling()).num_failed == 1
    # Alone in a step of its own it is 1 of 3.
    lost = response_seed(sampling().seed, 2, "more", 1)
    worker = worker_of(ScriptedEngine(failures={lost: 99}), max_failed_fraction=0.2)
    worker.generate(first, sampling())
    with pytest.raises(RolloutError, match="1 of 3 generations failed"):
        worker.generate(dataclasses.replace(refill, step=2), sampling())


def test_a_step_without_any_response_stops_the_run_whatever_is_allowed(worker_of):
    with pytest.raises(RolloutError, match=r"12 of 12 generations failed.*MemoryError"):
        worker_of(ScriptedEngine(broken_calls=99), max_failed_fraction=0.99).generate(
            prompt_batch(), sampling()
        )


# -- weights -----------------------------------------------------------------------------------------


def test_new_weights_are_taken_over_with_their_version_and_gap(worker_of):
    worker = worker_of(ScriptedEngine())
    assert worker.load_weights(snapshot()) == pytest.approx(1e-4, rel=0.01)
    assert worker.version == 3
    assert worker.generate(prompt_batch(1), sampling()).oldest_version == 3


def test_an_engine_that_ignores_new_weights_is_found_out(worker_of):
    worker = worker_of(ScriptedEngine(follows=False))
    with pytest.raises(
        SyncError, match=r"differ from the learner's by 1 nats \(tolerance 0\.001\).*version 3"
    ):
        worker.load_weights(snapshot())
    # What it holds is not known.
    assert worker.version == 0
    with pytest.raises(RolloutError, match="did not come to hold version 3"):
        worker.generate(prompt_batch(), sampling())


def test_a_probe_that_is_not_a_number_does_not_pass(worker_of):
    answer = np.asarray([-1.0, np.nan, -3.0], dtype=np.float32)
    for dtype in ("float32", "bfloat16"):
        worker = worker_of(ScriptedEngine(follows=False, answer=answer))
        with pytest.raises(SyncError, match="nan"):
            worker.load_weights(snapshot(probe=PROBE, dtype=dtype))


def test_float32_is_held_to_the_largest_gap_and_bfloat16_to_the_mean(worker_of):
    # Gaps (0, 0, 0.3): largest 0.3, mean 0.1.
    off = PROBE + np.asarray([0.0, 0.0, 0.3], dtype=np.float32)
    worker = worker_of(ScriptedEngine(follows=False))
    assert worker.load_weights(snapshot(probe=off, dtype="bfloat16")) == pytest.approx(0.1, rel=1e-5)
    with pytest.raises(SyncError, match=r"by 0\.3 nats"):
        worker.load_weights(snapshot(probe=off))


def test_a_tolerance_of_ones_own_replaces_both(worker_of):
    worker = worker_of(ScriptedEngine(follows=False), sync_tolerance=2.0)
    assert worker.load_weights(snapshot()) == pytest.approx(1.0)
    strict = worker_of(ScriptedEngine(follows=False), sync_tolerance=0.1)
    with pytest.raises(SyncError, match=r"tolerance 0\.1"):
        strict.load_weights(snapshot(dtype="bfloat16"))


def test_an_engine_whose_probe_fails_serves_nothing(worker_of, monkeypatch: pytest.MonkeyPatch):
    engine = ScriptedEngine()
    worker = worker_of(engine)
    monkeypatch.setattr(engine, "probe", lambda row: 1 / 0)
    with pytest.raises(SyncError, match=r"took version 3 \(ZeroDivisionError"):
        worker.load_weights(snapshot())
    with pytest.raises(RolloutError, match="build the worker anew"):
        worker.load_weights(snapshot())
    assert engine.calls == []


def test_closing_the_worker_frees_the_engine(worker_of):
    engine = ScriptedEngine()
    worker_of(engine).close()
    assert engine.closed


# -- with a real engine ------------------------------------------------------------------------------


def test_a_real_engine_draws_the_same_responses_however_prompts_are_shared_out(
    worker_of, tied_model: Path, chat: ChatFormat
):
    engine = TransformersEngine(
        tied_model, precision="float32", stop_token_ids=chat.stop_token_ids, batch_sequences=5
    )
    prompts, worker = prompt_batch(), worker_of(engine)
    whole = worker.generate(prompts, sampling(temperature=0.8, top_p=0.95))
    parts = [worker.generate(prompts.shard(i, 2), sampling(temperature=0.8, top_p=0.95)) for i in range(2)]
    assert sorted(ids(RolloutBatch.concat(parts))) == sorted(ids(whole))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("model", ["tied_model", "untied_model"])
def test_an_engine_that_failed_at_any_tensor_serves_nothing_until_it_is_built_anew(
    worker_of, model: str, fault: str, chat: ChatFormat, request: pytest.FixtureRequest
):
    directory = request.getfixturevalue(model)

    def build() -> RolloutWorker:
        return worker_of(
            TransformersEngine(
                directory, precision="float32", stop_token_ids=chat.stop_token_ids, batch_sequences=5
            )
        )

    learner = policy_learner(policy_config(directory))
    good = learner.snapshot(dtype="float32", probe=probe_row(chat), perturbation=0.1)
    for place in range(len(good.tensors)):
        worker = build()
        with pytest.raises(SyncError, match="may hold a part of it"):
            worker.load_weights(dataclasses.replace(good, tensors=FAULTS[fault](good.tensors, place)))
        with pytest.raises(RolloutError, match="may hold parts of two"):
            worker.generate(prompt_batch(), sampling())
        with pytest.raises(RolloutError, match="build the worker anew"):
            worker.load_weights(good)
    worker = build()
    assert worker.load_weights(good) < 1e-3
    assert len(worker.generate(prompt_batch(), sampling())) == 12


# -- adapters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["tied_model", "untied_model"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_adapters_alone_travel_and_become_the_weights_that_the_learner_has(
    worker_of, model: str, compute: str, precision: str, chat: ChatFormat, request: pytest.FixtureRequest
):
    directory = request.getfixturevalue(model)
    lora = LoraConfig(rank=2, alpha=8.0)
    config = policy_config(
        directory, model={"compute": compute, "lora": lora}, optimizer=OptimizerConfig(lr=1e-2)
    )
    learner = policy_learner(config)
    learner.fit(prompt_batch())
    sent = learner.snapshot(dtype=precision, probe=probe_row(chat))
    travelled: list[pickle.PickleBuffer] = []
    pickle.dumps(sent, protocol=5, buffer_callback=travelled.append)
    adapters = learner.backend.adapters(learner.model.lm)
    tensors = list(adapters.tensors().values())
    assert sent.num_bytes == sum(tensor.numel() * 4 for tensor in tensors)
    beside = sent.probe_ids.nbytes + sent.probe_logprobs.nbytes
    assert sum(buffer.raw().nbytes for buffer in travelled) == sent.num_bytes + beside

    whole = dict(learner.backend.full_weights(learner.model.lm, TORCH_DTYPES[precision]))
    base = merged_state_dict(load_causal_lm(directory, dtype=TORCH_DTYPES[compute]))
    assert sent.adapter_scale is not None
    merged = MergedWeights(base, sent, scale=sent.adapter_scale)
    assert merged.keys() == whole.keys()
    for name, array in merged.items():
        assert torch.equal(from_numpy(array, dtype=precision), whole[name]), name

    engine = TransformersEngine(
        directory, precision=precision, stop_token_ids=chat.stop_token_ids, batch_sequences=5
    )
    read: list[int] = []
    worker = worker_of(engine, base=lambda: read.append(1) or base)
    before = engine.probe(probe_row(chat))
    for _ in range(2):
        worker.load_weights(sent)
    assert len(read) == 1
    assert np.abs(engine.probe(probe_row(chat)) - before).max() > 1e-2


def test_the_probe_is_a_fixed_text_with_a_response(chat: ChatFormat):
    first, second = probe_row(chat), probe_row(chat)
    assert first.ids.tolist() == second.ids.tolist()
    assert chat.decode(first.ids[first.start :].tolist()).startswith("Short sentences")
