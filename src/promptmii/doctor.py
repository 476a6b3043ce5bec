"""Checks whether a model is usable, with timed calls through `LanguageModel`."""

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.util import find_spec

from promptmii.config import Endpoint
from promptmii.errors import MissingDependencyError, ModelError, UnsupportedError
from promptmii.models.base import Chat, Choice, Completion, Failure, LanguageModel, Sampling
from promptmii.models.embedded import EMBEDDED
from promptmii.models.http.constraints import PROBE, PROBE_OPTIONS
from promptmii.models.references import ServerReference
from promptmii.parse import without_thought
from promptmii.progress import Progress

STORY: Chat = [{"role": "user", "content": "Tell a story about a lighthouse."}]
STORY_TOKENS = 64
TEXTS = ("My parcel has not come and nobody answers.", "How do I change the address of my order?")
ROWS: tuple[Chat, ...] = tuple(
    [{"role": "user", "content": f"Say what the message is about. {'It came this morning. ' * 20}\n{i}: {text}"}]
    for i, text in enumerate(TEXTS * 4)
)
"""A small follower workload: prompts that share a prefix."""
PATIENCE = 10.0
"""Seconds to wait for a server that is down or failing; less than a run would wait."""


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    finding: str
    cure: str = ""


@dataclass(frozen=True)
class Report:
    reference: str
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """The model is usable in at least one mode: every check but `choose` passed."""
        return all(check.ok for check in self.checks if check.name != "choose")


def examine(reference: str, endpoint: Endpoint, progress: Progress) -> Report:
    """Check a model, from loading to choosing. A `ModelError` becomes a failed check."""
    progress.step(f"Loading {reference}")
    start = time.perf_counter()
    endpoint = endpoint.model_copy(update={"patience": min(endpoint.patience, PATIENCE)})
    try:
        model = endpoint.load(reference)
    except ModelError as error:
        return Report(reference, (Check("load", False, str(error)),))
    checks: list[Check] = []
    with closing(model):
        try:
            for check in _checks(model, reference, endpoint, start, progress):
                checks.append(check)
        except ModelError as error:
            checks.append(Check("answer" if checks else "load", False, str(error)))
    return Report(reference, tuple(checks))


def _checks(
    model: LanguageModel, reference: str, endpoint: Endpoint, start: float, progress: Progress
) -> Iterator[Check]:
    revision = model.card.revision  # on a server, this makes the first request
    yield Check("load", True, f"in {time.perf_counter() - start:.1f} s; revision {revision[:60]}")
    progress.step("Reading the model's metadata")
    yield _context(model)
    yield _tokens(model)
    progress.step("Writing")
    yield _writing(model)
    progress.step("Choosing")
    yield _choosing(model)
    if not model.card.gives_scores and (server := ServerReference.parse(reference)):
        yield _first_tokens(server, endpoint)
    if other := _other_engine(reference):
        progress.step("Timing both engines")
        yield _compare_engines(model, reference, other, endpoint)


def _first_tokens(server: ServerReference, endpoint: Endpoint) -> Check:
    """Check whether a server without exact likelihoods has those of first tokens, which `+top_logprobs` requests."""
    reference = f"openai:{server.model}+top_logprobs" + (f"@{server.address}" if server.address else "")
    available = False
    with closing(endpoint.load(reference)) as model, suppress(ModelError):  # some servers fail on a request for them
        available = model.card.gives_scores
    if not available:
        return Check("likelihoods", True, "none")
    cure = f"{reference} gives probabilities and calibration where no two labels begin with the same token."
    return Check("likelihoods", True, "of first tokens", cure)


def _other_engine(reference: str) -> str | None:
    """The reference that runs the same embedded model in the other engine: llama.cpp or transformers."""
    kind, _, name = reference.rpartition(":")
    if name not in EMBEDDED or kind not in ("", "hf") or find_spec("torch") is None:
        return None
    from promptmii.models.hf.convert import is_converted

    if kind == "hf":
        return name
    return f"hf:{name}" if is_converted(name) else None


def _compare_engines(model: LanguageModel, reference: str, other: str, endpoint: Endpoint) -> Check:
    """Compare the labelling speed of the two engines on this machine. A fault of the other one is none of the model."""
    rates = {reference: _rate(model)}
    try:
        with closing(endpoint.load(other)) as other_model:
            rates[other] = _rate(other_model)
    except (ModelError, MissingDependencyError) as error:
        return Check("speed", True, f"{rates[reference]:.2g} rows/s; {other} cannot be timed: {error}")
    finding = ", ".join(f"{name} {rate:.2g} rows/s" for name, rate in rates.items())
    better = rates[other] > 1.1 * rates[reference]
    cure = f"{other} labels {rates[other] / rates[reference]:.1f} times as fast here: name it with --follower."
    return Check("speed", True, finding, cure if better else "")


def _rate(model: LanguageModel) -> float:
    """Rows that a warm model labels per second."""
    model.choose(ROWS[:1], PROBE_OPTIONS)
    start = time.perf_counter()
    model.choose(ROWS[1:], PROBE_OPTIONS)
    return (len(ROWS) - 1) / (time.perf_counter() - start)


def _context(model: LanguageModel) -> Check:
    length = model.card.context_length
    if model.card.context_assumed:
        finding = f"{length} tokens, assumed: the server does not report it"
        return Check("context", True, finding, "Set it with --context-length.")
    cure = "Long instructions and many examples will not fit; use a model with 4,096 tokens or more."
    return Check("context", length >= 512, f"{length} tokens", cure if length < 2048 else "")


def _tokens(model: LanguageModel) -> Check:
    count = model.count_tokens(["The quick brown fox jumps over the lazy dog."])[0]
    exact, estimate = "counted by the model's own tokenizer", "an estimate: the server has no tokenizer endpoint"
    return Check("tokens", count > 0, exact if model.card.exact_tokens else estimate)


def _writing(model: LanguageModel) -> Check:
    answer = model.generate([PROBE], Sampling(max_tokens=16))[0]
    if isinstance(answer, Failure):
        cure = "Check the server's log, the model's name and its chat template."
        return Check("generate", False, f"{answer.kind}: {answer.message}", cure)
    if not without_thought(answer.text):
        cure = "Its chat template may be missing, it may be a base model, or it spends all tokens on thinking."
        return Check("generate", False, "an empty answer", cure)
    start = time.perf_counter()
    story = model.generate([STORY], Sampling(max_tokens=STORY_TOKENS))[0]
    seconds = time.perf_counter() - start
    written = story.usage.completion_tokens if isinstance(story, Completion) else None
    speed = f"{written / seconds:.0f} tokens/s" if written else "speed unknown"
    return Check("generate", True, f"{answer.text.strip()[:40]!r}; {speed}")


def _choosing(model: LanguageModel) -> Check:
    cure = "Use --mode generate with this model, or serve it with vLLM, SGLang or llama.cpp."
    try:
        answer = model.choose([PROBE], PROBE_OPTIONS)[0]
    except UnsupportedError as error:
        return Check("choose", False, str(error), cure)
    if not isinstance(answer, Choice):
        return Check("choose", False, f"{answer.kind}: {answer.message}", cure)
    if answer.scores:
        return Check("choose", True, "likelihoods of the labels, so probabilities and calibration")
    return Check("choose", True, "answers are restricted to the labels; no probabilities")
