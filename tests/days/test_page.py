"""What `docs/recipes.md` shows, and how long it says that a day takes, is what the benchmark measured."""

from __future__ import annotations

import re

import pytest

from day import matching, measured, script

DAYS = {day["day"]: day for day in measured()["days"]}


@pytest.mark.parametrize("name", DAYS)
def test_the_outputs_of_a_day_are_those_measured(name):
    steps = script().days()[name]
    assert [step.text for step in steps] == [each["command"] for each in DAYS[name]["commands"]]
    for step, found in zip(steps, DAYS[name]["commands"], strict=True):
        printed = "".join(f"{line.rstrip()}\n" for line in found["output"])
        shown = "".join(r"(?:.*\n)*" if line == "…" else rf"{matching(line)}\n" for line in step.shown)
        assert not step.shown or re.fullmatch(shown, printed), f"{step.line}: {step.text}"


@pytest.mark.parametrize("name", DAYS)
def test_the_minutes_of_a_day_are_those_measured(name):
    commands = DAYS[name]["commands"]
    minutes = sum(each["processor_seconds"] for each in commands) / 60
    row = f"](#{name.lower().replace(' ', '-')}) | {len(commands)} | {minutes:.1f} | "
    assert row in script().PAGE.read_text(encoding="utf-8")
