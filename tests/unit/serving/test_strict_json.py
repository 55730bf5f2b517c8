import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gad_ray.serving.application.errors import ApiError
from gad_ray.serving.application.strict_json import parse_json


def refusal(body: bytes) -> str:
    with pytest.raises(ApiError) as caught:
        parse_json(body, max_nesting=8)
    assert caught.value.status == 400
    assert len(caught.value.message) < 200
    return caught.value.code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"{'a': 1}", "invalid_json"),
        (b'{"a": 1} trailing', "invalid_json"),
        (b'{"a": 1,}', "invalid_json"),
        (b'{"a": "\n"}', "invalid_json"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b'{"a": "\xff"}', "invalid_utf8"),
        ('{"a": "x"}'.encode("utf-16"), "invalid_utf8"),
        (b'{"a": "\xed\xa0\x80"}', "invalid_utf8"),
        (b'{"a": NaN}', "invalid_number"),
        (b'{"a": [-Infinity]}', "invalid_number"),
        (b'{"a": 1e999}', "invalid_number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "invalid_number"),
        (b'{"a": 1, "a": 1}', "duplicate_key"),
        (b'{"x": {"b": 1, "\\u0062": 2}}', "duplicate_key"),
        (b'{"a": "\\ud800"}', "lone_surrogate"),
        (b'{"a": ["fine", {"b": "\\udc00x"}]}', "lone_surrogate"),
        (b'{"\\ud83d": 1}', "lone_surrogate"),
        (b"[" * 9 + b"]" * 9, "nested_too_deeply"),
        (b"[" * 200_000, "nested_too_deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested_too_deeply"),
    ],
)
def test_what_parsers_disagree_about_is_refused(body: bytes, code: str):
    assert refusal(body) == code


@pytest.mark.parametrize(
    "text",
    ["{}", "[[[[[[[[1]]]]]]]]", '{"a": "\\ud83d\\ude00 \\u0000"}', '{"ä": [1, 2.5, null, true]}', '"x"'],
)
def test_good_json_is_read_as_python_reads_it(text: str):
    assert parse_json(text.encode(), max_nesting=8) == json.loads(text)


def test_a_key_given_twice_is_named_and_cut():
    with pytest.raises(ApiError, match=r"the key 'kkk.*\\u2026' is given more than once"):
        parse_json(b'{"' + b"k" * 500 + b'": 1, "' + b"k" * 500 + b'": 2}', max_nesting=8)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_JSON)
def test_whatever_is_written_as_json_comes_back(value: object):
    assert parse_json(json.dumps(value).encode(), max_nesting=64) == value


@given(st.binary(max_size=60))
def test_bytes_are_read_or_refused_and_nothing_else(body: bytes):
    with suppress(ApiError):
        json.dumps(parse_json(body, max_nesting=8), allow_nan=False).encode()
