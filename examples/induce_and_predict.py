"""From a CSV to an instruction to labels: python examples/induce_and_predict.py [MODEL]"""

import sys

from promptmii import Follower, induce, load_model
from promptmii.data import demo_path
from promptmii.workbench import predict


def main(model: str = "qwen") -> None:
    """`model` writes the instruction and follows it. The instruction is measured on 12 unseen rows."""
    made = induce(demo_path(), n=12, generator=model, evaluate=12, budget=60)
    print(made.instruction.text)
    for row in made.rows:  # the label list alone, the examples in the prompt, the instruction
        print(f"{row.instruction.method}: macro-F1 {row.scored.macro_f1:.2f}, {row.scored.usage.prompt_tokens} tokens")
    print(*made.warnings, sep="\n")

    follower = Follower(load_model(model))
    print(predict(made.instruction, ["Where is my parcel?", "I was charged twice."], follower).csv())


if __name__ == "__main__":
    main(*sys.argv[1:])
