"""What quizzes, interviews and papers say themselves, in English and Chinese."""

from __future__ import annotations

from datetime import UTC, datetime

WORDS: dict[str, tuple[str, str]] = {
    # of a question
    "explain": ("explain", "讲解"),
    "derive": ("derive", "推导"),
    "compute": ("compute", "计算"),
    "verdict": ("verdict", "判断对错"),
    "bug": ("spot the bug", "找 bug"),
    "read-run": ("read the run", "看曲线"),
    "design": ("design", "设计"),
    "implement": ("implement", "手写"),
    "level": ("level {level}", "{level} 级"),
    "claim": ("The claim", "说法"),
    "curves": ("The curves", "曲线"),
    "causes": ("What is the cause?", "原因是哪一个？"),
    "answer": ("A spoken answer", "参考回答"),
    "standard": (
        "Your numbers were drawn anew. The spoken answer has the standard ones: {prompt}",
        "这道题的数字是给你新抽的，参考回答用的是标准数字：{prompt}",
    ),
    "rubric": ("What a good answer says", "得分点"),
    "points": ("{weight} of {total}", "{weight}/{total} 分"),
    "weak": ("A weak answer:", "弱回答："),
    "costs": ("What it costs:", "为什么扣分："),
    "follow_ups": ("What comes next:", "追问："),
    "sources": ("Sources:", "出处："),
    "evidence": ("Evidence:", "证据："),
    "in_cell": ("the cell tagged {tag} in notebook {notebook}", "notebook {notebook} 里标记为 {tag} 的 cell"),
    "exercise": ("Exercise: {name}", "对应练习：{name}"),
    "report_at": ("Reported at {address}", "公开报告：{address}"),
    # answering
    "ask_number": ("Your number, with its unit (Enter: I don't know)", "你的答案，带单位（回车：不会）"),
    "ask_verdict": ("right, wrong or depends? (Enter: I don't know)", "对、错，还是看情况？（回车：不会）"),
    "ask_line": ("Which line? (Enter: I don't know)", "哪一行？（回车：不会）"),
    "ask_cause": ("Which cause? (Enter: I don't know)", "选哪个原因？（回车：不会）"),
    "ask_spoken": (
        "Say your answer aloud, or write it. Then look at the rubric.",
        "说出你的回答，也可以写下来，然后看得分点。",
    ),
    "ask_points": ("Which points did you make? As 1 3, all or none", "你说到了哪几点？比如 1 3，或者 全部、没有"),
    "ask_rating": ("How well did you know it?", "掌握得怎么样？"),
    "again": ("again", "没答上"),
    "hard": ("hard", "吃力"),
    "good": ("good", "不错"),
    "easy": ("easy", "轻松"),
    "right": ("Right.", "对。"),
    "not_right": ("Not right.", "不对。"),
    "score": ("{score:.0%} of the points", "得分 {score:.0%}"),
    "next_due": ("Comes again: {when}", "下次复习：{when}"),
    "within_day": ("today", "今天"),
    "in_days": ("in {days} days", "{days} 天后"),
    "tomorrow": ("tomorrow", "明天"),
    "holds": ("Just run: {name} holds.", "刚运行过：{name} 成立。"),
    "does_not_hold": ("Just run: {name} does not hold here.", "刚运行过：{name} 在这里不成立。"),
    # quiz
    "nothing_due": (
        "Nothing is due, and nothing new was asked for. Next due: {when}. For new ones: --new 10",
        "现在没有到期的题，这次也没要新题。下次到期：{when}。想做新题：--new 10",
    ),
    "quiz_done": ("{right} of {count} good enough. Due again within a day: {due}.", "{count} 题里 {right} 题过关。一天内还会再问：{due} 题。"),
    "of_quiz": ("question {place} of {count}", "第 {place} 题，共 {count} 题"),
    "due_or_new": ("{due} due, {new} new", "到期 {due} 题，新题 {new} 题"),
    # interview
    "time_left": ("{minutes} min left", "还剩 {minutes} 分钟"),
    "time_over": ("{minutes} min over", "超时 {minutes} 分钟"),
    "limit": ("about {minutes:g} min for this one", "这题大约 {minutes:g} 分钟"),
    "resumed": ("Going on with the interview that was cut short: {done} of {count} answered.", "接着上次没做完的面试：{count} 题已答 {done} 题。"),
    "answered_elsewhere": ("This question was answered in another window; that answer stands.", "这题已在另一个窗口答过，以那次为准。"),
    "interrupted": ("Stopped. Everything so far is kept; go on with: {command}", "已中断，之前的回答都保存了。继续：{command}"),
    # in a notebook
    "quiz": ("Quiz", "刷题"),
    "interview": ("Mock interview", "模拟面试"),
    "areas": ("areas", "领域"),
    "kinds": ("kinds", "题型"),
    "all": ("all", "全部"),
    "several": ("To choose several, hold Ctrl or Cmd.", "多选时按住 Ctrl 或 Cmd。"),
    "choose_level": ("level", "级别"),
    "any_level": ("any", "不限"),
    "of_level": ("{level}, {round}", "{level} 级，{round}"),
    "language": ("language", "语言"),
    "count": ("questions", "题数"),
    "length": ("minutes", "分钟"),
    "begin": ("Begin", "开始"),
    "begin_new": ("Begin a new one", "重新开始一场"),
    "go_on_with": ("Go on with the one cut short ({done} of {count} answered)", "接着上次没做完的（{count} 题已答 {done} 题）"),
    "number": ("Your number, with its unit", "你的答案，带单位"),
    "line": ("Which line?", "哪一行？"),
    "right_": ("right", "对"),
    "wrong_": ("wrong", "错"),
    "depends_": ("it depends", "看情况"),
    "you_said": ("You said: {answer}.", "你的判断：{answer}。"),
    "grade": ("Grade", "评分"),
    "unknown": ("I don't know", "不会"),
    "given_up": ("Not answered.", "没有作答。"),
    "written": ("Write here, or say it aloud", "可以写在这里，也可以只说不写"),
    "show_rubric": ("Show the rubric", "看得分点"),
    "tick_points": ("Tick the points that you made.", "勾选你说到的点。"),
    "run_evidence": ("Run the evidence", "运行证据"),
    "running": ("Running ...", "正在运行……"),
    "next": ("Next", "下一题"),
    "to_report": ("To the report", "看报告"),
    "stop": ("Stop here", "就到这里"),
    "pause": ("Pause", "暂停"),
    "paused": ("Paused. The clock stands still.", "已暂停，不计时。"),
    "left_open": ("Paused by itself: this question has been open for {minutes:.0f} minutes.", "已自动暂停：这题打开 {minutes:.0f} 分钟了。"),
    "elsewhere": ("Paused: the interview was opened again in another cell, or this cell was run again.", "已暂停：面试在另一个 cell 里打开了，或者这个 cell 重新运行过。"),
    "go_on": ("Go on", "继续"),
    "end": ("End", "结束"),
    "end_now": ("End and see the report", "结束并看报告"),
    "really_end": (
        "{done} of {count} answered. What was not asked does not count. An interview that has ended cannot go on.",
        "{count} 题已答 {done} 题，没问到的不计分。结束后不能再继续。",
    ),
    "over": ("The interview is over.", "面试已经结束。"),
    "clock_left": ("{time} left", "还剩 {time}"),
    "clock_over": ("{time} over", "超时 {time}"),
    "clock_here": ("this question {time} of {limit}", "本题 {time} / {limit}"),
    "none_due": (
        "Nothing is due among these, and nothing new is left. Next due: {when}. Choose more areas, levels or kinds.",
        "选的范围里没有到期的题，也没有新题了。下次到期：{when}。可以多选几个领域、级别或题型。",
    ),
    "once_more": ("Once more", "再来一轮"),
    "another": ("Another interview", "再来一场"),
    "failed": ("That did not work ({error}). Nothing is lost; try again.", "没成功（{error}）。内容都还在，可以再试一次。"),
    # report
    "report": ("Report", "面试报告"),
    "overall": (
        "{score:.0%} over {count} of {planned} questions, in {minutes:.0f} of {limit} minutes, level {level} ({round}).",
        "总分 {score:.0%}，答了 {planned} 题中的 {count} 题，用时 {minutes:.0f} 分钟（限 {limit} 分钟），{level} 级（{round}）。",
    ),
    "screen": ("screen", "初面"),
    "onsite": ("onsite", "现场面"),
    "research": ("research", "研究岗"),
    "nothing_answered": ("Nothing was answered, so there is nothing to report.", "一题都没答，所以没有报告。"),
    "by_area": ("By area", "分领域"),
    "by_kind": ("By kind", "分题型"),
    "area": ("area", "领域"),
    "kind": ("kind", "题型"),
    "questions": ("questions", "题数"),
    "share": ("score", "得分"),
    "strengths": ("Strengths", "强项"),
    "no_strengths": ("No area reached {bar:.0%} yet.", "还没有领域达到 {bar:.0%}。"),
    "revisit": ("To revisit", "需要回看"),
    "nothing_to_revisit": ("No area was below {bar:.0%}.", "没有领域低于 {bar:.0%}。"),
    "plan": ("A plan", "复习计划"),
    "plan_read": ("{area}: read {links}.", "{area}：读 {links}。"),
    "plan_exercises": ("{area}: do {exercises} in exercises/{notebook}.ipynb.", "{area}：做 exercises/{notebook}.ipynb 里的 {exercises}。"),
    "plan_quiz": ("Every day: `course quiz --areas {areas}`. It asks again what was weak.", "每天：`course quiz --areas {areas}`，没掌握的题会再问。"),
    "plan_next": ("In three days: `course interview --minutes {minutes} --level {level}`.", "三天后：`course interview --minutes {minutes} --level {level} --lang zh`。"),
    "each": ("Question by question", "逐题"),
    "question": ("question", "题目"),
    "minutes": ("minutes", "用时（分）"),
    "over_time": ("Over the time of their kind: {names}.", "超过题型限时的题：{names}。"),
    # paper
    "paper": ("Paper {seed}", "试卷 {seed}"),
    "key": ("Key to paper {seed}", "试卷 {seed} 答案"),
    "paper_head": ("{count} questions, {minutes} minutes, level {level} ({round}).", "共 {count} 题，{minutes} 分钟，{level} 级（{round}）。"),
    "paper_name": ("Name:", "姓名："),
    "paper_space": ("Answer:", "作答："),
    # claims on trial
    "trial_how": (
        "Guess before you read on. A guess stands, and your first one counts.",
        "先猜，再往下看。猜了就不能改，以第一次为准。",
    ),
    "trial_without": (
        'Guess with the buttons that a running notebook has here, or with widgets.guess("{name}", "wrong").',
        '运行 notebook，用这里的按钮来猜；或者写 widgets.guess("{name}", "错", language="zh")。',
    ),
    "trial_theme": ("theme", "主题"),
    "trial_claims": ("claims", "说法"),
    "trial_guessed": ("guessed", "猜过"),
    "trial_right": ("right", "猜对"),
    "trial_all": ("all", "合计"),
    "trial_none": ("not guessed yet", "还没猜"),
    "trial_told": ("{guessed} of {count} guessed, {right} right", "{count} 条猜了 {guessed} 条，对 {right} 条"),
    "trial_believed": ("Guessed wrongly:", "猜错的："),
    "trial_refresh": ("Refresh", "刷新"),
}
"""English and Chinese by key; braces are places."""

