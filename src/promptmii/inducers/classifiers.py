"""Rivals that use no prompt: scikit-learn and SetFit classifiers, trained on the same examples.

They show on which tasks a few examples do as well without an LLM.
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
from promptmii.inducers.fixed import NoInstruction
from promptmii.inducers.method import Kit, Method, Role
from promptmii.instruction import Instruction
from promptmii.models import sentences
from promptmii.models.hf import quiet
from promptmii.models.threads import in_calling_thread
from promptmii.task import Support
from promptmii.words import WORD

NO_PROMPT = "a classifier gives the labels; as a prompt, this is the list of labels alone"


@dataclass(frozen=True)
class Classifier(Predictor):
    """A trained classifier as a `Predictor`. Labels without training examples have probability 0."""

    trained: Any
    """An object with scikit-learn's `classes_` and `predict_proba`."""

    def prepare(self, instruction: Instruction, support: Support) -> Instruction:
        """Record the support texts; there is nothing to calibrate."""
        return instruction.fitted_on(support)

    def predict(self, instruction: Instruction, texts: Sequence[str]) -> list[Prediction]:
        columns = [instruction.labels.index(str(label)) for label in self.trained.classes_]
        probabilities = np.zeros((len(texts), len(instruction.labels)))
        probabilities[:, columns] = self.trained.predict_proba(list(texts))
        return [Prediction(instruction.labels[int(row.argmax())], tuple(row.tolist())) for row in probabilities]


class _ClassifierMethod(Method):
    role = Role.RIVAL
    prompt = "labels"
    asks_follower = False

    def inducer(self, kit: Kit) -> NoInstruction:  # noqa: ARG002
        return NoInstruction(self.name, NO_PROMPT)

    def predictor(self, kit: Kit, support: Support, seed: int) -> Classifier:  # noqa: ARG002
        texts = [example.text for example in support.examples]
        labels = [example.label for example in support.examples]
        if len(set(labels)) > 1:
            return Classifier(self._train(texts, labels, seed))
        from sklearn.dummy import DummyClassifier

        return Classifier(DummyClassifier().fit(texts, labels))

    def _train(self, texts: list[str], labels: list[str], seed: int) -> Any:
        raise NotImplementedError


class TfidfMethod(_ClassifierMethod):
    """Logistic regression on TF-IDF of words and word pairs."""

    name = "tfidf"
    summary = "no LLM: TF-IDF of words and word pairs, and logistic regression, on the n examples"

    def _train(self, texts: list[str], labels: list[str], seed: int) -> Any:  # noqa: ARG002
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORD)
        return _fit_regression(vectorizer, texts, labels)


class TfidfAllMethod(TfidfMethod):
    """The same on all training rows: the ceiling without an LLM."""

    name = "tfidf-all"
    summary = "no LLM: the same on all training rows, a ceiling that n examples need not reach"
    reads_all = True


class EmbedMethod(_ClassifierMethod):
    """Logistic regression on sentence embeddings."""

    name = "embed"
    summary = "no LLM: sentence embeddings (all-MiniLM-L6-v2) and logistic regression, on the n examples"

    def check(self) -> None:
        sentences.weights()

    def _train(self, texts: list[str], labels: list[str], seed: int) -> Any:  # noqa: ARG002
        from sklearn.preprocessing import FunctionTransformer

        return _fit_regression(FunctionTransformer(sentences.embed), texts, labels)


class SetFitMethod(_ClassifierMethod):
    """Fine-tuned sentence embeddings (Tunstall et al. 2022, arXiv 2209.11055)."""

    name = "setfit"
    summary = "no LLM: SetFit, which fine-tunes all-MiniLM-L6-v2 on pairs of the n examples"

    epochs: int = Field(default=1, ge=1, description="passes over the pairs")

    def check(self) -> None:
        if find_spec("setfit") is None:
            raise MissingDependencyError("SetFit", "rivals")
        sentences.weights()

    @in_calling_thread
    def _train(self, texts: list[str], labels: list[str], seed: int) -> Any:
        from datasets import Dataset, disable_progress_bars
        from transformers import PrinterCallback, ProgressCallback

        setfit: Any = import_module("setfit")
        disable_progress_bars()
        setfit.logging.set_verbosity_error()
        with (
            quiet(),
            warnings.catch_warnings(action="ignore"),  # SetFit uses deprecated functions
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
        return _SetFit(model)


@dataclass(frozen=True)
class _SetFit:
    """A trained SetFit model with scikit-learn's interface."""

    model: Any

    @property
    def classes_(self) -> Sequence[str]:
        return [str(label) for label in self.model.labels]

    @in_calling_thread
    def predict_proba(self, texts: Sequence[str], /) -> NDArray[np.float64]:
        return self.model.predict_proba(list(texts), as_numpy=True, show_progress_bar=False)


def _fit_regression(features: Any, texts: list[str], labels: list[str]) -> Any:
    """Train logistic regression with balanced label weights. Raises `DataError` if no text contains a word."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    try:
        pipeline = make_pipeline(features, LogisticRegression(class_weight="balanced", max_iter=1000))
        return pipeline.fit(texts, labels)
    except ValueError as error:  # an empty vocabulary
        raise DataError(f"No classifier can be trained on these {len(texts)} examples: {error}.") from error
