"""A small grid on tasks that the code has not seen, computed again from its records by scikit-learn, scipy and hand.

The models are real (`smol` follows, by torch); every prompt, calibration and score is made here a second time.
"""
# pyright: reportOptionalMemberAccess=false, reportArgumentType=false

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import bootstrap
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline

from promptmii import Example, load_model
from promptmii.data import draw_query, draw_support, load_task
from promptmii.evaluation import evaluate
from promptmii.evaluation.plan import EvaluateSettings
from promptmii.models import LanguageModel, sentences
from promptmii.models.base import Choice
from promptmii.records import Record, Run
from promptmii.task import Task

pytest.importorskip("torch")
pytestmark = [pytest.mark.smol, pytest.mark.slow]
N, ROWS = 6, 4
EMBEDS = ("embed", "setfit") if sentences.available() else ()
PROMPTED = ("naive", "icl", "keywords", "zero", "knn-icl")
"""Their prompts are put together here a second time. `zero` stands for all methods whose instruction a model writes."""
CLASSIFIERS = ("tfidf", "tfidf-all", *EMBEDS)
ALL = (*PROMPTED, *CLASSIFIERS)
BIKES = {
    "repair": ("my {} is broken", "the {} makes a noise", "can you fix a {}", "the {} came loose on the road"),
    "rental": ("can I rent a {} for a day", "what does it cost to hire a {}", "I return the {} tomorrow"),
    "praise": ("the new {} is a joy", "I love my {}", "what a wonderful {}", "best {} in town"),
}
WEATHER = {
    "0": ("rain is coming to {}", "{} floods after the storm", "thunder over {} tonight", "wet roads near {}"),
    "1": ("clear sky over {}", "{} has another hot day", "sunshine in {} all week", "no cloud above {}"),
}
PLACES = ("wheel", "saddle", "brake", "tandem", "cargo bike", "Oslo", "Lima", "Accra", "Hanoi", "the coast")


