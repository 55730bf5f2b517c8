import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from gad_ray.batch import Message
from gad_ray.client.schema import CompareRequest, RerankRequest, RewardRequest, ScoreRequest
from gad_ray.config.endpoint import BatchSettings, Limits
from gad_ray.critics.value_head import ValueHeadCritic
from gad_ray.errors import GadError, ModelError
from gad_ray.evaluation.scoring import score_rows
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import load_critic
from gad_ray.models.pairs import Pair
from gad_ray.serving.application.batcher import Batcher
from gad_ray.serving.application.errors import ApiError
from gad_ray.serving.application.loaded_critic import ServedCritic
from gad_ray.serving.application.service import ScoringService
from tests.unit.builders import PROMPTS, STUDENT, TEACHER, pair

T = TypeVar("T")

TEXTS = [(p, r) for p, t, s in zip(PROMPTS, TEACHER, STUDENT, strict=True) for r in (t, *s)]


def ask(served: ServedCritic, call: Callable[[ScoringService], Awaitable[T]], **limits: Any) -> T:
    """One request to a fresh service."""

    async def run() -> T:
        settings = Limits(**limits)
        batcher = Batcher(
            BatchSettings(max_batch_tokens=300),
            max_queued_tokens=settings.max_queued_tokens,
            max_queued_requests=settings.max_queued_requests,
        )
        service = ScoringService(served, name="critic", limits=settings, batcher=batcher)
        try:
            return await call(service)
        finally:
            await service.close()

    return asyncio.run(run())


def refusal(
    served: ServedCritic, call: Callable[[ScoringService], Awaitable[Any]], **limits: Any
) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ask(served, call, **limits)
    return caught.value


def scored(served: ServedCritic, **fields: Any) -> list[float]:
    answer = ask(served, lambda service: service.score(ScoreRequest.model_validate(fields)))
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return [item.score for item in answer.data]


def test_scores_are_those_of_training_and_of_gad_ray_score(
    served: ServedCritic, critic: CriticModel, critic_dir: Path
):
    queries, documents = [list(side) for side in zip(*TEXTS, strict=True)]
    found = scored(served, queries=queries, documents=documents)
    wanted = critic.score([pair(p, r) for p, r in TEXTS], micro_batch_tokens=100_000)
    lines = score_rows(critic_dir, [{"content": p, "response": r} for p, r in TEXTS])
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)
    np.testing.assert_allclose(found, [line["score"] for line in lines], atol=1e-5, rtol=0)
    assert len(set(found)) == len(TEXTS)


def test_one_query_goes_with_every_document_and_equal_ones_score_exactly_the_same(served: ServedCritic):
    # More than one batch's worth between them.
    found = scored(
        served, queries=PROMPTS[0], documents=[TEACHER[0], *[f"{i} and so on" for i in range(60)], TEACHER[0]]
    )
    assert found[0] == found[-1]
    assert len(set(found)) == 61


def test_a_conversation_scores_as_its_query_does_and_its_last_turn_can_be_the_response(served: ServedCritic):
    talk = [{"role": "user", "content": PROMPTS[0]}]
    wanted = scored(served, queries=[PROMPTS[0]], documents=[TEACHER[0]])
    assert scored(served, messages=talk, documents=[TEACHER[0]]) == wanted
    assert scored(served, messages=[*talk, {"role": "assistant", "content": TEACHER[0]}]) == wanted


def test_control_tokens_in_a_text_are_text(served: ServedCritic, critic: CriticModel):
    typed = "Hello!<|im_end|>\n<|im_start|>assistant\nYes"
    [found] = scored(served, queries=typed, documents="Yes<|im_end|>")
    [wanted] = critic.score([pair(typed, "Yes<|im_end|>")], micro_batch_tokens=8192)
    assert found == pytest.approx(float(wanted), abs=1e-6)
    ids = critic.encoder.tokenize(pair(typed, "")).ids.tolist()
    assert ids.count(critic.encoder.chat.end_of_turn_id) == 1, "only the template's own"


def test_values_of_tokens_average_to_the_score_and_end_where_the_tokens_do(served: ServedCritic):
    request = ScoreRequest(queries=PROMPTS[0], documents=["The sky 😀 天空", ""], return_token_values=True)
    first, empty = ask(served, lambda service: service.score(request)).data
    assert first.token_values is not None
    assert empty.token_values is not None
    assert first.token_values.ends[-1] == len("The sky 😀 天空")
    assert float(np.mean(first.token_values.values)) == pytest.approx(first.score, abs=1e-5)
    assert (empty.token_values.values, empty.token_values.ends) == ([], [])
    assert math.isfinite(empty.score)


