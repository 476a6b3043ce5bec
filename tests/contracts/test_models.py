"""The contract of `LanguageModel`, tested for every implementation. Each has a fixture and an entry in `MODELS`."""
# pyright: reportOperatorIssue=false, reportOptionalOperand=false

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tests.models import tiny
from tests.models.faulty_server import FaultyServer, serving
from tests.models.tiny_llama import save_tiny_llama

from promptmii import ScriptedModel, load_model
from promptmii.errors import ConfigError, UnsupportedError
from promptmii.models.base import (
    Chat,
    Choice,
    Completion,
    Contrast,
    Failure,
    FailureKind,
    LanguageModel,
    Price,
    Sampling,
)
from promptmii.models.cache import Cached
from promptmii.models.hf.model import TransformersModel
from promptmii.models.http.client import HttpModel
from promptmii.models.http.config import HttpConfig
from promptmii.models.spending import Limited, SpendingLimit
from promptmii.models.wrappers import Batched, Metered, Priced

MODELS = ["scripted", "metered", "priced", "limited", "batched", "cached", "local"]
MODELS += ["llama", "llama_server", "http", "cached_http"]
CONTEXT = 256
OPTIONS = ["warm", "cold", "warm and cold"]
GREEDY = Sampling(max_tokens=4)
SAMPLED = Sampling(max_tokens=8, temperature=1.5, seed=3)


def chat(content: str) -> Chat:
    return [{"role": "system", "content": "Label the text."}, {"role": "user", "content": content}]


TOO_LONG = chat("0" * (CONTEXT + 1))
CHATS = [chat("warm sun"), chat("cold snow"), chat("neither of them"), chat("cold snow")]


def reply(request: Chat, i: int) -> str | Failure:
    content = request[-1]["content"]
    if len(content) > CONTEXT:
        return Failure(FailureKind.CONTEXT, "too long")
    return f"sample {i}" if content == "sample" else content


def score(request: Chat, option: str) -> float | Failure:
    content = request[-1]["content"]
    return Failure(FailureKind.CONTEXT, "too long") if len(content) > CONTEXT else float(option in content)


class Attentive(FaultyServer):
    """Echoes the message and the seed; chooses the first option that occurs in the message, or else the last."""

    async def _answer(self, step: str, body: dict[str, Any], request: Any) -> Any:
        return await super()._answer("context" if len(self.content(body)) > CONTEXT else step, body, request)

    def _completion(self, step: str, body: dict[str, Any]) -> dict[str, Any]:
        if step != "ok":
            return super()._completion(step, body)
        options = body.get("structured_outputs", {}).get("choice", [])
        seed = body["seed"] if body["temperature"] else ""
        matches = [option for option in options if option in self.content(body)]
        answer = (matches or options[-1:] or [f"{self.content(body)} {seed}"])[0]
        return super()._completion(f"say:{answer}", body)

    def content(self, body: dict[str, Any]) -> str:
        return body["messages"][-1]["content"]


@pytest.fixture
def scripted() -> ScriptedModel:
    return ScriptedModel(reply, score)


@pytest.fixture
def metered(scripted: ScriptedModel) -> Metered:
    return Metered(scripted)


@pytest.fixture
def priced(scripted: ScriptedModel) -> Priced:
    return Priced(scripted, Price(1.0, 2.0))


@pytest.fixture
def limited(scripted: ScriptedModel) -> Limited:
    return Limited(scripted, Price(1.0, 2.0), SpendingLimit(100.0))


@pytest.fixture
def batched(scripted: ScriptedModel) -> Batched:
    return Batched(scripted)


@pytest.fixture
def cached(scripted: ScriptedModel, tmp_path: Path) -> Iterator[Cached]:
    model = Cached(scripted, tmp_path)
    yield model
    model.close()


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    with serving(Attentive()) as started:
        yield started


@pytest.fixture
def http(server: FaultyServer) -> Iterator[HttpModel]:
    with HttpModel("m", HttpConfig(server.url, "key", patience=0.1, backoff=0.01)) as model:
        yield model


