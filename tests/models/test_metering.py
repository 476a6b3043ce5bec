"""The meter counts all usage, including that of failures."""

import sys
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings
from hypothesis import strategies as st

from promptmii import ScriptedModel
from promptmii.models.base import Chat, Failure, FailureKind, Sampling, Usage
from promptmii.models.wrappers import Metered

GREEDY = Sampling(max_tokens=5)
DOWN = Failure(FailureKind.SERVER, "down", Usage(calls=1, prompt_tokens=2))


def chat(content: str) -> Chat:
    return [{"role": "user", "content": content}]


def usages() -> st.SearchStrategy[Usage]:
    count = st.integers(0, 1000)
    return st.builds(Usage, calls=count, prompt_tokens=count, seconds=st.integers(0, 9).map(float))


class TestMetered:
    @settings(max_examples=30, deadline=None)
    @given(batches=st.lists(st.lists(st.one_of(st.text("ab ", max_size=9), usages()), max_size=6), max_size=4))
    def test_the_meter_sums_the_usage_of_all_answers_including_failures(self, batches: list[list[str | Usage]]) -> None:
        items = [item for batch in batches for item in batch]
        script = iter(
            [Failure(FailureKind.SERVER, "down", item) if isinstance(item, Usage) else item for item in items]
        )
        meter = Metered(ScriptedModel(lambda *_: next(script)))
        answers = [answer for batch in batches for answer in meter.generate([chat("one two")] * len(batch), GREEDY)]
        assert meter.usage == sum((answer.usage for answer in answers), Usage())
        assert meter.usage.seconds == sum(answer.usage.seconds for answer in answers)

    def test_choices_are_counted_and_token_counts_are_not(self) -> None:
        meter = Metered(ScriptedModel(score=lambda messages, _: DOWN if messages == chat("b") else 0.0))
        meter.choose([chat("one two"), chat("b"), chat("c")], ["x", "y"])
        meter.count_tokens(["one two three"])
        assert meter.usage == Usage(calls=3, prompt_tokens=5)

    def test_threads_lose_no_count(self) -> None:
        def ask(_: int) -> None:
            meter.generate([chat("a"), chat("b")], GREEDY)

        meter = Metered(ScriptedModel(lambda messages, _: DOWN if messages == chat("b") else "one two"))
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(ask, range(600)))
        finally:
            sys.setswitchinterval(interval)
        assert meter.usage == Usage(calls=1200, prompt_tokens=1800, completion_tokens=1200)