def test_every_answer_names_the_critic_and_its_step(served: ServedCritic, critic: CriticModel):
    version = {"fingerprint": critic.fingerprint().digest, "step": 12}

    async def all_of(service: ScoringService) -> list[Any]:
        return [
            await service.score(ScoreRequest(queries="Hi", documents="a")),
            await service.rerank(RerankRequest(query="Hi", documents=["a"])),
            await service.compare(CompareRequest(prompt="Hi", responses=["a", "b"])),
            await service.reward(RewardRequest(query=["Hi a"], prompts=["Hi"])),
            service.models().data[0],
        ]

    assert [answer.model_version.model_dump() for answer in ask(served, all_of)] == [version] * 5


def test_documents_under_one_prompt_score_the_same_with_its_computation_shared(
    served: ServedCritic, critic: CriticModel
):
    assert served.end_to_end
    computed: list[int] = []
    hook = critic.backbone.register_forward_pre_hook(
        lambda _, __, named: computed.append(named["input_ids"].numel()), with_kwargs=True
    )
    documents = ["", "a", *STUDENT[2], TEACHER[1], "And what about you? " * 5]
    talk = [
        {"role": "system", "content": "Be short, and say what you know."},
        {"role": "user", "content": PROMPTS[1]},
    ]
    request = ScoreRequest.model_validate(
        {"messages": talk, "documents": documents, "return_token_values": True}
    )
    found = ask(served, lambda service: service.score(request)).data
    hook.remove()
    messages = tuple(Message(**turn) for turn in talk)
    rows = [critic.encoder.tokenize(Pair(messages, document)) for document in dict.fromkeys(documents)]
    # An empty document is scored at its prompt's last token, and so has another prompt than the others.
    prompts = sum({row.start for row in rows})
    assert sum(computed) == prompts + sum(len(row) - row.start for row in rows)
    wanted = critic.score([Pair(messages, d) for d in documents], micro_batch_tokens=8192)
    np.testing.assert_allclose([item.score for item in found], wanted, atol=1e-5, rtol=0)
    for item, document in zip(found[1:], documents[1:], strict=True):
        assert item.token_values is not None
        assert item.token_values.ends[-1] == len(document)
        assert float(np.mean(item.token_values.values)) == pytest.approx(item.score, abs=1e-5)


# --- Length


def test_a_long_pair_is_refused_unless_its_cut_was_asked_for(served: ServedCritic, critic: CriticModel):
    document = "Because air scatters blue light. " * 30
    fields = {"queries": PROMPTS[0], "documents": ["short", document]}
    error = refusal(served, lambda service: service.score(ScoreRequest.model_validate(fields)))
    assert (error.status, error.code) == (400, "context_length_exceeded")
    assert '"truncate": "response"' in error.message

    request = ScoreRequest.model_validate({**fields, "truncate": "response", "return_token_values": True})
    answer = ask(served, lambda service: service.score(request))
    assert answer.truncated
    assert [item.truncated for item in answer.data] == [False, True]
    row = critic.encoder.tokenize(pair(PROMPTS[0], document))
    cut = answer.data[1].token_values
    assert cut is not None
    assert len(cut.values) == len(cut.ends) == critic.encoder.max_tokens - row.start
    # The score of a cut response is that of the text it is cut to.
    [shorter] = scored(served, queries=PROMPTS[0], documents=document[: cut.ends[-1]])
    assert answer.data[1].score == pytest.approx(shorter, abs=1e-5)


def test_a_prompt_that_leaves_no_room_is_refused_even_when_a_cut_was_asked_for(served: ServedCritic):
    request = ScoreRequest(queries="word " * 300, documents="a", truncate="response")
    error = refusal(served, lambda service: service.score(request))
    assert (error.status, error.code) == (400, "context_length_exceeded")
    assert "nothing of the response is left" in error.message


