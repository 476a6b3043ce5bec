"""The real default models: both engines choose alike, and the trained writer describes the labels."""

import pytest

pytest.importorskip("torch")

from promptmii import MetaInducer, Writer, load_model
from promptmii.data import demo_path, draw_support, load_task
from promptmii.models.base import Chat, Choice
from promptmii.models.embedded import EMBEDDED

pytestmark = [
    pytest.mark.qwen,
    pytest.mark.slow,
    pytest.mark.skipif(not EMBEDDED["qwen"].installed, reason="promptmii models install qwen"),
]
LABELS = ["sports", "politics", "business", "health"]
INSTRUCTION = f"Sort headlines by the desk that edits them. Answer with one of: {', '.join(LABELS)}."
HEADLINES = {
    "Striker signs for two more years after winning the cup": "sports",
    "Parliament votes on the new election law tonight": "politics",
    "Shares fall as the chain closes forty shops": "business",
    "Waiting times at hospitals are the longest since records began": "health",
    "Runner banned for four years after a failed doping test": "sports",
    "Bakers raise prices as flour becomes scarce": "business",
}


def choices(reference: str) -> list[Choice]:
    chats: list[Chat] = [
        [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": headline}] for headline in HEADLINES
    ]
    model = load_model(reference)
    try:
        return [choice for choice in model.choose(chats, LABELS) if isinstance(choice, Choice)]
    finally:
        model.close()


def test_both_engines_give_the_same_labels_and_similar_scores() -> None:
    llama, torch = choices("qwen"), choices("hf:qwen")
    expected = list(HEADLINES.values())
    assert [LABELS[choice.index] for choice in llama] == [LABELS[choice.index] for choice in torch] == expected
    gaps = [
        abs(llama_score - torch_score)
        for llama_choice, torch_choice in zip(llama, torch, strict=True)
        for llama_score, torch_score in zip(llama_choice.scores or (), torch_choice.scores or (), strict=True)
    ]
    assert sum(gaps) / len(gaps) < 0.15  # eight and sixteen bits round differently


def test_the_writer_describes_each_label_in_one_call() -> None:
    support = draw_support(load_task(demo_path()).task, 12)
    model = load_model("qwen-writer")
    try:
        instruction = MetaInducer(Writer(model)).induce(support)
    finally:
        model.close()
    lines = [line.casefold() for line in instruction.text.splitlines()]
    assert all(any(line.startswith(f"{label.casefold()}:") for line in lines) for label in support.labels)
    assert not any(example.text in instruction.text for example in support.examples)
    assert instruction.cost.calls == 1
