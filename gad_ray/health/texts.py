"""What a rule that holds means, in English and in Chinese; when it holds is said by :mod:`gad_ray.health.sentences`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


@dataclass(frozen=True, slots=True)
class Phrases:
    """What is said, in every language; called, it gives a phrase with its values in place.

    Attributes:
        texts: Phrase → language → text, with places for what it is said of.
    """

    texts: Mapping[str, Mapping[Language, str]]

    def __call__(self, phrase: str, language: Language, **values: object) -> str:
        """A phrase with its values in place."""
        return self.texts[phrase][language].format(**values)


@dataclass(frozen=True, slots=True)
class RuleText:
    """What is said of a rule in one language.

    Attributes:
        meaning: What that means, with what to look at where no setting mends it. ``{sampling}`` stands for the
            sampling settings that differ, ``{metrics}`` and ``{lost}`` for names of metrics with their first step.
        remark: What is said too where the rule's remark applies.
    """

    meaning: str
    remark: str = ""


TEXTS: Mapping[str, Mapping[Language, str]] = {
    "not-a-number": {
        "en": (
            "What is not a number cannot be judged, and what is trained on it is lost: {metrics}. Go back to a checkpoint "
            "from before the first of these steps, and look at its rows for what overflowed."
        ),
        "zh": "不是数的值无法判断，以此训练的内容也随之报废：{metrics}。请回到这些步之前的检查点，并检查该步的数据行，找出溢出的来源。",
    },
    "metrics-lost": {
        "en": "Nothing can be judged of what is not logged: {lost}. What they measure may have stopped, or its logging.",
        "zh": "没有记录就无从判断：{lost}。可能是被测的部分停止了，也可能只是不再记录。",
    },
    "critic-overconfident": {
        "en": (
            "The critic tells teacher and student apart without effort, so that its score says little about which "
            "response is better. Look at the data too: a mark that only one side carries is enough."
        ),
        "zh": "判别器毫不费力就能区分教师与学生，其分数已很难说明哪个回答更好。也请检查数据：只要有一个仅单侧出现的标记，就足以造成这种现象。",
    },
    "critic-blind": {
        "en": (
            "The critic hardly tells teacher from student, so that its score is mostly noise as a reward. Late in the "
            "game this is success if the policy came nearer to the teacher by a measure that is not the critic's, and "
            "collapse if it did not."
        ),
        "zh": "判别器几乎分不清教师与学生，用作奖励的分数大多是噪声。在对抗阶段后期，若按判别器之外的指标策略更接近教师，这是成功；否则是坍缩。",
    },
    "scores-too-far-apart": {
        "en": "Teacher and student are scored so far apart that the ranking loss has little left to teach.",
        "zh": "教师与学生的分数相距过远，排序损失已经没有多少可学的内容。",
    },
    "scores-indistinct": {
        "en": "Teacher and student are scored nearly alike: the critic has not learned to rank yet.",
        "zh": "教师与学生的分数几乎相同：判别器尚未学会排序。",
    },
    "scores-stand-still": {
        "en": (
            "The score difference does not change from step to step, as it would with fresh samples: the critic is not "
            "updated, its updates are undone, or the same responses are scored again and again. Look at critic/grad_norm, "
            "critic/lr and the critic's version."
        ),
        "zh": "分数差在各步之间毫无变化，而新样本本应使其变化：判别器没有更新、更新被撤销，或反复对同样的回答打分。请查看 critic/grad_norm、critic/lr 和判别器版本。",
    },
    "loss-saturated": {
        "en": "The sigmoid of the ranking loss sits at its end, where the loss has next to no gradient.",
        "zh": "排序损失的 sigmoid 已处于饱和端，损失几乎没有梯度。",
    },
    "score-collapse": {
        "en": "The critic gives nearly the same score to everything. Go back to an earlier checkpoint.",
        "zh": "判别器对所有回答给出几乎相同的分数。请回到更早的检查点。",
    },
    "extreme-scores": {
        "en": "Single scores are so large that they outweigh all others in the advantages.",
        "zh": "个别分数过大，在优势中压过了其余所有样本。",
    },
    "scores-rounded": {
        "en": (
            "The scores were rounded on their way from the value head: they lie on a grid, which is 1/32 wide from 4 on, "
            "and responses of a group tie. Head, pooling and loss belong in float32, whatever the backbone computes in."
        ),
        "zh": "分数在离开打分头之后被舍入：它们落在网格上，从 4 起间隔为 1/32，组内回答因此同分。无论主干用何种精度，打分头、池化和损失都应使用 float32。",
    },
    "gradient-explosion": {
        "en": (
            "The critic's gradient is far too large: by outliers among the rows of these steps, or by a temperature below "
            "1, which multiplies it."
        ),
        "zh": "判别器的梯度过大：可能由这些步的数据行中的异常样本造成，也可能因为温度低于 1 而被放大。",
    },
    "gradient-vanished": {
        "en": "The critic's gradient is so small that it stands still.",
        "zh": "判别器的梯度过小，实际上已停止学习。",
    },
    "steps-skipped": {
        "en": (
            "What these steps should have taught is lost, and more than a few in a row end the run. Look for rows that "
            "make the loss overflow: the records of these steps hold them."
        ),
        "zh": "这些步本应学到的内容丢失了，连续多次会使训练终止。请查找使损失溢出的数据行：这些步的记录中保存着它们。",
    },
    "discriminator-reward-out-of-range": {
        "en": "The critic's scores of the student have drifted away from zero.",
        "zh": "判别器对学生的打分已经偏离零点。",
    },
    "policy-stands-still": {
        "en": (
            "The policy hardly changes any more, or never did. The rules beside this one name the causes that can be "
            "seen: squeezed advantages, a small learning rate, a KL term that drowns the loss, groups without spread."
        ),
        "zh": "策略几乎不再变化，或从未变化。同时列出的其他规则指出了可以看到的原因：优势被压缩、学习率过小、KL 项淹没损失、组内没有差异。",
    },
    "policy-runs-away": {
        "en": (
            "The policy has gone so far from where it began that it hardly writes the same language any more. Its steps "
            "are too long for what the reward can tell. Go back to an earlier checkpoint."
        ),
        "zh": "策略离出发点太远，几乎已不再说同一种语言。它的步子超出了奖励所能指引的范围。请回到更早的检查点。",
    },
    "advantages-squeezed": {
        "en": (
            "Advantages of a group have a standard deviation near 1 (grpo) or near 0.6 (rank) when they are made. One "
            "this small means that the divisor's floor lies above the rewards' spread, or that something scaled them "
            "afterwards."
        ),
        "zh": "组内优势刚算出时，标准差约为 1（grpo）或约为 0.6（rank）。如此之小说明除数下限高于奖励的离散程度，或者优势在算出之后又被缩放过。",
    },
    "lr-too-small": {
        "en": (
            "The policy learns so much more slowly than in its warm start that the game does not move it. Raise the rate "
            "tenfold, and keep a KL term beside it."
        ),
        "zh": "策略的学习率远低于热启动时，对抗训练推不动它。请把学习率提高十倍，并保留 KL 项。",
    },
    "kl-drowns-the-loss": {
        "en": "The penalty for leaving the reference outweighs the reward: the policy is held where it is.",
        "zh": "偏离参考策略的惩罚压过了奖励：策略被固定在原处。",
    },
    "no-spread-in-groups": {
        "en": "Most groups carry no signal: their responses are alike, or are scored alike.",
        "zh": "多数组不携带任何信号：组内回答相同，或得分相同。",
    },
    "length-shortcut": {
        "en": (
            "Length decides the score, or the student writes far more than the teacher: the first shortcut that a critic "
            "finds. Look at how many responses are cut at the token limit."
        ),
        "zh": "长度决定了分数，或学生写得远多于教师：这是判别器最先找到的捷径。请查看有多少回答在长度上限处被截断。",
    },
    "length-collapse": {
        "en": (
            "The policy hardly answers any more. It moves too far in a step for the critic to follow, or the reward "
            "favours silence. Go back to an earlier checkpoint."
        ),
        "zh": "策略几乎不再作答。它每一步走得太远，判别器跟不上，或者奖励偏好沉默。请回到更早的检查点。",
    },
    "reward-hacking": {
        "en": (
            "What the policy gains is the critic's weakness, not the teacher's likeness. Let the critic learn more from "
            "every step, and keep past responses in its batch."
        ),
        "zh": "策略得到的是判别器的漏洞，而不是与教师的相似。请让判别器每步多学一些，并在其批次中保留过去的回答。",
    },
    "train-eval-gap": {
        "en": "The critic ranks this policy's fresh samples much better than the fixed evaluation set: it overfits them.",
        "zh": "判别器对当前策略新样本的排序远好于固定评测集：它过拟合了这些新样本。",
    },
    "evaluation-near-collapse": {
        "en": (
            "On the evaluation the critic is hardly better than chance and its scores hardly differ, although it ranks in "
            "training. Before anything else make sure that it is the same critic, the same template and the same "
            "sampling."
        ),
        "zh": "在评测上，判别器几乎等于随机猜测，分数也几乎没有差别，尽管它在训练中能够排序。请首先确认是同一个判别器、同一个模板、同样的采样设置。",
    },
    "sampling-differs": {
        "en": (
            "Training and evaluation were not sampled alike ({sampling}), so that their figures do not compare. Test with "
            "training's settings, or train with those of the test."
        ),
        "zh": "训练与评测的采样设置不同（{sampling}），两者的数字不可比较。请按训练的设置评测，或按评测的设置训练。",
    },
    "fingerprint-unknown": {
        "en": (
            "Nothing proves that the critic that was tested is the one that was trained: it may be another checkpoint, "
            "template, pooling or tokenizer. Compare fingerprints before drawing a conclusion."
        ),
        "zh": "没有证据表明被测试的判别器就是训练的那个：检查点、模板、池化或分词器都可能不同。下结论之前请先比对指纹。",
    },
    "fingerprint-differs": {
        "en": (
            "Another critic was tested than the one that was trained: weights, head, template, pooling, tokenizer or "
            "dtype differ."
        ),
        "zh": "被测试的不是训练的那个判别器：权重、打分头、模板、池化、分词器或数据类型有所不同。",
    },
    "identical-text-differs": {
        "en": (
            "The critic sees something that is not in the text, such as an end-of-turn token that only one side has. "
            "d_acc then says nothing. Render and mask both sides alike."
        ),
        "zh": "判别器看到了文本之外的东西，例如只有一侧带有的结束符。此时 d_acc 毫无意义。请对两侧使用相同的渲染与掩码。",
    },
    "ranking-loss-oscillates": {
        "en": "The ranking loss swings by more than half of its mean: the critic's steps are too long.",
        "zh": "排序损失的摆动超过其均值的一半：判别器的步子太大。",
    },
    "rollout-trainer-mismatch": {
        "en": (
            "The rollout engine and the trainer disagree on the probability of the same tokens: precision, chat template "
            "or stale weights. The policy is trained on samples that are not its own."
        ),
        "zh": "采样引擎与训练器对同样 token 的概率看法不一：精度、对话模板或陈旧权重。策略是在并非自己产生的样本上训练的。",
    },
    "stalled": {
        "en": "The run waits for something. The last line of the log says for what; the actors' logs say why.",
        "zh": "训练在等待某样东西。日志最后一行说明在等什么；各 actor 的日志说明原因。",
    },
}
"""Rule → language → what it means."""

REMARKS: Mapping[str, Mapping[Language, str]] = {
    "advantages-squeezed": {
        "en": (
            "These are rank advantages, which do not depend on how far the rewards are apart: only a scaling after they "
            "were made explains it, such as a second normalisation."
        ),
        "zh": "这里用的是 rank 优势，它与奖励相差多少无关：只有算出之后的缩放（例如二次归一化）才能解释这一数值。",
    },
}
"""Rule → language → what is said too where its remark applies."""


def text_of(rule: str, language: Language) -> RuleText:
    """What is said of a rule."""
    return RuleText(TEXTS[rule][language], REMARKS[rule][language] if rule in REMARKS else "")
