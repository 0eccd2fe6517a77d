"""Examples of docstrings, run in the current folder."""

from __future__ import annotations

import doctest
from typing import Any


def run_examples(function: Any) -> None:
    """Run the examples in a docstring; fail where there are none, or one prints something else."""
    told: list[str] = []
    parser = doctest.DocTestParser()
    examples = parser.get_doctest(function.__doc__, {}, function.__qualname__, None, None)
    result = doctest.DocTestRunner(verbose=False).run(examples, out=told.append)
    assert result.attempted
    assert not result.failed, "".join(told)
