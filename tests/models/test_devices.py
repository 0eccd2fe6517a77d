from __future__ import annotations

import pytest
import torch

from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones.base import Backbone
from img2prompt_cache.models.devices import PRECISIONS, choose_device, choose_precision, has_bf16


def test_auto_is_the_best_this_machine_has() -> None:
    device = choose_device("auto")
    assert device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_precision("auto", device) == ("bf16" if has_bf16(device) else "fp32")


def test_what_is_asked_for_is_given() -> None:
    assert choose_device("cpu") == "cpu"
    for name in PRECISIONS[1:]:
        assert choose_precision(name, "cpu") == name
    assert PRECISIONS == ("auto", "fp32", "bf16", "fp16")
    assert "precision" in Backbone.__dataclass_fields__


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:", "cuda:x", "mps", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"unknown device .* did you mean"):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        UsageError, match=rf"device cuda:64 is not there: torch {torch.__version__[:3]}.* GPUs"
    ):
        choose_device("cuda:64")


def test_an_unknown_precision_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown precision 'float16'; did you mean fp16"):
        choose_precision("float16", "cpu")


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16", None])
def test_bf16_is_told_from_what_the_processor_can(flag: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    can = {"avx512_bf16": False, "avx2": True, **({flag: True} if flag else {})}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    assert has_bf16("cpu") == bool(flag)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not has_bf16("cpu")