@pytest.fixture
def cached_http(http: HttpModel, tmp_path: Path) -> Iterator[Cached]:
    model = Cached(http, tmp_path)
    yield model
    model.close()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageModel]:
    torch = pytest.importorskip("torch")
    from promptmii.models.references import Weights

    folder = save_tiny_llama(tmp_path_factory.mktemp("tiny"), CONTEXT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads only wait for each other in a model this small
    yield TransformersModel.load("hf:tiny", Weights("hf:tiny", str(folder)))
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("gguf")
    return tiny.gguf_file(tiny.transformers_folder(folder / "hf"), folder / "tiny.gguf")


@pytest.fixture
def llama(gguf: Path) -> Iterator[LanguageModel]:
    model = load_model(f"gguf:{gguf}")
    yield model
    model.close()


@pytest.fixture
def llama_server(gguf: Path) -> Iterator[LanguageModel]:
    """The engine for GGUF files if the library exports no functions."""
    from promptmii.models.llama.server import ServedModel

    model = ServedModel(f"gguf:{gguf}", gguf, (), CONTEXT)
    yield model
    model.close()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return request.getfixturevalue(request.param)


def texts(answers: Sequence[Completion | Failure]) -> list[str]:
    return [answer.text if isinstance(answer, Completion) else answer.kind for answer in answers]


def decisions(answers: Sequence[Choice | Failure]) -> list[object]:
    """Indices and scores. Scores are rounded, since a packed batch sums in a different order."""
    return [
        (answer.index, answer.scores and [round(value, 3) for value in answer.scores])
        if isinstance(answer, Choice)
        else answer.kind
        for answer in answers
    ]


def test_it_is_a_language_model_with_a_fixed_card(model: LanguageModel) -> None:
    assert isinstance(model, LanguageModel)
    card = model.card
    model.generate(CHATS, GREEDY)
    assert model.card == card
    assert card.reference
    assert card.revision
    assert card.context_length > 0


def test_tokens_are_counted_text_by_text(model: LanguageModel) -> None:
    samples = ["", "one", "one two three four", "一二三"]
    counts = model.count_tokens(samples)
    assert counts == [model.count_tokens([text])[0] for text in samples]
    assert counts[0] == 0
    assert 0 < counts[1] < counts[2]
    assert model.count_tokens([]) == []


def test_every_chat_gets_its_own_result_in_order(model: LanguageModel) -> None:
    written = texts(model.generate(CHATS, GREEDY))
    assert written == [texts(model.generate([single], GREEDY))[0] for single in CHATS]
    assert len(set(written)) == 3
    chosen = decisions(model.choose(CHATS, OPTIONS))
    assert chosen == [decisions(model.choose([single], OPTIONS))[0] for single in CHATS]


def test_choices_have_one_score_per_option_or_no_scores(model: LanguageModel) -> None:
    for choice in model.choose(CHATS, OPTIONS):
        assert isinstance(choice, Choice)
        assert (choice.scores is not None) == model.card.gives_scores
        if choice.scores is not None:
            assert len(choice.scores) == len(OPTIONS)
            assert choice.scores[choice.index] == max(choice.scores)


def test_options_keep_their_order(model: LanguageModel) -> None:
    forwards = [choice.index for choice in model.choose(CHATS, OPTIONS[:2]) if isinstance(choice, Choice)]
    backwards = [choice.index for choice in model.choose(CHATS[:2], OPTIONS[1::-1]) if isinstance(choice, Choice)]
    assert [1 - index for index in backwards] == forwards[:2]


def test_an_empty_batch_gives_an_empty_list(model: LanguageModel) -> None:
    assert model.generate([], GREEDY) == []
    assert model.choose([], OPTIONS) == []


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "seeded"])
def test_equal_input_gives_equal_output(model: LanguageModel, sampling: Sampling) -> None:
    first, chosen = texts(model.generate(CHATS, sampling)), decisions(model.choose(CHATS, OPTIONS))
    model.generate([chat("something else")], sampling)
    model.choose([chat("something else")], ["a", "b"])
    assert texts(model.generate(CHATS, sampling)) == first
    assert decisions(model.choose(CHATS, OPTIONS)) == chosen


