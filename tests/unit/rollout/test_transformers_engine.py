from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gad_ray.batch import StopReason
from gad_ray.models.chat import ChatFormat
from gad_ray.models.load import load_causal_lm
from gad_ray.rollout.engine import Generation, GenerationRequest
from gad_ray.rollout.transformers_engine import TransformersEngine
from gad_ray.rollout.worker import probe_row
from tests.unit.builders import PROMPTS, policy_config, policy_learner, prompt_batch, sampling, user


def engine_of(
    directory: Path, *, precision: str = "float32", stop: Sequence[int] = (2,), batch_sequences: int = 8
) -> TransformersEngine:
    return TransformersEngine(
        directory, precision=precision, stop_token_ids=stop, batch_sequences=batch_sequences
    )


@pytest.fixture
def requests(chat: ChatFormat) -> list[GenerationRequest]:
    """Prompts of several lengths, two of them twice."""
    prompts = [*PROMPTS, PROMPTS[0], PROMPTS[2]]
    return [
        GenerationRequest(prompt_ids=tuple(chat.prompt_ids(user(prompt))), seed=100 + i)
        for i, prompt in enumerate(prompts)
    ]


def draw(
    engine: TransformersEngine, requests: Sequence[GenerationRequest], **settings: Any
) -> list[Generation]:
    results = engine.generate(requests, sampling(**settings))
    assert all(isinstance(result, Generation) for result in results)
    return [result for result in results if isinstance(result, Generation)]


def tokens(results: Sequence[Generation]) -> list[tuple[int, ...]]:
    return [result.token_ids for result in results]


def test_a_seeds_text_does_not_depend_on_what_is_drawn_beside_it(
    tied_model: Path, requests: list[GenerationRequest]
):
    engine = engine_of(tied_model)
    together = tokens(draw(engine, requests, max_tokens=12))
    assert [tokens(draw(engine, [one], max_tokens=12))[0] for one in requests] == together
    assert tokens(draw(engine, requests[::-1], max_tokens=12))[::-1] == together
    assert tokens(draw(engine_of(tied_model, batch_sequences=1), requests, max_tokens=12)) == together


def test_another_seed_draws_another_text(tied_model: Path, requests: list[GenerationRequest]):
    prompt = requests[0].prompt_ids
    drawn = draw(engine_of(tied_model), [GenerationRequest(prompt_ids=prompt, seed=s) for s in range(8)])
    assert len(set(tokens(drawn))) == 8


def test_greedy_draws_the_same_text_from_every_seed(tied_model: Path, requests: list[GenerationRequest]):
    prompt = requests[0].prompt_ids
    drawn = draw(
        engine_of(tied_model),
        [GenerationRequest(prompt_ids=prompt, seed=s) for s in range(4)],
        temperature=0.0,
    )
    assert len(set(tokens(drawn))) == 1


def distribution(
    logits: Tensor,
    before: Tensor,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
) -> Tensor:
    """log-probabilities of the next token, worked out by definition: penalty, temperature, nucleus."""
    logits = logits.clone()
    for token in before.unique().tolist():
        value = float(logits[token])
        logits[token] = value / repetition_penalty if value > 0 else value * repetition_penalty
    if temperature > 0.0:
        logits = logits / temperature
    probabilities = logits.softmax(-1)
    if temperature > 0.0 and top_p < 1.0:
        mass, nucleus = 0.0, torch.zeros_like(probabilities)
        for token in probabilities.argsort(descending=True).tolist():
            if mass >= top_p:
                break
            nucleus[token] = 1.0
            mass += float(probabilities[token])
        probabilities = probabilities * nucleus
    return (probabilities / probabilities.sum()).log()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.2},
        {"temperature": 0.0, "repetition_penalty": 1.5},
    ],
)
def test_log_probabilities_are_of_the_distribution_that_was_drawn_from(
    tied_model: Path, requests: list[GenerationRequest], settings: dict[str, float]
):
    drawn = draw(engine_of(tied_model), requests, max_tokens=12, **settings)
    model = load_causal_lm(tied_model, dtype=torch.float32)
    for request, result in zip(requests, drawn, strict=True):
        ids = torch.tensor([[*request.prompt_ids, *result.token_ids]])
        with torch.no_grad():
            logits = model(ids).logits[0]
        start = len(request.prompt_ids)
        wanted = [
            float(distribution(logits[place - 1], ids[0, :place], **settings)[ids[0, place]])
            for place in range(start, ids.shape[1])
        ]
        np.testing.assert_allclose(result.logprobs, wanted, atol=1e-4, rtol=0)
        assert result.logprobs.dtype == np.float32


