"""Rivals that use no prompt: classifiers trained on the same examples, by scikit-learn and setfit.

They show what an instruction is worth on a task where a few examples and no LLM do as well.
"""

import tempfile
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from promptmii.errors import DataError, MissingDependencyError
from promptmii.follower import Prediction, Predictor
from promptmii.inducers.fixed import Unprompted
from promptmii.inducers.method import Kit, Method, Role
from promptmii.instruction import Instruction
from promptmii.models import sentences
from promptmii.models.threads import in_caller
from promptmii.task import Support

WORD = r"\b\w+\b"
"""Single letters and digits are words too."""
NO_PROMPT = "a classifier gives the labels; as a prompt, this is the list of labels alone"


@dataclass(frozen=True)
class Classifier(Predictor):
    """A trained classifier as a `Predictor`. A label of which it saw no example has the probability 0."""

    trained: Any
    """Has scikit-learn's `classes_` and `predict_proba`."""

    def prepare(self, instruction: Instruction, support: Support) -> Instruction:
        """Its texts are remembered; there is nothing to calibrate."""
        return instruction.fitted_on(support)

    def predict(self, instruction: Instruction, texts: Sequence[str]) -> list[Prediction]:
        known = [instruction.labels.index(str(label)) for label in self.trained.classes_]
        probabilities = np.zeros((len(texts), len(instruction.labels)))
        probabilities[:, known] = self.trained.predict_proba(list(texts))
        return [Prediction(instruction.labels[int(row.argmax())], tuple(row.tolist())) for row in probabilities]


class _ClassifierMethod(Method):
    role = Role.RIVAL
    prompt = "labels"
    asks_follower = False

    def inducer(self, kit: Kit) -> Unprompted:  # noqa: ARG002
        return Unprompted(self.name, NO_PROMPT)

    def predictor(self, kit: Kit, support: Support, seed: int) -> Classifier:  # noqa: ARG002
        texts, labels = [e.text for e in support.examples], [e.label for e in support.examples]
        if len(set(labels)) > 1:
            return Classifier(self._train(texts, labels, seed))
        from sklearn.dummy import DummyClassifier

        return Classifier(DummyClassifier().fit(texts, labels))

    def _train(self, texts: list[str], labels: list[str], seed: int) -> Any:
        raise NotImplementedError


class TfidfMethod(_ClassifierMethod):
    """TF-IDF of words and word pairs, and logistic regression."""

    name = "tfidf"
    summary = "no LLM: TF-IDF of words and word pairs, and logistic regression, on the n examples"

    def _train(self, texts: list[str], labels: list[str], seed: int) -> Any:  # noqa: ARG002
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORD)
        return _regression(words, texts, labels)


class TfidfAllMethod(TfidfMethod):
    """The same on everything: what many labelled rows give without an LLM."""

    name = "tfidf-all"
    summary = "no LLM: the same on all training rows, a ceiling that n examples need not reach"
    reads_all = True


class EmbedMethod(_ClassifierMethod):
    """Sentence embeddings and logistic regression."""

    name = "embed"
    summary = "no LLM: sentence embeddings (all-MiniLM-L6-v2) and logistic regression, on the n examples"

    def check(self) -> None:
        sentences.weights()

    def _train(self, texts: list[str], labels: list[str], seed: int) -> Any:  # noqa: ARG002
        from sklearn.preprocessing import FunctionTransformer

        return _regression(FunctionTransformer(sentences.embed), texts, labels)


class SetFitMethod(_ClassifierMethod):
    """Fine-tuned sentence embeddings (Tunstall et al. 2022, arXiv 2209.11055)."""

    name = "setfit"
    summary = "no LLM: SetFit, which fine-tunes all-MiniLM-L6-v2 on pairs of the n examples"

    epochs: int = Field(default=1, ge=1, description="over the pairs")

    def check(self) -> None:
        if find_spec("setfit") is None:
            raise MissingDependencyError("SetFit", "rivals")
        sentences.weights()

    def _train(self, texts: list[str], labels: list[str], seed: int) -> Any:
        return _SetFit(in_caller(lambda: self._fit(texts, labels, seed)))

    def _fit(self, texts: list[str], labels: list[str], seed: int) -> Any:
        from datasets import Dataset, disable_progress_bars
        from transformers import PrinterCallback, ProgressCallback

        from promptmii.models.hf.model import quiet

        setfit: Any = import_module("setfit")
        disable_progress_bars()
        setfit.logging.set_verbosity_error()
        with (
            quiet(),
            warnings.catch_warnings(action="ignore"),  # of what its own packages deprecate
            tempfile.TemporaryDirectory() as scratch,
            redirect_stdout(StringIO()),
        ):
            arguments = setfit.TrainingArguments(
                output_dir=scratch,
                num_epochs=self.epochs,
                seed=seed,
                save_strategy="no",
                report_to="none",
                show_progress_bar=False,
            )
            model = setfit.SetFitModel.from_pretrained(
                str(sentences.weights()), labels=sorted(set(labels)), device="cpu"
            )
            rows = Dataset.from_dict({"text": texts, "label": labels})
            trainer = setfit.Trainer(model=model, args=arguments, train_dataset=rows)
            for printer in (PrinterCallback, ProgressCallback):
                trainer.pop_callback(printer)
            trainer.train()
        return model


@dataclass(frozen=True)
class _SetFit:
    """A trained SetFit model, with scikit-learn's interface."""

    model: Any

    @property
    def classes_(self) -> Sequence[str]:
        return [str(label) for label in self.model.labels]

    def predict_proba(self, texts: Sequence[str], /) -> NDArray[np.float64]:
        return in_caller(lambda: self.model.predict_proba(list(texts), as_numpy=True, show_progress_bar=False))


def _regression(features: Any, texts: list[str], labels: list[str]) -> Any:
    """Logistic regression on features, every label with equal weight. Raises `DataError` if no text has a word."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    try:
        model = make_pipeline(features, LogisticRegression(class_weight="balanced", max_iter=1000))
        return model.fit(texts, labels)
    except ValueError as error:  # an empty vocabulary
        raise DataError(f"No classifier can be trained on these {len(texts)} examples: {error}.") from error
