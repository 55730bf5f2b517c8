from __future__ import annotations

import logging

import pytest

from gad_ray.addresses import is_loopback, is_own_name, warn_of_plain_key
from gad_ray.client.score_client import ScoreClient
from gad_ray.errors import GadError, printable


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LocalHost", "::ffff:127.0.0.1"]
)
def test_loopback_addresses_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "127.0.0.1.nip.io"]
)
def test_other_addresses_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "key", "named"),
    [
        ("http://critic.example:8000/v1", "k" * 20, "http://critic.example:8000"),
        ("HTTP://10.0.0.1", "k" * 20, "http://10.0.0.1"),
        ("http://[fd00::1]:8000", "k" * 20, "http://[fd00::1]:8000"),
        ("http://me:secret@critic.example", None, "http://critic.example"),
    ],
)
def test_a_key_in_the_clear_to_another_machine_is_warned_of_without_telling_it(
    url: str, key: str | None, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_plain_key(url, key)
    (record,) = caplog.records
    told = record.getMessage()
    assert told.startswith(f"the key for {named} is sent unencrypted")
    assert "secret" not in told
    assert "kkk" not in told


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://critic.example", "k" * 20),
        ("http://127.0.0.1:8000", "k" * 20),
        ("http://[::1]:8000", "k" * 20),
        ("http://localhost", "k" * 20),
        ("http://critic.example", None),
        ("http://critic.example", ""),
        ("http://[bad", "k" * 20),
    ],
)
def test_nothing_is_said_where_no_key_travels_in_the_clear(
    url: str, key: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_plain_key(url, key)
    assert not caplog.records


def test_the_client_warns_when_it_is_made(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), ScoreClient("http://critic.example", key="k" * 20):
        assert "http://critic.example" in caplog.text


def test_what_steers_a_terminal_is_shown_and_text_is_left_alone() -> None:
    assert (
        printable("\x1b]0;owned\x07 \x9b2J\r\x00\u202e\udc80")
        == "\\x1b]0;owned\\x07 \\x9b2J\\r\\x00\\u202e\\udc80"
    )
    plain = "a\tb\nc – “é” 教师\u3000👩\u200d🔬"
    assert printable(plain) == plain


def test_an_error_prints_no_control_character_that_it_quotes() -> None:
    error = GadError("refused: \x1b[2J\x1b]0;owned\x07", where="http://\x1bx", hint="look\rthere")
    assert not any(character in str(error) for character in "\x1b\x07\r")
    assert error.message == "refused: \x1b[2J\x1b]0;owned\x07"


@pytest.mark.parametrize(
    "authority",
    [
        "127.0.0.1:8000",
        "localhost",
        "LOCALHOST:1",
        "[::1]:8000",
        "critic.example.org:443",
        "Critic.Example.Org",
    ],
)
def test_a_request_may_be_addressed_to_loopback_and_to_allowed_names(authority: str) -> None:
    assert is_own_name(authority, ["critic.example.ORG"])


@pytest.mark.parametrize(
    "authority",
    [
        "",
        "null",
        "evil.example:8000",
        "localhost.evil.example",
        "evil.example#localhost",
        "localhost@evil.example",
        "evil.example@localhost",
        "localhost/evil",
        "[::1",
        "::1",
        "localhost:80:80",
        "10.0.0.1",
        "a.critic.example.org",
    ],
)
def test_other_names_are_not_this_services(authority: str) -> None:
    assert not is_own_name(authority, ["critic.example.org"])
