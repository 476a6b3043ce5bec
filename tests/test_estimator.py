# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportOptionalMemberAccess=false
import json
import math
import re
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import validate_data

from promptmii import Instruction, ScriptedModel, estimator
from promptmii.errors import (
    ConfigError,
    DataError,
    EndpointError,
    ScoreRefusedError,
    UnknownModelError,
    UnsupportedError,
)
from promptmii.estimator import PromptClassifier
from promptmii.models.base import Chat, Failure, FailureKind, LanguageModel

WORDS = {"billing": "invoice", "shipping": "parcel", "returns": "refund"}
X = [f"{word} number {i}" for i in range(10) for word in WORDS.values()]
y = [label for _ in range(10) for label in WORDS]


def query_of(chat: Chat) -> str:
    """The text that the follower labels."""
    return json.loads(re.findall(r'^Input: (".*")$', chat[-1]["content"], re.MULTILINE)[-1])


def keyword(chat: Chat, option: str) -> float:
    """High if the text contains the label's word."""
    return -0.1 if WORDS.get(option, option) in query_of(chat) else -3.0


def answer(chat: Chat, _: int) -> str:
    """An instruction for the generator, a label or nonsense for the follower."""
    content = chat[-1]["content"]
    if '\nInput: "' not in content:
        return "Decide what the ticket is about."
    return next((label for label, word in WORDS.items() if word in query_of(chat)), "no idea")


def scripted(**options: Any) -> ScriptedModel:
    return ScriptedModel(answer, keyword, **options)


def classifier(**changes: Any) -> PromptClassifier:
    return PromptClassifier(scripted(), **({"n": 6} | changes))


class TestFitAndPredict:
    def test_writes_one_instruction_and_labels_with_it(self):
        model = scripted()
        fitted = PromptClassifier(model, n=6).fit(X, y)
        assert fitted.instruction_.text == "Decide what the ticket is about."
        assert fitted.instruction_.labels == ("billing", "returns", "shipping")
        assert fitted.instruction_.method == "mii"
        assert fitted.instruction_.provenance.n == 6
        assert fitted.instruction_.cost.calls == 1
        assert fitted.instruction_.calibration_cost.calls == 6
        assert len(model.calls) == 1 + 6
        assert fitted.predict(["where is my parcel", "refund me"]).tolist() == ["shipping", "returns"]
        assert fitted.score(X, y) == 1.0

    def test_support_is_stratified_and_follows_the_seed(self):
        first, again, other = (classifier(seed=seed).fit(X, y).support_ for seed in (0, 0, 1))
        assert sorted(e.label for e in first.examples) == sorted([*WORDS] * 2)
        assert first == again != other

    @pytest.mark.parametrize("method", ["mii", "icl", "naive"])
    def test_methods(self, method: str):
        fitted = classifier(method=method).fit(X, y)
        assert fitted.instruction_.method == method
        assert fitted.score(X, y) == 1.0

    def test_best_of(self):
        fitted = classifier(best_of=3, n=9).fit(X, y)
        assert fitted.instruction_.method == "best-of-k"

    def test_generator_and_follower_may_differ(self):
        writer, reader = scripted(name="writer"), scripted(name="reader")
        fitted = PromptClassifier(writer, reader, n=6).fit(X, y)
        assert (fitted.instruction_.generator, fitted.instruction_.follower) == ("writer", "reader")
        assert len(writer.calls) == 1

    def test_generator_is_not_loaded_if_nothing_is_written(self):
        fitted = PromptClassifier("no-such-model", scripted(), method="icl", n=6).fit(X, y)
        assert fitted.score(X, y) == 1.0

    def test_instruction_saves_and_labels_without_the_classifier(self, tmp_path: Any):
        fitted = classifier().fit(X, y)
        loaded = Instruction.load(fitted.instruction_.save(tmp_path / "tickets.json"))
        assert [p.label for p in fitted.follower_.predict(loaded, X)] == y

    def test_calibration_auto_is_support_with_likelihoods(self):
        assert classifier().fit(X, y).instruction_.calibration.kind == "support"
        assert classifier(mode="generate").fit(X, y).instruction_.calibration is None