def test_equal_chats_under_temperature_get_different_samples(model: LanguageModel) -> None:
    assert len(set(texts(model.generate([chat("sample")] * 3, SAMPLED)))) == 3


def test_a_contrast_with_the_chat_itself_changes_nothing(model: LanguageModel) -> None:
    sampling = GREEDY._replace(contrast=Contrast(tuple(CHATS[0]), 0.5))
    assert texts(model.generate(CHATS[:1], sampling)) == texts(model.generate(CHATS[:1], GREEDY))


@pytest.mark.parametrize("name", ["local", "llama"])
def test_a_contrast_with_another_chat_changes_the_text_and_uses_tokens(
    name: str, request: pytest.FixtureRequest
) -> None:
    model: LanguageModel = request.getfixturevalue(name)
    assert model.card.contrasts
    sampling = Sampling(max_tokens=12)
    plain = model.generate(CHATS[:2], sampling)
    contrasted = model.generate(CHATS[:2], sampling._replace(contrast=Contrast(tuple(CHATS[2]), 5.0)))
    assert texts(contrasted) != texts(plain)
    for before, after in zip(plain, contrasted, strict=True):
        assert after.usage.prompt_tokens > before.usage.prompt_tokens
    assert model.generate(CHATS[:2], sampling) == plain
    (too_long,) = model.generate(CHATS[:1], sampling._replace(contrast=Contrast(tuple(TOO_LONG), 0.5)))
    assert isinstance(too_long, Failure)
    assert too_long.kind == FailureKind.CONTEXT


@pytest.mark.slow
def test_inputs_are_not_changed(model: LanguageModel) -> None:
    chats, options = [list(messages) for messages in (*CHATS, TOO_LONG)], list(OPTIONS)
    before = deepcopy((chats, options))
    model.generate(chats, SAMPLED)
    model.choose(chats, options)
    assert (chats, options) == before


@pytest.mark.slow
def test_tuples_work_like_lists(model: LanguageModel) -> None:
    chats = tuple(tuple(messages) for messages in CHATS)
    assert texts(model.generate(chats, GREEDY)) == texts(model.generate(CHATS, GREEDY))
    assert decisions(model.choose(chats, tuple(OPTIONS))) == decisions(model.choose(CHATS, OPTIONS))


@pytest.mark.slow
def test_a_failed_chat_does_not_affect_the_others(model: LanguageModel) -> None:
    chats = [CHATS[0], TOO_LONG, CHATS[1], TOO_LONG]
    written, chosen = texts(model.generate(chats, GREEDY)), decisions(model.choose(chats, OPTIONS))
    assert written[1] == written[3] == chosen[1] == chosen[3] == FailureKind.CONTEXT
    assert written[::2] == texts(model.generate(CHATS[:2], GREEDY))
    assert chosen[::2] == decisions(model.choose(CHATS[:2], OPTIONS))


@pytest.mark.slow
def test_every_answer_reports_its_usage(model: LanguageModel) -> None:
    for answer in (*model.generate(CHATS, GREEDY), *model.choose(CHATS, OPTIONS)):
        assert answer.usage.calls == 1
        assert 0 <= answer.usage.cached_tokens <= answer.usage.prompt_tokens
        assert answer.usage.prompt_tokens > 0
        assert answer.usage.seconds >= 0


@pytest.mark.slow
def test_closing_twice_is_harmless(model: LanguageModel) -> None:
    model.generate(CHATS, GREEDY)
    model.close()
    model.close()


@pytest.mark.parametrize(
    "options", [[], ["warm"], ["warm", "warm"], ["warm", ""]], ids=["none", "one", "twice", "empty"]
)
def test_fewer_than_two_distinct_options_are_refused(model: LanguageModel, options: list[str]) -> None:
    with pytest.raises(ConfigError, match="two or more different, non-empty options"):
        model.choose(CHATS, options)


def test_a_model_that_cannot_choose_raises(tmp_path: Path) -> None:
    without_scores = ScriptedModel(reply)
    cached = Cached(without_scores, tmp_path)
    for model in (without_scores, Metered(without_scores), Batched(without_scores), cached):
        with pytest.raises(UnsupportedError):
            model.choose(CHATS, OPTIONS)
    cached.close()
