"""Where metrics go: a JSON Lines file, TensorBoard, Prometheus through Ray, or several of these."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gad_ray.errors import CheckpointError
from gad_ray.observability.metrics import METRICS, Kind, check_metrics, prometheus_name

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge


class MetricSink(Protocol):
    """Takes the metrics of a step."""

    def log(self, *, step: int, stage: str, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one step.

        Raises:
            ValueError: For a stage or a metric that is not registered.
        """
        ...

    def close(self) -> None:
        """Write out what is pending and let go of files. A closed sink may be closed again."""
        ...


class JsonlSink:
    """One JSON object a line: ``step``, ``stage``, ``time`` (Unix seconds) and the metrics.

    JSON knows no NaN and no infinity: such a value is written as null, named with its kind in the line's
    ``nonfinite`` object, and counted in ``num_nonfinite``.

    Args:
        path: The file, made if absent; new lines are appended.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")
        self.num_nonfinite = 0

    def log(self, *, step: int, stage: str, metrics: Mapping[str, float]) -> None:
        """Append one line and flush it."""
        check_metrics(stage, metrics)
        row: dict[str, object] = {"step": step, "stage": stage, "time": time.time()}
        nonfinite: dict[str, str] = {}
        for name, value in metrics.items():
            if math.isfinite(value):
                row[name] = float(value)
            else:
                row[name] = None
                nonfinite[name] = str(float(value))
        if nonfinite:
            row["nonfinite"] = nonfinite
            self.num_nonfinite += len(nonfinite)
        self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def position(self) -> int:
        """Length of the file in bytes, all of them on disk: what a checkpoint remembers."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def truncate_to(self, position: int) -> None:
        """Drop the lines written after a checkpoint, so that the resumed run writes them anew.

        Args:
            position: Length in bytes that :meth:`position` gave when the checkpoint was made.

        Raises:
            CheckpointError: If the file is shorter than that, or no line ends there.
        """
        size = self.position()
        if size < position:
            raise CheckpointError(
                f"the file holds {size} bytes, but the checkpoint was made when it held {position}",
                where=str(self._path),
                hint="put the run's own metrics file back, or resume from an earlier checkpoint",
            )
        if position and not self._line_ends_at(position):
            raise CheckpointError(
                f"no line ends at byte {position}, where the checkpoint was made",
                where=str(self._path),
                hint="put the run's own metrics file back, or resume from an earlier checkpoint",
            )
        self._file.truncate(position)
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _line_ends_at(self, position: int) -> bool:
        with self._path.open("rb") as file:
            file.seek(position - 1)
            return file.read(1) == b"\n"


class TensorBoardSink:
    """Scalars in TensorBoard event files, written without torch.

    Args:
        directory: Where event files go; every sink adds one.
        purge_step: On resume, the first step that will be logged again: TensorBoard then forgets what
            earlier files hold from that step on.
    """

    def __init__(self, directory: Path, *, purge_step: int | None = None) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        # Protobuf makes these modules' classes at import time, where no type checker sees them.
        self._event_pb2: Any = event_pb2
        self._summary_pb2: Any = summary_pb2
        self._writer = EventFileWriter(str(directory))
        self._closed = False
        if purge_step is not None:
            start = self._event_pb2.SessionLog(status=self._event_pb2.SessionLog.START)
            self._add(step=purge_step, session_log=start)

    def log(self, *, step: int, stage: str, metrics: Mapping[str, float]) -> None:
        """Write the metrics as scalars; NaN and infinities are kept, TensorBoard marks them."""
        check_metrics(stage, metrics)
        summary_class = self._summary_pb2.Summary
        values = [summary_class.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._add(step=step, summary=summary_class(value=values))
        # A step takes seconds: a board that shows the last one is worth a flush.
        self._writer.flush()

    def close(self) -> None:
        """Close the event file and end the writer's thread."""
        if not self._closed:
            self._closed = True
            self._writer.close()

    def _add(self, **content: Any) -> None:
        self._writer.add_event(self._event_pb2.Event(wall_time=time.time(), **content))


class RayPrometheusSink:
    """Prometheus metrics through Ray's exporter, labelled with the stage only.

    Ray prefixes every name with ``ray_`` and appends ``_total`` to counters itself. Values that are not
    finite are skipped: Prometheus would show a gap at best. Needs a process that is connected to Ray.
    """

    def __init__(self) -> None:
        from ray.util import metrics as ray_metrics

        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        for spec in METRICS.values():
            name = prometheus_name(spec.name)
            if spec.kind is Kind.COUNTER:
                name = name.removesuffix("_total")
                self._counters[spec.name] = ray_metrics.Counter(name, spec.description, tag_keys=("stage",))
            else:
                self._gauges[spec.name] = ray_metrics.Gauge(name, spec.description, tag_keys=("stage",))

    def log(self, *, step: int, stage: str, metrics: Mapping[str, float]) -> None:
        """Set the gauges and advance the counters; ``step`` itself is the gauge ``train/step``."""
        check_metrics(stage, metrics)
        tags = {"stage": stage}
        for name, value in {"train/step": float(step), **metrics}.items():
            if not math.isfinite(value):
                continue
            if name in self._gauges:
                self._gauges[name].set(float(value), tags=tags)
            elif value > 0:  # Ray refuses to advance a counter by nothing.
                self._counters[name].inc(float(value), tags=tags)

    def close(self) -> None:
        """Nothing is held: Ray drops the gauges with the process."""


class MultiSink:
    """Hands every step to several sinks, in order."""

    def __init__(self, sinks: Sequence[MetricSink]) -> None:
        self._sinks = tuple(sinks)

    def log(self, *, step: int, stage: str, metrics: Mapping[str, float]) -> None:
        """Log to all sinks; what is not registered reaches none of them."""
        check_metrics(stage, metrics)
        for sink in self._sinks:
            sink.log(step=step, stage=stage, metrics=metrics)

    def close(self) -> None:
        """Close all sinks, even if one of them fails to close."""
        errors: list[OSError] = []
        for sink in self._sinks:
            try:
                sink.close()
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]
