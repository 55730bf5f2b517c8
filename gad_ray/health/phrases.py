"""Names of signals, and what a diagnosis says around the rules, in English and in Chinese."""

from __future__ import annotations

from collections.abc import Mapping

from gad_ray.health.signals import Signal
from gad_ray.health.texts import Language, Phrases

_CHINESE: Mapping[Signal, str] = {
    Signal.SIGMOID_MEAN: "平均 sigmoid(d/τ)",
    Signal.SCORE_STD: "分数标准差",
    Signal.SCORE_MEAN_SIZE: "平均分的绝对值",
    Signal.SCORE_SIZE_MAX: "最大 |分数|",
    Signal.CRITIC_GRAD_NORM: "判别器 grad_norm",
    Signal.DISCRIMINATOR_REWARD: "判别器奖励",
    Signal.REWARD: "奖励",
    Signal.LEAD: "学生分数高出教师的部分",
    Signal.EVAL_REWARD: "eval/reward 高出教师的部分",
    Signal.ROUNDED_SCORES: "被舍入到 bfloat16 的分数比例",
    Signal.SKIPPED_STEPS: "跳过的优化步数",
    Signal.SCORE_LENGTH_CORR: "corr(分数, 长度)",
    Signal.RESPONSE_LENGTH: "回答长度",
    Signal.TEACHER_LENGTH: "教师长度",
    Signal.ADV_STD: "优势标准差",
    Signal.KL: "相对参考策略的 KL",
    Signal.KL_SHARE: "KL 项占梯度的比例",
    Signal.ZERO_SPREAD: "无差异组的比例",
    Signal.POLICY_LR: "策略学习率",
    Signal.WARM_START_LR: "热启动学习率",
    Signal.RANKED: "rank 优势",
    Signal.STEP_SECONDS: "没有新步的秒数",
    Signal.STEP_TIME_RATIO: "步时 / 中位数",
    Signal.SAMPLING_DIFFERENCES: "不同的采样设置数",
    Signal.SAME_CRITIC: "评测用的是同一判别器",
    Signal.IDENTICAL_DIFF: "相同文本的分数差",
    Signal.NUM_NONFINITE: "不是数的指标个数",
    Signal.NUM_LOST: "不再记录的指标个数",
}
"""What is not a name of a metric or a formula."""

