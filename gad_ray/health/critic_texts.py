"""What a diagnosis of a critic says, in English and in Chinese."""

from __future__ import annotations

from collections.abc import Mapping

from gad_ray.health.texts import Language, Phrases

CRITIC_TEXTS: Mapping[str, Mapping[Language, str]] = {
    "critic-not-finite": {
        "en": (
            "The critic has lost its numbers: no score of it means anything. Take an earlier checkpoint, and find the "
            "step with gad-ray diagnose RUN."
        ),
        "zh": "判别器的数值已损坏：它的任何分数都没有意义。请退回更早的检查点，并用 gad-ray diagnose RUN 找到出错的步。",
    },
    "token-values-collapsed": {
        "en": (
            "All tokens get nearly the same value: the critic has collapsed, or was never trained. Take an earlier "
            "checkpoint, or let the warm-up go on."
        ),
        "zh": "所有 token 的值几乎相同：判别器已坍缩，或从未训练过。请退回更早的检查点，或延长预热。",
    },
    "token-values-extreme": {
        "en": (
            "Single tokens get extreme values: one of them can decide a score. A stronger score penalty, a lower rate or "
            "mean pooling keep them in bounds; look at the texts that hold them."
        ),
        "zh": "个别 token 的值过大：一个 token 就能决定分数。可加强分数惩罚、降低学习率或使用均值池化；并检查含有这些 token 的文本。",
    },
    "same-text-scored-apart": {
        "en": (
            "A score depends on what is scored beside it: padding, packing or precision is at fault, and no score of this "
            "critic on this machine can be relied on."
        ),
        "zh": "分数取决于同批的其他文本：填充、拼接或精度有误，该判别器在此机器上的分数不可信。",
    },
    "punctuation-decides": {
        "en": (
            "A punctuation mark moves the score farther than {limit}: the policy will be paid for punctuation. With the "
            "pooling last that is so by construction: take critic.pooling=mean, or warm up longer."
        ),
        "zh": "一个标点就能使分数变动超过 {limit}：策略会因标点得到奖励。last 池化必然如此：请用 critic.pooling=mean，或延长预热。",
    },
    "similar-answers-apart": {
        "en": (
            "Answers that differ by one repeated word lie {limit} or more apart: the critic judges the form of an answer "
            "more than what it says. A higher temperature of the loss, a stronger score penalty or mean pooling smooth "
            "it."
        ),
        "zh": "只差一个重复词的回答相差 {limit} 以上：判别器看重形式甚于内容。提高损失温度、加强分数惩罚或均值池化可使其平滑。",
    },
    "mean-score-far-from-zero": {
        "en": (
            "The scores have drifted far from 0: only differences within one prompt mean anything, but the penalty on "
            "large scores should have held them."
        ),
        "zh": "分数已远离 0：虽然只有同一提示内的差值有意义，但分数惩罚本应约束它们。",
    },
}
"""Rule → language → what it means: rules of a critic by itself, beside those of a run that hold of its scores too.

``{limit}`` stands for the rule's limit.
"""

tell = Phrases(
    {
        "judged": {
            "en": "Critic {place} ({steps} optimiser steps), on {rows} rows of {data}: {pairs} with a student's answer.",
            "zh": "判别器 {place}（{steps} 个优化步），数据 {data} 的 {rows} 行，其中 {pairs} 行带学生回答。",
        },
        "column-figure": {"en": "figure", "zh": "指标"},
        "column-value": {"en": "value", "zh": "数值"},
        "column-accepted": {"en": "accepted", "zh": "可接受"},
        "token-mean": {"en": "tokens' values: mean", "zh": "token 值：均值"},
        "token-std": {"en": "tokens' values: standard deviation", "zh": "token 值：标准差"},
        "token-large": {"en": "tokens' values: share with |v| > 10", "zh": "token 值：|v| > 10 的比例"},
        "token-small": {"en": "tokens' values: share with |v| < 0.1", "zh": "token 值：|v| < 0.1 的比例"},
        "token-max": {"en": "tokens' values: largest |v|", "zh": "token 值：最大 |v|"},
        "score-mean": {"en": "scores: mean", "zh": "分数：均值"},
        "score-std": {"en": "scores: standard deviation", "zh": "分数：标准差"},
        "score-max": {"en": "scores: largest |s|", "zh": "分数：最大 |s|"},
        "same-call": {
            "en": "identical answer in one call: largest |Δ|",
            "zh": "同一次调用中的相同回答：最大 |Δ|",
        },
        "same-apart": {
            "en": "identical answer scored alone: largest |Δ|",
            "zh": "单独评分的相同回答：最大 |Δ|",
        },
        "punctuation": {
            "en": "final punctuation changed: |Δ| mean / 95 % / largest",
            "zh": "句末标点改变：|Δ| 均值 / 95 % / 最大",
        },
        "similar": {
            "en": "middle word written twice: |Δ| mean / 95 % / largest",
            "zh": "中间词写两遍：|Δ| 均值 / 95 % / 最大",
        },
        "d-acc": {"en": "d_acc, teacher above student", "zh": "d_acc，教师高于学生"},
        "score-diff": {"en": "score_diff, teacher − student", "zh": "score_diff，教师 − 学生"},
        "score-separation": {"en": "score_separation", "zh": "score_separation"},
        "not-finite": {"en": "numbers that are not finite", "zh": "非有限数的个数"},
        "left-out": {
            "en": "{unusable} rows were not usable, {too_long} were longer than the critic's limit.",
            "zh": "{unusable} 行不可用，{too_long} 行超过判别器的长度上限。",
        },
        "no-students": {
            "en": "No row has a student's answer (student_response, response or student): d_acc and score_diff are not known.",
            "zh": "没有行带学生回答（student_response、response 或 student）：d_acc 与 score_diff 未知。",
        },
        "healthy": {
            "en": "nothing wrong with this critic on these data",
            "zh": "在这些数据上未发现该判别器的问题",
        },
    }
)