AREAS: dict[str, tuple[str, str]] = {
    "gradient_descent": ("gradient descent", "梯度下降"),
    "momentum": ("momentum", "动量"),
    "adaptive_rates": ("adaptive rates", "自适应学习率"),
    "adam": ("Adam", "Adam"),
    "adamw": ("AdamW", "AdamW"),
    "why_adam": ("why Adam", "为什么是 Adam"),
    "schedules": ("schedules", "学习率调度"),
    "stability": ("stability", "训练稳定性"),
    "large_batch": ("large batch", "大 batch"),
    "memory": ("memory", "显存计算"),
    "mixed_precision": ("mixed precision", "混合精度"),
    "numerics": ("numerics", "数值精度"),
    "accumulation": ("accumulation and clipping", "梯度累积与裁剪"),
    "sharding": ("sharding", "ZeRO 与切分"),
    "communication": ("communication", "通信"),
    "kernels": ("kernels", "kernel"),
    "small_state": ("small state", "省显存的 optimizer"),
    "beyond_adam": ("beyond Adam", "Adam 之后"),
    "scaling": ("scaling", "缩放与迁移"),
    "averaging": ("averaging", "权重平均"),
    "fine-tuning": ("fine-tuning and resuming", "微调与续训"),
    "benchmarking": ("benchmarking", "公平对比"),
}
"""What the areas of the bank are called, in English and Chinese."""


def word(key: str, language: str = "en", **values: object) -> str:
    """The words for a key in a language ("en" or "zh"), with the values in their places."""
    return WORDS[key][language == "zh"].format(**values)


def area(name: str, language: str = "en") -> str:
    """What an area is called in a language."""
    return AREAS[name][language == "zh"]


def when_due(due: datetime, language: str = "en") -> str:
    """A time as today, tomorrow, in so many days."""
    days = (due.astimezone().date() - datetime.now(UTC).astimezone().date()).days
    if days <= 0:
        return word("within_day", language)
    return word("tomorrow", language) if days == 1 else word("in_days", language, days=days)
