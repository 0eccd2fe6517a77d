"""What is known of kinds of nodes: which inputs make which output, and which do not lead to the prompt.

Names are those that the nodes' authors gave; most kinds of a family are told by a pattern. What stands in no
table is read by the names of its inputs.
"""

from __future__ import annotations

import re

from img2prompt_cache.sources.comfyui.graph import Node

POSITIVE, NEGATIVE = "positive", "negative"

_PAIR = (POSITIVE, NEGATIVE)
_CONTEXT = ("", "", "", "", POSITIVE, NEGATIVE, "latent", "images")
_FOUR_TEXTS = ("text", "text_b", "text_c", "text_d")

OUTPUTS: dict[str, tuple[str, ...]] = {
    # WAS Node Suite
    "Text String": _FOUR_TEXTS,
    "Text String Truncate": _FOUR_TEXTS,
    "Bus Node": ("", "", "", "", *_PAIR),
    # SDXL Prompt Styler, Easy-Use, Comfyroll
    "SDXLPromptStylerAdvanced": (
        "text_positive_g",
        "text_positive_l",
        POSITIVE,
        NEGATIVE,
        NEGATIVE,
        NEGATIVE,
    ),
    "easy stylesSelector": _PAIR,
    "easy loraPromptApply": ("", "", *_PAIR),
    "easy fullLoader": ("", "", "", "", *_PAIR),
    "easy pipeOut": ("", "", *_PAIR, "latent", "", "", "image"),
    "easy pipeEdit": ("", "", *_PAIR, "latent", "", "", "image"),
    "easy fullkSampler": ("", "image", "", *_PAIR, "latent"),
    "easy controlnetLoader": ("", *_PAIR),
    "easy controlnetLoaderADV": ("", *_PAIR),
    "easy controlnetLoader++": ("", *_PAIR),
    "easy instantIDApply": ("", "", *_PAIR),
    "easy instantIDApplyADV": ("", "", *_PAIR),
    "CR SDXL Prompt Mix Presets": (POSITIVE, POSITIVE, POSITIVE, NEGATIVE, NEGATIVE, NEGATIVE),
    # Impact Pack, Inspire Pack
    "FromBasicPipe": ("", "", "", *_PAIR),
    "FromBasicPipe_v2": ("", "", "", "", *_PAIR),
    "FromDetailerPipe": ("", "", "", *_PAIR),
    "FromDetailerPipe_v2": ("", "", "", "", *_PAIR),
    "FromDetailerPipe_SDXL": ("", "", "", "", *_PAIR, "", "", "", "", "", "", *_PAIR),
    "UnzipPrompt //Inspire": _PAIR,
    "BindImageListPromptList //Inspire": ("", *_PAIR),
    # Efficiency Nodes
    "Efficient Loader": ("", *_PAIR),
    "KSampler (Efficient)": ("", *_PAIR),
    "KSampler Adv. (Efficient)": ("", *_PAIR),
    "Apply ControlNet Stack": _PAIR,
    "Unpack SDXL Tuple": ("", "", *_PAIR, "", "", *_PAIR),
    # rgthree: POSITIVE and the rest follow the context and three models
    "Context (rgthree)": _CONTEXT,
    "Context Switch (rgthree)": _CONTEXT,
    "Context Merge (rgthree)": _CONTEXT,
    "Context Big (rgthree)": (*_CONTEXT, *[""] * 9, "text_pos_g", "text_pos_l", NEGATIVE, NEGATIVE),
    "Context Switch Big (rgthree)": (*_CONTEXT, *[""] * 9, "text_pos_g", "text_pos_l", NEGATIVE, NEGATIVE),
    "Context Merge Big (rgthree)": (*_CONTEXT, *[""] * 9, "text_pos_g", "text_pos_l", NEGATIVE, NEGATIVE),
    # tinyterraNodes
    "ttN pipeLoader": ("", "", *_PAIR),
    "ttN pipeLoader_v2": ("", "", *_PAIR),
    "ttN pipeLoaderSDXL_v2": ("", "", *_PAIR),
    "ttN pipeKSampler": ("", "", *_PAIR),
    "ttN pipeKSampler_v2": ("", "", *_PAIR),
    "ttN pipeOUT": ("", "", *_PAIR, "latent", "", "", "image"),
    "ttN conditioning": ("", *_PAIR, "", *_PAIR),
    "ttN KSampler_v2": ("", *_PAIR),
    "ttN text3BOX_3WAYconcat": ("text1", "text2", "text3"),
    "ttN text7BOX_concat": ("text1", "text2", "text3", "text4", "text5", "text6", "text7"),
    # Searge
    "SeargeSDXLPromptEncoder": (*_PAIR, *_PAIR),
    # InstantID
    "ApplyInstantID": ("", *_PAIR),
    "ApplyInstantIDAdvanced": ("", *_PAIR),
}
"""For each output the input it is made of; `POSITIVE` or `NEGATIVE` for inputs of that meaning."""

