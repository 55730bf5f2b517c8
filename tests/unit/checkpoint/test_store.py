import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gad_ray.checkpoint.store import CheckpointStore, RunPosition, Staging
from gad_ray.errors import CheckpointError

ROOT = Path(__file__).parents[3]


def position(step: int, pin: str | None = None) -> RunPosition:
    return RunPosition(
        stage="adversarial",
        step=step,
        stage_step=step,
        policy_version=step,
        data={"epoch": 0, "offset": step * 4},
        metrics_bytes=100 * step,
        config_hash="abc",
        pin=pin,
    )


def fill(staging: Staging, content: bytes = b"weights") -> None:
    for component in ("policy", "critic"):
        (staging.path / component).mkdir()
        (staging.path / component / "state.safetensors").write_bytes(content)


def commit(store: CheckpointStore, step: int, *, pin: str | None = None, content: bytes = b"weights") -> Path:
    staging = store.begin(step)
    fill(staging, content)
    return store.commit(staging, position(step, pin))


def names(store: CheckpointStore) -> list[str]:
    return [path.name for path in store.checkpoints()]


def content_of(path: Path) -> bytes:
    return (path / "policy" / "state.safetensors").read_bytes()


def test_a_committed_checkpoint_is_the_latest_and_gives_its_position_back(tmp_path: Path):
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    assert store.latest() is None
    path = commit(store, 42)
    assert path == tmp_path / "checkpoints" / "step-000042"
    assert store.latest() == path
    store.verify(path)
    assert store.load_meta(path) == position(42)
    assert [entry.name for entry in store.root.iterdir()] == ["step-000042"]


def test_what_is_only_staged_is_no_checkpoint(tmp_path: Path):
    store = CheckpointStore(tmp_path, keep=2)
    fill(store.begin(1))
    assert store.latest() is None


def test_steps_are_ordered_as_numbers(tmp_path: Path):
    store = CheckpointStore(tmp_path, keep=9)
    for step in (1_000_000, 999_999, 2):
        commit(store, step)
    assert names(store) == ["step-000002", "step-999999", "step-1000000"]
    assert store.latest() == tmp_path / "step-1000000"


def test_the_newest_are_kept_and_pinned_ones_besides(tmp_path: Path):
    store = CheckpointStore(tmp_path, keep=2)
    commit(store, 1)
    commit(store, 2, pin="end_of_warmup")
    for step in (3, 4, 5):
        commit(store, step)
    assert names(store) == ["step-000002", "step-000004", "step-000005"]
    assert store.load_meta(tmp_path / "step-000002").pin == "end_of_warmup"


def test_the_one_just_committed_is_kept_even_if_its_step_is_older(tmp_path: Path):
    store = CheckpointStore(tmp_path, keep=1)
    commit(store, 9)
    assert commit(store, 5).is_dir()


def test_a_checkpoint_whose_record_is_unreadable_is_left_for_a_person(tmp_path: Path):
    store = CheckpointStore(tmp_path, keep=1)
    (commit(store, 1) / "position.json").write_text("{")
    commit(store, 2)
    assert names(store) == ["step-000001", "step-000002"]


def test_keeping_none_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="keep is 0"):
        CheckpointStore(tmp_path, keep=0)


def test_going_back_to_a_step_removes_the_later_ones(tmp_path: Path):
    store = CheckpointStore(tmp_path, keep=5)
    for step in (1, 2, 3):
        commit(store, step, pin="end_of_warmup" if step == 3 else None)
    store.discard_after(1)
    assert names(store) == ["step-000001"]
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7") as refusal:
        store.discard_after(7)
    assert "step-000001" in str(refusal.value.hint)


def test_the_same_step_again_replaces_the_checkpoint(tmp_path: Path):
    store = CheckpointStore(tmp_path, keep=2)
    commit(store, 3, content=b"old")
    path = commit(store, 3, content=b"new")
    store.verify(path)
    assert content_of(path) == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-000003"]


def test_a_position_of_another_step_is_refused(tmp_path: Path):
    store = CheckpointStore(tmp_path, keep=2)
    with pytest.raises(CheckpointError, match="begun for step 3 cannot be committed as of step 4"):
        store.commit(store.begin(3), position(4))


def test_two_stagings_of_one_step_do_not_meet(tmp_path: Path):
    store = CheckpointStore(tmp_path, keep=2)
    first, second = store.begin(1), store.begin(1)
    fill(first, b"first")
    fill(second, b"second")
    other = CheckpointStore(tmp_path, keep=2)  # its start must not sweep what a live process stages
    assert first.path.is_dir()
    store.commit(first, position(1))
    other.commit(second, position(1))
    assert content_of(tmp_path / "step-000001") == b"second"


def test_an_abandoned_staging_leaves_nothing(tmp_path: Path):
    store = CheckpointStore(tmp_path, keep=2)
    staging = store.begin(1)
    fill(staging)
    store.abandon(staging)
    assert not list(tmp_path.iterdir())


def test_a_flipped_bit_in_a_checkpoint_is_found_and_the_file_named(tmp_path: Path):
    store = CheckpointStore(tmp_path, keep=2)
    damaged = commit(store, 1) / "critic" / "state.safetensors"
    damaged.write_bytes(b"weighus")
    with pytest.raises(CheckpointError, match="SHA-256 differs") as found:
        store.verify(tmp_path / "step-000001")
    assert found.value.where == str(damaged)


