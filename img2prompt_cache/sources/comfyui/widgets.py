"""Values that a node of a workflow holds: a list without names, which other parts of the node give."""

from __future__ import annotations

import re
from collections.abc import Mapping

from img2prompt_cache.sources.comfyui import switches
from img2prompt_cache.sources.comfyui.graph import Node

_LOADER = ("ckpt_name", "vae_name", "lora_name")
_EASY = (*_LOADER, "resolution", "positive", "negative")

STRINGS: dict[str, tuple[str, ...]] = {
    "CLIPTextEncodeSDXL": ("text_g", "text_l"),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl"),
    "CLIPTextEncodeSD3": ("clip_l", "clip_g", "t5xxl"),
    "CLIPTextEncodeHunyuanDiT": ("bert", "mt5xl"),
    "CLIPTextEncodeHiDream": ("clip_l", "clip_g", "t5xxl", "llama"),
    "CLIPTextEncodeLumina2": ("system_prompt", "user_prompt"),
    "smZ CLIPTextEncode": ("text", "parser"),
    "BNK_CutoffSetRegions": ("region_text", "target_text"),
    "BNK_CutoffRegionsToConditioning": ("mask_token",),
    "ImpactWildcardEncode": ("wildcard_text", "populated_text"),
    "ImpactWildcardProcessor": ("wildcard_text", "populated_text"),
    "WildcardEncode //Inspire": ("wildcard_text", "populated_text"),
    "SDXLPromptStyler": ("text_positive", "text_negative"),
    "SDXLPromptStylerAdvanced": ("text_positive_g", "text_positive_l", "text_negative"),
    "Efficient Loader": (*_LOADER, "positive", "negative"),
    "Eff. Loader SDXL": ("base_ckpt_name", "refiner_ckpt_name", "vae_name", "positive", "negative"),
    "easy fullLoader": (
        "ckpt_name",
        "config_name",
        "vae_name",
        "lora_name",
        "resolution",
        "positive",
        "negative",
    ),
    "easy a1111Loader": _EASY,
    "easy comfyLoader": _EASY,
    "easy fluxLoader": _EASY,
    "easy cascadeLoader": ("stage_c", "stage_b", "vae_name", "clip_name", "lora_name", *_EASY[3:]),
    "easy stableDiffusion3API": ("positive", "negative"),
    "easy wildcards": ("text",),
    "Power Prompt (rgthree)": ("prompt",),
    "Power Prompt - Simple (rgthree)": ("prompt",),
    "BNK_CLIPTextEncodeAdvanced": ("text",),
    "DPRandomGenerator": ("text",),
    "Text Concatenate": ("delimiter", "clean_whitespace", "text_a", "text_b", "text_c", "text_d"),
    "Text Find and Replace": ("find", "replace"),
    "StringFunction|pysssss": ("action", "tidy_tags", "text_a", "text_b", "text_c"),
    "StringConcatenate": ("string_a", "string_b", "delimiter"),
    "StringReplace": ("string", "find", "replace"),
    "JoinStrings": ("string1", "string2", "delimiter"),
    "Text String": ("text", "text_b", "text_c", "text_d"),
    "SDXL Power Prompt - Positive (rgthree)": ("prompt_g", "prompt_l"),
    "WanVideoTextEncode": ("positive_prompt", "negative_prompt"),
    "WanVideoTextEncodeCached": ("model_name", "precision", "positive_prompt", "negative_prompt"),
    "RegionalConditioningSimple //Inspire": ("set_cond_area", "prompt"),
    "RegionalConditioningColorMask //Inspire": ("mask_color", "set_cond_area", "prompt"),
    "KSampler": ("sampler_name", "scheduler"),
}
"""Names of the values that are strings, in their order, where the node itself does not tell them."""

_CONTROLS = frozenset(("fixed", "increment", "decrement", "randomize"))
_HOLDS_TEXT = re.compile(r"text|prompt|string|encode|positive|chatglm|\bcond", re.IGNORECASE)


def values(kind: str, held: object, inputs: object) -> dict[str, object]:
    """Name the values that a node holds.

    Parameters
    ----------
    kind : str
    held : object
        ``widgets_values``: a list, or of some nodes an object.
    inputs : object
        ``inputs``: newer workflows name each value's input there.

    Returns
    -------
    dict of str to object
        Those that can be named.
    """
    if isinstance(held, Mapping):
        return {str(key): value for key, value in held.items()}
    if not isinstance(held, list):
        return {}
    plain = [value for value in held if not (isinstance(value, str) and value in _CONTROLS)]
    names = [_widget(one) for one in inputs] if isinstance(inputs, list) else []
    named = [name for name in names if name is not None]
    if len(named) == len(plain):
        return dict(zip(named, plain, strict=True))
    if switches.is_switch(Node(kind, {})):
        selector = next((value for value in plain if isinstance(value, bool | int)), None)
        return {} if selector is None else {"select": selector}
    strings = [value for value in plain if isinstance(value, str)]
    known = STRINGS.get(kind)
    if known is None and len(strings) == 1 and _HOLDS_TEXT.search(kind):
        known = ("positive",) if kind == "easy positive" else ("text",)
    elif known and known[0] == "delimiter" and strings[:1] in (["true"], ["false"]):
        known = ("linebreak_addition",)
    return dict(zip(known or (), strings, strict=False))


def shown_text(held: object) -> str | None:
    """Give the first text among the values of a node that shows texts."""
    level = held if isinstance(held, list) else []
    for value in level:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text.strip():
                return text
    return None


def _widget(one: object) -> str | None:
    widget = one.get("widget") if isinstance(one, Mapping) else None
    name = widget.get("name") if isinstance(widget, Mapping) else None
    return name if isinstance(name, str) else None
