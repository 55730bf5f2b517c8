"""One run of both stages, from the command line to its last file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from gad_ray.auto import resolve
from gad_ray.checkpoint.store import CheckpointStore
from gad_ray.checkpoint.tensors import load_state
from gad_ray.config import config_hash, load_config
from gad_ray.observability.metrics import METRICS
from gad_ray.observability.records import RECORD_SCHEMA
from tests.cluster import ray_environment
from tests.game import Outcome, config_of

WARMUP, TOTAL = 4, 16

IN_EVERY_STAGE = {
    *(
        f"critic/{name}"
        for name in ("d_acc", "d_loss", "ranking_loss", "score_reg", "score_diff", "sigmoid_mean")
    ),
    *(f"critic/{side}_score_{x}" for side in ("teacher", "student") for x in ("mean", "std", "min", "max")),
    *(
        f"critic/{name}"
        for name in ("grad_norm", "grad_norm_before_clip", "lr", "rewards/mean", "skipped_steps")
    ),
    "reward/discriminator_mean",
    *(f"response_length/{name}" for name in ("mean", "max", "clip_ratio", "teacher_mean")),
    *(f"rollout/{name}" for name in ("staleness", "tokens", "failed", "retried")),
    *(f"timing_s/{name}" for name in ("rollout", "score", "update_critic", "exchange", "step")),
    *(f"perf/{name}" for name in ("rollout_tokens_per_s", "memory_bytes")),
    "data/epoch",
    "health/findings",
    "health/active_rules",
}

IN_THE_GAME = {
    *(f"actor/{name}" for name in ("pg_loss", "kl_loss", "kl_share", "entropy", "clipfrac", "ratio_gap_max")),
    *(f"actor/{name}" for name in ("grad_norm", "grad_norm_before_clip", "lr", "adv_max", "adv_std")),
    *(f"actor/{name}" for name in ("zero_spread_groups", "skipped_steps")),
    "rollout/mismatch_kl",
    "rollout/mismatch_abs",
    "sync/probe_gap",
    "sync/bytes",
    "timing_s/update_actor",
    "timing_s/sync",
    "perf/train_tokens_per_s",
}

IN_EVALUATIONS = {
    *(f"eval/{name}" for name in ("d_acc", "score_diff", "teacher_score_mean", "student_score_mean")),
    *(f"eval/{name}" for name in ("response_length", "teacher_length", "distinct_1", "distinct_2")),
    *(
        f"eval/{name}"
        for name in ("current_d_acc", "current_score_diff", "current_auc", "reward", "teacher_nll")
    ),
    "eval/identical_text_diff",
    *(f"eval/{name}_{end}" for name in ("d_acc", "score_diff", "auc") for end in ("low", "high")),
}

COLUMNS = {"step", "stage", "time"}


def test_the_run_ends_with_success_and_every_step_logged(whole_run: Outcome) -> None:
    assert whole_run.code == 0, whole_run.err
    assert [row["step"] for row in whole_run.metrics] == list(range(1, TOTAL + 1))
    stages = [row["stage"] for row in whole_run.metrics]
    assert stages == ["warmup"] * WARMUP + ["adversarial"] * (TOTAL - WARMUP)


def test_without_a_terminal_each_activity_is_a_line_when_it_begins(whole_run: Outcome) -> None:
    begun = [
        "checking the configuration",
        "reading the data",
        "connecting to Ray at ",
        "starting the processes of rollout-0, critic-0, policy-0",
        "loading the models",
        "testing that the engine takes every weight",
        "answering the held-out prompts",
        f"stage warmup: steps 1 to {WARMUP}",
        "exporting the warm-up's critic",
        f"stage adversarial: steps {WARMUP + 1} to {TOTAL}",
        "exporting the models",
        "comparing before and after",
    ]
    lines = whole_run.out.splitlines()
    places = [next(i for i, line in enumerate(lines) if line.startswith(text)) for text in begun]
    assert places == sorted(places)
    assert "evaluating on the held-out prompts" in lines
    assert "saving a checkpoint" in lines
    # Nothing besides that a user could do nothing about.
    assert whole_run.err == ""


def test_each_stage_logs_all_its_metrics_under_registered_names(whole_run: Outcome) -> None:
    for row in whole_run.metrics:
        wanted = IN_EVERY_STAGE | (IN_THE_GAME if row["stage"] == "adversarial" else set())
        if row["step"] % 3 == 0 or row["step"] in (WARMUP, TOTAL):
            wanted = wanted | IN_EVALUATIONS
        else:
            assert not any(name.startswith("eval/") for name in row)
        assert wanted <= set(row), f"step {row['step']} lacks {sorted(wanted - set(row))}"
        assert set(row) - COLUMNS <= set(METRICS)


def test_an_evaluation_reads_both_sides_alike_and_is_of_the_critic_that_goes_on(whole_run: Outcome) -> None:
    evaluated = [row["step"] for row in whole_run.metrics if "eval/d_acc" in row]
    differences = {row["eval/identical_text_diff"] for row in whole_run.metrics if row["step"] in evaluated}
    assert differences == {0.0}
    told = {row["step"]: row.get("critic/same_as_evaluated") for row in whole_run.metrics}
    assert {step: told[step] for step in told if step - 1 in evaluated} == {
        step + 1: 1.0 for step in evaluated if step < TOTAL
    }
    assert all(value is None for step, value in told.items() if step - 1 not in evaluated)


def test_the_last_evaluation_tells_how_many_greedy_answers_training_left_as_they_were(
    whole_run: Outcome,
) -> None:
    told = {
        row["step"]: row["eval/greedy_unchanged"]
        for row in whole_run.metrics
        if "eval/greedy_unchanged" in row
    }
    assert set(told) == {TOTAL}
    rows = {row["label"]: row for row in json.loads((whole_run.root / "summary.json").read_text())["rows"]}
    row = rows["greedy answers that are the same as before the first step"]
    assert (row["before"], row["after"]) == (100.0, pytest.approx(100 * told[TOTAL]))
    assert told[TOTAL] < 1.0, "the game moved the policy"


def test_without_a_format_reward_the_reward_is_the_discriminators(whole_run: Outcome) -> None:
    for row in whole_run.metrics:
        assert row["critic/rewards/mean"] == row["reward/discriminator_mean"]


def test_on_policy_samples_are_fresh_and_the_first_update_sees_no_ratio(whole_run: Outcome) -> None:
    game = [row for row in whole_run.metrics if row["stage"] == "adversarial"]
    assert {row["rollout/staleness"] for row in whole_run.metrics} == {0.0}
    assert {row["actor/ratio_gap_max"] for row in game} == {0.0}
    assert max(row["rollout/mismatch_abs"] for row in game) < 1e-3
    assert max(row["sync/probe_gap"] for row in game) < 1e-3


def test_the_critic_learns_to_tell_the_teacher_apart(whole_run: Outcome) -> None:
    rows = whole_run.metrics
    assert np.mean([row["critic/d_acc"] for row in rows[-4:]]) > 0.9
    assert rows[WARMUP - 1]["critic/d_loss"] < rows[0]["critic/d_loss"]


def test_tensorboard_shows_what_the_metrics_file_holds(whole_run: Outcome) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(whole_run.root / "tensorboard"))
    board.Reload()
    shown = {event.step: event.value for event in board.Scalars("critic/d_loss")}
    assert shown == pytest.approx({row["step"]: row["critic/d_loss"] for row in whole_run.metrics})


def test_every_step_has_score_records_of_the_critic_that_scored(whole_run: Outcome) -> None:
    fingerprints: set[str] = set()
    for row in whole_run.metrics:
        table = pq.read_table(whole_run.root / "records" / f"step-{row['step']:06d}.parquet")
        assert table.schema.equals(RECORD_SCHEMA)
        records = table.to_pylist()
        assert len(records) == 12
        assert {record["step"] for record in records} == {row["step"]}
        student = [record["student_score"] for record in records]
        assert np.mean(student) == pytest.approx(row["critic/student_score_mean"], abs=1e-6)
        (fingerprint,) = {record["fingerprint"] for record in records}
        assert row["critic/fingerprint"] == int(fingerprint[:12], 16)
        fingerprints.add(fingerprint)
    assert "" not in fingerprints
    assert len(fingerprints) == TOTAL, "a critic that has learned has another fingerprint"


def test_values_of_single_tokens_come_to_the_recorded_scores(whole_run: Outcome) -> None:
    for step in (1, TOTAL):
        rows = pq.read_table(whole_run.root / "records" / f"step-{step:06d}.parquet").to_pylist()
        kept = [row for row in rows if row["student_values"] is not None]
        assert len(kept) == 2
        assert len({row["example_id"] for row in kept}) == 2, "of two prompts"
        for row in kept:
            for side in ("teacher", "student"):
                values, ends = row[f"{side}_values"], row[f"{side}_token_ends"]
                assert np.mean(values) == pytest.approx(row[f"{side}_score"], abs=1e-5)
                assert ends[-1] == len(row[f"{side}_response"])


def test_the_report_tells_of_the_whole_run(whole_run: Outcome) -> None:
    page = (whole_run.root / "report.html").read_text(encoding="utf-8")
    assert f"came to its end after {TOTAL} steps" in page
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert data["runs"][0]["stages"][1] == {"name": "adversarial", "first": WARMUP + 1, "last": TOTAL}
    charts = [chart for section in data["sections"] for chart in section["charts"]]
    drawn = {line["name"] for chart in charts for line in chart["lines"]}
    drawn |= {end for chart in charts for area in chart["areas"] for end in area["ends"]}
    logged = {name for row in whole_run.metrics for name in row} - COLUMNS
    assert {name for name in logged if not name.startswith("timing_s/")} - drawn == set()
    assert any("pieces" in side for entry in data["samples"] for side in entry["sides"])
    assert {entry["source"] for entry in data["samples"]} == {"training", "evaluation", "held-out"}


def test_the_saved_config_is_the_runs_own(whole_run: Outcome) -> None:
    saved = load_config(str(whole_run.root / "config.yaml"), [])
    # Another process of the tests may have played it, with files of its own.
    assert saved == resolve(load_config(str(config_of(whole_run)), [])).config
    assert json.loads((whole_run.root / "versions.json").read_text())["torch"] == torch.__version__


def test_checkpoints_are_committed_and_verify(whole_run: Outcome) -> None:
    store = CheckpointStore(whole_run.root / "checkpoints", keep=2)
    committed = store.checkpoints()
    assert [path.name for path in committed] == ["step-000004", "step-000014", "step-000016"]
    for path in committed:
        store.verify(path)
    assert store.load_meta(committed[0]).pin == "end_of_warmup"
    last = store.load_meta(committed[-1])
    assert (last.stage, last.step, last.stage_step) == ("adversarial", TOTAL, TOTAL - WARMUP)
    assert last.policy_version == TOTAL - WARMUP
    assert last.config_hash == config_hash(load_config(str(whole_run.root / "config.yaml"), []))


def test_the_exported_policy_is_the_learners_in_transformers(whole_run: Outcome) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    exported = whole_run.root / "exports" / "policy"
    model = AutoModelForCausalLM.from_pretrained(str(exported))
    tensors, _ = load_state(whole_run.root / "checkpoints" / "step-000016" / "policy" / "state")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, tensors[f"master/lm.{name}"]), name
    tokenizer = AutoTokenizer.from_pretrained(str(exported))
    messages = [{"role": "user", "content": "Say number 3 in a sentence."}]
    encoded = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert torch.isfinite(model(**encoded).logits).all()


def test_the_warm_ups_critic_gives_from_the_command_line_the_scores_recorded_in_the_run(
    whole_run: Outcome,
) -> None:
    rows = pq.read_table(whole_run.root / "records" / f"step-{WARMUP + 1:06d}.parquet").to_pylist()
    given = [
        {"messages": json.loads(row["prompt"]), "response": row["student_response"], "note": i}
        for i, row in enumerate(rows)
    ]
    scored = _score(whole_run.root / "exports" / "critic-warmup", given)
    assert [row["note"] for row in scored] == list(range(len(rows)))
    assert {row["fingerprint"] for row in scored} == {row["fingerprint"] for row in rows}
    recorded = [row["student_score"] for row in rows]
    np.testing.assert_allclose([row["score"] for row in scored], recorded, atol=1e-5)


def _score(critic: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["gad-ray", "score", "--critic", str(critic)],
        input="".join(json.dumps(row) + "\n" for row in rows),
        capture_output=True,
        text=True,
        check=True,
        env=ray_environment(),
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_summary_ends_with_the_paths_the_exported_model_first(whole_run: Outcome) -> None:
    written = [line.split() for line in whole_run.out.partition("Written:\n")[2].splitlines() if line.strip()]
    assert written[0] == ["model", str(whole_run.root / "exports" / "policy")]
    for words in written:
        assert Path(words[-1]).exists()
    summary = json.loads((whole_run.root / "summary.json").read_text())
    assert summary["name"] == "whole"
