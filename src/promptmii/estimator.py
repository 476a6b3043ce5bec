"""PromptClassifier: promptmii as a scikit-learn classifier.

    fit      draw n stratified examples, write an instruction from them, calibrate the follower on them
    predict  let the follower label texts with that instruction

No weights are trained, so `fit` costs the same for a hundred rows and for a million. No class is ever made up: if a
call fails or an answer names no class, `predict` raises.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any, Literal, Self, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from promptmii.calibration_kinds import CalibrationKind
from promptmii.config import InduceSettings
from promptmii.data import sample
from promptmii.data.labels import label_text
from promptmii.errors import ConfigError, DataError, EndpointError, ScoreRefusedError, UnsupportedError
from promptmii.follower import Follower, Prediction, resolve_calibration
from promptmii.inducers import InContext, Naive
from promptmii.instruction import Mode
from promptmii.messages import nearest
from promptmii.models import WRITER, default_follower, load_model
from promptmii.models.base import LanguageModel
from promptmii.pipeline import make_inducer
from promptmii.scoring import score
from promptmii.styles import split_style, style_for
from promptmii.task import Example, Support, Task
from promptmii.version import VERSION

METHODS = ("mii", "icl", "naive")
SETTINGS = ("n", "mode", "calibration", "best_of", "budget", "seed")
"""Parameters that are also settings of `induce`."""

_load = lru_cache(maxsize=2)(load_model)
"""Keeps a generator and a follower loaded, so that cross-validation does not reload them for each fold."""


def _model(model: object) -> LanguageModel:
    if isinstance(model, str):
        return _load(split_style(model)[0])
    if isinstance(model, LanguageModel):
        return model
    raise ConfigError(f"A model is given as {model!r}; expected a reference such as 'smol', or a LanguageModel object.")


def _gives_probabilities(classifier: "PromptClassifier") -> bool:
    """Check that `predict_proba` is available. Before `fit`, a model reference is assumed to give likelihoods."""
    if hasattr(classifier, "instruction_"):
        available = classifier._has_likelihoods  # pyright: ignore[reportPrivateUsage]
    else:
        model = classifier.generator if classifier.follower is None else classifier.follower
        available = classifier.mode == "choose" and (not isinstance(model, LanguageModel) or model.card.gives_scores)
    if not available:
        raise UnsupportedError(
            f"predict_proba needs likelihoods: mode='choose' (here {classifier.mode!r}) and a follower that gives "
            "them. Use predict."
        )
    return True


class PromptClassifier(ClassifierMixin, BaseEstimator):
    """Classifies texts with an instruction that a language model writes from n labelled examples.

    Parameters
    ----------
    generator : the model that writes: a reference (`"smol"`, `"hf:<id>"`, `"openai:<model>"`, each with `#<style>` for
        the prompt it was trained with) or a `LanguageModel`.
    follower : the model that labels; `None` means the generator without its adapters. Clones share models; a pickle
        holds a reference as it is, and a `LanguageModel` whole.
    method : `"mii"` (the generator writes), `"icl"` (the examples are the prompt) or `"naive"` (the label names alone).
    n : number of examples to draw from X, which must have at least as many.
    mode : `"choose"` compares the likelihoods of the labels, `"generate"` reads the label from the follower's text.
    calibration : `"auto"`, `"none"`, `"contextual"`, `"support"`, `"supervised"`, or `"batch"` (rows then depend on
        each other).
    best_of : number of drafts to choose from; `"mii"` only.
    budget : maximum tokens of the instruction; `"mii"` only.
    seed : random seed of the draw and the drafts.

    Attributes
    ----------
    instruction_ : the `Instruction`, ready to save or export.
    classes_ : the sorted classes; the prompt names each by its `str`.
    support_ : the examples that were drawn.
    follower_ : the `Follower`; `follower_.predict(instruction_, texts)` returns every answer, including failures.
    """

    def __init__(
        self,
        generator: str | LanguageModel = WRITER,
        follower: str | LanguageModel | None = None,
        *,
        method: Literal["mii", "icl", "naive"] = "mii",
        n: int = 20,
        mode: Mode = "choose",
        calibration: Literal["auto", CalibrationKind] = "auto",
        best_of: int = 1,
        budget: int | None = None,
        seed: int = 0,
    ) -> None:
        self.generator = generator
        self.follower = follower
        self.method = method
        self.n = n
        self.mode = mode
        self.calibration = calibration
        self.best_of = best_of
        self.budget = budget
        self.seed = seed

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Make the instruction from n rows of `X` (a sequence, array, Series or column of texts) and `y` (classes).

        Rows with a blank text are not drawn. Raises `DataError`, `ConfigError` (both `ValueError`) and `ModelError`.
        """
        settings = InduceSettings.of(**{name: getattr(self, name) for name in SETTINGS})
        if isinstance(self.generator, str):
            settings = settings.model_copy(update={"generator": self.generator})
        if self.method not in METHODS:
            raise ConfigError(f"Unknown method {self.method!r}. {nearest(str(self.method), METHODS)}")
        if self.method == "mii":
            style_for(settings.generator)  # refuses a wrong style before a model is loaded
        classes, support = self._draw(self._texts(X, reset=True), y, settings)
        named = self.generator if self.follower is None else self.follower
        if self.follower is None and isinstance(named, str):
            named = default_follower(split_style(named)[0])
        model = _model(named)
        kind = resolve_calibration(settings.calibration, settings.mode, model.card)
        follower = Follower(model, settings.mode, kind, settings.shortlist)
        if self.method == "mii":
            inducer = make_inducer(settings, _model(self.generator), follower)
        else:
            inducer = InContext(model) if self.method == "icl" else Naive()
        instruction = follower.prepare(inducer.induce(support, seed=settings.seed), support)
        self.instruction_ = instruction.with_provenance(version=VERSION)
        self.classes_ = classes
        self.support_ = support
        self._has_likelihoods = follower.gives_probabilities
        self._made_with = (named, follower.mode, follower.calibration)
        self._follower = follower
        return self

    def _draw(self, texts: list[str], y: Any, settings: InduceSettings) -> tuple[NDArray[Any], Support]:
        targets = _targets(texts, y)
        classes, codes = cast("tuple[NDArray[Any], NDArray[np.int64]]", np.unique(targets, return_inverse=True))
        if len(classes) < 2:
            raise DataError(f"y has 1 class ({classes[0]!s}); a classifier needs at least two.")
        names = _names(classes)
        examples = tuple(
            Example(text, names[code]) for text, code in zip(texts, codes.tolist(), strict=True) if text.strip()
        )
        if settings.n > len(examples):
            raise DataError(
                f"n={settings.n} examples were asked for, but X has n_samples={len(examples)} with a text. "
                "Set n to that or less."
            )
        return classes, sample(Task("X", tuple(names), examples, ()), settings.n, settings.seed, query=0).support

    @property
    def follower_(self) -> Follower:
        """The follower of the last `fit`; loaded again after unpickling."""
        check_is_fitted(self, "instruction_")
        if "_follower" not in vars(self):
            model, mode, calibration = self._made_with
            self._follower = Follower(_model(model), mode, calibration)
        return self._follower

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """The class of each text.

        Raises `EndpointError` if a call failed, `UnsupportedError` if an answer named no class.
        """
        answers = self._answers(X)
        unparsed = [answer for answer in answers if answer.label is None]
        if unparsed:
            raise UnsupportedError(
                f"{len(unparsed)} of {len(answers)} answers name no class "
                f"(first: {(unparsed[0].answer or '')[:80]!r}), and none is made up. "
                "Use mode='choose'; or score(), which counts them as misses; or "
                "follower_.predict(instruction_, texts) for every answer."
            )
        position = {label: i for i, label in enumerate(self.instruction_.labels)}  # in the order of `classes_`
        return self.classes_[[position[str(answer.label)] for answer in answers]]

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """The probability of each class, in the order of `classes_`. Requires `choose` mode and likelihoods.

        Raises `EndpointError` if a call failed.
        """
        rows = [answer.probabilities for answer in self._answers(X)]
        if any(row is None for row in rows):
            raise UnsupportedError(
                f"{self.follower_.model.card.reference} gave no likelihoods, so no probabilities. Use predict."
            )
        return np.array(rows, dtype=np.float64)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """Accuracy (for macro-F1: `scoring="f1_macro"`). An unparsed answer is a miss.

        Raises `ScoreRefusedError` if a call failed, `ValueError` before any call if there is not a weight per text.
        """
        check_is_fitted(self, "instruction_")
        texts = self._texts(X, reset=False)
        gold = _names(_targets(texts, y))
        if sample_weight is not None:
            check_consistent_length(texts, sample_weight)
        scored = score(
            self.follower_, self.instruction_, [Example(text, label) for text, label in zip(texts, gold, strict=True)]
        )
        if scored.n_failed:
            raise ScoreRefusedError(_failed(scored.predictions))
        hits = [label == true for label, true in zip(scored.labels, scored.gold, strict=True)]
        return float(np.average(hits, weights=sample_weight))

    def _answers(self, X: Any) -> list[Prediction]:  # noqa: N803
        answers = self.follower_.predict(self.instruction_, self._texts(X, reset=False))
        if any(answer.failure for answer in answers):
            raise EndpointError(_failed(answers))
        return answers

    def _texts(self, X: Any, *, reset: bool) -> list[str]:  # noqa: ARG002, N803
        """The texts in `X`. `reset` is true in `fit`, so that a subclass can remember the shape of other inputs."""
        array = np.asarray(X, dtype=object)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            raise DataError(
                f"X is a {type(X).__name__} of shape {array.shape}; expected a sequence of texts, or a table of one "
                "column."
            )
        if not len(array):
            raise DataError("Found array with 0 sample(s) in X; at least one text is needed.")
        for row, text in enumerate(array):
            if not isinstance(text, str):
                raise DataError(
                    f"X holds {text!r} in row {row}; expected a text. Fill missing values first, or drop the row."
                )
        return [str(text) for text in array]

    def __getstate__(self) -> dict[str, Any]:
        """The state without the loaded model."""
        state = cast("dict[str, Any]", super().__getstate__())
        return {name: value for name, value in state.items() if name != "_follower"}

    def __sklearn_clone__(self) -> Self:
        """A new classifier with the same parameters. Models are shared, because a copy per fold would fill memory."""
        new = type(self)(**self.get_params(deep=False))
        if "_metadata_request" in vars(self):  # from set_score_request(); scikit-learn's own clone copies it too
            vars(new)["_metadata_request"] = deepcopy(vars(self)["_metadata_request"])
        return new

    def __sklearn_tags__(self) -> Tags:
        """Declare that each row is one text."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def _targets(texts: list[str], y: Any) -> NDArray[Any]:
    """`y`, checked as in scikit-learn: one column, as long as X, classes rather than measurements, nothing missing."""
    if y is None:
        raise DataError("PromptClassifier requires y to be passed, but the target y is None.")
    # Check the objects, because numpy turns a NaN in a list of names into the name "nan".
    objects = np.asarray(y, dtype=object)
    missing = np.flatnonzero(pd.isna(objects))
    if len(missing):
        raise DataError(f"Input y contains NaN or None, first in row {missing[0]}; drop the rows without a class.")
    targets = cast("NDArray[Any]", column_or_1d(_in_numpy_types(y), warn=True))
    check_consistent_length(texts, targets)
    assert_all_finite(targets, input_name="y")
    if len({isinstance(value, str) for value in objects.ravel()}) > 1:
        raise DataError("y mixes texts with other values, which have no common order; convert it with y.astype(str).")
    check_classification_targets(targets)
    return targets


def _in_numpy_types(y: Any) -> NDArray[Any]:
    """`y` as an array whose booleans and integers have numpy types.

    scikit-learn reads nullable and categorical booleans as 0.0 and 1.0, and refuses objects that are not texts.
    """
    array = np.asarray(y)
    if array.dtype == object and all(isinstance(value, bool | int | np.bool_ | np.integer) for value in array.flat):
        return np.array(array.tolist())
    return array


def _names(classes: NDArray[Any]) -> list[str]:
    return [label_text(value, "y") for value in classes.tolist()]


def _failed(answers: Sequence[Prediction]) -> str:
    failures = [answer.failure for answer in answers if answer.failure]
    return (
        f"{len(failures)} of {len(answers)} calls failed after all retries (first: {failures[0].kind}: "
        f"{failures[0].message}). No class is made up for them. Run again, or use "
        "follower_.predict(instruction_, texts), which gives the answers that arrived."
    )
