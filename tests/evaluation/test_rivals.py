"""Rivals and controls on a grid: their recomputed results, their cost, and a report in which one wins."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from tests.evaluation.labelling_server import LabellingServer
from tests.evaluation.test_evaluate import server, settings, write_task  # noqa: F401  the fixture

from promptmii import Example, Follower, ScriptedModel, Support, Writer
from promptmii.data import draw_query, draw_support, load_task
from promptmii.errors import ConfigError, DataError, UnsupportedError
from promptmii.evaluation import estimate, evaluate
from promptmii.inducers import Kit, method_named
from promptmii.inducers.controls import permute_labels
from promptmii.models import sentences
from promptmii.records import Record
from promptmii.report.page import write_report
from promptmii.report.results import Results
from promptmii.scoring import Scored, score

SUPPORT = Support(
    ("money", "parcel"),
    (
        Example("I want my money back", "money"),
        Example("the parcel is late", "parcel"),
        Example("you charged my card", "money"),
        Example("the box was crushed", "parcel"),
    ),
)
NEEDS_MINILM = pytest.mark.skipif(not sentences.available(), reason="needs promptmii[rivals] and minilm")


def kit(follower: Follower | None = None, reply: str = "") -> Kit:
    model = ScriptedModel([reply], score=lambda _, label: -len(label))
    return Kit(Writer(model), follower or Follower(model))


def scored(name: str, support: Support, query: tuple[Example, ...], **options) -> Scored:
    chosen, used = method_named(name, options), kit()
    predictor = chosen.predictor(used, support, 0)
    instruction = predictor.prepare(chosen.inducer(used).induce(support, seed=0), support)
    return score(predictor, instruction, query)


def test_classifiers_in_a_grid_match_scikit_learn(server: LabellingServer, tmp_path: Path) -> None:  # noqa: F811
    path = write_task(tmp_path, "shop")
    grid = settings(server, [path], methods=("tfidf", "tfidf-all", "naive"), n=(6, 9))
    run = evaluate(grid, tmp_path / "run")
    assert not run.failed
    assert len(server.bodies) == 12  # naive alone asks
    task = load_task(path).task
    of = {(record.cell.method, record.cell.n): record for record in run.records.values()}
    assert of.keys() == {("naive", 0), ("tfidf", 6), ("tfidf", 9), ("tfidf-all", 0)}
    for (name, n), record in of.items():
        if name == "naive":
            continue
        rows = task.train if name == "tfidf-all" else draw_support(task, n).examples
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\b\w+\b"),
            LogisticRegression(class_weight="balanced", max_iter=1000),
        ).fit([e.text for e in rows], [e.label for e in rows])
        query = draw_query(task, 12)
        expected = list(model.predict([e.text for e in query]))
        assert record.labels == expected
        gold = [e.label for e in query]
        assert record.instruction is not None
        assert record.instruction.measured is not None
        assert record.instruction.measured.macro_f1 == pytest.approx(f1_score(gold, expected, average="macro"))
        assert record.instruction.provenance.n == len(rows)
        assert record.spent.calls == record.instruction.cost.calls == 0


def test_a_label_without_examples_is_never_predicted() -> None:
    three = Support(("money", "other", "parcel"), SUPPORT.examples)
    query = (Example("my money", "money"), Example("my parcel", "parcel"))
    for prediction in scored("tfidf", three, query).predictions:
        assert prediction.label != "other"
        assert prediction.probabilities is not None
        assert prediction.probabilities[1] == 0
        assert sum(prediction.probabilities) == pytest.approx(1)
    alone = Support(SUPPORT.labels, SUPPORT.examples[:1])
    assert scored("tfidf", alone, query).labels == ["money", "money"]


def test_texts_without_a_word_are_refused() -> None:
    smileys = Support(("a", "b"), (Example("🙂", "a"), Example("🙁", "b")))
    with pytest.raises(DataError, match="No classifier can be trained on these 2 examples"):
        scored("tfidf", smileys, (Example("🙂", "a"),))


def shown(chat) -> list[str]:
    return re.findall(r'Input: "(.*)"\nLabel', chat[-1]["content"])


def test_knn_icl_shows_each_text_its_nearest_examples_and_never_itself() -> None:
    model = ScriptedModel(score=lambda chat, label: float(f"Label: {label}" in chat[-1]["content"]))
    used = kit(Follower(model, "choose", "support"))
    nearest = method_named("knn-icl", {"k": 2, "similarity": "tfidf"})
    predictor = nearest.predictor(used, SUPPORT, 0)
    instruction = predictor.prepare(nearest.inducer(used).induce(SUPPORT), SUPPORT)
    for chat, example in zip(model.calls, SUPPORT.examples, strict=True):  # the texts that calibrate
        assert f'"{example.text}"' in chat[-1]["content"].splitlines()[-1]
        assert len(shown(chat)) == 2
        assert example.text not in shown(chat)
    assert instruction.is_calibrated
    model.calls.clear()
    query = (Example("give my money back now", "money"), Example("a crushed box", "parcel"))
    result = score(predictor, instruction, query)
    assert [shown(chat)[-1] for chat in model.calls] == ["I want my money back", "the box was crushed"]
    assert result.usage.calls == 2


def test_knn_icl_shows_only_examples_that_fit() -> None:
    long = Support(("a", "b"), tuple(Example(f"word {i} " * 40, "ab"[i % 2]) for i in range(8)))
    model = ScriptedModel(score=lambda _, label: -len(label), context_length=400)
    used = kit(Follower(model))
    nearest = method_named("knn-icl", {"k": 6, "similarity": "tfidf"})
    predictor = nearest.predictor(used, long, 0)
    (prediction,) = predictor.predict(nearest.inducer(used).induce(long), ["word 3"])
    assert prediction.failure is None
    assert 0 < len(shown(model.calls[-1])) < 6


def test_knn_icl_notes_its_similarity() -> None:
    assert method_named("knn-icl").model_dump()["similarity"] in ("embedding", "tfidf")
    with pytest.raises(ConfigError, match="similarity"):
        method_named("knn-icl", {"similarity": "colour"})


def test_keywords_are_typical_words_of_a_label() -> None:
    text = method_named("keywords", {"words": 2}).inducer(kit()).induce(SUPPORT).text
    money, parcel = text.splitlines()
    assert money.startswith("money: ")
    assert "my" in money
    assert parcel.startswith("parcel: ")
    assert "the" in parcel


def test_keywords_of_a_script_without_spaces_are_no_whole_texts() -> None:
    support = Support(("good", "bad"), (Example("我喜欢这部电影", "good"), Example("我讨厌这部电影", "bad")))
    text = method_named("keywords").inducer(kit()).induce(support).text
    assert text == "good: 喜, 欢\nbad: 厌, 讨"


def test_keywords_of_texts_with_a_single_word_are_empty() -> None:
    support = Support(("good", "bad"), (Example("ok", "good"), Example("OK", "bad")))
    assert method_named("keywords").inducer(kit()).induce(support).text == "good: \nbad: "


def test_tfidf_reads_texts_without_spaces() -> None:
    support = Support(("good", "bad"), (Example("我喜欢这部电影", "good"), Example("我讨厌这部电影", "bad")))
    method = method_named("tfidf")
    predictor = method.predictor(kit(), support, 0)
    instruction = method.inducer(kit()).induce(support)
    texts = ["我很喜欢", "很讨厌"]
    assert [prediction.label for prediction in predictor.predict(instruction, texts)] == ["good", "bad"]


@pytest.mark.parametrize(
    "text",
    [
        "money: pay\nparcel: box",
        "money：付款\nparcel：包裹",
        "- **money**: pay\n- **parcel**: box",
        '1. "money" - pay\n2. "parcel" - box',
    ],
)
def test_shuffled_gives_each_line_to_another_label(text: str) -> None:
    made = method_named("shuffled").inducer(kit(reply=text)).induce(SUPPORT)
    swapped = text.replace("money", "X").replace("parcel", "money").replace("X", "parcel")
    assert made.text == swapped
    assert made.cost.calls == 1


def test_shuffled_is_refused_without_lines_about_labels() -> None:
    with pytest.raises(UnsupportedError, match="begin with 0 of the 2 labels"):
        method_named("shuffled").inducer(kit(reply="Decide well.")).induce(SUPPORT)


names = st.text("abc é-.", min_size=1, max_size=5).map(lambda name: " ".join(name.split())).filter(bool)


@given(labels=st.lists(names, min_size=2, max_size=6, unique=True), seed=st.integers(0, 99))
def test_no_label_line_stays_in_its_place(labels: list[str], seed: int) -> None:
    text = "\n".join(["Label texts.", *(f"{label}: number {i}" for i, label in enumerate(labels))])
    try:
        lines = permute_labels(text, labels, seed).splitlines()[1:]
    except UnsupportedError:
        return  # names of marks alone
    heads = [line.rpartition(": number ")[0] for line in lines]
    assert sorted(heads) == sorted(labels)
    moved = [head for head, label in zip(heads, labels, strict=True) if head != label]
    assert len(moved) >= 2


def test_other_task_is_an_instruction_for_other_labels() -> None:
    used = kit(reply="Sort bugs.")
    made = method_named("other-task").inducer(used).induce(SUPPORT, seed=1)
    assert (made.text, made.labels) == ("Sort bugs.", SUPPORT.labels)
    assert made.provenance.support_key == SUPPORT.key
    assert isinstance(used.writer.model, ScriptedModel)
    (chat,) = used.writer.model.calls
    assert not any(example.text in chat[-1]["content"] for example in SUPPORT.examples)
    assert any("written for the task" in note for note in made.provenance.notes)


@pytest.mark.slow
def test_the_estimate_includes_rivals_and_the_report_names_the_winner(server: LabellingServer, tmp_path: Path) -> None:  # noqa: F811
    tasks = [write_task(tmp_path, name) for name in ("shop", "bank", "club")]
    rivals = ("tfidf", "knn-icl", "keywords", "other-task")
    grid = settings(server, tasks, methods=("naive", "mii", *rivals), options={"knn-icl": {"similarity": "tfidf"}})
    calls = {line.method: line.cost.calls for line in estimate(grid, tmp_path / "run")}
    assert calls == {"naive": 36, "mii": 39, "tfidf": 0, "knn-icl": 36, "keywords": 36, "other-task": 39, "all": 186}
    run = evaluate(grid, tmp_path / "run")
    assert not run.failed
    spent = [r.spent.calls + r.instruction.cost.calls for r in run.records.values() if r.instruction]
    assert sum(spent) == 186
    lines = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    assert {Record.model_validate_json(line).cell.method for line in lines} == set(grid.methods)
    write_report(Results.read([tmp_path / "run"]), tmp_path / "report")
    finding = " ".join(re.findall(r'<p class="finding">(.*)</p>', (tmp_path / "report" / "index.html").read_text()))
    # The server labels by the text alone, so every prompt is as good as the instruction.
    assert "mii does not beat rivals that write no instruction: " in finding
    assert "knn-icl (" in finding
    assert "and controls that lack its content: keywords (" in finding


def test_a_method_whose_packages_are_missing_is_refused_before_the_first_cell(
    server: LabellingServer,  # noqa: F811
    tmp_path: Path,
) -> None:
    if find_spec("setfit"):
        pytest.skip("setfit is here")
    with pytest.raises(ImportError, match=re.escape("pip install 'promptmii[rivals]'")):
        evaluate(settings(server, [write_task(tmp_path, "shop")], methods=("setfit",)), tmp_path / "run")
    assert server.bodies == []


@pytest.mark.slow
@NEEDS_MINILM
def test_embeddings_generalize_beyond_words() -> None:
    query = (Example("refund the payment please", "money"), Example("my package has not come", "parcel"))
    assert scored("embed", SUPPORT, query).labels == ["money", "parcel"]


@NEEDS_MINILM
@pytest.mark.slow
def test_setfit_trains_on_pairs(capfd: pytest.CaptureFixture[str]) -> None:
    query = (Example("refund the payment please", "money"), Example("my package has not come", "parcel"))
    assert scored("setfit", SUPPORT, query).labels == ["money", "parcel"]
    assert capfd.readouterr() == ("", "")
