"""The table of findings: what is judged, from which value on it matters, what it means and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gad_ray.quality import measures as measure
from gad_ray.quality.figures import Figures
from gad_ray.quality.measures import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that is judged.

    Attributes:
        name: Its name in kebab-case.
        measure: The figures → what is judged, or None where it was not measured or is not there at all.
        note: Value from which it is worth knowing; None: never only that.
        warning: Value from which it is a warning.
        critical: Value from which it is critical.
        meaning: What it means, in a sentence or two.
        hints: What to do about it, most promising first.
        overrides: Settings that answer it, as ``key=value``; each is worth trying on its own.
    """

    name: str
    measure: Callable[[Figures], Measured | None]
    note: float | None = None
    warning: float | None = None
    critical: float | None = None
    meaning: str
    hints: tuple[str, ...]
    overrides: tuple[str, ...] = ()


RULES: tuple[Rule, ...] = (
    Rule(
        name="length-shortcut",
        measure=measure.length_only,
        warning=0.75,
        critical=0.9,
        meaning=(
            "Length alone tells teacher from student. Length is the first shortcut that a critic finds, and from "
            "0.9 on it has no need to learn anything else: the policy is then rewarded for length."
        ),
        hints=("ask the teacher for the length you want; sample the student with room for it",),
        overrides=("critic.truncated=exclude",),
    ),
    Rule(
        name="surface-shortcut",
        measure=measure.surface_only,
        warning=0.8,
        critical=0.9,
        meaning=(
            "Marks on the surface (punctuation, line breaks, lists, blanks at the ends) tell teacher from student "
            "without a word being read. A critic will go by them first; one that only the data's making put there "
            "(a blank, a kind of quote) teaches the policy nothing but that mark."
        ),
        hints=(
            "make alike on both sides what the collection put there: blanks, quotes, markup; a style may stay",
            "fit the policy to the teacher's text before the game, so that style is not what is left to tell",
        ),
        overrides=("stages.warmup.policy=cross_entropy",),
    ),
    Rule(
        name="score-follows-length",
        measure=measure.score_length,
        warning=0.5,
        critical=0.8,
        meaning=(
            "The critic's score goes with the length of what it scores: as a reward it teaches the policy to write "
            "longer, or shorter, before it teaches anything else."
        ),
        hints=("look at the length gap of the data, and mend it there first",),
        overrides=("critic.truncated=exclude",),
    ),
    Rule(
        name="teacher-loses",
        measure=measure.teacher_loses,
        warning=0.5,
        critical=0.6,
        meaning=(
            "The critic puts the student above the teacher in most pairs: the sides may be swapped in the file, or the "
            "critic was trained on other data, or it has been beaten and its score no longer means the teacher."
        ),
        hints=(
            "compare a few rows by eye: is teacher_response really the teacher's?",
            "score with a critic that was trained on data like these",
        ),
    ),
    Rule(
        name="sides-alike",
        measure=measure.identical,
        note=0.01,
        warning=0.05,
        critical=0.5,
        meaning=(
            "The student's answer is the teacher's, to the letter. Such pairs teach a critic nothing; many of them "
            "mean that one column was copied into the other."
        ),
        hints=("check how the student's column was filled", "drop the rows"),
    ),
    Rule(
        name="unusable-rows",
        measure=measure.unusable,
        note=0.0,
        warning=0.01,
        critical=0.05,
        meaning=(
            "Training puts these rows into quarantine, and refuses to start where their share is above "
            "data.max_quarantined_fraction (0.05 if nothing else is set). Text is never repaired."
        ),
        hints=("mend or drop the rows named; encoding faults are mended where the file was made, not after",),
    ),
    Rule(
        name="duplicate-rows",
        measure=measure.duplicate_rows,
        note=0.0,
        warning=0.01,
        critical=0.05,
        meaning=(
            "The same prompt and answer stand in several rows. Training keeps the first and puts the others into "
            "quarantine, where they count toward data.max_quarantined_fraction."
        ),
        hints=("drop the repetitions",),
    ),
    Rule(
        name="duplicate-prompts",
        measure=measure.duplicate_prompts,
        note=0.01,
        warning=0.1,
        meaning=(
            "One prompt has several different answers of the teacher. That is sound if they are samples of one "
            "teacher; it weighs these prompts more, and where answers come from several teachers the critic has no "
            "one to tell."
        ),
        hints=("keep one answer a prompt, unless several were meant",),
    ),
    Rule(
        name="near-duplicate-prompts",
        measure=measure.near_prompts,
        note=0.02,
        warning=0.1,
        critical=0.5,
        meaning=(
            "Prompts that differ in a few characters: the data hold less than their number says, and a random "
            "held-out draw has neighbours in what is trained on."
        ),
        hints=(
            "keep one of each cluster",
            "hold out by cluster or by source, in a file of its own: data.heldout=[FILE]",
        ),
    ),
    Rule(
        name="shared-answers",
        measure=measure.shared_answers,
        note=0.005,
        warning=0.03,
        critical=0.3,
        meaning=(
            "The same answer, or nearly, to at least five different prompts: refusals, errors of the endpoint, or "
            "boilerplate. A critic learns to like them anywhere."
        ),
        hints=("read the samples; drop refusals and errors, and collect these prompts again",),
    ),
    Rule(
        name="heldout-leak",
        measure=measure.heldout_exact,
        note=0.0,
        warning=0.01,
        critical=0.5,
        meaning=(
            "Held-out prompts are in the data to train on. With data.heldout set, training leaves those rows out; "
            "anything else that trains on this file does not, and its figures on the held-out prompts prove nothing."
        ),
        hints=(
            "drop the rows from the training file",
            "name the held-out file in every run: data.heldout=[FILE]",
        ),
    ),
    Rule(
        name="heldout-near-leak",
        measure=measure.heldout_near,
        note=0.0,
        warning=0.02,
        critical=0.1,
        meaning=(
            "Held-out prompts have near-duplicates in the data to train on. Nothing leaves those out: figures on "
            "them flatter every method that learns by heart."
        ),
        hints=("drop them on either side", "split by cluster or by source, not row by row"),
    ),
    Rule(
        name="template-in-answers",
        measure=measure.template_in_answers,
        note=0.0,
        warning=0.001,
        critical=0.01,
        meaning=(
            "Control tokens of a chat template are spelled out inside the teacher's answers. The policy learns to "
            "write them, and if the student's text has none of them they are all that a critic needs."
        ),
        hints=("strip them where the answers are collected, or drop the rows",),
        overrides=("reward.format=[{name: leaked_control}]",),
    ),
    Rule(
        name="turns-in-answers",
        measure=measure.turns_in_answers,
        note=0.0,
        warning=0.01,
        critical=0.1,
        meaning=(
            "Lines of the teacher's answers begin as a turn does (Human:, Assistant:, ### Response:): an answer that "
            "went on to play the user, or a transcript cut in the wrong place."
        ),
        hints=("cut at the first such line, or drop the rows",),
        overrides=("reward.format=[{name: leaked_control, markers: ['Human:', 'Assistant:']}]",),
    ),
    Rule(
        name="template-in-prompts",
        measure=measure.template_in_prompts,
        note=0.0,
        warning=0.01,
        critical=0.2,
        meaning=(
            "Prompts carry control tokens of a chat template: they were rendered already. They are rendered again, "
            "the tokens inside taken as text, and the policy reads a prompt it was never made for."
        ),
        hints=(
            "give the bare conversation as content, a text or a list of messages; the template is put on at training",
        ),
    ),
    Rule(
        name="truncated-answers",
        measure=measure.truncated,
        note=0.005,
        warning=0.03,
        critical=0.2,
        meaning=(
            "The teacher's answers seem to have been cut off. By heuristic, unless the rows say so: an end in the "
            "middle of a sentence, a fence or bracket left open. The policy learns to stop like that."
        ),
        hints=(
            "collect them again with a higher limit: gad-ray data collect --max-tokens",
            "drop those that remain",
        ),
    ),
    Rule(
        name="student-cut",
        measure=measure.student_cut,
        note=0.02,
        warning=0.1,
        critical=0.5,
        meaning=(
            "The student's answers run into the token limit. Where the teacher's do not, an end in the middle of a "
            "sentence is all that a critic needs to see."
        ),
        hints=("give the student as much room as the teacher had",),
        overrides=("critic.truncated=exclude",),
    ),
    Rule(
        name="long-prompts",
        measure=measure.long_prompts,
        warning=0.0,
        critical=0.05,
        meaning=(
            "Prompts are longer, with the chat template, than data.max_prompt_tokens is if nothing else is set: a run "
            "refuses to start, unless it is told to leave them out."
        ),
        hints=("leave them out, or give them room",),
        overrides=("data.long_prompts=skip",),
    ),
    Rule(
        name="long-answers",
        measure=measure.long_answers,
        note=0.0,
        warning=0.01,
        critical=0.05,
        meaning="Answers of the teacher are longer than data.max_teacher_tokens is if nothing else is set: they are quarantined.",
        hints=("drop them, or give them room",),
    ),
    Rule(
        name="other-script",
        measure=measure.other_script,
        note=0.005,
        warning=0.03,
        critical=0.3,
        meaning=(
            "The teacher answers in another script than the prompt's. Right where a translation was asked for, and "
            "wrong elsewhere: see the samples. The reward's term for language judges by the same measure."
        ),
        hints=("drop the rows that did not ask for it",),
    ),
    Rule(
        name="student-other-script",
        measure=measure.student_other_script,
        note=0.01,
        warning=0.05,
        critical=0.5,
        meaning="The student answers in another script than the prompt's, and more often than the teacher.",
        hints=("choose a student that speaks the language, or reward it",),
        overrides=("reward.format=[{name: language}]",),
    ),
    Rule(
        name="invisible-characters",
        measure=measure.invisible,
        note=0.0,
        warning=0.005,
        critical=0.2,
        meaning=(
            "Zero-width characters, soft hyphens or marks of direction, which nobody sees and every tokenizer does: "
            "a mark that tells the teacher's text from any other."
        ),
        hints=("remove them where the text is collected",),
    ),
    Rule(
        name="broken-student-text",
        measure=measure.student_broken,
        note=0.01,
        warning=0.05,
        critical=0.3,
        meaning=(
            "The student's answers hold control characters or mojibake; the teacher's cannot, because such rows are "
            "not used. A critic needs no more than that."
        ),
        hints=("check how the student's text was decoded and stored",),
    ),
    Rule(
        name="repetitive-answers",
        measure=measure.repetitive,
        note=0.005,
        warning=0.02,
        critical=0.2,
        meaning="The teacher's answers repeat themselves: loops of a small teacher, or tables and test cases.",
        hints=("read the samples; drop loops",),
    ),
    Rule(
        name="echoed-prompts",
        measure=measure.echoed,
        note=0.005,
        warning=0.02,
        critical=0.2,
        meaning="The teacher's answers begin with the whole prompt: prompt and completion were stored as one.",
        hints=("cut the prompt off the answers",),
    ),
    Rule(
        name="timestamps",
        measure=measure.timestamps,
        note=0.02,
        warning=0.3,
        meaning=(
            "The teacher's answers hold dates with a time of day or bracketed times. The reward's term against leaked "
            "control text counts them as leaked unless it is told not to."
        ),
        hints=("nothing, unless that term is in use",),
        overrides=("reward.format=[{name: leaked_control, timestamps: false}]",),
    ),
    Rule(
        name="few-prompts",
        measure=measure.few_prompts,
        note=1 / 1000,
        warning=1 / 100,
        meaning="So few distinct prompts are learned by heart by critic and policy alike.",
        hints=("collect answers to more prompts: gad-ray data collect",),
    ),
)
"""All that is judged, what matters most first."""
