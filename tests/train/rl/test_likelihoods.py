"""Drafts that share a prompt get the same log-probabilities and gradient as drafts computed separately."""
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

import pytest

torch = pytest.importorskip("torch")

from pathlib import Path  # noqa: E402

from tests.train.toys import write_model  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from promptmii.models.hf.engines import engine_for  # noqa: E402
from promptmii.train.rl.likelihoods import can_share, draft_logps  # noqa: E402


def test_sharing_a_prompt_changes_neither_values_nor_gradients(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(write_model(tmp_path / "tiny"))
    engine_for(model)
    assert can_share(model)
    stream = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, 20, (size,), generator=stream).tolist() for size in (9, 5, 1)]
    drafts = [torch.randint(3, 20, (size,), generator=stream).tolist() for size in (4, 1, 6, 3, 2)]
    owners = [0, 1, 0, 1, 2]
    weights = [torch.rand(len(draft), generator=stream) for draft in drafts]

    shared = draft_logps(model, [prompts[owner] for owner in owners], drafts, temperature=0.7)
    sum((logps * weight).sum() for (logps, _), weight in zip(shared, weights, strict=True)).backward()
    gradient = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    separate = []
    for owner, draft in zip(owners, drafts, strict=True):
        ids = torch.tensor([prompts[owner] + draft])
        logs = (model(ids).logits[0, len(prompts[owner]) - 1 : -1] / 0.7).log_softmax(-1)
        separate.append((logs.gather(1, torch.tensor(draft)[:, None])[:, 0], -(logs.exp() * logs).sum(-1)))
    sum((logps * weight).sum() for (logps, _), weight in zip(separate, weights, strict=True)).backward()

    for (logps, entropy), (expected_logps, expected_entropy) in zip(shared, separate, strict=True):
        torch.testing.assert_close(logps, expected_logps)
        torch.testing.assert_close(entropy, expected_entropy)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradient[name], parameter.grad, atol=1e-5, rtol=1e-4, msg=name)