class TestInputs:
    @pytest.mark.parametrize(
        "texts",
        [
            X,
            tuple(X),
            np.array(X),
            np.array(X, dtype=object),
            np.array(X)[:, None],
            pd.Series(X),
            pd.Series(X, dtype="category"),
        ],
        ids=["list", "tuple", "array", "object array", "one column", "series", "categorical"],
    )
    def test_texts(self, texts: Any):
        fitted = classifier().fit(texts, y)
        assert fitted.predict(texts).tolist() == y
        assert fitted.support_ == classifier().fit(X, y).support_

    def test_table_of_one_column(self):
        table = pd.DataFrame({"ticket": X}, index=range(100, 130))
        assert classifier().fit(table, pd.Series(y, index=table.index)).predict(table).tolist() == y

    @pytest.mark.parametrize(
        ("values", "names"),
        [
            ([True, False], ("False", "True")),
            ([1, 0], ("0", "1")),
            ([10, 9], ("9", "10")),
            ([1.0, -1.0], ("-1", "1")),
            (["b", "a"], ("a", "b")),
        ],
    )
    @pytest.mark.parametrize("container", [list, np.array, pd.Series])
    def test_predictions_have_the_type_of_the_targets(self, values: list[Any], names: tuple[str, ...], container: Any):
        model = ScriptedModel(answer, lambda chat, option: 0.0 if query_of(chat).split()[0] == option else -4.0)
        targets = container(values * 5)
        texts = [f"{int(v) if isinstance(v, float) else v} {i}" for i, v in enumerate(values * 5)]
        fitted = PromptClassifier(model, n=4).fit(texts, targets)
        assert fitted.classes_.tolist() == sorted(values)
        assert fitted.instruction_.labels == names
        assert fitted.predict(texts).tolist() == values * 5
        assert fitted.predict(texts).dtype == fitted.classes_.dtype
        assert fitted.predict_proba(texts).argmax(axis=1).tolist() == [sorted(values).index(v) for v in values * 5]

    @pytest.mark.parametrize(
        ("texts", "says"),
        [
            ("one text", "sequence of texts"),
            ([], "0 sample"),
            (np.zeros((30, 2)), "one column"),
            ([*X[:-1], None], "None in row 29"),
            (pd.Series([*X[:-1], None]), "in row 29"),
            ([*X[:-1], float("nan")], "nan in row 29"),
            (list(range(30)), "0 in row 0"),
            ([b"bytes"] * 30, "expected a text"),
            (csr_array(np.eye(30)), "csr_array"),
            (dict.fromkeys(X, 1), "dict"),
            (pd.DataFrame({"a": X, "b": X}), "table of one column"),
        ],
    )
    def test_values_that_are_not_texts_are_refused(self, texts: Any, says: str):
        with pytest.raises(DataError, match=says):
            classifier().fit(texts, y)
        with pytest.raises(DataError, match=says):
            classifier().fit(X, y).predict(texts)

    @pytest.mark.parametrize(
        "targets",
        [
            pd.Series([True, False] * 6, dtype="boolean"),
            pd.Series([True, False] * 6, dtype="bool[pyarrow]"),
            pd.Series([1, 2] * 6, dtype="Int64"),
            pd.Series(["a", "b"] * 6, dtype="string"),
            pd.Series(["a", "b"] * 6, dtype="category"),
            pd.Series([True, False] * 6, dtype="category"),
            pd.Series([True, False] * 6, dtype="object"),
            pd.Series([1, 2] * 6, dtype="object"),
            pd.DataFrame({"y": pd.Series([True, False] * 6, dtype="boolean")}),
        ],
        ids=["boolean", "arrow", "Int64", "string", "category", "bool category", "bool objects", "objects", "frame"],
    )
    @pytest.mark.filterwarnings("ignore:A column-vector y was passed")
    def test_predictions_for_nullable_targets_have_their_values(self, targets: Any):
        fitted = classifier(n=4).fit([f"text {i}" for i in range(12)], targets)
        values = targets["y"] if isinstance(targets, pd.DataFrame) else targets
        assert fitted.classes_.tolist() == sorted(set(values.tolist()))
        assert fitted.instruction_.labels == tuple(str(value) for value in sorted(set(values.tolist())))

    @pytest.mark.parametrize(
        ("targets", "says"),
        [
            (None, "requires y"),
            (y[:-1], "inconsistent numbers"),
            (["same"] * 30, "1 class"),
            (np.linspace(0, 1, 30), "continuous"),
            ([1, 2**70] * 15, "Unknown label type"),
            (np.array([*y[:-1], 1], dtype=object), "y mixes texts with other values"),
            ([*y[:-1], None], "Input y contains NaN or None, first in row 29"),
            ([*y[:-1], float("nan")], "Input y contains NaN or None, first in row 29"),
            (pd.Series([*y[:-1], pd.NA], dtype="string"), "Input y contains NaN or None, first in row 29"),
            (np.array([y, y]).T, "1d array"),
            (["a", "a "] * 15, "more than once"),
        ],
    )
    def test_targets_that_are_not_classes_are_refused(self, targets: Any, says: str):
        with pytest.raises(ValueError, match=says):
            classifier().fit(X, targets)

    def test_more_examples_than_rows_is_an_error(self):
        with pytest.raises(DataError, match=r"n=31 .* n_samples=30"):
            classifier(n=31).fit(X, y)

    def test_blank_texts_are_not_drawn_but_may_be_labelled(self):
        fitted = classifier(n=30).fit([*X, " ", ""], [*y, "billing", "returns"])
        assert all(e.text.strip() for e in fitted.support_.examples)
        assert fitted.predict(["", " "]).shape == (2,)

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"method": "gepa"}, "Unknown method 'gepa'.*mii, icl, naive"),
            ({"mode": "guess"}, "mode"),
            ({"calibration": "magic"}, "calibration"),
            ({"n": 0}, "n = 0"),
            ({"best_of": 0}, "best_of"),
            ({"budget": 1}, "budget"),
            ({"generator": 3}, "LanguageModel"),
        ],
    )
    def test_wrong_parameters_are_refused_by_fit(self, wrong: dict[str, Any], says: str):
        with pytest.raises(ConfigError, match=says):
            classifier().set_params(**wrong).fit(X, y)

    def test_unknown_reference(self):
        with pytest.raises(UnknownModelError, match="smo"):
            PromptClassifier("smo").fit(X, y)