def write(folder: Path, name: str, forms: dict[str, Sequence[str]], words: Sequence[str]) -> None:
    rows = [{"text": form.format(word), "label": label} for label in forms for form in forms[label] for word in words]
    random.Random(name).shuffle(rows)
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    write(folder, "bikes", BIKES, PLACES[:5])
    write(folder, "weather", WEATHER, PLACES[5:])
    return folder


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    models = {"untrained": ("hf:smol",), "followers": ("hf:smol",)}
    grid = EvaluateSettings.of(
        tasks=(str(folder),), methods=ALL, n=(N,), seeds=1, evaluate=ROWS, budget=24, workers=1, **models
    )
    return evaluate(grid, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def smol() -> Iterator[LanguageModel]:
    model = load_model("hf:smol")
    yield model
    model.close()


def done(run: Run, *methods: str) -> list[Record]:
    return [r for r in run.records.values() if r.status == "done" and r.cell.method in methods]


def task_of(folder: Path, record: Record) -> Task:
    return load_task(folder / f"{record.cell.task}.jsonl").task


def support_of(folder: Path, record: Record) -> tuple[Example, ...]:
    return draw_support(task_of(folder, record), N, 0).examples


def logp(model: LanguageModel, prompts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Log-probabilities among the labels, shape (prompts, labels)."""
    answers = model.choose([[{"role": "user", "content": prompt}] for prompt in prompts], list(labels))
    return log_softmax(np.array([answer.scores for answer in answers if isinstance(answer, Choice)]), axis=1)


def icl_prompt(empty: str, shown: Sequence[Example], text: str) -> str:
    """An in-context learning prompt, built by hand from the label list prompt."""
    blocks = [f"Input: {json.dumps(e.text)}\nLabel: {e.label}" for e in shown]
    return "\n\n".join(["Examples:", *blocks]) + "\n\n" * bool(shown) + empty.replace("{text}", json.dumps(text))


def nearest(examples: Sequence[Example], text: str, k: int = 5) -> list[Example]:
    words = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    vectors: Any = words.fit_transform([e.text for e in examples])
    query: Any = words.transform([text])
    order = np.argsort(-(vectors @ query.T).toarray().ravel(), kind="stable")
    return [examples[i] for i in order if examples[i].text != text][:k][::-1]


def test_scores_match_scikit_learn(run: Run) -> None:
    assert not run.failed
    for record in done(run, *ALL):
        gold, predicted = record.scored(run.queries)
        names = [label or "none" for label in predicted]
        labels = sorted(set(gold))
        measured = record.instruction.measured
        assert measured.n == len(gold) == ROWS
        expected = f1_score(gold, names, labels=labels, average="macro", zero_division=0)
        assert measured.macro_f1 == pytest.approx(expected), record.cell.name
        assert measured.accuracy == pytest.approx(accuracy_score(gold, names))

        codes = {label: code for code, label in enumerate([*labels, *sorted({*names} - {*labels})])}
        pairs = np.array([[codes[label] for label in side] for side in (gold, names)])

        def resampled(rows: np.ndarray, axis: int = -1, pairs: np.ndarray = pairs) -> np.ndarray:
            gold_codes, predicted_codes = pairs[:, rows]
            codes_in_use = range(len(set(pairs[0])))
            n_gold = np.array([(gold_codes == code).sum(axis=axis) for code in codes_in_use])
            n_predicted = np.array([(predicted_codes == code).sum(axis=axis) for code in codes_in_use])
            both = gold_codes == predicted_codes
            hits = np.array([(both & (gold_codes == code)).sum(axis=axis) for code in codes_in_use])
            f1 = 2 * hits / np.maximum(n_predicted + n_gold, 1)
            return (f1 * (n_gold > 0)).sum(axis=0) / (n_gold > 0).sum(axis=0)

        again = bootstrap((np.arange(ROWS),), resampled, method="percentile", rng=0).confidence_interval
        assert measured.low == pytest.approx(again.low, abs=0.1), record.cell.name
        assert measured.high == pytest.approx(again.high, abs=0.1), record.cell.name


def test_classifiers_match_scikit_learn(run: Run, folder: Path) -> None:
    for record in done(run, *CLASSIFIERS):
        task = task_of(folder, record)
        rows = task.train if record.cell.method == "tfidf-all" else support_of(folder, record)
        texts, labels = [e.text for e in rows], [e.label for e in rows]
        query = [e.text for e in draw_query(task, ROWS)]
        regression = LogisticRegression(class_weight="balanced", max_iter=1000)
        if record.cell.method == "setfit":
            continue  # it trains a network: what it says is checked, and why it says so is not
        if record.cell.method == "embed":
            expected = regression.fit(sentences.embed(texts), labels).predict(sentences.embed(query))
        else:
            words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\b\w+\b")
            expected = make_pipeline(words, regression).fit(texts, labels).predict(query)
        assert record.labels == list(expected), record.cell.name
        assert record.instruction.calibration is None


def test_calibrations_are_fitted_on_texts_that_their_prompt_does_not_show(
    run: Run, folder: Path, smol: LanguageModel
) -> None:
    """The offset is minus each label's mean log-probability over the support, up to a constant."""
    for record in done(run, *PROMPTED):
        if record.cell.task != "bikes":
            continue
        instruction, support = record.instruction, support_of(folder, record)
        naive = next(r for r in done(run, "naive") if r.cell.task == record.cell.task).instruction
        empty = naive.prompt("{text}").replace('"{text}"', "{text}")
        calibrating, prompt_of = _prompts(record, support, empty)
        if record.cell.method == "zero":  # a text that the instruction quotes calibrates nothing
            written = instruction.text.casefold()
            left = [e.text.casefold() not in written for e in support]
            calibrating = [prompt for prompt, fresh in zip(calibrating, left, strict=True) if fresh]
        query = [e.text for e in draw_query(task_of(folder, record), ROWS)]
        fitted = logp(smol, calibrating, instruction.labels).mean(axis=0)
        offset = np.array(instruction.calibration.offset)
        assert offset - offset.mean() == pytest.approx(fitted.mean() - fitted, abs=1e-3), record.cell.name
        assert set(instruction.calibration.scale) == {1.0}
        assert instruction.calibration_cost.calls == len(calibrating)
        z = log_softmax(logp(smol, [prompt_of(text) for text in query], instruction.labels) + offset, axis=1)
        recorded = np.array([p.probabilities for p in record.predictions])
        assert recorded == pytest.approx(np.exp(z), abs=2e-3), record.cell.name


def _prompts(record: Record, support: Sequence[Example], empty: str):
    """The calibration prompts, and a function from a text to its prompt."""
    instruction = record.instruction
    if record.cell.method == "icl":
        by_label = sorted(support, key=lambda e: instruction.labels.index(e.label))
        folds = [by_label[start::5] for start in range(5)]
        pairs = [(e.text, [s for s in support if s not in fold]) for fold in folds for e in fold]
        return [icl_prompt(empty, shown, text) for text, shown in pairs], lambda text: icl_prompt(empty, support, text)
    if record.cell.method == "knn-icl":
        ask = _by_embedding if sentences.available() else nearest
        prompts = [icl_prompt(empty, ask(support, e.text), e.text) for e in support]
        return prompts, lambda text: icl_prompt(empty, ask(support, text), text)
    return [instruction.prompt(e.text) for e in support], instruction.prompt


def _by_embedding(examples: Sequence[Example], text: str, k: int = 5) -> list[Example]:
    vectors = sentences.embed([e.text for e in examples])
    order = np.argsort(-(vectors @ sentences.embed([text])[0]), kind="stable")
    return [examples[i] for i in order if examples[i].text != text][:k][::-1]
