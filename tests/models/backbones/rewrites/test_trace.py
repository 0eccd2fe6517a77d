"""What is seen of a model that is run."""

from __future__ import annotations

import torch
from torch import nn

from img2prompt_cache.models.backbones.rewrites.trace import follow


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.late, self.first, self.twice, self.never = (nn.Linear(3, 3) for _ in range(4))
        self.act, self.other = nn.GELU(), nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.first(x))
        x = self.other(self.twice(self.twice(x)) + 1)
        return self.late(x)


def test_calls_are_counted_and_each_taker_has_the_module_whose_output_it_took() -> None:
    model, x = Model(), torch.ones(2, 3)
    seen = follow(model, x, lambda m: isinstance(m, nn.Linear), lambda m: isinstance(m, nn.GELU))
    assert torch.equal(seen.output, model(x))
    assert seen.source == {model.act: model.first}  # what `other` takes is a sum, no module's output
    assert seen.calls == {model.first: 1, model.twice: 2, model.late: 1, model.act: 1, model.other: 1}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
