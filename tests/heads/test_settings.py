"""Settings of heads: declared once, for the constructor, the checks of types, searches and documentation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from sklearn.base import clone

from img2prompt_cache.heads import HEADS, make_head, settings_of, space_of
from img2prompt_cache.heads.base import Head
from img2prompt_cache.heads.mlp import Mlp
from img2prompt_cache.heads.settings import Setting, setting, settings_declared, type_name
from img2prompt_cache.heads.space import Choices, LogUniform


class Base(Head):
    """A head."""

    name = "base"

    rate: float = setting("How fast.", default=0.5, search=LogUniform(0.1, 1.0))
    widths: Sequence[int] | None = setting("How wide.", default=None)


class Preset(Base):
    """The same, with other defaults."""

    name = "preset"

    rate: float = 0.25
    widths: Sequence[int] | None = setting(default=(3,), search=Choices(((3,), (4,))))
    more: bool = setting("One more.", default=False)


class Fixed(Preset):
    """The same, without a search."""

    rate: float = setting("How slow.", default=0.125, search=None)


def test_a_subclass_inherits_what_it_does_not_say():
    assert settings_declared(Base) == {
        "rate": Setting("rate", float, 0.5, "How fast.", LogUniform(0.1, 1.0)),
        "widths": Setting("widths", Sequence[int] | None, None, "How wide."),
    }
    assert settings_declared(Preset) == {
        "rate": Setting("rate", float, 0.25, "How fast.", LogUniform(0.1, 1.0)),
        "widths": Setting("widths", Sequence[int] | None, (3,), "How wide.", Choices(((3,), (4,)))),
        "more": Setting("more", bool, default=False, description="One more."),
    }
    assert settings_declared(Fixed)["rate"] == Setting("rate", float, 0.125, "How slow.")
    assert settings_declared(Fixed)["widths"] == settings_declared(Preset)["widths"]


def test_a_subclass_without_a_decorator_keeps_its_settings():
    assert Preset().get_params() == {"rate": 0.25, "widths": (3,), "more": False}
    assert clone(Preset(more=True, rate=1.0)).get_params() == {"rate": 1.0, "widths": (3,), "more": True}

    class Narrow(Mlp):
        """An mlp with other defaults."""

        hidden: Sequence[int] = (7,)

    assert Narrow().hidden == (7,)
    assert clone(Narrow(lr=0.5)).get_params() == {**Mlp().get_params(), "hidden": (7,), "lr": 0.5}


def test_a_setting_without_a_description_is_refused():
    with pytest.raises(TypeError, match=r"Wrong\.rate is no declared setting"):

        class Wrong(Head):
            rate: float = 0.5


def test_the_documentation_of_a_head_lists_its_settings():
    assert inspect.getdoc(Preset) == (
        "The same, with other defaults.\n\nParameters\n----------\n"
        "rate : float, default 0.25\n    How fast.\n"
        "widths : list of int or None, default (3,)\n    How wide.\n"
        "more : bool, default False\n    One more."
    )
    for name in HEADS:
        documented = inspect.getdoc(type(make_head(name)))
        assert all(f"\n{setting} : " in documented for setting in settings_of(name))


@pytest.mark.parametrize("name", HEADS)
def test_every_setting_is_described_in_one_line(name):
    for each in settings_of(name).values():
        assert each.accepts(each.default)
        assert each.description.endswith(".")
        assert len(each.description) <= 100
        assert each.description.isprintable()


def test_what_is_searched_by_a_preset_is_its_own():
    assert space_of("linear") == {**_without(space_of("mlp"), "hidden"), "lr": LogUniform(1e-6, 1e-3)}
    assert space_of("wide-mlp") == {**space_of("linear"), "expand": Choices((1, 2, 4, 16))}
    assert {*space_of("seed-vit")} == {"lr", "batch_size", "dropout", "weight_decay", "optimizer"}
    assert space_of("seed-vit") == space_of("seed-resnet50")
    assert space_of("mean") == space_of("seed-tuned-resnet") == {}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "int"),
        (float | None, "float or None"),
        (float | Sequence[float] | None, "float or list of float or None"),
        (Sequence[Mapping[str, Any]], "list of dict"),
    ],
)
def test_types_in_words(kind, words):
    assert type_name(kind) == words


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (int, (3,), (3.0, True, "3", None)),
        (float, (3, 3.5), (True, "3")),
        (bool, (True,), (1,)),
        (str, ("3",), (3,)),
        (float | None, (None, 1), ("none",)),
        (Sequence[int], ([1], (2, 3), []), (1, "12", [1.5], [[1]])),
        (Mapping[str, Any] | None, ({}, None), ([],)),
    ],
)
def test_values_of_a_type(kind, good, bad):
    declared = Setting("x", kind, None, "")
    assert all(declared.accepts(value) for value in good)
    assert not any(declared.accepts(value) for value in bad)


def _without(space, name):
    return {key: value for key, value in space.items() if key != name}
