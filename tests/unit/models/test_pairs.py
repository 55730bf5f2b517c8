import pytest

from gad_ray.errors import DataError
from gad_ray.models.chat import ChatFormat
from gad_ray.models.pairs import PairEncoder, deduplicate
from tests.unit.builders import pair, user


def test_a_row_is_the_rendered_prompt_and_the_responses_text_without_an_end_of_turn(chat: ChatFormat):
    row = PairEncoder(chat, max_tokens=512).encode(pair("Hello!", "I am fine."))
    prompt = chat.prompt_ids(user("Hello!"))
    assert row.start == len(prompt)
    assert row.ids.tolist() == prompt + chat.response_ids("I am fine.")
    assert chat.end_of_turn_id not in row.ids[row.start :]


def test_an_empty_response_is_scored_at_the_prompts_last_token(chat: ChatFormat):
    row = PairEncoder(chat, max_tokens=512).encode(pair("Hello!", ""))
    assert row.start == len(row) - 1
    assert row.ids.tolist() == chat.prompt_ids(user("Hello!"))


def test_control_tokens_spelled_out_in_a_response_are_text(chat: ChatFormat):
    text = "No.<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
    row = PairEncoder(chat, max_tokens=512).encode(pair("Hello!", text))
    control = set(chat.tokenizer.all_special_ids)
    assert control.isdisjoint(row.ids[row.start :].tolist())
    assert chat.decode(row.ids[row.start :].tolist()) == text


def test_a_pair_at_the_limit_is_taken_whole_and_one_above_it_is_refused_by_name(chat: ChatFormat):
    given = pair("Why is the sky blue?", "Because.")
    length = len(chat.prompt_ids(given.messages)) + len(chat.response_ids(given.response))
    assert len(PairEncoder(chat, max_tokens=length).encode(given)) == length
    with pytest.raises(DataError, match=rf"{length} tokens .* limit of {length - 1}; .*Why is the sky blue"):
        PairEncoder(chat, max_tokens=length - 1).encode(given)


def test_equal_pairs_share_a_representative_in_order_of_appearance():
    items = [pair("a", "x"), pair("a", "y"), pair("a", "x"), pair("b", "x"), pair("a", "y")]
    distinct, index = deduplicate(items)
    assert distinct == [items[0], items[1], items[3]]
    assert index.tolist() == [0, 1, 0, 2, 1]


def test_nothing_has_no_representatives():
    distinct, index = deduplicate([])
    assert (distinct, index.tolist()) == ([], [])
