from pathlib import Path

import pytest

from gad_ray.errors import ConfigError
from gad_ray.serving.application.keys import KEYS_VARIABLE, KeyRing, digests_from, require_key

ONE, TWO, THREE = ("one-" + "k" * 20, "two-" + "k" * 20, "three-" + "k" * 20)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_key_of_file_and_environment_is_accepted_and_no_other(tmp_path: Path):
    file = write(tmp_path / "keys", "# of the trainer", ONE, "", f"  {TWO}  ")
    ring = KeyRing(digests_from({KEYS_VARIABLE: f"{THREE}"}), file=file)
    assert ring.required
    assert all(ring.accepts(key.encode()) for key in (ONE, TWO, THREE))
    assert not any(ring.accepts(key) for key in (b"", ONE[:-1].encode(), b"# of the trainer", b"\xff" * 20))


def test_keys_come_and_go_with_the_file(tmp_path: Path):
    clock = Clock()
    file = write(tmp_path / "keys", ONE)
    ring = KeyRing(file=file, clock=clock)
    write(file, ONE, TWO)
    assert not ring.accepts(TWO.encode()), "looked at again only after a second"
    clock.now = 2.0
    assert ring.accepts(TWO.encode())
    write(file, TWO)
    clock.now = 4.0
    assert not ring.accepts(ONE.encode())
    assert ring.accepts(TWO.encode())


@pytest.mark.parametrize("content", ["", "short\n", None])
def test_a_file_without_a_usable_key_lets_nobody_in_any_more(tmp_path: Path, content: str | None):
    clock = Clock()
    file = write(tmp_path / "keys", ONE)
    ring = KeyRing(file=file, clock=clock)
    file.unlink() if content is None else file.write_text(content)
    clock.now = 2.0
    assert not ring.accepts(ONE.encode())
    assert ring.required
    write(file, ONE)
    clock.now = 4.0
    assert ring.accepts(ONE.encode())


@pytest.mark.parametrize("bad", ["tooshort", "with a blank in between", "ümläutümläutümläut"])
def test_a_line_that_is_no_key_is_named_by_its_number_and_never_shown(tmp_path: Path, bad: str):
    file = write(tmp_path / "keys", ONE, bad)
    with pytest.raises(ConfigError, match="key 2 is no key") as caught:
        KeyRing(file=file)
    assert bad not in str(caught.value)
    assert ONE not in str(caught.value)


def test_a_key_in_the_environment_that_is_too_short_is_refused_unseen():
    with pytest.raises(ConfigError, match="key 2 is no key") as caught:
        digests_from({KEYS_VARIABLE: f"{ONE},short"})
    assert "short" not in str(caught.value)


def test_without_file_and_environment_no_key_is_needed():
    assert not KeyRing(digests_from({})).required


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_loopback_needs_no_key(host: str):
    require_key(host, has_keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", "localhost.example.org", ""])
def test_other_addresses_need_one_and_the_refusal_says_why(host: str):
    require_key(host, has_keys=True)
    with pytest.raises(ConfigError, match="can be reached from other machines, and no key is set"):
        require_key(host, has_keys=False)
