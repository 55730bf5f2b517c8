"""One pass over the rows: what is kept of each is numbers and a few characters, never the text as a whole.

    rows ─► distinct (prompt, teacher's answer) = items ─► lengths, forms, scripts, hashes, sketches
       │                                      └─► student's answers = pairs ─► lengths, features, scores
       ├─► checks of every text ─► counts and examples
       └─► a bounded draw of items, with their text, for a policy to answer and a critic to score

The draw is by hash: it does not depend on the order of the rows.
"""

from __future__ import annotations

import hashlib
import heapq
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from gad_ray.batch import Example, Float32, Message
from gad_ray.core.rewards import main_script, same_language
from gad_ray.data.rows import Reason, Rejection
from gad_ray.data.validate import prompt_key
from gad_ray.errors import DataError
from gad_ray.quality.checks import ANSWER_CHECKS, PROMPT_CHECKS, Answer, Side
from gad_ray.quality.features import length_features, surface_features
from gad_ray.quality.formats import Format
from gad_ray.quality.near import NUM_HASHES, Sketches, sketch
from gad_ray.quality.rows import SidedRow
from gad_ray.quality.samples import SampleBox, shorten

_FORMATS = tuple(Format)
_CHUNK = 4096

Measure = Callable[[str], int]
"""Length of a text, in the unit of the report."""

MeasurePrompt = Callable[[tuple[Message, ...]], int]
"""Length of a conversation; raises DataError where the policy's chat template refuses it."""


def num_characters(messages: tuple[Message, ...]) -> int:
    """Length of a conversation in characters."""
    return sum(len(message.content) for message in messages)


class SketchColumn:
    """Sketches of texts as they come, without holding them twice."""

    def __init__(self) -> None:
        self._chunks: list[Sketches] = []
        self._count = 0

    def add(self, text: str) -> None:
        """Append the sketch of a text."""
        row = self._count % _CHUNK
        if row == 0:
            self._chunks.append(np.zeros((_CHUNK, NUM_HASHES), dtype=np.uint32))
        self._chunks[-1][row] = sketch(text)
        self._count += 1

    def matrix(self) -> Sketches:
        """[N, NUM_HASHES]."""
        if not self._chunks:
            return np.zeros((0, NUM_HASHES), dtype=np.uint32)
        return np.concatenate(self._chunks)[: self._count]


@dataclass(slots=True)
class Items:
    """Columns of the distinct (prompt, teacher's answer)."""

    places: list[str] = field(default_factory=list[str])
    prompts: list[str] = field(default_factory=list[str])
    answers: list[str] = field(default_factory=list[str])
    prompt_hash: array[int] = field(default_factory=lambda: array("Q"))
    answer_hash: array[int] = field(default_factory=lambda: array("Q"))
    prompt_length: array[int] = field(default_factory=lambda: array("L"))
    answer_length: array[int] = field(default_factory=lambda: array("L"))
    answer_characters: array[int] = field(default_factory=lambda: array("L"))
    form: array[int] = field(default_factory=lambda: array("B"))
    script: list[str] = field(default_factory=list[str])
    prompt_sketch: SketchColumn = field(default_factory=SketchColumn)
    answer_sketch: SketchColumn = field(default_factory=SketchColumn)

    def __len__(self) -> int:
        return len(self.places)


@dataclass(slots=True)
class Pairs:
    """Columns of the student's answers, each with the item that it belongs to."""

    item: array[int] = field(default_factory=lambda: array("L"))
    length: array[int] = field(default_factory=lambda: array("L"))
    form: array[int] = field(default_factory=lambda: array("B"))
    cut: array[int] = field(default_factory=lambda: array("B"))
    identical: array[int] = field(default_factory=lambda: array("B"))
    in_script: array[float] = field(default_factory=lambda: array("f"))
    teacher_score: array[float] = field(default_factory=lambda: array("f"))
    student_score: array[float] = field(default_factory=lambda: array("f"))
    teacher_features: list[Float32] = field(default_factory=list[Float32])
    student_features: list[Float32] = field(default_factory=list[Float32])

    def __len__(self) -> int:
        return len(self.item)


