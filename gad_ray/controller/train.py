"""``gad-ray train``: from a checked configuration to a finished run."""

from __future__ import annotations

from statistics import median

from gad_ray.activity import activity
from gad_ray.actors.groups import ActorGroups
from gad_ray.actors.session import RaySession
from gad_ray.auto import remember_engine
from gad_ray.config import RunConfig
from gad_ray.controller.checkpointing import read_position
from gad_ray.controller.controller import Controller
from gad_ray.controller.critic_publisher import CriticPublisher, check_endpoint
from gad_ray.controller.heldout import WARMUP_CRITIC
from gad_ray.controller.progress import Progress
from gad_ray.controller.run_setup import Opened, interruptible, open_run
from gad_ray.data.dataset import LoadedData
from gad_ray.data.stats import describe
from gad_ray.interrupt import StopRequest
from gad_ray.models.checks import check_lengths
from gad_ray.models.run_data import load_run_data
from gad_ray.models.source import resolve_model
from gad_ray.observability.console import print_summary
from gad_ray.observability.files import write_text
from gad_ray.observability.jsonl import read_lines
from gad_ray.observability.run_dir import RunDirectory
from gad_ray.observability.summary import RunSummary
from gad_ray.rewards.format_terms import check_reward_functions, try_reward_functions
from gad_ray.rollout.worker import probe_row


@interruptible
def train(stop: StopRequest, config: RunConfig, *, resume: str | None) -> int:
    """Train from the start, or go on with an earlier run. From here, ``Controller.step`` is three calls away.

    Args:
        stop: Given by the decorator: tells when a signal asks for the end.
        config: The run.
        resume: None for a new run, ``auto`` for the newest run of the config's name, or a run's name or path.

    Returns:
        0 when the run was played to its end, 130 after SIGINT, 143 after SIGTERM.

    Raises:
        GadError: If anything needed cannot be used, or training cannot go on.
    """
    with activity("checking the configuration"):
        check_reward_functions(config.reward)
        check_endpoint(config)
        # Other settings than the checkpoint's, and slow ones, are told before anything is loaded.
        opened = open_run(config, resume, check=read_position)
        config, directory = opened.config, opened.directory
    # Converted once, here: the actors would all begin to at the same time.
    if config.trains_critic:
        resolve_model(config.critic.model.model)
    data = load_run_data(config, quarantine_path=directory.quarantine_jsonl, has_critic=config.trains_critic)
    examples = (*data.train, *data.heldout)
    check_lengths(config, examples, has_critic=config.trains_critic, probe=probe_row)
    try_reward_functions(config.reward, data.train[0])
    stop.abrupt = False
    with RaySession():
        # Ray handles SIGTERM by leaving at once.
        stop.listen()
        playing = config
        if config.stages.warm_start != "none":
            # With it comes Ray Train, which takes over a second to import.
            from gad_ray.controller.fit import warm_start

            started = warm_start(config, config.stages.warm_start, directory=directory, data=data, stop=stop)
            if started is None:
                assert stop.signal_number is not None
                return 128 + stop.signal_number
            playing = started
        groups = ActorGroups(playing, directory, stop)
        try:
            return _play(opened, data, groups, stop)
        finally:
            groups.stop()


def _play(opened: Opened, data: LoadedData, groups: ActorGroups, stop: StopRequest) -> int:
    config, directory = opened.config, opened.directory
    sizes = {"num_prompts": len(data.train), "prompts_per_step": config.prompts_per_step}
    stage_steps = {
        "warmup": config.stages.warmup.in_steps(**sizes),
        "adversarial": config.stages.adversarial.in_steps(**sizes),
    }
    epoch = max(1, round(len(data.train) / config.prompts_per_step))
    with (
        Progress(config, directory, stage_steps=stage_steps, steps_per_epoch=epoch) as progress,
        CriticPublisher(config, groups=groups, progress=progress) as publisher,
    ):
        accepted = [f"warning: {told}" for told in config.accepted]
        for line in (*opened.choices, *describe(data), *accepted):
            progress.info(line)
        controller = Controller(
            config,
            directory=directory,
            data=data,
            groups=groups,
            progress=progress,
            stop=stop,
            publisher=publisher,
        )
        finished = controller.run(opened.checkpoint)
        if not finished:
            progress.info(
                f"stopped at step {controller.stages.step}; continue with --resume {directory.root}"
            )
            assert stop.signal_number is not None
            progress.event("stopped", step=controller.stages.step, signal=stop.signal_number)
            return 128 + stop.signal_number
        summary = _finish(directory, controller, groups, progress)
        if (rate := rollout_rate(directory)) is not None:
            remember_engine(config, rate)
    print_summary(summary)
    return 0


def rollout_rate(directory: RunDirectory) -> float | None:
    """Response tokens a second: the median of the run's steps."""
    rows = read_lines(directory.metrics_jsonl).rows
    rates = [float(rate) for row in rows if (rate := row.get("perf/rollout_tokens_per_s")) is not None]
    return median(rates) if rates else None


def _finish(
    directory: RunDirectory,
    controller: Controller,
    groups: ActorGroups,
    progress: Progress,
) -> RunSummary:
    """Export both models, compare before and after, and write the account of the run."""
    with activity("exporting the models"):
        policy = directory.exports / "policy"
        critic = controller.heldout.export_critic("critic")
        groups.policy.export(policy)
    paths = [("model", str(policy)), ("critic", str(critic))]
    warmup = directory.exports / WARMUP_CRITIC
    if warmup.is_dir():
        paths.append(("critic after the warm-up", str(warmup)))
    paths += [
        ("metrics", str(directory.metrics_jsonl)),
        ("TensorBoard", str(directory.tensorboard)),
        ("score records", str(directory.records)),
        ("held-out answers", str(directory.samples_jsonl)),
        ("checkpoints", str(directory.checkpoints)),
        ("summary", str(directory.summary_json)),
        ("report", str(directory.report_html)),
    ]
    with activity("comparing before and after"):
        summary = controller.heldout.compare(
            policy_version=controller.policy_version,
            paths=paths,
            timing=dict(progress.timing),
            memory=progress.peak_memory_gib,
        )
    write_text(directory.summary_json, summary.to_json())
    return summary