class TestProbabilities:
    def test_sum_to_one_and_agree_with_predict(self):
        fitted = classifier().fit(X, y)
        probabilities = fitted.predict_proba(X)
        assert probabilities.shape == (30, 3)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
        assert (fitted.classes_[probabilities.argmax(axis=1)] == fitted.predict(X)).all()

    def test_require_likelihoods(self):
        generates, silent = classifier(mode="generate"), PromptClassifier(scripted(gives_scores=False), n=6)
        for model in (generates, silent, generates.fit(X, y), silent.fit(X, y)):
            assert not hasattr(model, "predict_proba")
            with pytest.raises(AttributeError, match="predict_proba") as caught:
                model.predict_proba(X)
            assert isinstance(caught.value.__cause__, UnsupportedError)
        assert silent.score(X, y) == 1.0, "a choice without likelihoods is still a class"

    def test_available_before_fit(self):
        assert hasattr(classifier(), "predict_proba")
        assert hasattr(PromptClassifier("smol"), "predict_proba")
        assert not hasattr(PromptClassifier("smol", mode="generate"), "predict_proba")


class TestNothingIsMadeUp:
    def failing(self, **changes: Any) -> PromptClassifier:
        down = Failure(FailureKind.TIMEOUT, "no answer in 120 s")
        model = ScriptedModel(
            answer, lambda chat, option: down if "broken" in query_of(chat) else keyword(chat, option)
        )
        return PromptClassifier(model, n=6, **changes).fit(X, y)

    def test_a_failed_call_raises(self):
        fitted = self.failing()
        for method in (fitted.predict, fitted.predict_proba):
            with pytest.raises(EndpointError, match=r"1 of 2 calls failed .*timeout: no answer in 120 s"):
                method(["a parcel", "broken"])
        with pytest.raises(ScoreRefusedError, match="1 of 2 calls failed"):
            fitted.score(["a parcel", "broken"], ["shipping", "billing"])

    def test_answers_that_arrived_are_available(self):
        fitted = self.failing()
        answers = fitted.follower_.predict(fitted.instruction_, ["a parcel", "broken"])
        assert answers[0].label == "shipping"
        assert answers[1].failure is not None

    def test_a_generator_that_fails_raises(self):
        with pytest.raises(EndpointError, match="gave no instruction"):
            PromptClassifier(ScriptedModel([Failure(FailureKind.AUTH, "bad key")], keyword), n=6).fit(X, y)

    def test_a_generator_whose_context_is_too_short_raises_with_the_cure(self):
        too_long = Failure(FailureKind.CONTEXT, "The limit is 2,000 tokens.")
        with pytest.raises(EndpointError, match=r"2,000 tokens\. Use fewer examples, or give --context-length"):
            PromptClassifier(ScriptedModel([too_long], keyword), n=6).fit(X, y)

    def test_a_failed_fit_leaves_no_half_fitted_classifier(self):
        broken = PromptClassifier(ScriptedModel([Failure(FailureKind.AUTH, "bad key")], keyword), n=6)
        with pytest.raises(EndpointError):
            broken.fit(X, y)
        with pytest.raises(NotFittedError):
            broken.predict(X)

    def test_an_answer_without_a_class_raises_in_predict_and_is_a_miss_in_score(self):
        fitted = classifier(mode="generate").fit(X, y)
        assert fitted.predict(["a parcel"]).tolist() == ["shipping"]
        with pytest.raises(UnsupportedError, match=r"1 of 2 answers name no class \(first: 'no idea'"):
            fitted.predict(["a parcel", "something else"])
        assert fitted.score(["a parcel", "something else"], ["shipping", "billing"]) == 0.5

    def test_score_is_accuracy_and_takes_weights(self):
        fitted = classifier().fit(X, y)
        wrong = ["billing"] * 30
        weights = np.arange(30)
        assert fitted.score(X, wrong) == pytest.approx(accuracy_score(wrong, fitted.predict(X)))
        assert fitted.score(X, wrong, weights) == pytest.approx(
            accuracy_score(wrong, fitted.predict(X), sample_weight=weights)
        )

    def test_weights_of_other_rows_are_refused_before_any_call(self):
        model = scripted()
        fitted = PromptClassifier(model, n=6).fit(X, y)
        calls = len(model.calls)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            fitted.score(X, y, [1.0, 2.0])
        assert len(model.calls) == calls