_STYLER = re.compile(r"Prompt ?Styler", re.IGNORECASE)
_SCHEDULE = re.compile(r"(Prompt|String)Schedule")

_IS_NEGATIVE = re.compile(r"(?<![a-z])(?:neg(?![a-z])|negative|uncond)|conditioning-", re.IGNORECASE)
_IS_POSITIVE = re.compile(r"(?<![a-z])(?:pos(?![a-z])|positive)|conditioning\+", re.IGNORECASE)

_RUNS = re.compile(r"sampler|detailer|upscale|refine|generat", re.IGNORECASE)
_RUN_INPUTS = frozenset(
    (
        "seed",
        "noise_seed",
        "steps",
        "cfg",
        "denoise",
        "sampler_name",
        "guider",
        "noise",
        "sigmas",
        "sampler",
        "upscaler",
    )
)

OTHER = re.compile(
    r"^(?:cond2|empty_conditioning|(?:\w+_)?(?:model|clip|vae|unet|clip_vision|style_model|control_?net|lora|gligen\w*)"
    r"(?:_?\d+|_name|_opt|_stack|_output)?|(?:\w+_)?masks?(?:_\w+)?|control_?net\w*|lora\w*|clip_vision\w*|"
    r"(?:start_|end_|ref\w*_)?images?(?:_?\w)?|\w+_image|pixels|latent\w*|samples\w*|stage_c|noise\w*|sampler\w*|"
    r"scheduler\w*|sigmas|seed|steps|cfg|width|height|(?:\w+_)?strength\w*|system_prompt|ipadapter\w*|insightface)$",
    re.IGNORECASE,
)
"""Inputs that lead to no prompt; names of negative inputs are told by `is_negative`."""

CONDITIONING = re.compile(
    r"^(?:conditioning\w*|cond_?\w*|c|clip_regions|prompt_schedule|schedule|\w*embeds?|embeddings?|zipped_prompts?|"
    r"any_?\w*|input_?\d*|\*)$",
    re.IGNORECASE,
)
PIPE = re.compile(
    r"^(?:(?:\w+_)?pipe(?:_opt)?|(?:base_)?ctx(?:_\w+)?|context|sdxl_tuple|upscaler|base_sampler|full_sampler_opt|"
    r"bus|data|parameters|flow)$",
    re.IGNORECASE,
)
"""Inputs that carry many things together, conditioning among them."""
_REFINER = re.compile(r"refiner|_r$|additive", re.IGNORECASE)

_PIPE_KIND = re.compile(
    r"(?:to|from|edit|basic|any|out|in)[ _]?\w*pipe|pipe[ _]?(?:in|out|edit|to|from)|\bcontext\b|\bbus\b",
    re.IGNORECASE,
)

ZEROED = re.compile(r"Zero ?Out|NegativeConditioningPlaceholder|EmptyConditioning", re.IGNORECASE)
"""Conditioning without a text."""

SHOWS = re.compile(r"show|display|preview|view|console|debug", re.IGNORECASE)
"""Nodes that show a text and hand it on."""
KEEPS_SHOWN = re.compile(r"^ShowText\|pysssss|^easy showAnything")
"""Those of them that write what they showed into the workflow before the image is saved."""

