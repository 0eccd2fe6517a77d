"""Which module of a model takes the output of which other one, found by running the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

UNEXPECTED = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a step of a model raises where its library builds the model otherwise than is expected here."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What was seen while a model ran.

    Attributes
    ----------
    output : torch.Tensor
        Of the model.
    calls : counter of torch.nn.Module
        How often each watched module was called.
    source : dict of torch.nn.Module to torch.nn.Module
        For each module that took the output of another one, that other one.
    """

    output: Tensor
    calls: Counter[nn.Module]
    source: dict[nn.Module, nn.Module]


def follow(
    model: nn.Module,
    example: Tensor,
    gives: Callable[[nn.Module], bool],
    takes: Callable[[nn.Module], bool],
) -> Trace:
    """Run a model and watch some of its modules.

    Parameters
    ----------
    model : torch.nn.Module
    example : torch.Tensor, shape (n, 3, height, width)
        Normalised images to run it on.
    gives, takes : callable
        Whether a module is one of those whose output, or whose input, is watched.
    """
    made: dict[int, tuple[nn.Module, Tensor]] = {}
    calls: Counter[nn.Module] = Counter()
    source: dict[nn.Module, nn.Module] = {}

    def after(module: nn.Module, _inputs: object, output: Tensor) -> None:
        calls[module] += 1
        if gives(module):
            made[id(output)] = (module, output)  # the tensor is kept, so its id stays its own

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            source[module] = made[id(inputs[0])][0]

    watched = [module for module in model.modules() if gives(module) or takes(module)]
    hooks = [module.register_forward_hook(after) for module in watched]
    hooks += [module.register_forward_pre_hook(before) for module in watched if takes(module)]
    try:
        output = model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return Trace(output, calls, source)