def test_the_repetition_penalty_counts_the_prompt_and_the_response(
    tied_model: Path, requests: list[GenerationRequest]
):
    engine = engine_of(tied_model)
    free = draw(engine, requests, max_tokens=24, temperature=0.0)
    penalised = draw(engine, requests, max_tokens=24, temperature=0.0, repetition_penalty=10.0)
    for request, result in zip(requests, penalised, strict=True):
        # With such a penalty, among 384 tokens no one is worth a repetition.
        assert len(set(result.token_ids)) == len(result.token_ids)
        assert set(request.prompt_ids).isdisjoint(result.token_ids)
    assert tokens(free) != tokens(penalised)


def test_a_response_ends_with_its_first_stop_token(tied_model: Path, requests: list[GenerationRequest]):
    stop = range(0, 384, 4)
    drawn = draw(engine_of(tied_model, stop=stop), requests * 4, max_tokens=40)
    lengths = set()
    for result in drawn:
        assert result.stop_reason is StopReason.STOP
        assert result.token_ids[-1] in stop
        assert not any(t in stop for t in result.token_ids[:-1])
        assert len(result.logprobs) == len(result.token_ids)
        lengths.add(len(result.token_ids))
    # Rows of one batch end at different times.
    assert len(lengths) > 2


def test_a_response_that_does_not_end_is_cut_at_the_limit_and_marked(
    tied_model: Path, requests: list[GenerationRequest]
):
    drawn = draw(engine_of(tied_model), requests, max_tokens=3, temperature=0.0)
    for result in drawn:
        assert 2 not in result.token_ids
        assert (len(result.token_ids), result.stop_reason) == (3, StopReason.LENGTH)


def test_a_stop_token_at_the_limit_is_a_stop(tied_model: Path, requests: list[GenerationRequest]):
    drawn = draw(engine_of(tied_model, stop=range(384)), requests, max_tokens=1)
    assert {(len(r.token_ids), r.stop_reason) for r in drawn} == {(1, StopReason.STOP)}


@pytest.mark.parametrize("model", ["tied_model", "untied_model"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_new_weights_take_effect_and_are_the_learners(
    model: str, precision: str, chat: ChatFormat, request: pytest.FixtureRequest
):
    directory = request.getfixturevalue(model)
    engine, probe = engine_of(directory, precision=precision), probe_row(chat)
    learner = policy_learner(policy_config(directory))
    learner.fit(prompt_batch())
    # Every kind of tensor is changed, so that one that the engine did not take would show.
    snapshot = learner.snapshot(dtype=precision, probe=probe, perturbation=0.1)
    tolerance = 1e-3 if precision == "float32" else 0.1
    assert np.abs(engine.probe(probe) - snapshot.probe_logprobs).max() > 10 * tolerance
    engine.load_weights(snapshot)
    np.testing.assert_allclose(engine.probe(probe), snapshot.probe_logprobs, atol=tolerance, rtol=0)


def test_new_weights_change_what_is_drawn(
    tied_model: Path, requests: list[GenerationRequest], chat: ChatFormat
):
    engine = engine_of(tied_model)
    before = tokens(draw(engine, requests))
    learner = policy_learner(policy_config(tied_model))
    engine.load_weights(learner.snapshot(dtype="float32", probe=probe_row(chat)))
    assert tokens(draw(engine, requests)) == before
    engine.load_weights(learner.snapshot(dtype="float32", probe=probe_row(chat), perturbation=0.5))
    assert tokens(draw(engine, requests)) != before