_WRITES = re.compile(
    r"ollama|llm|gpt|gemini|claude|openai|anthropic|deepseek|chat|llama|llava|mistral|groq|grok|qwen|griptape|"
    r"florence|caption|interrogat|tagger|moondream|blip|minicpm|internvl|text ?generat|generate ?text|"
    r"super ?prompt|img2txt|prompt ?(?:enhanc|expan|upsampl|refin|improv|rewrit)|enhance ?prompt|"
    r"image ?(?:2|to) ?(?:text|prompt)|describe",
    re.IGNORECASE,
)
_ENCODES = re.compile(r"encode|conditioning|chatglm|embed", re.IGNORECASE)

PICKS = re.compile(
    r"(?:random|load|cycle|next) ?line|line ?(?:from|picker)|prompt ?(?:line|list)|text ?(?:list|cycler)|"
    r"string ?selector",
    re.IGNORECASE,
)
"""Nodes that take one line of a text each time they run; which, is not in the file."""

PICKS = re.compile(
    r"(?:random|load|cycle|next) ?line|line ?(?:from|picker)|prompt ?(?:line|list)|text ?(?:list|cycler)|"
    r"string ?selector",
    re.IGNORECASE,
)
"""Nodes that take one line of a text each time they run; which one is not in the file."""

NO_PICTURES = re.compile(
    r"segment|\bsam\d?\b|dino|clipseg|detect|florence|caption|tagger|interrogat|overlay|watermark|mask|"
    r"\bdraw|text ?(?:on|panel)",
    re.IGNORECASE,
)
"""Nodes that take a picture and a text, and do not make the picture after the text."""


def writes(node: Node) -> bool:
    """Tell whether a node writes a text by a model: what leads to it is an instruction, not the prompt."""
    return _WRITES.search(node.kind) is not None and not encodes(node)


def encodes(node: Node) -> bool:
    """Tell whether a node makes conditioning of a text."""
    return _ENCODES.search(node.kind) is not None


def is_negative(name: str) -> bool:
    """Tell whether a name is one of the negative prompt."""
    return _IS_NEGATIVE.search(name) is not None


def is_positive(name: str) -> bool:
    """Tell whether a name is one of the positive prompt."""
    return _IS_POSITIVE.search(name) is not None and not is_negative(name)


def is_refiner(name: str) -> bool:
    """Tell whether a name is one of a second pass over the picture."""
    return _REFINER.search(name) is not None


def is_pipe(node: Node) -> bool:
    """Tell whether a node packs or unpacks what belongs together, and makes nothing itself."""
    return _PIPE_KIND.search(node.kind) is not None and not runs(node)


def runs(node: Node) -> bool:
    """Tell whether a node makes or changes a picture after a prompt, rather than handing conditioning on."""
    return _RUNS.search(node.kind) is not None or not _RUN_INPUTS.isdisjoint(node.inputs)


def known_source(node: Node, output: int) -> str:
    """Name the input, or the meaning, that the tables say an output is made of; empty if they say nothing."""
    names = OUTPUTS.get(node.kind)
    if names is None and (_STYLER.search(node.kind) or _SCHEDULE.search(node.kind)):
        names = _PAIR
    return names[output] if names is not None and 0 <= output < len(names) else ""


def told_source(node: Node, output: int) -> str:
    """Name the input, or the meaning, of an output as the workflow or the inputs tell it, else nothing."""
    if node.outputs:
        name = node.outputs[output] if 0 <= output < len(node.outputs) else ""
        return name if name in node.inputs else _meaning(name)
    if POSITIVE in node.inputs and NEGATIVE in node.inputs and "model" not in node.inputs and not runs(node):
        return {0: POSITIVE, 1: NEGATIVE}.get(output, "")
    return ""


def _meaning(name: str) -> str:
    return NEGATIVE if is_negative(name) else POSITIVE if is_positive(name) else ""