class TestInScikitLearn:
    def test_params(self):
        params = PromptClassifier().get_params()
        assert params == {
            "generator": "qwen-writer", "follower": None, "method": "mii", "n": 20, "mode": "choose",
            "calibration": "auto", "best_of": 1, "budget": None, "seed": 0,
        }  # fmt: skip
        assert PromptClassifier().set_params(n=50, follower="hf:x").get_params() == params | {
            "n": 50,
            "follower": "hf:x",
        }

    def test_clone_is_unfitted_and_shares_the_model(self):
        fitted = classifier(seed=3).fit(X, y)
        copy = clone(fitted)
        assert copy.get_params() == fitted.get_params()
        assert copy.generator is fitted.generator
        assert not hasattr(copy, "instruction_")

    def test_clone_keeps_metadata_requests(self):
        with config_context(enable_metadata_routing=True):
            requesting = classifier().set_score_request(sample_weight=False)
            assert clone(requesting).get_metadata_routing().score.requests == {"sample_weight": False}

    def test_cross_validation(self):
        assert cross_val_score(classifier(), X, y, cv=3).tolist() == [1.0] * 3
        assert cross_val_score(classifier(), X, y, cv=3, scoring="f1_macro").tolist() == [1.0] * 3
        assert cross_val_score(classifier(), np.array(X), y, cv=3, scoring="neg_log_loss").mean() > -0.5
        assert cross_val_predict(classifier(), pd.DataFrame({"text": X}), y, cv=3).tolist() == y

    def test_pipeline(self):
        pipeline = make_pipeline(FunctionTransformer(_lower), classifier()).fit([text.upper() for text in X], y)
        assert pipeline.predict(["MY PARCEL"]).tolist() == ["shipping"]
        assert pipeline.score(X, y) == 1.0

    def test_grid_search(self):
        pipeline = Pipeline([("lower", FunctionTransformer(_lower)), ("prompt", classifier())])
        grid = {
            "prompt__n": np.array([3, 6]),
            "prompt__method": ["mii", "naive"],
            "prompt__calibration": ["none", "support"],
        }
        search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
        assert search.best_score_ == 1.0
        assert len(search.cv_results_["params"]) == 8

    def test_probability_calibration_on_top(self):
        fitted = CalibratedClassifierCV(classifier(), cv=3).fit(X, y)
        assert fitted.score(X, y) == 1.0

    def test_the_model_sees_numeric_classes_as_text(self):
        vote = VotingClassifier([("prompt", classifier())]).fit(X, y)
        assert vote.estimators_[0].instruction_.labels == ("0", "1", "2"), (
            "VotingClassifier numbers the classes; docs/estimator.md warns"
        )

    def test_tags(self):
        tags = get_tags(classifier())
        assert tags.estimator_type == "classifier"
        assert tags.target_tags.required
        assert (tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array) == (True, True, False)

    def test_repr_is_short(self):
        assert repr(PromptClassifier(n=50, mode="generate")) == "PromptClassifier(mode='generate', n=50)"