say = Phrases(
    {
        # -- findings
        "partial": {"en": "judged on {there} of {window} steps", "zh": "仅据 {window} 步中的 {there} 步判断"},
        "numbers": {"en": "numbers of steps {first}–{last}", "zh": "数值来自第 {first}–{last} 步"},
        "since-step": {"en": "{what} (since step {step})", "zh": "{what}（自第 {step} 步起）"},
        "try": {"en": "Try {overrides}.", "zh": "可尝试 {overrides}。"},
        "or": {"en": " or ", "zh": " 或 "},
        "and": {"en": ", ", "zh": "、"},
        "space": {"en": " ", "zh": ""},
        "differs": {
            "en": "{what} {training} in training, {evaluation} in the evaluation",
            "zh": "{what} 训练 {training}，评测 {evaluation}",
        },
        "in-training": {"en": "{what} in training", "zh": "训练的 {what}"},
        "in-evaluation": {"en": "{what} in the evaluation", "zh": "评测的 {what}"},
        # -- answers
        "answer-applied": {
            "en": "step {step}: {key} {before} → {after} from here on, because of {rules}",
            "zh": "第 {step} 步：此后 {key} {before} → {after}，原因：{rules}",
        },
        "answer-undone": {
            "en": "step {step}: {key} {before} → {after} again: {rules} is over",
            "zh": "第 {step} 步：{key} {before} → {after} 恢复原值：{rules} 已消失",
        },
        # -- what is well
        "gradient-healthy": {
            "en": "The critic's gradient norm is healthy: between 0.3 and 5.",
            "zh": "判别器的梯度范数健康：在 0.3 与 5 之间。",
        },
        "identical-text-alike": {
            "en": "Identical text gets identical scores: end-of-turn tokens and masks are handled soundly.",
            "zh": "相同文本得到相同分数：结束符与掩码的处理是可靠的。",
        },
        "in-target-band": {
            "en": "The critic is in the target band: d_acc between 0.65 and 0.85, score_diff between 1 and 5.",
            "zh": "判别器处于目标区间：d_acc 在 0.65 与 0.85 之间，score_diff 在 1 与 5 之间。",
        },
        "above-target-band": {
            "en": "d_acc lies above the target band of 0.65 to 0.85. Up to 0.95 that is healthy while score_diff stays "
            "between 1 and 5 and the loss is not saturated, as here.",
            "zh": "d_acc 高于 0.65 至 0.85 的目标区间。只要 score_diff 保持在 1 与 5 之间且损失未饱和（如此处），直到 0.95 都算健康。",
        },
        "negative-reward-explained": {
            "en": "A negative reward in the warm-up is normal: the score is relative, and only differences within one "
            "prompt mean anything.",
            "zh": "预热阶段奖励为负是正常的：分数是相对的，只有同一提示内的差值才有意义。",
        },
        "closer-than-the-critic-sees": {
            "en": "d_acc is near 0.5 while the teacher's text became likelier to the policy: the critic can no longer tell the student from the "
            "teacher, which is what the game is for.",
            "zh": "d_acc 接近 0.5，而教师文本在策略下变得更可能：判别器已分不清学生与教师，这正是对抗训练的目的。",
        },
        "course-as-expected": {
            "en": "The reward rises and score_diff shrinks, as in a healthy game.",
            "zh": "奖励上升，score_diff 缩小，符合健康对抗训练的走势。",
        },
        # -- the course
        "course": {
            "en": "course at step {step} (the field's {field_step}): {found}: {standing}; expected: {expected}",
            "zh": "第 {step} 步的走势（对应现场的第 {field_step} 步）：{found}：{standing}；预期：{expected}",
        },
        "course-ranks": {
            "en": "the critic begins to rank (d_acc 0.60 to 0.95, score_diff 0.5 to 5)",
            "zh": "判别器开始能够排序（d_acc 0.60 至 0.95，score_diff 0.5 至 5）",
        },
        "course-band": {
            "en": "the target band (d_acc 0.65 to 0.95, score_diff 1 to 5)",
            "zh": "目标区间（d_acc 0.65 至 0.95，score_diff 1 至 5）",
        },
        "course-closer": {
            "en": "score_diff on its way from 1.8 over 1.0 to 0.5",
            "zh": "score_diff 由 1.8 经 1.0 降向 0.5",
        },
        "as-expected": {"en": "as expected", "zh": "符合预期"},
        "behind": {"en": "behind", "zh": "落后"},
        "ahead": {
            "en": "ahead: too easy for the critic, or too hard by now",
            "zh": "超前：对判别器过于容易，或已过于困难",
        },
        # -- the verdict
        "healthy-warm-up-ready": {
            "en": "healthy warm-up, ready for the adversarial stage",
            "zh": "预热健康，可以进入对抗阶段",
        },
        "healthy-warm-up": {
            "en": "nothing wrong in the warm-up, but the critic is not in the target band (d_acc 0.65 to 0.85, score_diff "
            "1 to 5): let it learn on",
            "zh": "预热没有问题，但判别器尚未进入目标区间（d_acc 0.65 至 0.85，score_diff 1 至 5）：请让它继续学习",
        },
        "healthy-game": {"en": "healthy: no rule holds", "zh": "健康：没有规则成立"},
        "healthy-critic": {
            "en": "healthy: no rule holds, and the critic is ready for the adversarial stage if this is a warm-up",
            "zh": "健康：没有规则成立；如果这是预热，判别器可以进入对抗阶段",
        },
        "no-rules-here": {
            "en": "no rule applies to the stage '{stage}'",
            "zh": "没有规则适用于阶段“{stage}”",
        },
        "recovered": {
            "en": "healthy at the end; what fired before does not hold any more: {rules}",
            "zh": "结束时健康；此前触发的规则已不再成立：{rules}",
        },
        "unhealthy": {"en": "not healthy: {rules}", "zh": "不健康：{rules}"},
        "sick": {
            "en": "sick, what it trains on from here is worth nothing: {rules}",
            "zh": "严重异常，继续训练没有价值：{rules}",
        },
        "begin-with": {"en": "{verdict}; begin with {override}", "zh": "{verdict}；先尝试 {override}"},
        # -- what the reader must know of the source
        "still-going": {
            "en": "the run is still going: judged so far, up to step {step}",
            "zh": "训练仍在进行：只判断到目前的第 {step} 步",
        },
        "broken-off": {
            "en": "the run has not finished: it stands still or was broken off after step {step}, {seconds} s ago; judged "
            "up to there",
            "zh": "训练没有结束：在第 {step} 步之后停住或中断，距今 {seconds} s；只判断到该步",
        },
        "stopped": {
            "en": "the run was stopped at step {step}: judged up to there",
            "zh": "训练在第 {step} 步被停止：只判断到该步",
        },
        "failed": {
            "en": "the run failed after step {step}: {reason}; judged up to there",
            "zh": "训练在第 {step} 步之后失败：{reason}；只判断到该步",
        },
        "truncated-line": {
            "en": "the last line is cut off, and was left out",
            "zh": "最后一行不完整，已忽略",
        },
        "left-out-lines": {
            "en": "{count} lines could not be read and were left out, the first of them line {first}",
            "zh": "有 {count} 行无法读取，已忽略，第一处是第 {first} 行",
        },
        "repeated-steps": {
            "en": "{count} steps were logged more than once: the later lines count",
            "zh": "有 {count} 步被重复记录：以后出现的行为准",
        },
        "stage-unknown": {
            "en": "the log does not tell its stage: the rules of both stages were tried (--stage tells it)",
            "zh": "日志没有说明阶段：两个阶段的规则都已尝试（可用 --stage 指定）",
        },
        "stage-inferred": {
            "en": "the log does not tell its stages: steps with a policy loss were taken for the adversarial stage",
            "zh": "日志没有说明阶段：带有策略损失的步被视为对抗阶段",
        },
        "unnumbered": {
            "en": "the lines have no step: they were numbered in order",
            "zh": "各行没有步数：已按顺序编号",
        },
        "config-unknown": {
            "en": "the run's configuration is not known: overrides start from GAD-Ray's defaults and what the log tells",
            "zh": "不知道该训练的配置：覆盖项以 GAD-Ray 的默认值和日志内容为起点",
        },
        "read-as": {"en": "read as GAD-Ray's names: {names}", "zh": "按 GAD-Ray 的名称读取：{names}"},
        "verl-keys": {
            "en": "overrides are GAD-Ray's keys; as verl calls them: {keys}",
            "zh": "覆盖项使用 GAD-Ray 的键；对应 verl 的键：{keys}",
        },
        # -- the table
        "column-rule": {"en": "rule", "zh": "规则"},
        "column-steps": {"en": "steps", "zh": "步"},
        "column-evidence": {"en": "evidence", "zh": "证据"},
        "column-meaning": {"en": "what it means", "zh": "含义"},
        "column-overrides": {"en": "overrides to try", "zh": "可尝试的覆盖项"},
        "column-condition": {"en": "fires when", "zh": "触发条件"},
        "column-window": {"en": "mean over steps", "zh": "取均值的步数"},
        "column-stage": {"en": "stage", "zh": "阶段"},
        "column-severity": {"en": "severity", "zh": "严重程度"},
        "column-answer": {"en": "settings that answer it", "zh": "应对的设置"},
        "an-epoch": {"en": "an epoch", "zh": "一个 epoch"},
        "after-grace": {"en": ", from warm-up step {grace} on", "zh": "，自预热第 {grace} 步起"},
        "both-stages": {"en": "both", "zh": "两者"},
        "warmup": {"en": "warm-up", "zh": "预热"},
        "adversarial": {"en": "adversarial", "zh": "对抗"},
        "warning": {"en": "warning", "zh": "警告"},
        "critical": {"en": "critical", "zh": "严重"},
        "held-on": {"en": "{first}–{last} ({count})", "zh": "{first}–{last}（{count}）"},
        "over": {"en": "over since {last}", "zh": "第 {last} 步之后不再成立"},
        "nothing-fired": {"en": "no rule fired", "zh": "没有规则触发"},
        "verdict": {"en": "verdict: {verdict}", "zh": "结论：{verdict}"},
        "judged": {
            "en": "{place}: {kind}, steps {first}–{last}, {count} in all",
            "zh": "{place}：{kind}，第 {first}–{last} 步，共 {count} 步",
        },
        "kind-run": {"en": "a run of GAD-Ray", "zh": "GAD-Ray 的训练"},
        "kind-jsonl": {"en": "a metrics file", "zh": "指标文件"},
        "kind-board": {"en": "TensorBoard events", "zh": "TensorBoard 事件"},
        "kind-verl": {"en": "a verl log", "zh": "verl 日志"},
    }
)


def signal_name(signal: Signal, language: Language) -> str:
    """What a signal is called; names of metrics and formulas are the same in all languages."""
    return _CHINESE.get(signal, signal.value) if language == "zh" else signal.value