@pytest.mark.parametrize(
    ("key", "value"), [("format_version", 2), ("step", -1), ("stage", None), ("surplus", 1)]
)
def test_a_record_that_this_release_does_not_know_is_refused(tmp_path: Path, key: str, value: object):
    store = CheckpointStore(tmp_path, keep=2)
    path = commit(store, 1)
    record = json.loads((path / "position.json").read_text()) | {key: value}
    (path / "position.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=rf"position\.json: .*{key}"):
        store.load_meta(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be used"):
        CheckpointStore(tmp_path / "file", keep=1)


# A death at any point of a commit. The points are the calls that change what is on the disk for good.


def count_calls(monkeypatch: pytest.MonkeyPatch, at: Callable[[int], None]) -> None:
    """Call ``at`` with a running number before every flush and rename."""
    calls = 0

    def counted(real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object, **options: object) -> None:
            nonlocal calls
            calls += 1
            at(calls)
            real(*arguments, **options)

        return call

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(os, "replace", counted(os.replace))


def points_of_a_commit(tmp_path: Path, old_step: int, new_step: int) -> int:
    store = CheckpointStore(tmp_path / "dry", keep=1)
    commit(store, old_step)
    seen = 0

    def note(number: int) -> None:
        nonlocal seen
        seen = number

    with pytest.MonkeyPatch.context() as patch:
        count_calls(patch, note)
        commit(store, new_step)
    return seen


def assert_sound(root: Path, old: bytes, new: bytes, *, died: bool = True) -> bytes:
    store = CheckpointStore(root, keep=1)
    latest = store.latest()
    assert latest is not None, "the only good checkpoint is gone"
    for path in store.checkpoints():
        store.verify(path)
    if died:
        assert all(path.name.startswith("step-") for path in root.iterdir()), (
            "leftovers of the dead are swept"
        )
    content = content_of(latest)
    assert content in (old, new)
    return content


@pytest.mark.parametrize("new_step", [1, 2], ids=["the same step", "the next step"])
def test_a_kill_at_any_point_of_a_commit_leaves_only_sound_checkpoints(tmp_path: Path, new_step: int):
    num_points = points_of_a_commit(tmp_path, 1, new_step)
    assert num_points > 8
    context = multiprocessing.get_context("fork")

    def child(root: Path, fatal: int) -> None:
        def die(number: int) -> None:
            if number == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

        store = CheckpointStore(root, keep=1)
        staging = store.begin(new_step)
        fill(staging, b"new")
        with pytest.MonkeyPatch.context() as patch:
            count_calls(patch, die)
            store.commit(staging, position(new_step))

    outcomes: list[bytes] = []
    for fatal in range(1, num_points + 2):
        root = tmp_path / str(fatal)
        commit(CheckpointStore(root, keep=1), 1, content=b"old")
        process = context.Process(target=child, args=(root, fatal))
        process.start()
        process.join()
        assert process.exitcode == (-signal.SIGKILL if fatal <= num_points else 0)
        outcomes.append(assert_sound(root, b"old", b"new"))
        assert commit(CheckpointStore(root, keep=1), 3).is_dir()  # and the run goes on
    assert outcomes == sorted(outcomes, reverse=True), "once the new one is there, it stays"
    assert (outcomes[0], outcomes[-1]) == (b"old", b"new")


@pytest.mark.parametrize("new_step", [1, 2], ids=["the same step", "the next step"])
def test_a_disk_that_fails_at_any_point_of_a_commit_is_reported_and_leaves_the_old_checkpoint(
    tmp_path: Path, new_step: int
):
    num_points = points_of_a_commit(tmp_path, 1, new_step)
    for fatal in range(1, num_points + 1):
        root = tmp_path / str(fatal)
        store = CheckpointStore(root, keep=1)
        commit(store, 1, content=b"old")

        def fail(number: int, fatal: int = fatal) -> None:
            if number == fatal:
                raise OSError(28, "No space left on device")

        with pytest.MonkeyPatch.context() as patch:
            count_calls(patch, fail)
            with pytest.raises(CheckpointError, match="No space left"):
                commit(store, new_step, content=b"new")
        assert_sound(root, b"old", b"new", died=False)


_WRITER = """
import sys
from pathlib import Path
from tests.unit.checkpoint.test_store import commit
from gad_ray.checkpoint.store import CheckpointStore
store = CheckpointStore(Path(sys.argv[1]), keep=2)
for step in range(1, 100_000):
    commit(store, step, content=b"weights" * 20_000)
    print(step, flush=True)
"""


@pytest.mark.parametrize("after", [1, 2, 5])
def test_a_process_killed_while_it_writes_checkpoints_leaves_only_sound_ones(tmp_path: Path, after: int):
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    with process.stdout:
        for _ in range(after):
            assert process.stdout.readline()
        process.kill()  # somewhere inside a later commit
    process.wait()
    store = CheckpointStore(tmp_path, keep=2)
    latest = store.latest()
    assert latest is not None
    assert store.load_meta(latest).step >= after
    for path in store.checkpoints():
        store.verify(path)
    assert all(entry.name.startswith("step-") for entry in tmp_path.iterdir())


def test_leftovers_of_another_machine_are_left_alone_for_a_day(tmp_path: Path):
    leftover = tmp_path / ".step-000001.staging-some-other-host-12-1700000000-abcdef"
    leftover.mkdir()
    CheckpointStore(tmp_path, keep=1)
    assert leftover.is_dir()
    os.utime(leftover, (0, 0))
    CheckpointStore(tmp_path, keep=1)
    assert not leftover.exists()


def test_leftovers_of_an_earlier_process_with_our_id_are_swept(tmp_path: Path):
    staging = CheckpointStore(tmp_path, keep=1).begin(1)
    before, born, suffix = staging.path.name.rsplit("-", 2)
    leftover = tmp_path / f"{before}-{int(born) - 60}-{suffix}"
    leftover.mkdir()
    CheckpointStore(tmp_path, keep=1)
    assert not leftover.exists()
    assert staging.path.is_dir()
