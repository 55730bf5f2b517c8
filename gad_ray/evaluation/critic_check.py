"""What a critic gives to one's own data: values of tokens, scores, and how far small changes of a text move them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gad_ray.batch import Message
from gad_ray.core.packing import plan_micro_batches
from gad_ray.core.preference import preference
from gad_ray.critics.value_head import ValueHeadCritic
from gad_ray.health.critic import COLLAPSED_STD, EXTREME_VALUE, CriticFigures, Moved, TokenFigures
from gad_ray.learners.critic_metrics import separation
from gad_ray.models.critic import CriticModel
from gad_ray.models.pairs import Pair, TokenRow, deduplicate

_MICRO_BATCH_TOKENS = 8192
_SCORED_ALONE = 8
_SAME_SCORE = {"float32": 1e-4, "bfloat16": 0.05}
"""What rounding may move a score by in another batch."""

_OTHER_MARK = {".": "!", "!": ".", "?": ".", "。": "！", "！": "。", "？": "。", "…": "."}
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_UNIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRow:
    """A prompt, the teacher's answer, and a student's where there is one."""

    messages: tuple[Message, ...]
    teacher: str
    student: str | None = None


def other_punctuation(text: str) -> str:
    """The text with its final punctuation mark changed, or with one where it has none; white space behind it stays."""
    body = text.rstrip()
    if not body:
        return text
    tail = text[len(body) :]
    mark = _OTHER_MARK.get(body[-1])
    if mark is not None:
        return body[:-1] + mark + tail
    return body + ("。" if _CJK.match(body[-1]) else ".") + tail


def doubled_word(text: str) -> str:
    """The text with the word in its middle written twice: a character in scripts without spaces."""
    units = list(_UNIT.finditer(text))
    if not units:
        return text
    unit = units[len(units) // 2]
    space = "" if _CJK.match(unit.group()) else " "
    return text[: unit.end()] + space + unit.group() + text[unit.end() :]


def fitting_rows(critic: CriticModel, rows: Sequence[CheckedRow]) -> list[CheckedRow]:
    """The rows of which every text that is to be scored is within the critic's limit."""
    limit = critic.encoder.max_tokens

    def fits(row: CheckedRow) -> bool:
        texts = [row.teacher, other_punctuation(row.teacher), doubled_word(row.teacher)]
        if row.student is not None:
            texts.append(row.student)
        return all(len(critic.encoder.tokenize(Pair(row.messages, text))) <= limit for text in texts)

    return [row for row in rows if fits(row)]


def check_critic(opened: ValueHeadCritic, rows: Sequence[CheckedRow]) -> CriticFigures:
    """Measure a critic on rows of data.

    Args:
        opened: The critic.
        rows: At least one, all within the critic's limit.
    """
    critic = opened.model
    own = [Pair(row.messages, row.teacher) for row in rows]
    students = [Pair(row.messages, row.student) for row in rows if row.student is not None]
    edits = [
        [Pair(row.messages, edit(row.teacher)) for row in rows] for edit in (other_punctuation, doubled_word)
    ]
    answers = [*own, *students]
    # The same answer once more, as a student's would stand beside it: the way of training and of serving.
    scored, values = _score(critic, [*answers, *own, *edits[0], *edits[1]], watched=len(answers))
    parts = np.split(scored, np.cumsum([len(own), len(students), len(own), len(own)]))
    teacher, student, again, punctuated, doubled = parts
    alone = [_score(critic, [pair], watched=0)[0][0] for pair in own[:_SCORED_ALONE]]
    beside = teacher[[k for k, row in enumerate(rows) if row.student is not None]]
    num_nonfinite = int(sum((~np.isfinite(array)).sum() for array in (scored, values)))
    both = _finite(np.concatenate([teacher, student]))
    return CriticFigures(
        step=opened.step,
        num_rows=len(own),
        num_pairs=len(students),
        num_nonfinite=num_nonfinite,
        tokens=_token_figures(_finite(values)),
        scores=_score_figures(teacher, beside, student, opened.temperature),
        score_mean=float(both.mean()),
        score_std=float(both.std()),
        score_largest=float(np.abs(both).max()),
        same_call=_moved(teacher, again).largest,
        same_apart=_moved(teacher[: len(alone)], np.asarray(alone)).largest,
        same_tolerance=_SAME_SCORE[critic.dtype],
        punctuation=_moved(teacher, punctuated),
        similar=_moved(teacher, doubled),
    )


def _score(
    critic: CriticModel, pairs: Sequence[Pair], *, watched: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of pairs, equal ones scored once as everywhere, and the token values of the first ``watched``."""
    distinct, index = deduplicate(pairs)
    rows: list[TokenRow] = [critic.encoder.encode(pair) for pair in distinct]
    scores = np.zeros(len(rows))
    values: dict[int, NDArray[np.float32]] = {}
    for batch in plan_micro_batches([len(row) for row in rows], max_tokens=_MICRO_BATCH_TOKENS):
        found, known = critic.score_rows([rows[i] for i in batch])
        scores[batch] = found
        values.update(zip(batch, known, strict=True))
    kept = [values[int(i)] for i in dict.fromkeys(index[:watched].tolist())]
    return scores[index], np.concatenate([np.zeros(0), *kept]).astype(np.float64)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The finite ones; a single 0 where there are none, which are counted apart."""
    finite = values[np.isfinite(values)]
    return finite if len(finite) else np.zeros(1)


def _token_figures(values: NDArray[np.float64]) -> TokenFigures:
    sizes = np.abs(values)
    return TokenFigures(
        count=len(values),
        mean=float(values.mean()),
        std=float(values.std()),
        largest=float(sizes.max()),
        share_large=float(np.mean(sizes > EXTREME_VALUE)),
        share_small=float(np.mean(sizes < COLLAPSED_STD)),
    )


def _moved(before: NDArray[np.float64], after: NDArray[np.float64]) -> Moved:
    sizes = _finite(np.abs(after - before))
    return Moved(
        mean=float(sizes.mean()),
        p95=float(np.quantile(sizes, 0.95)),
        largest=float(sizes.max()),
        count=len(sizes),
    )


def _score_figures(
    teacher: NDArray[np.float64],
    beside: NDArray[np.float64],
    student: NDArray[np.float64],
    temperature: float,
) -> dict[str, float]:
    """Figures of the scores under the names that a run logs them with.

    Args:
        teacher: Scores of all of the teacher's answers.
        beside: Those of them beside which a student's stands.
        student: Scores of the students' answers.
        temperature: τ of the critic's loss.
    """
    sides = {"teacher": teacher} | ({"student": student} if len(student) else {})
    figures: dict[str, float] = {}
    for side, scores in sides.items():
        finite = _finite(scores)
        for name, value in (
            ("mean", finite.mean()),
            ("std", finite.std()),
            ("min", finite.min()),
            ("max", finite.max()),
        ):
            figures[f"critic/{side}_score_{name}"] = float(value)
    if len(student):
        figures["critic/d_acc"] = preference(beside, student)
        figures["critic/score_diff"] = float(np.mean(beside - student))
        figures["critic/temperature"] = temperature
        apart = separation(beside.astype(np.float32), student.astype(np.float32))
        if apart is not None:
            figures["critic/score_separation"] = apart
    return figures
