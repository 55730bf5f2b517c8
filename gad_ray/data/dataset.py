"""Everything a run trains on and is evaluated on: read, checked, and parted so that the two never share a prompt.

    inputs ──► raw rows ─► valid rows ─► distinct ids ─┬─► held out
                  │             │             │        └─► train, less the held-out prompts
                  └─────────────┴─────────────┴──────────────► quarantine file

Held-out rows are read first, so that a training row with one of their prompts is known when it comes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gad_ray.batch import Example
from gad_ray.config.curriculum import DifficultyCurriculum
from gad_ray.config.data import DataConfig
from gad_ray.data.difficulty import difficulty_flaw, refuse_missing_difficulty, within_bounds
from gad_ray.data.layout import Layout
from gad_ray.data.quarantine import Quarantine, QuarantineReport
from gad_ray.data.read import read_rows, unused_columns
from gad_ray.data.rows import Place, RawRow, Reason, Rejection, excerpt_of
from gad_ray.data.sources import Input, resolve_sources
from gad_ray.data.validate import PromptCounter, ResponseCounter, RowValidator, ValidRow, prompt_key
from gad_ray.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths of some texts, in tokens of the policy's tokenizer. All zero if there are none."""

    median: int
    p95: int
    longest: int

    @classmethod
    def of(cls, lengths: Iterable[int]) -> Lengths:
        """Sum up some lengths."""
        ordered = sorted(lengths) or [0]
        last = len(ordered) - 1
        return cls(median=ordered[last // 2], p95=ordered[round(0.95 * last)], longest=ordered[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """How the data came to be what they are.

    Attributes:
        sources: Names of the inputs read, held-out ones first.
        quarantine: The rows left out, and where they are written.
        heldout_drawn: Whether the held-out rows were drawn from ``train``, having no files of their own.
        num_heldout_unused: Usable rows of the held-out files beyond ``heldout_prompts``: neither trained on
            nor evaluated on.
        conversions: Name of a conversion → rows that were brought to a prompt and a response by it.
        unused_columns: Columns of text that no row's prompt or response is made of.
        num_filtered: Usable training rows that the curriculum's bounds leave out.
        num_repeated_prompts: Training rows whose prompt an earlier training row has too.
        num_with_history: Training rows with earlier turns of the conversation.
        num_with_system: Training rows with a system message.
        prompt_lengths: Of training prompts, chat template included.
        response_lengths: Of the teacher's responses to them.
    """

    sources: tuple[str, ...]
    quarantine: QuarantineReport
    heldout_drawn: bool
    num_heldout_unused: int
    num_filtered: int
    num_repeated_prompts: int
    num_with_history: int
    num_with_system: int
    prompt_lengths: Lengths
    response_lengths: Lengths
    conversions: Mapping[str, int] = field(default_factory=dict[str, int])
    unused_columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedData:
    """The rows of a run. ``train`` is in the order of the files; no prompt of it is in ``heldout``.

    ``difficulty`` goes with ``train`` where a curriculum goes by one; else it is empty.
    """

    train: tuple[Example, ...]
    heldout: tuple[Example, ...]
    report: DataReport
    difficulty: tuple[float, ...] = ()


def load_dataset(
    config: DataConfig,
    *,
    count_prompt_tokens: PromptCounter,
    count_response_tokens: ResponseCounter,
    quarantine_path: Path,
) -> LoadedData:
    """Read, check and part the data of a run. The same data and config always give the same result.

    Args:
        config: What to read, what to hold out, what to refuse.
        count_prompt_tokens: Tokens of a prompt as the policy reads it.
        count_response_tokens: Tokens of a response as the policy writes it.
        quarantine_path: File for the rows that are not used; replaced if it exists.

    Raises:
        DataError: If a source cannot be read or holds no rows, if prompts are too long and ``long_prompts`` is
            ``refuse``, if too large a share of the rows is unusable, if a row lacks the difficulty that the
            curriculum goes by and that is to be refused, or if nothing is left to train on.
    """
    curriculum = config.curriculum if isinstance(config.curriculum, DifficultyCurriculum) else None
    validator = RowValidator(
        max_prompt_tokens=config.max_prompt_tokens,
        max_teacher_tokens=config.max_teacher_tokens,
        count_prompt_tokens=count_prompt_tokens,
        count_response_tokens=count_response_tokens,
        difficulty_column=curriculum and curriculum.column,
        layout=Layout(columns=config.columns, thoughts=config.thoughts),
    )
    heldout_inputs, train_inputs = _resolve(config)
    with Quarantine(quarantine_path) as quarantine:
        reader = _Reader(validator, quarantine)
        heldout_rows = reader.read(heldout_inputs)
        train_rows = reader.read(train_inputs, withheld=_prompt_keys(heldout_rows))
        if curriculum is not None:
            train_rows = reader.with_difficulty(train_rows, curriculum)
        # What the data are to blame for comes first: a draw from too few good rows would only hide it.
        if config.long_prompts == "refuse":
            _refuse_long_prompts(reader.report())
        reader.report().check_threshold(config.max_quarantined_fraction)
        unused = 0
        if config.heldout:
            unused = max(0, len(heldout_rows) - config.heldout_prompts)
            heldout_rows = heldout_rows[: config.heldout_prompts]
        else:
            heldout_rows = _draw_heldout(train_rows, config)
            train_rows = reader.withhold(train_rows, heldout_rows)
        report = reader.report()
    _require_rows(config, train_rows, heldout_rows, report)
    difficulty: tuple[float, ...] = ()
    num_usable = len(train_rows)
    if curriculum is not None:
        train_rows, difficulty = within_bounds(train_rows, curriculum)
    return LoadedData(
        train=tuple(row.example for row in train_rows),
        heldout=tuple(row.example for row in heldout_rows),
        report=_data_report(
            train_rows,
            sources=(*heldout_inputs, *train_inputs),
            quarantine=report,
            heldout_drawn=not config.heldout,
            num_heldout_unused=unused,
            num_filtered=num_usable - len(train_rows),
            conversions=reader.conversions,
            unused_columns=reader.unused_columns,
        ),
        difficulty=difficulty,
    )


def _data_report(
    rows: Sequence[ValidRow],
    *,
    sources: Sequence[Input],
    quarantine: QuarantineReport,
    heldout_drawn: bool,
    num_heldout_unused: int,
    num_filtered: int,
    conversions: Mapping[str, int],
    unused_columns: tuple[str, ...],
) -> DataReport:
    """The report on training rows; arguments as the attributes of :class:`DataReport`."""
    return DataReport(
        sources=tuple(source.name for source in sources),
        quarantine=quarantine,
        heldout_drawn=heldout_drawn,
        num_heldout_unused=num_heldout_unused,
        num_filtered=num_filtered,
        conversions=conversions,
        unused_columns=unused_columns,
        num_repeated_prompts=len(rows) - len(_prompt_keys(rows)),
        num_with_history=sum(_has_history(row.example) for row in rows),
        num_with_system=sum(row.example.messages[0].role == "system" for row in rows),
        prompt_lengths=Lengths.of(row.num_prompt_tokens for row in rows),
        response_lengths=Lengths.of(row.num_response_tokens for row in rows),
    )


class _Reader:
    """Reads inputs into valid rows with distinct ids; everything else goes to the quarantine."""

    def __init__(self, validator: RowValidator, quarantine: Quarantine) -> None:
        self._validator = validator
        self._difficulty_column = validator.difficulty_column
        self._mapped = frozenset(validator.layout.columns)
        self._conversions: Counter[str] = Counter()
        self._unused: dict[str, None] = {}
        self._quarantine = quarantine
        self._num_rows = 0
        self._place_of_id: dict[str, Place] = {}

    def read(self, inputs: Sequence[Input], *, withheld: frozenset[bytes] = frozenset()) -> list[ValidRow]:
        """The valid rows of some inputs, in their order, but for those with a withheld prompt.

        Raises:
            DataError: If an input cannot be read or holds no rows at all.
        """
        kept: list[ValidRow] = []
        for source in inputs:
            before = self._num_rows
            for raw in read_rows(
                source, mapped=self._mapped, extra_columns=filter(None, [self._difficulty_column])
            ):
                self._num_rows += 1
                if isinstance(raw, RawRow):
                    self._unused.update(dict.fromkeys(unused_columns(raw)))
                row = raw if isinstance(raw, Rejection) else self._validator.check(raw)
                if isinstance(row, ValidRow):
                    self._conversions.update(row.conversions)
                    row = self._keep(row, withheld)
                if isinstance(row, Rejection):
                    self._quarantine.add(row)
                else:
                    kept.append(row)
            if self._num_rows == before:
                raise DataError(
                    "holds no rows", where=source.name, hint="write the file again, or leave it out"
                )
        return kept

    @property
    def conversions(self) -> dict[str, int]:
        return dict(self._conversions.most_common())

    @property
    def unused_columns(self) -> tuple[str, ...]:
        taken = {*self._mapped, self._difficulty_column}
        return tuple(name for name in self._unused if name not in taken)

    def _keep(self, row: ValidRow, withheld: frozenset[bytes]) -> ValidRow | Rejection:
        if withheld and prompt_key(row.example.messages) in withheld:
            return _reject_valid(row, Reason.HELDOUT_PROMPT, "its prompt is in the held-out files")
        first = self._place_of_id.setdefault(row.example.id, row.place)
        if first is row.place:
            return row
        if row.has_own_id:
            return _reject_valid(
                row, Reason.DUPLICATE_ID, f"id {row.example.id!r} was given first at {first}"
            )
        return _reject_valid(row, Reason.DUPLICATE_ROW, f"prompt and response are those of {first}")

    def with_difficulty(self, rows: Sequence[ValidRow], curriculum: DifficultyCurriculum) -> list[ValidRow]:
        """The rows with a difficulty; the others are quarantined.

        Raises:
            DataError: If there are others and they are to be refused.
        """
        kept: list[ValidRow] = []
        for row in rows:
            if (flaw := difficulty_flaw(row, curriculum)) is None:
                kept.append(row)
            else:
                self._quarantine.add(_reject_valid(row, Reason.NO_DIFFICULTY, flaw))
        if curriculum.missing == "refuse":
            refuse_missing_difficulty(self.report(), curriculum)
        return kept

    def withhold(self, rows: Sequence[ValidRow], drawn: Sequence[ValidRow]) -> list[ValidRow]:
        """The rows without those drawn; other rows with a drawn prompt are quarantined."""
        keys, ids = _prompt_keys(drawn), {row.example.id for row in drawn}
        kept: list[ValidRow] = []
        for row in rows:
            if prompt_key(row.example.messages) not in keys:
                kept.append(row)
            elif row.example.id not in ids:
                detail = "another row with its prompt was drawn to be held out"
                self._quarantine.add(_reject_valid(row, Reason.HELDOUT_PROMPT, detail))
        return kept

    def report(self) -> QuarantineReport:
        return self._quarantine.report(num_rows=self._num_rows)


def _resolve(config: DataConfig) -> tuple[tuple[Input, ...], tuple[Input, ...]]:
    heldout, train = resolve_sources(config.heldout), resolve_sources(config.train)
    if both := [source.name for source in heldout if source in train]:
        raise DataError(
            f"data.heldout and data.train both name {both[0]}",
            hint="take it out of one of them: a held-out prompt is never trained on",
        )
    return heldout, train


def _has_history(example: Example) -> bool:
    return any(message.role == "assistant" for message in example.messages)


def _prompt_keys(rows: Iterable[ValidRow]) -> frozenset[bytes]:
    return frozenset(prompt_key(row.example.messages) for row in rows)


def _reject_valid(row: ValidRow, reason: Reason, detail: str) -> Rejection:
    excerpt = excerpt_of(row.example.messages[-1].content)
    return Rejection(place=row.place, reason=reason, detail=detail, excerpt=excerpt)


def _draw_heldout(rows: Sequence[ValidRow], config: DataConfig) -> list[ValidRow]:
    """Rows of distinct prompts, in an order that depends on the seed and on ids, but not on the order of rows."""

    def rank(row: ValidRow) -> bytes:
        return hashlib.sha256(f"{config.seed}:{row.example.id}".encode()).digest()

    drawn: dict[bytes, ValidRow] = {}
    for row in sorted(rows, key=rank):
        if len(drawn) == config.heldout_prompts:
            break
        drawn.setdefault(prompt_key(row.example.messages), row)
    return list(drawn.values())


def _refuse_long_prompts(report: QuarantineReport) -> None:
    if found := report.examples.get(Reason.LONG_PROMPT):
        told = [f"{rejection.place}: {rejection.detail}" for rejection in found]
        count = report.counts[Reason.LONG_PROMPT]
        if count > len(found):
            told.append(f"and {count - len(found)} more")
        raise DataError(
            f"{count} {'prompt is' if count == 1 else 'prompts are'} too long: {'; '.join(told)}",
            where=str(report.path),
            hint="raise data.max_prompt_tokens, leave them out with data.long_prompts=skip, or shorten them",
        )


def _require_rows(
    config: DataConfig, train: Sequence[ValidRow], heldout: Sequence[ValidRow], report: QuarantineReport
) -> None:
    counts = ", ".join(f"{count} × {reason}" for reason, count in report.counts.items()) or "none quarantined"
    if not train:
        drawn = bool(heldout) and not config.heldout
        taken = f", {len(heldout)} held out" if drawn else ""
        fewer = ", or hold fewer prompts out with data.heldout_prompts" if drawn else ""
        raise DataError(
            f"no row is left to train on, of {report.num_rows} read{taken}: {counts}",
            where=str(report.path),
            hint=f"name more data{fewer}",
        )
    if not heldout and config.heldout_prompts:
        raise DataError(
            f"no held-out row can be used: {counts}",
            where=str(report.path),
            hint="mend or replace the data.heldout files",
        )