class TestPickle:
    def test_references_are_pickled_and_models_are_not(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
        loads: list[str] = []

        def load(reference: str) -> LanguageModel:
            loads.append(reference)
            return scripted(name=reference)

        monkeypatch.setattr(estimator, "_load", load)
        fitted = PromptClassifier("test:writer", "test:reader", n=6, calibration="contextual").fit(X, y)
        joblib.dump(fitted, tmp_path / "tickets.joblib")
        assert b"ScriptedModel" not in (tmp_path / "tickets.joblib").read_bytes()
        assert sorted(loads) == ["test:reader", "test:writer"]
        loads.clear()

        again = joblib.load(tmp_path / "tickets.joblib")
        assert again.instruction_ == fitted.instruction_
        assert hasattr(again, "predict_proba")
        assert loads == [], "nothing is loaded before it is needed"
        np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
        again.predict(X)
        assert loads == ["test:reader"], "the follower alone, once"

    def test_a_style_belongs_to_the_writer_and_names_no_other_model(self, monkeypatch: pytest.MonkeyPatch):
        loads: list[str] = []
        monkeypatch.setattr(estimator, "_load", lambda reference: loads.append(reference) or scripted())
        PromptClassifier("test:writer#ours", n=6).fit(X, y)
        assert set(loads) == {"test:writer"}
        with pytest.raises(ConfigError, match="was trained with its own prompts"):
            PromptClassifier("hf:milli19/promptmii-llama-3.1-8b-instruct", n=6).fit(X, y)
        assert set(loads) == {"test:writer"}

    def test_parameters_set_after_fit_wait_for_the_next_fit(self):
        fitted = classifier().fit(X, y).set_params(follower="no-such-model", mode="generate")
        again = joblib.hash(fitted.predict_proba(X))
        assert again == joblib.hash(classifier().fit(X, y).predict_proba(X))

    def test_models_stay_loaded_between_folds(self):
        assert estimator._load.cache_parameters()["maxsize"] == 2


def _lower(texts: Any) -> list[str]:
    return [text.lower() for text in texts]


# scikit-learn's own suite, every check. It feeds tables of numbers, so each row is written as a text, and the scripted
# follower answers with the label of the nearest example in its prompt. All but `_texts` and its tag is the real class.


def write_row(row: Any) -> str:
    return " ".join(map(repr, map(float, row)))


def read_row(text: str) -> list[float]:
    return list(map(float, text.split()))


def examples_of(chat: Chat) -> list[tuple[str, str]]:
    """The (text, label) pairs in the follower's prompt."""
    return re.findall(r'^Input: "(.*)"\nLabel: (.+)$', chat[-1]["content"], re.MULTILINE)


def nearness(chat: Chat, option: str) -> float:
    here = read_row(query_of(chat))
    return -min((math.dist(here, read_row(text)) for text, label in examples_of(chat) if label == option), default=1e3)


def nearest_label(chat: Chat, _: int) -> str:
    return max((label for _, label in examples_of(chat)), key=lambda label: nearness(chat, label))


class NearestExample(ScriptedModel):
    def __init__(self) -> None:
        super().__init__(nearest_label, nearness, context_length=10**6)

    def __repr__(self) -> str:
        return "NearestExample()"

    def __reduce__(self) -> Any:
        return NearestExample, ()  # without the record of its calls, which are no part of what it is


class OnRows(PromptClassifier):
    """Rows of numbers instead of texts."""

    def _texts(self, X: Any, *, reset: bool) -> list[str]:  # noqa: N803
        return [write_row(row) for row in validate_data(self, X, reset=reset)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False
        return tags


@pytest.mark.slow
@parametrize_with_checks(
    [
        OnRows(NearestExample(), method="icl", n=10, calibration="none"),
        OnRows(NearestExample(), method="icl", n=10, mode="generate"),
    ]
)
def test_scikit_learn_checks(estimator: Any, check: Any):
    check(estimator)


def test_scikit_learn_has_one_check_for_classifiers_of_texts():
    with pytest.warns(SkipTestWarning, match="requires input"):
        results = check_estimator(classifier())
    assert [(r["check_name"], r["status"]) for r in results] == [("check_estimator_cloneable", "passed")]


def test_the_page_in_docs_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(estimator, "_load", lambda reference: scripted(name=reference))
    page = (Path(__file__).parents[1] / "docs" / "estimator.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/estimator.md", "exec"), names)
    assert "Decide what the ticket is about." in capsys.readouterr().out