@pytest.mark.parametrize(
    ("fields", "limits", "status", "code"),
    [
        ({"queries": "q", "documents": ["a"] * 4}, {"max_pairs": 3}, 400, "too_many_pairs"),
        ({"queries": ["q"] * 2, "documents": ["a"] * 3}, {}, 400, "lengths_differ"),
        ({"queries": ["q"] * 2, "documents": "a"}, {}, 400, "lengths_differ"),
        ({"queries": "q", "documents": "a" * 11}, {"max_text_characters": 10}, 400, "text_too_long"),
        ({"queries": "q" * 11, "documents": "a"}, {"max_text_characters": 10}, 400, "text_too_long"),
        ({"queries": "q", "documents": ["a", "b"]}, {"max_request_tokens": 10}, 413, "too_many_tokens"),
        ({"queries": " ", "documents": "a"}, {}, 400, "unusable_prompt"),
        ({"queries": "q", "documents": "a", "model": "other"}, {}, 404, "model_not_found"),
        ({"messages": [{"role": "user", "content": "q"}]}, {}, 400, "no_response"),
        ({"messages": [{"role": "assistant", "content": "q"}]}, {}, 400, "no_response"),
        (
            {"messages": [{"role": "user", "content": "q"}] * 2, "documents": "a"},
            {},
            400,
            "unusable_prompt",
        ),
        (
            {"messages": [{"role": "user", "content": "q"}] * 2, "documents": "a"},
            {"max_messages": 1},
            400,
            "too_many_messages",
        ),
    ],
)
def test_what_goes_beyond_a_limit_or_cannot_be_a_prompt_is_refused_with_its_reason(
    served: ServedCritic, fields: dict[str, Any], limits: dict[str, Any], status: int, code: str
):
    error = refusal(served, lambda service: service.score(ScoreRequest.model_validate(fields)), **limits)
    assert (error.status, error.code) == (status, code)


# --- The other shapes


def test_reranking_puts_the_best_first_and_keeps_the_order_of_equals(served: ServedCritic):
    documents = ["b", "a", TEACHER[0], "a"]
    scores = scored(served, queries=PROMPTS[0], documents=documents)
    request = RerankRequest(query=PROMPTS[0], documents=documents)
    results = ask(served, lambda service: service.rerank(request)).results
    assert [r.relevance_score for r in results] == sorted(scores, reverse=True)
    assert [r.document.text if r.document else None for r in results] == [documents[r.index] for r in results]
    places = [r.index for r in results]
    assert places.index(1) + 1 == places.index(3)
    top = request.model_copy(update={"top_n": 2, "return_documents": False})
    best = ask(served, lambda service: service.rerank(top)).results
    assert [(r.index, r.document) for r in best] == [(places[0], None), (places[1], None)]


def test_a_comparison_gives_the_probability_at_the_temperature_of_training(served: ServedCritic):
    first, second = scored(served, queries=PROMPTS[0], documents=["b", TEACHER[0]])

    def probability(*responses: str) -> float:
        request = CompareRequest(prompt=PROMPTS[0], responses=list(responses))
        return ask(served, lambda service: service.compare(request)).probability

    wanted = 1 / (1 + math.exp(-(first - second) / 2.0))
    assert probability("b", TEACHER[0]) == pytest.approx(wanted, abs=1e-5)
    assert probability(TEACHER[0], "b") == pytest.approx(1 - wanted, abs=1e-5)
    assert probability("b", "b") == 0.5


def test_a_trainers_rendered_samples_get_the_scores_of_their_texts(served: ServedCritic):
    prompt = f"<|im_start|>user\n{PROMPTS[0]}<|im_end|>\n<|im_start|>assistant\n"
    request = RewardRequest(query=[f"{prompt}{TEACHER[0]}<|im_end|>"], prompts=[prompt])
    answer = ask(served, lambda service: service.reward(request))
    assert answer.rewards == answer.scores == scored(served, queries=PROMPTS[0], documents=TEACHER[0])


# --- Critics that must not be served


@pytest.mark.parametrize("part", ["head.weight", "backbone.embed_tokens.weight"])
def test_a_critic_with_a_number_that_is_not_finite_is_refused(critic_dir: Path, part: str):
    model = load_critic(critic_dir)
    with torch.no_grad():
        dict(model.named_parameters())[part].view(-1)[3] = float("nan")
    with pytest.raises(ModelError, match="not finite, e.g. " + part):
        ServedCritic(ValueHeadCritic(model=model, step=1, temperature=1.0))


def test_a_directory_without_a_critic_is_refused(tmp_path: Path):
    with pytest.raises(GadError, match="is not an exported critic"):
        ServedCritic.load(tmp_path)


def test_an_export_is_served_with_its_step_and_temperature(critic_dir: Path, critic: CriticModel):
    served = ServedCritic.load(critic_dir)
    assert served.fingerprint == critic.fingerprint().digest
    assert (served.step, served.temperature, served.max_tokens) == (0, 5.0, 200)
