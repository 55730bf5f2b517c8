"""Which prompts the next step takes: the cursor's position in the data, under a curriculum."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pydantic import JsonValue

from gad_ray.batch import PromptFigures
from gad_ray.config.curriculum import CurriculumConfig
from gad_ray.data.curriculum import make_curriculum
from gad_ray.data.cursor import PromptCursor
from gad_ray.errors import CheckpointError

_CURRICULUM = "curriculum"


class PromptSampler:
    """Draws the rows of each step, and learns from what the steps show.

    Args:
        ids: Id of every row, in the order of the rows.
        seed: Seed of the order.
        batch_size: Prompts that a step takes.
        curriculum: Its settings; None: all rows in random order.
        difficulty: The rows' difficulty, where the curriculum goes by that.

    Raises:
        DataError: If there are fewer rows than a step takes.
    """

    def __init__(
        self,
        ids: Sequence[str],
        *,
        seed: int,
        batch_size: int,
        curriculum: CurriculumConfig | None = None,
        difficulty: Sequence[float] = (),
    ) -> None:
        self._ids = ids
        self._seed = seed
        self._batch_size = batch_size
        self._row_of = {row_id: row for row, row_id in enumerate(ids)}
        self._curriculum = make_curriculum(
            curriculum, difficulty=difficulty, num_rows=len(ids), batch_size=batch_size
        )
        self._cursor = PromptCursor(
            ids, seed=seed, batch_size=batch_size, arrange=self._curriculum.arrangement
        )

    @property
    def epoch(self) -> float:
        """Epochs drawn so far, with their fraction."""
        return self._cursor.epoch

    def num_admitted(self, game_step: int) -> int:
        """Prompts that the curriculum lets in at present."""
        return self._cursor.epoch_size - len(self._curriculum.skipped(game_step))

    def next_batch(self, game_step: int) -> tuple[int, ...]:
        """Rows of a step, all different.

        Args:
            game_step: Step of the adversarial stage, from 1 on; 0 or less in the warm-up.
        """
        return self._cursor.next_batch(skip=self._curriculum.skipped(game_step))

    def more(self, count: int, *, held: Collection[int], game_step: int) -> tuple[int, ...]:
        """Up to ``count`` further rows for a step that holds some; fewer only if there are no others."""
        return self._cursor.draw(count, held=held, skip=self._curriculum.skipped(game_step))

    def observe(self, figures: PromptFigures) -> None:
        """Let the curriculum learn from what a step has shown of its prompts."""
        for row_id, gap, has_spread in zip(
            figures.example_ids, figures.gap.tolist(), figures.has_spread.tolist(), strict=True
        ):
            self._curriculum.observe(self._row_of[row_id], gap=gap, has_spread=has_spread)

    def position(self) -> dict[str, JsonValue]:
        """Where the data stand between two steps, without what the curriculum has learned."""
        return self._cursor.state()

    def state(self, position: Mapping[str, JsonValue] | None = None) -> dict[str, JsonValue]:
        """All that drawing goes on from, as JSON values.

        Args:
            position: An earlier :meth:`position` to go back to; None: the present one.
        """
        state = dict(self.position() if position is None else position)
        if learned := self._curriculum.state():
            state[_CURRICULUM] = learned
        return state

    def load_state(self, state: Mapping[str, JsonValue]) -> None:
        """Go on where :meth:`state` was taken.

        Raises:
            CheckpointError: If it was taken with other rows, another seed or curriculum, or is damaged.
        """
        position = {key: value for key, value in state.items() if key != _CURRICULUM}
        learned = state.get(_CURRICULUM, {})
        if not isinstance(learned, dict):
            raise CheckpointError(
                f"the data position cannot be read: its curriculum is a {type(learned).__name__}",
                where="data position",
                hint="resume from another checkpoint",
            )
        self._curriculum.load_state(learned)
        self._cursor = PromptCursor.from_state(
            position,
            self._ids,
            seed=self._seed,
            batch_size=self._batch_size,
            arrange=self._curriculum.arrangement,
        )
