"""How fast a follower labels, and whether its engines agree: `choose` against the usual ways, in one run on one model.

    python benchmarks/follower.py [--model qwen] [--queries 40] [--only a,b,b2] [--texts lines.txt]

a   our llama.cpp engine: exact likelihood of every label, the shared beginning computed once
a2  our transformers engine on the same weights, dequantised (needs promptmii[hf])
b   llama.cpp's own server, one chat completion per query, answer constrained by a JSON schema, prompt cache on
b2  the same, constrained by a grammar that allows the bare labels
c   transformers' `generate`, batches of 16 full prompts, ten tokens each

e   the labels of a against those of float32 arithmetic under transformers

Compare only numbers from the same run, and say on which processor.
"""

import argparse
import json
import random
import resource
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

from promptmii import load_model
from promptmii.models.base import Chat, Choice, LanguageModel
from promptmii.models.embedded import embedded_file

LABELS = ["sports", "politics", "business", "science", "travel", "health"]
VOCABULARY = (
    "the a of and to in for with on as at by from that this which were was had has market team players goal season "
    "party minister law court company shares profit sales growth study cells energy theory space telescope flight vote "
    "beach museum train doctor patients vaccine diet sleep heart reported announced won lost found opened closed hotel "
    "after during against between new old large small early late quickly slowly again never often although before"
)
INSTRUCTION = """\
Sort items from the wires of a regional newspaper by the desk that will edit them. What counts is the subject of the
item, not the place where it happened nor the tone in which it is told. Answer with the label alone.

sports: matches, results, transfers, injuries and contracts of players, clubs and leagues, athletes of any discipline,
  coaches, referees, championships and records; also what fans do around a game.
politics: governments, parliaments, parties, elections, laws, diplomacy, sanctions, war and peace, courts that rule on
  the acts of a state, protests and those who lead them.
business: companies, their owners, products, profits, shares, mergers and strikes; trade, prices, jobs, taxes, banks,
  currencies and markets, and the people who run them.
science: discoveries, experiments, space flight, computers and the internet as technology, energy, climate, animals
  and plants, and what researchers say about them.
travel: places to visit, hotels, airlines and railways as their passengers see them, holidays, museums, beaches.
health: illnesses, doctors, hospitals and waiting times, medicine, vaccines, food and sleep, care for the old.

Where two desks would take an item, choose the one whose readers lose most if it is missing: a club that is sold is
business, a minister with a virus is politics, a vaccine that fails is health, a satellite of a company is science."""
"""Some 300 tokens."""
Ask = Callable[[Sequence[Chat]], Any]


def texts(count: int, model: LanguageModel, source: Path | None) -> list[str]:
    """`count` texts of 20 to 60 tokens: the lines of a file cut to length, or words drawn at random."""
    draw = random.Random(0)
    lines = source.read_text("utf-8").splitlines() if source else []
    made: list[str] = []
    for i in range(count):
        words = lines[i % len(lines)].split() if lines else draw.choices(VOCABULARY.split(), k=80)
        while len(words) > 1 and model.count_tokens([" ".join(words)])[0] > 20 + i * 41 // count:
            words.pop()
        made.append(" ".join(words))
    draw.shuffle(made)
    return made


def by_server(name: str, constraint: dict[str, Any]) -> Ask:
    """One chat completion per query, as most programs do it."""
    xllamacpp: Any = import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(embedded_file(name))
    params.n_ctx, params.n_parallel, params.verbosity, params.fit_params = 4096, 1, 0, False
    server = xllamacpp.Server(params)
    asked = {"temperature": 0, "max_tokens": 32, "cache_prompt": True} | constraint
    return lambda chats: [server.handle_chat_completions({"messages": list(chat)} | asked) for chat in chats]


def by_generate(name: str) -> Ask:
    """Batched generation of ten tokens after every full prompt."""
    import torch

    from promptmii.models.hf.model import TransformersModel

    model: Any = load_model(f"hf:{name}")
    assert isinstance(model, TransformersModel)

    def ask(chats: Sequence[Chat]) -> None:
        prompts = sorted(model.prompts(chats), key=len)
        for first in range(0, len(prompts), 16):
            inputs = model.tokenizer.pad(
                {"input_ids": prompts[first : first + 16]}, padding_side="left", return_tensors="pt"
            )
            with torch.inference_mode():
                model.model.generate(**inputs, max_new_tokens=10, do_sample=False)

    return ask


def ways(name: str) -> dict[str, Callable[[], Ask]]:
    """Every way of labelling, loaded when its turn comes."""

    def ours(reference: str) -> Ask:
        model = load_model(reference)
        return lambda chats: model.choose(chats, LABELS)

    schema = {"type": "object", "properties": {"label": {"enum": LABELS}}, "required": ["label"]}
    grammar = "root ::= " + " | ".join(json.dumps(label) for label in LABELS)
    return {
        "a": lambda: ours(name),
        "a2": lambda: ours(f"hf:{name}"),
        "b": lambda: by_server(name, {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}),
        "b2": lambda: by_server(name, {"grammar": grammar}),
        "c": lambda: by_generate(name),
    }


def compare(name: str, chats: Sequence[Chat]) -> None:
    """Compare the labels and log-probabilities of llama.cpp with those of float32 arithmetic."""
    import torch

    from promptmii.models.hf.model import TransformersModel, read_weights
    from promptmii.models.references import weights_of

    weights = weights_of(f"hf:{name}")
    assert weights
    exact = TransformersModel("exact", *read_weights("exact", weights, torch.device("cpu"), torch.float32), "float32")
    pairs = [
        (ours, theirs)
        for ours, theirs in zip(load_model(name).choose(chats, LABELS), exact.choose(chats, LABELS), strict=True)
        if isinstance(ours, Choice) and isinstance(theirs, Choice)
    ]
    equal = sum(ours.index == theirs.index for ours, theirs in pairs)
    gaps = [abs(x - y) for one, other in pairs for x, y in zip(one.scores or (), other.scores or (), strict=True)]
    print(f"e   labels equal to float32 under transformers: {equal} of {len(pairs)};", end=" ")
    print(f"log-probabilities differ by {sum(gaps) / len(gaps):.3f} nats on average, {max(gaps):.3f} at most")


def main() -> None:
    """Run them one after another and print their rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen", help="an embedded model")
    parser.add_argument("--texts", type=Path, help="a text file with one query per line; without it, random words")
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--only", default="a,a2,b,b2,c,e")
    given = parser.parse_args()
    counter = load_model(given.model)
    chats: list[Chat] = [
        [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": text}]
        for text in texts(given.queries, counter, given.texts)
    ]
    counter.close()
    print(f"{given.model}: {len(chats)} queries of 20 to 60 tokens after an instruction of 300, {len(LABELS)} labels")
    chosen = given.only.split(",")
    rates: dict[str, float] = {}
    for way, load in ways(given.model).items():
        if way not in chosen:
            continue
        started = perf_counter()
        ask = load()
        loaded = perf_counter() - started
        started = perf_counter()
        ask(chats)
        rates[way] = len(chats) / (perf_counter() - started)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{way:<3} {rates[way]:6.2f} queries/s   loaded in {loaded:4.1f} s   peak so far {peak:.2f} GiB", flush=True
        )
    for way, rate in rates.items():
        for other in (other for other in ("b", "b2", "c") if other in rates and way.startswith("a")):
            print(f"    {way}/{other} = {rate / rates[other]:.1f}")
    if "e" in chosen:
        compare(given.model, chats)


if __name__ == "__main__":
    main()