@dataclass(slots=True)
class Drawn:
    """An item whose text is kept.

    Attributes:
        item: Its index.
        place: Where it stands.
        example: Prompt and teacher's answer.
        students: Index among the pairs → the student's answer.
    """

    item: int
    place: str
    example: Example
    students: dict[int, str] = field(default_factory=dict[int, str])


class Survey:
    """Takes rows one by one.

    Args:
        measure: Length of an answer.
        measure_prompt: Length of a prompt.
        num_drawn: Items whose text is kept.
        seed: Of the draw.
    """

    def __init__(self, *, measure: Measure, measure_prompt: MeasurePrompt, num_drawn: int, seed: int) -> None:
        self._measure = measure
        self._measure_prompt = measure_prompt
        self._num_drawn = num_drawn
        self._seed = seed
        self._index: dict[bytes, int] = {}
        self._students: set[bytes] = set()
        self._ids: dict[bytes, int] = {}
        self._draw: list[tuple[int, int]] = []
        self._drawn: dict[int, Drawn] = {}
        self.items = Items()
        self.pairs = Pairs()
        self.num_rows = 0
        self.num_usable = 0
        self.num_with_history = 0
        self.num_with_system = 0
        self.conversions: Counter[str] = Counter()
        self.unused: dict[str, None] = {}
        self.repeated = SampleBox()
        self.rejected: dict[Reason, SampleBox] = {}
        self.found: dict[tuple[Side, str], SampleBox] = {}
        self.checked: Counter[Side] = Counter()

    @property
    def drawn(self) -> list[Drawn]:
        """The items whose text is kept, in the order of the rows."""
        return [self._drawn[item] for item in sorted(self._drawn)]

    def add(self, row: SidedRow | Rejection) -> None:
        """Take one row."""
        self.num_rows += 1
        if isinstance(row, Rejection):
            self._reject(row.reason, str(row.place), row.excerpt, row.detail)
            return
        example, place = row.example, str(row.place)
        key = _digest(prompt_key(example.messages) + example.teacher_response.encode())
        if row.student is None and row.has_own_id and not self._is_new_id(example.id, key):
            detail = f"id {example.id!r} was given before"
            self._reject(Reason.DUPLICATE_ID, place, example.messages[-1].content, detail)
            return
        item = self._index.get(key)
        is_new = item is None
        if item is None:
            try:
                item = self._add_item(row, place, key)
            except DataError as refused:
                self._reject(Reason.WRONG_ROLES, place, example.messages[-1].content, refused.message)
                return
        self.num_usable += 1
        self.conversions.update(row.conversions)
        self.unused.update(dict.fromkeys(row.unused))
        self._note_repetition(row, key, is_new=is_new)
        if row.student is not None:
            pair = self.add_student(item, example, place, row.student, cut=row.student_cut)
            if row.scores is not None:
                self.set_scores(pair, *row.scores)

    def add_student(self, item: int, example: Example, place: str, text: str, *, cut: bool) -> int:
        """Add a student's answer to an item.

        Returns:
            Its index among the pairs.
        """
        answer = Answer.of(example.messages[-1].content, text, cut=cut)
        self._check(Side.STUDENT, answer, place)
        pairs, teacher = self.pairs, example.teacher_response
        pairs.item.append(item)
        pairs.length.append(self._measure(text))
        pairs.form.append(_FORMATS.index(answer.form))
        pairs.cut.append(cut)
        pairs.identical.append(text.strip() == teacher.strip())
        pairs.in_script.append(same_language(answer.prompt, text))
        pairs.teacher_score.append(float("nan"))
        pairs.student_score.append(float("nan"))
        pairs.teacher_features.append(_features(teacher, self.items.answer_length[item]))
        pairs.student_features.append(_features(text, pairs.length[-1]))
        if item in self._drawn:
            self._drawn[item].students[len(pairs) - 1] = text
        return len(pairs) - 1

    def set_scores(self, pair: int, teacher: float, student: float) -> None:
        """Say what a critic gave both sides of a pair."""
        self.pairs.teacher_score[pair] = teacher
        self.pairs.student_score[pair] = student

    def forget_scores(self) -> None:
        """Leave out the scores that came with the rows: another critic is asked."""
        for pair in range(len(self.pairs)):
            self.set_scores(pair, float("nan"), float("nan"))

    def _add_item(self, row: SidedRow, place: str, key: bytes) -> int:
        items, example = self.items, row.example
        prompt, text = example.messages[-1].content, example.teacher_response
        prompt_length = self._measure_prompt(example.messages)
        item = self._index[key] = len(items)
        self.num_with_history += any(message.role == "assistant" for message in example.messages)
        self.num_with_system += example.messages[0].role == "system"
        whole = "\n".join(message.content for message in example.messages)
        answer = Answer.of(prompt, text, cut=row.teacher_cut)
        items.places.append(place)
        items.prompts.append(shorten(prompt))
        items.answers.append(shorten(text))
        items.prompt_hash.append(_number(prompt_key(example.messages)))
        items.answer_hash.append(_number(" ".join(text.split()).encode()))
        items.prompt_length.append(prompt_length)
        items.answer_length.append(self._measure(text))
        items.answer_characters.append(len(text))
        items.form.append(_FORMATS.index(answer.form))
        items.script.append(main_script(prompt) or "")
        items.prompt_sketch.add(whole)
        items.answer_sketch.add(text)
        self._check(Side.TEACHER, answer, place)
        self.checked[Side.PROMPT] += 1
        for name, check in PROMPT_CHECKS.items():
            if (note := check(prompt)) is not None:
                self._box(Side.PROMPT, name).add(place, prompt, "", note)
        self._enter_draw(item, place, example, key)
        return item

    def _enter_draw(self, item: int, place: str, example: Example, key: bytes) -> None:
        """Keep the items of lowest rank."""
        if not self._num_drawn:
            return
        rank = -_number(f"{self._seed}:".encode() + key)
        if len(self._draw) < self._num_drawn:
            heapq.heappush(self._draw, (rank, item))
        elif rank > self._draw[0][0]:
            _, dropped = heapq.heapreplace(self._draw, (rank, item))
            del self._drawn[dropped]
        else:
            return
        self._drawn[item] = Drawn(item=item, place=place, example=example)

    def _note_repetition(self, row: SidedRow, key: bytes, *, is_new: bool) -> None:
        """Count a row that is there twice; further answers of the student to one prompt are no repetition."""
        if row.of_run:
            return
        if row.student is None:
            repeated = not is_new
        else:
            whole = _digest(key + row.student.encode("utf-8", "surrogatepass"))
            repeated = whole in self._students
            self._students.add(whole)
        if repeated:
            prompt, answer = row.example.messages[-1].content, row.example.teacher_response
            self.repeated.add(
                str(row.place), prompt, answer, "the same prompt and answer stand in an earlier row"
            )

    def _is_new_id(self, own_id: str, key: bytes) -> bool:
        """Whether an id is new, or its row is the same again, which is counted as a repetition."""
        value = _number(key)
        return self._ids.setdefault(_digest(own_id.encode("utf-8", "surrogatepass")), value) == value

    def _check(self, side: Side, answer: Answer, place: str) -> None:
        self.checked[side] += 1
        for name, check in ANSWER_CHECKS.items():
            if (note := check(answer)) is not None:
                self._box(side, name).add(place, answer.prompt, answer.text, note)

    def _box(self, side: Side, name: str) -> SampleBox:
        return self.found.setdefault((side, name), SampleBox())

    def _reject(self, reason: Reason, place: str, excerpt: str, detail: str) -> None:
        self.rejected.setdefault(reason, SampleBox()).add(place, excerpt, "", detail)


def _features(text: str, length: int) -> Float32:
    return np.concatenate([length_features(length), surface_features(text)])


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=12).digest()


def _number(value: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "little")
