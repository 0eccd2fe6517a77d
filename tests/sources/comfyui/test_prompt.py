"""Positive prompts of graphs as nodes of ComfyUI and its extensions write them."""

from typing import Any

import pytest

from img2prompt_cache.sources.comfyui import positive_prompt

Graph = dict[str, Any]

WORDS = "a heron on a pier, misty morning"
FIRST, SECOND = "a heron on a pier", "misty morning"
NEGATIVE = "smudged, cropped"
OTHER = "a tram depot, ink"


def node(kind: str, **inputs: object) -> dict[str, object]:
    return {"class_type": kind, "inputs": inputs}


def text(words: object, kind: str = "CLIPTextEncode") -> dict[str, object]:
    return node(kind, text=words, clip=["model", 1])


def sampler(kind: str = "KSampler", **inputs: object) -> dict[str, object]:
    usual = {"seed": 3, "steps": 20, "cfg": 7.0, "denoise": 1.0, "model": ["model", 0]}
    links = {"positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0]}
    return node(kind, **{**usual, **links, **inputs})


BASE: Graph = {
    "model": node("CheckpointLoaderSimple", ckpt_name="x.safetensors"),
    "latent": node("EmptyLatentImage", width=512, height=512, batch_size=1),
    "negative": text(NEGATIVE),
    "positive": text(WORDS),
    "sampler": sampler(),
    "decode": node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
    "save": node("SaveImage", images=["decode", 0], filename_prefix="x"),
}


def graph(**nodes: object) -> Graph:
    return {**BASE, **nodes}


def conditioned(*link: object, **nodes: object) -> Graph:
    """Give a graph whose sampler takes its positive conditioning from `link`."""
    return graph(sampler=sampler(positive=list(link)), positive=text(OTHER), **nodes)


def worded(*link: object, **nodes: object) -> Graph:
    """Give a graph whose positive encoder takes its text from `link`."""
    return graph(positive=text(list(link)), **nodes)


def strings(**inputs: object) -> dict[str, object]:
    return {name: node("PrimitiveStringMultiline", value=value) for name, value in inputs.items()}


TEXTS: dict[str, Graph] = {
    # What one output of several is made of.
    "SDXL Prompt Styler": worded(
        "s", 0, s=node("SDXLPromptStyler", text_positive=WORDS, text_negative=NEGATIVE, style="base")
    ),
    "a styler of the same family": worded(
        "s", 0, s=node("SDXLPromptStylerbyMood", text_positive=WORDS, text_negative=NEGATIVE, style="calm")
    ),
    "advanced styler": worded(
        "s",
        2,
        s=node(
            "SDXLPromptStylerAdvanced",
            text_positive_g=FIRST,
            text_positive_l=SECOND,
            text_negative=NEGATIVE,
            style="base",
        ),
    ),
    "Easy-Use styles": worded(
        "s",
        0,
        s=node("easy stylesSelector", styles="fooocus_styles", positive=["p", 0], negative=["n", 0]),
        p=node("easy positive", positive=WORDS),
        n=node("easy negative", negative=NEGATIVE),
    ),
    "WAS Text String": worded(
        "s", 2, s=node("Text String", text=NEGATIVE, text_b=OTHER, text_c=WORDS, text_d="")
    ),
    "an unknown node with several texts": worded(
        "s", 1, s=node("Three Strings", string_1=OTHER, string_2=WORDS, string_3=NEGATIVE)
    ),
    "an unknown node with both prompts": worded(
        "s", 0, s=node("MyPrompts", positive_text=WORDS, negative_text=NEGATIVE)
    ),
    "Inspire's zipped prompt": worded(
        "u",
        0,
        u=node("UnzipPrompt //Inspire", zipped_prompt=["z", 0]),
        z=node("ZipPrompt //Inspire", positive=WORDS, negative=NEGATIVE, name_opt=""),
    ),
    "ttN, the second of three": worded(
        "t", 1, t=node("ttN text3BOX_3WAYconcat", text1=OTHER, text2=WORDS, text3=NEGATIVE, delimiter=",")
    ),
    # Joining.
    "StringConcatenate": worded(
        "c", 0, c=node("StringConcatenate", string_a=FIRST, string_b=SECOND, delimiter=", ")
    ),
    "WAS Text Concatenate": worded(
        "c",
        0,
        c=node(
            "Text Concatenate",
            delimiter=", ",
            clean_whitespace="true",
            text_a=["a", 0],
            text_b=["b", 0],
        ),
        **strings(a=f" {FIRST} ", b=SECOND),
    ),
    "WAS Text Concatenate, old": worded(
        "c",
        0,
        c=node("Text Concatenate", linebreak_addition="false", text_a=f"{FIRST}, ", text_b=SECOND),
    ),
    "KJNodes JoinStrings": worded(
        "c", 0, c=node("JoinStrings", string1=FIRST, string2=SECOND, delimiter=", ")
    ),
    "KJNodes JoinStringMulti": worded(
        "c",
        0,
        c=node(
            "JoinStringMulti",
            inputcount=2,
            string_1=["a", 0],
            string_2=["b", 0],
            delimiter=", ",
            return_list=False,
        ),
        **strings(a=FIRST, b=SECOND),
    ),
    "Comfyroll Combine Prompt": worded(
        "c",
        0,
        c=node("CR Combine Prompt", part1=FIRST, part2=SECOND, part3="", part4="", separator=", "),
    ),
    "Comfyroll Text Concatenate": worded(
        "c", 0, c=node("CR Text Concatenate", text1=FIRST, text2=SECOND, separator=", ")
    ),
    "Easy-Use promptConcat": worded(
        "c", 0, c=node("easy promptConcat", prompt1=FIRST, prompt2=SECOND, separator=", ")
    ),
    "Searge": worded("c", 0, c=node("SeargePromptCombiner", prompt1=FIRST, separator=", ", prompt2=SECOND)),
    "ttN concat": worded("c", 0, c=node("ttN concat", text1=FIRST, text2=SECOND, text3="", delimiter=", ")),
    "delimiter that is linked": worded(
        "c",
        0,
        c=node("StringConcatenate", string_a=FIRST, string_b=SECOND, delimiter=["d", 0]),
        **strings(d=", "),
    ),
    "a value that stands before a link": worded(
        "c",
        0,
        c=node("StringConcatenate", string_b=SECOND, delimiter=", ", string_a=["a", 0]),
        **strings(a=FIRST),
    ),
    "StringFunction appends": worded(
        "c",
        0,
        c=node(
            "StringFunction|pysssss",
            action="append",
            tidy_tags="yes",
            text_a=["a", 0],
            text_b=f"{SECOND},",
            text_c="undefined",
            result=OTHER,
        ),
        **strings(a=f"{FIRST} "),
    )
    | {"positive": node("CLIPTextEncode", text=["t", 0], clip=["model", 1])}
    | {"t": node("StringTrim", string=["r", 0], mode="Both")}
    | {"r": node("StringReplace", string=["c", 0], find="morning,", replace="morning")},
    "StringFunction replaces": worded(
        "c",
        0,
        c=node(
            "StringFunction|pysssss",
            action="replace",
            tidy_tags="yes",
            text_a="a stork  on a pier ,, misty morning",
            text_b="stork",
            text_c="heron",
        ),
    ),
    # Replacing.
    "StringReplace": worded(
        "c", 0, c=node("StringReplace", string=WORDS.replace("heron", "BIRD"), find="BIRD", replace="heron")
    ),
    "WAS Find and Replace": worded(
        "c",
        0,
        c=node("Text Find and Replace", text=["a", 0], find="BIRD", replace=["b", 0]),
        **strings(a=WORDS.replace("heron", "BIRD"), b="heron"),
    ),
    "mtb String Replace": worded(
        "c", 0, c=node("String Replace (mtb)", string=WORDS.replace("heron", "X"), old="X", new="heron")
    ),
    "Comfyroll Text Replace": worded(
        "c",
        0,
        c=node(
            "CR Text Replace",
            text="a BIRD on a PLACE, misty morning",
            find1="BIRD",
            replace1="heron",
            find2="PLACE",
            replace2="pier",
            find3="",
            replace3="",
        ),
    ),
    "Easy-Use promptReplace": worded(
        "c",
        0,
        c=node(
            "easy promptReplace",
            prompt=["a", 0],
            find1="{bird}",
            replace1=["b", 0],
            find2="",
            replace2="",
        ),
        a=node("easy positive", positive="a {bird} on a pier, misty morning"),
        b=node("easy positive", positive="heron"),
    ),
    "RegexReplace of plain words": worded(
        "c",
        0,
        c=node("RegexReplace", string=WORDS.replace("heron", "BIRD"), regex_pattern="BIRD", replace="heron"),
    ),
    "CaseConverter": worded("c", 0, c=node("CaseConverter", string=WORDS.upper(), mode="lowercase")),
    "StringSubstring": worded("c", 0, c=node("StringSubstring", string=f"xx{WORDS}yy", start=2, end=-2)),
    # Constants and nodes that hand on.
    "an unknown name of the text": worded("c", 0, c=node("DF_Text_Box", Text=WORDS)),
    "a default that a service may change": worded(
        "c", 0, c=node("ComfyUIDeployExternalText", input_id="words", default_value=WORDS)
    ),
    "KJNodes StringConstant": worded("c", 0, c=node("StringConstant", string=WORDS)),
    "Crystools": worded("c", 0, c=node("Primitive string multiline [Crystools]", string=WORDS)),
    "ReroutePrimitive": worded(
        "c", 0, c=node("ReroutePrimitive|pysssss", value=["a", 0]), **strings(a=WORDS)
    ),
    "Text to Console": worded(
        "c", 0, c=node("Text to Console", text=["a", 0], label=OTHER), **strings(a=WORDS)
    ),
    "LoraTagLoader": worded(
        "c", 2, c=node("LoraTagLoader", model=["model", 0], clip=["model", 1], text=WORDS)
    ),
    "PromptBuilder": worded("c", 0, c=node("PromptBuilder //Inspire", category="#", preset="#", text=WORDS)),
    # Wildcards, as they came out.
    "ImpactWildcardProcessor": worded(
        "c", 0, c=node("ImpactWildcardProcessor", wildcard_text="a __bird__", populated_text=WORDS, mode=True)
    ),
    # Switches.
    "ComfySwitchNode": worded(
        "s",
        0,
        s=node("ComfySwitchNode", switch=["b", 0], on_false=["x", 0], on_true=["y", 0]),
        b=node("PrimitiveBoolean", value=True),
        **strings(x=OTHER, y=WORDS),
    ),
    "ComfySwitchNode, inverted": worded(
        "s",
        0,
        s=node("ComfySwitchNode", switch=["i", 0], on_false=["y", 0], on_true=["x", 0]),
        i=node("InvertBooleanNode", value=["b", 0]),
        b=node("PrimitiveBoolean", value=True),
        **strings(x=OTHER, y=WORDS),
    ),
    "LazySwitchKJ": worded(
        "s",
        0,
        s=node("LazySwitchKJ", switch=False, on_false=["y", 0], on_true=["x", 0]),
        **strings(x=OTHER, y=WORDS),
    ),
    "Crystools switch": worded(
        "s",
        0,
        s=node("Switch string [Crystools]", on_true=["y", 0], on_false=["x", 0], boolean=True),
        **strings(x=OTHER, y=WORDS),
    ),
    "Easy-Use ifElse": worded(
        "s",
        0,
        s=node("easy ifElse", on_true=["x", 0], on_false=["y", 0], boolean=["b", 0]),
        b=node("easy boolean", value=False),
        **strings(x=OTHER, y=WORDS),
    ),
    "Easy-Use textSwitch": worded("s", 0, s=node("easy textSwitch", input=2, text1=OTHER, text2=WORDS)),
    "Easy-Use textIndexSwitch": worded(
        "s",
        0,
        s=node("easy textIndexSwitch", index=1, text0=["x", 0], text1=["y", 0], text2=["x", 0]),
        **strings(x=OTHER, y=WORDS),
    ),
    "Easy-Use anythingIndexSwitch": worded(
        "s",
        0,
        s=node("easy anythingIndexSwitch", index=["i", 0], value0=["x", 0], value1=["y", 0]),
        i=node("easy int", value=1),
        **strings(x=OTHER, y=WORDS),
    ),
    "WAS Text Input Switch": worded(
        "s",
        0,
        s=node("Text Input Switch", text_input_a=["x", 0], text_input_b=["y", 0], boolean=["n", 0]),
        n=node("Logic Boolean", boolean=0),
        **strings(x=OTHER, y=WORDS),
    ),
    "Comfyroll Text Input Switch": worded(
        "s",
        0,
        s=node("CR Text Input Switch", Input=2, text1=["x", 0], text2=["y", 0]),
        **strings(x=OTHER, y=WORDS),
    ),
    "Any Switch (rgthree)": worded(
        "s",
        0,
        s=node("Any Switch (rgthree)", any_01=["muted", 0], any_02=["y", 0], any_03=["x", 0]),
        **strings(x=OTHER, y=WORDS),
    ),
    "Impact's conditional branch": worded(
        "s",
        0,
        s=node("ImpactConditionalBranch", cond=["b", 0], tt_value=["y", 0], ff_value=["x", 0]),
        b=node("PrimitiveBoolean", value=True),
        **strings(x=OTHER, y=WORDS),
    ),
    "a switch whose two ways are one": worded(
        "s",
        0,
        s=node("ComfySwitchNode", switch=["b", 0], on_false=["y", 0], on_true=["y", 0]),
        b=node("CompareSomething", a=["y", 0], b=["y", 0]),
        **strings(y=WORDS),
    ),
    "a model that may improve the prompt": worded(
        "s",
        0,
        s=node("ComfySwitchNode", switch=True, on_false=["y", 0], on_true=["m", 0]),
        m=node("TextGenerate", prompt=["i", 0], clip=["model", 1]),
        **strings(y=WORDS, i="Improve this prompt: a heron"),
    ),
}

CONDITIONS: dict[str, Graph] = {
    # Encoders.
    "Lumina2": conditioned(
        "e",
        0,
        e=node("CLIPTextEncodeLumina2", system_prompt="superior", user_prompt=WORDS, clip=["model", 0]),
    ),
    "SD3": conditioned(
        "e", 0, e=node("CLIPTextEncodeSD3", clip_l=WORDS, clip_g=WORDS, t5xxl="", empty_padding="none")
    ),
    "Hunyuan DiT": conditioned("e", 0, e=node("CLIPTextEncodeHunyuanDiT", bert=WORDS, mt5xl=WORDS)),
    "HiDream": conditioned(
        "e", 0, e=node("CLIPTextEncodeHiDream", clip_l="", clip_g=FIRST, t5xxl=WORDS, llama=WORDS)
    ),
    "Qwen edit": conditioned(
        "e", 0, e=node("TextEncodeQwenImageEditPlus", prompt=WORDS, clip=["model", 1], image1=["load", 0])
    ),
    "Kolors by ChatGLM3": conditioned("e", 0, e=node("MZ_ChatGLM3_V2", text=WORDS, chatglm3_model=["g", 0])),
    "ADV_CLIP_emb": conditioned(
        "e",
        0,
        e=node(
            "BNK_CLIPTextEncodeAdvanced",
            text=WORDS,
            token_normalization="mean",
            weight_interpretation="A1111",
            clip=["model", 1],
        ),
    ),
    "smZ with two texts": conditioned(
        "e", 0, e=node("smZ CLIPTextEncode", text=OTHER, text_g=FIRST, text_l=SECOND, with_SDXL=True)
    ),
    "smZ": conditioned(
        "e",
        0,
        e=node("smZ CLIPTextEncode", text=WORDS, parser="A1111", text_g=OTHER, text_l="", with_SDXL=False),
    ),
    "WAS NSP": conditioned(
        "e", 0, e=node("CLIPTextEncode (NSP)", text=WORDS, mode="Wildcards", noodle_key="__")
    ),
    "Power Prompt (rgthree)": conditioned(
        "e", 0, e=node("Power Prompt (rgthree)", prompt=WORDS, insert_lora="CHOOSE", opt_clip=["model", 1])
    ),
    "SDXL Power Prompt (rgthree)": conditioned(
        "e", 0, e=node("SDXL Power Prompt - Positive (rgthree)", prompt_g=FIRST, prompt_l=WORDS)
    ),
    "ImpactWildcardEncode": conditioned(
        "e",
        2,
        e=node(
            "ImpactWildcardEncode",
            wildcard_text="a __bird__ on a pier",
            populated_text=WORDS,
            model=["model", 0],
            clip=["model", 1],
        ),
    ),
    "Inspire's wildcards": conditioned(
        "e", 2, e=node("WildcardEncode //Inspire", wildcard_text="a {x|y}", populated_text=WORDS)
    ),
    "Cutoff": conditioned(
        "r",
        0,
        r=node("BNK_CutoffRegionsToConditioning", mask_token="", clip_regions=["s", 0]),
        s=node("BNK_CutoffSetRegions", region_text="heron", target_text="grey", clip_regions=["b", 0]),
        b=node("BNK_CutoffBasePrompt", text=WORDS, clip=["model", 1]),
    ),
    "prompt schedule": conditioned(
        "p",
        0,
        p=node(
            "BatchPromptSchedule",
            text=f'"0": "{SECOND} --neg blur",\n"12": "{OTHER}"',
            pre_text="a heron on a pier,",
            app_text="",
            clip=["model", 1],
        ),
    ),
    "Prompt Control": conditioned(
        "c",
        0,
        c=node("ScheduleToCond", clip=["model", 1], prompt_schedule=["p", 0]),
        p=node("PromptToSchedule", text=WORDS),
    ),
    # Nodes on the way.
    "GLIGEN": conditioned(
        "g",
        0,
        g=node("GLIGENTextBoxApply", text="heron", conditioning_to=["h", 0], clip=["model", 1]),
        h=node("GLIGENTextBoxApply", text="pier", conditioning_to=["e", 0], clip=["model", 1]),
        e=text(WORDS),
    ),
    "time steps": conditioned(
        "c",
        0,
        c=node("ConditioningCombine", conditioning_1=["t", 0], conditioning_2=["z", 0]),
        t=node("ConditioningSetTimestepRange", conditioning=["e", 0], start=0.0, end=0.4),
        z=node("ConditioningSetTimestepRange", conditioning=["o", 0], start=0.4, end=1.0),
        o=node("ConditioningZeroOut", conditioning=["negative", 0]),
        e=text(WORDS),
    ),
    "average with all of one": conditioned(
        "c",
        0,
        c=node(
            "ConditioningAverage",
            conditioning_to=["e", 0],
            conditioning_from=["positive", 0],
            conditioning_to_strength=1.0,
        ),
        e=text(WORDS),
    ),
    "concat": conditioned(
        "c",
        0,
        c=node("ConditioningConcat", conditioning_to=["a", 0], conditioning_from=["b", 0]),
        a=text(FIRST),
        b=text(SECOND),
    ),
    "Comfyroll mixer": conditioned(
        "c",
        0,
        c=node(
            "CR Conditioning Mixer", conditioning_1=["a", 0], conditioning_2=["b", 0], mix_method="Concat"
        ),
        a=text(FIRST),
        b=text(SECOND),
    ),
    "KJNodes multi combine": conditioned(
        "c",
        0,
        c=node(
            "ConditioningMultiCombine",
            inputcount=2,
            conditioning_1=["a", 0],
            conditioning_2=["b", 0],
            operation="combine",
        ),
        a=text(FIRST),
        b=text(SECOND),
    ),
    "unCLIP, style and control": conditioned(
        "u",
        0,
        u=node("unCLIPConditioning", conditioning=["s", 0], clip_vision_output=["v", 0], strength=1),
        v=node("CLIPVisionEncode", clip_vision=["w", 0], image=["load", 0]),
        w=node("CLIPVisionLoader", clip_name="x"),
        s=node("StyleModelApply", conditioning=["n", 0], style_model=["m", 0], clip_vision_output=["v", 0]),
        m=node("StyleModelLoader", style_model_name="x"),
        n=node("ControlNetApply", conditioning=["e", 0], control_net=["k", 0], image=["load", 0]),
        k=node("ControlNetLoader", control_net_name="x"),
        load=node("LoadImage", image="x.png"),
        e=text(WORDS),
    ),
    "pairs of conditioning": conditioned(
        "p",
        0,
        p=node(
            "PairConditioningCombine",
            positive_A=["a", 0],
            negative_A=["negative", 0],
            positive_B=["b", 0],
            negative_B=["negative", 0],
        ),
        a=text(FIRST),
        b=text(SECOND),
    ),
    "InstantID": conditioned(
        "i",
        1,
        i=node(
            "ApplyInstantID",
            positive=["e", 0],
            negative=["negative", 0],
            model=["model", 0],
            image=["load", 0],
        ),
        load=node("LoadImage", image="x.png"),
        e=text(WORDS),
    ),
    "swapped outputs of a ControlNet": conditioned(
        "c",
        1,
        c=node(
            "ControlNetApplyAdvanced",
            positive=["negative", 0],
            negative=["e", 0],
            control_net=["k", 0],
            image=["load", 0],
        ),
        e=text(WORDS),
    ),
    "swapped outputs of a pipe": conditioned(
        "f",
        4,
        f=node("FromBasicPipe", basic_pipe=["t", 0]),
        t=node("ToBasicPipe", model=["model", 0], positive=["negative", 0], negative=["e", 0]),
        e=text(WORDS),
    ),
    # Pipes and contexts.
    "Impact's pipes": conditioned(
        "f",
        3,
        f=node("FromBasicPipe", basic_pipe=["i", 0]),
        i=node("EditBasicPipe", basic_pipe=["t", 0], positive=["e", 0]),
        t=node("ToBasicPipe", model=["model", 0], positive=["positive", 0], negative=["negative", 0]),
        e=text(WORDS),
    ),
    "contexts (rgthree)": conditioned(
        "b",
        4,
        b=node("Context Big (rgthree)", base_ctx=["a", 0], negative=["negative", 0]),
        a=node("Context (rgthree)", positive=["e", 0], negative=["negative", 0], model=["model", 0]),
        e=text(WORDS),
    ),
    "Context Switch (rgthree)": conditioned(
        "s",
        4,
        s=node("Context Switch (rgthree)", ctx_01=["muted", 0], ctx_02=["a", 0]),
        a=node("Context (rgthree)", positive=["e", 0], negative=["negative", 0]),
        e=text(WORDS),
    ),
    "Context Merge (rgthree)": conditioned(
        "s",
        4,
        s=node("Context Merge (rgthree)", ctx_01=["x", 0], ctx_02=["a", 0]),
        x=node("Context (rgthree)", positive=["positive", 0]),
        a=node("Context (rgthree)", positive=["e", 0], negative=["negative", 0]),
        e=text(WORDS),
    ),
    "Efficient Loader": conditioned("l", 1, l=node("Efficient Loader", positive=WORDS, negative=NEGATIVE)),
    "Bus Node": conditioned(
        "b", 4, b=node("Bus Node", bus=["a", 0]), a=node("Bus Node", positive=["e", 0]), e=text(WORDS)
    ),
    "Easy-Use pipeOut": conditioned(
        "o",
        2,
        o=node("easy pipeOut", pipe=["l", 0]),
        l=node("easy fullLoader", positive=WORDS, negative=NEGATIVE),
    ),
    "ttN pipes": conditioned(
        "o",
        2,
        o=node("ttN pipeOUT", pipe=["l", 0]),
        l=node("ttN pipeLoader_v2", positive=WORDS, negative=NEGATIVE),
    ),
    # Switches.
    "ImpactSwitch": conditioned(
        "s",
        0,
        s=node("ImpactSwitch", select=2, sel_mode=True, input1=["positive", 0], input2=["e", 0]),
        e=text(WORDS),
    ),
    "WAS Conditioning Input Switch": conditioned(
        "s",
        0,
        s=node(
            "Conditioning Input Switch", conditioning_a=["e", 0], conditioning_b=["positive", 0], boolean=True
        ),
        e=text(WORDS),
    ),
    "Comfyroll Conditioning Input Switch": conditioned(
        "s",
        0,
        s=node(
            "CR Conditioning Input Switch", Input=1, conditioning1=["e", 0], conditioning2=["positive", 0]
        ),
        e=text(WORDS),
    ),
    "Easy-Use conditioningIndexSwitch": conditioned(
        "s",
        0,
        s=node("easy conditioningIndexSwitch", index=1, cond0=["positive", 0], cond1=["e", 0]),
        e=text(WORDS),
    ),
    "Crystools conditioning switch": conditioned(
        "s",
        0,
        s=node("Switch conditioning [Crystools]", on_true=["positive", 0], on_false=["e", 0], boolean=False),
        e=text(WORDS),
    ),
}


def saved(name: str, output: int = 0, **nodes: object) -> Graph:
    """Give a graph without BASE's sampler, whose saved picture is that of a node."""
    rest = {key: BASE[key] for key in ("model", "latent", "negative")}
    return {**rest, "save": node("SaveImage", images=[name, output]), "positive": text(WORDS), **nodes}


def decoded(**nodes: object) -> Graph:
    return saved("decode", decode=node("VAEDecode", samples=["s", 0], vae=["model", 2]), **nodes)


SAMPLERS: dict[str, Graph] = {
    "Xlabs": decoded(
        s=node(
            "XlabsSampler",
            noise_seed=3,
            steps=20,
            model=["model", 0],
            conditioning=["positive", 0],
            neg_conditioning=["negative", 0],
            latent_image=["latent", 0],
        )
    ),
    "CFGGuider": decoded(
        s=node("SamplerCustomAdvanced", noise=["n", 0], guider=["g", 0], latent_image=["latent", 0]),
        n=node("RandomNoise", noise_seed=1),
        g=node("CFGGuider", model=["model", 0], positive=["positive", 0], negative=["negative", 0], cfg=5),
    ),
    "PerpNegGuider": decoded(
        s=node("SamplerCustomAdvanced", guider=["g", 0], latent_image=["latent", 0]),
        g=node(
            "PerpNegGuider",
            positive=["positive", 0],
            negative=["negative", 0],
            empty_conditioning=["o", 0],
        ),
        o=text(OTHER),
    ),
    "SamplerCustom": decoded(s=sampler("SamplerCustom")),
    "KSampler Adv. (Efficient)": saved(
        "s", 5, s=sampler("KSampler Adv. (Efficient)", optional_vae=["model", 2])
    ),
    "KSampler SDXL (Eff.)": saved(
        "s",
        3,
        s=node("KSampler SDXL (Eff.)", sdxl_tuple=["l", 0], latent_image=["l", 1], steps=20),
        l=node("Eff. Loader SDXL", positive=WORDS, negative=NEGATIVE),
    ),
    "packed SDXL tuple": saved(
        "s",
        3,
        s=node("KSampler SDXL (Eff.)", sdxl_tuple=["l", 0], latent_image=["latent", 0], steps=20),
        l=node(
            "Pack SDXL Tuple",
            base_positive=["positive", 0],
            base_negative=["negative", 0],
            refiner_positive=["o", 0],
            refiner_negative=["negative", 0],
        ),
        o=text(OTHER),
    ),
    "Searge": decoded(
        s=node(
            "SeargeSDXLSampler2",
            base_positive=["e", 0],
            base_negative=["e", 1],
            refiner_positive=["e", 2],
            refiner_negative=["e", 3],
            latent_image=["latent", 0],
            steps=20,
        ),
        e=node(
            "SeargeSDXLPromptEncoder",
            pos_g=WORDS,
            pos_l=FIRST,
            pos_r=OTHER,
            neg_g=NEGATIVE,
            neg_l=NEGATIVE,
            neg_r="",
        ),
    ),
    "Easy-Use": {
        "k": node("easy kSampler", pipe=["p", 0], image_output="Save", save_prefix="x"),
        "p": node("easy preSampling", pipe=["l", 0], steps=20),
        "l": node("easy a1111Loader", positive=["c", 0], negative=NEGATIVE, ckpt_name="x"),
        "c": node("easy promptConcat", prompt1=FIRST, prompt2=SECOND, separator=", "),
    },
    "Easy-Use pipeEdit": {
        "k": node("easy fullkSampler", pipe=["p", 0], image_output="Save"),
        "p": node("easy pipeEdit", pipe=["l", 0], optional_positive=WORDS, optional_negative=NEGATIVE),
        "l": node("easy fullLoader", positive=OTHER, negative=NEGATIVE),
    },
    "ttN": {
        "k": node("ttN pipeKSampler_v2", pipe=["l", 0], image_output="Save", steps=20),
        "l": node("ttN pipeLoader_v2", positive=WORDS, negative=NEGATIVE),
    },
    "Impact's basic pipe": decoded(
        s=node("ImpactKSamplerBasicPipe", basic_pipe=["t", 0], latent_image=["latent", 0], seed=1),
        t=node("ToBasicPipe", positive=["positive", 0], negative=["negative", 0]),
    ),
    "Inspire": decoded(s=sampler("KSampler //Inspire")),
    "TwoSamplersForMask": decoded(
        s=node(
            "TwoSamplersForMask", latent_image=["latent", 0], base_sampler=["b", 0], mask_sampler=["m", 0]
        ),
        b=node("KSamplerProvider", basic_pipe=["t", 0], seed=1),
        m=node("KSamplerProvider", basic_pipe=["u", 0], seed=1),
        t=node("ToBasicPipe", positive=["positive", 0], negative=["negative", 0]),
        u=node("ToBasicPipe", positive=["o", 0], negative=["negative", 0]),
        o=text(OTHER),
    ),
    "Hunyuan video wrapper": decoded(
        s=node("HyVideoSampler", model=["model", 0], hyvid_embeds=["e", 0], steps=20),
        e=node("HyVideoTextEncode", text_encoders=["t", 0], prompt=WORDS),
    ),
    "Wan video wrapper": decoded(
        s=node("WanVideoSampler", model=["model", 0], text_embeds=["e", 0], image_embeds=["i", 0], steps=20),
        i=node("WanVideoEmptyEmbeds", width=512),
        e=node("WanVideoTextEncode", t5=["t", 0], positive_prompt=WORDS, negative_prompt=NEGATIVE),
    ),
    "Wan image to video": decoded(
        s=sampler(positive=["w", 0], negative=["w", 1], latent_image=["w", 2]),
        w=node(
            "WanImageToVideo",
            positive=["positive", 0],
            negative=["negative", 0],
            vae=["model", 2],
            start_image=["load", 0],
            width=512,
        ),
        load=node("LoadImage", image="x.png"),
    ),
    "a video that goes on from another": decoded(
        s=sampler(positive=["w", 0], negative=["w", 1], latent_image=["w", 2]),
        w=node("WanImageToVideo", positive=["positive", 0], negative=["negative", 0], start_image=["d", 0]),
        d=node("VAEDecode", samples=["before", 0], vae=["model", 2]),
        before=sampler(positive=["o", 0]),
        o=text(OTHER),
    ),
    "Stable Cascade": decoded(
        s=sampler(positive=["b", 0], negative=["z", 0], latent_image=["latent", 1]),
        z=node("ConditioningZeroOut", conditioning=["positive", 0]),
        b=node("StableCascade_StageB_Conditioning", conditioning=["z", 0], stage_c=["c", 0]),
        c=sampler(),
    ),
    "detailer": saved(
        "f",
        f=node(
            "FaceDetailer",
            image=["d", 0],
            positive=["o", 0],
            negative=["negative", 0],
            wildcard="[ASC] freckles",
            denoise=0.4,
            seed=4,
        ),
        d=node("VAEDecode", samples=["s", 0], vae=["model", 2]),
        s=sampler(),
        o=text("detailed face"),
    ),
    "detailer by its pipe": saved(
        "f",
        f=node("FaceDetailerPipe", image=["d", 0], detailer_pipe=["p", 0], denoise=0.4, seed=4),
        p=node("ToDetailerPipe", positive=["o", 0], negative=["negative", 0], wildcard=""),
        d=node("VAEDecode", samples=["s", 0], vae=["model", 2]),
        s=sampler(),
        o=text("detailed face"),
    ),
    "refiner": decoded(
        s=sampler("KSamplerAdvanced", positive=["o", 0], latent_image=["b", 0], start_at_step=20),
        b=sampler("KSamplerAdvanced", end_at_step=20),
        o=text("sharp"),
    ),
    "upscaler with its own prompt": saved(
        "u",
        u=node(
            "UltimateSDUpscale",
            image=["d", 0],
            positive=["o", 0],
            negative=["negative", 0],
            model=["model", 0],
            upscale_model=["m", 0],
            denoise=0.2,
        ),
        d=node("VAEDecode", samples=["s", 0], vae=["model", 2]),
        s=sampler(),
        o=text("sharp"),
    ),
    "only an upscaler": saved(
        "d",
        d=node("VAEDecode", samples=["i", 0], vae=["model", 2]),
        i=node("IterativeLatentUpscale", samples=["e", 0], upscaler=["p", 0]),
        e=node("VAEEncode", pixels=["load", 0], vae=["model", 2]),
        load=node("LoadImage", image="x.png"),
        p=node("PixelKSampleUpscalerProviderPipe", basic_pipe=["t", 0], steps=20),
        t=node("ToBasicPipe", positive=["positive", 0], negative=["negative", 0]),
    ),
    "parts that a last sampler joins": decoded(
        s=sampler(latent_image=["c", 0]),
        c=node("LatentComposite", samples_to=["a", 0], samples_from=["b", 0], x=0, y=0),
        a=sampler(positive=["x", 0]),
        b=sampler(positive=["y", 0]),
        x=text("a heron"),
        y=text("a pier"),
    ),
    "a switch of pictures": saved(
        "w",
        w=node("ImpactSwitch", select=2, input1=["d", 0], input2=["e", 0]),
        d=node("VAEDecode", samples=["s", 0], vae=["model", 2]),
        s=sampler(positive=["o", 0]),
        o=text(OTHER),
        e=node("VAEDecode", samples=["t", 0], vae=["model", 2]),
        t=sampler(),
    ),
    "a preview of another branch": graph(
        preview=node("PreviewImage", images=["d", 0]),
        d=node("VAEDecode", samples=["s", 0], vae=["model", 2]),
        s=sampler(positive=["o", 0]),
        o=text(OTHER),
    ),
    "a saver that states another prompt": graph(
        save=node(
            "Save Image w/Metadata", images=["decode", 0], positive="unknown", negative="unknown", steps=20
        )
    ),
    "a service": saved("s", s=node("OpenAIDalle3", prompt=WORDS, seed=0, quality="hd")),
    "a service that edits": saved(
        "s",
        s=node("FluxKontextProImageNode", prompt=["p", 0], input_image=["load", 0]),
        load=node("LoadImage"),
        **strings(p=WORDS),
    ),
    "text written on a picture": graph(
        save=node("SaveImage", images=["o", 0]),
        o=node("CR Overlay Text", image=["decode", 0], text="Fig. 1"),
    ),
    "a subgraph, as it ran": {
        "9": node("SaveImage", images=["30:8", 0]),
        "30:8": node("VAEDecode", samples=["30:3", 0]),
        "30:3": sampler(positive=["30:6", 0], negative=["30:13", 0], latent_image=["30:5", 0]),
        "30:13": node("ConditioningZeroOut", conditioning=["30:6", 0]),
        "30:6": text(["30:19", 0]),
        "30:5": BASE["latent"],
        "30:19": node("PrimitiveStringMultiline", value=WORDS),
    },
}

CASES = {
    **{f"text: {name}": case for name, case in TEXTS.items()},
    **{f"conditioning: {name}": case for name, case in CONDITIONS.items()},
    **{f"sampler: {name}": case for name, case in SAMPLERS.items()},
}


@pytest.mark.parametrize("name", CASES)
def test_prompt_of_a_graph(name: str) -> None:
    assert positive_prompt(CASES[name]) == WORDS


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_nodes_does_not_matter(name: str) -> None:
    assert positive_prompt(dict(reversed(CASES[name].items()))) == WORDS


def asked(**nodes: object) -> Graph:
    """Give a graph whose positive text a language model wrote."""
    model = node("OllamaGenerate", prompt="Write one sentence about a heron.", model="llava:7b")
    show = node("ShowText|pysssss", text=["llm", 0], text_0=OTHER)
    return {**worded("show", 0, show=show, llm=model), **nodes}


def shown(name: str, *texts: str) -> dict[str, object]:
    return {"nodes": [{"id": name, "type": "ShowText|pysssss", "mode": 0, "widgets_values": [list(texts)]}]}


def test_shown_text_is_of_this_run() -> None:
    assert positive_prompt(asked(), shown("show", WORDS)) == WORDS
    easy = {"show": node("easy showAnything", anything=["llm", 0], text=OTHER)}
    box = {"id": "show", "type": "easy showAnything", "widgets_values": [[WORDS]]}
    assert positive_prompt({**asked(), **easy}, {"nodes": [box]}) == WORDS
    loader = {
        "k": node("easy kSampler", pipe=["l", 0], image_output="Save"),
        "l": node("easy a1111Loader", positive=["show", 0], negative=NEGATIVE),
        "llm": node("OllamaGenerate", prompt="Write one sentence about a heron."),
        **easy,
    }
    assert positive_prompt(loader, {"nodes": [box]}) == WORDS


def test_shown_text_is_not_of_the_run_before() -> None:
    assert positive_prompt(asked()) is None
    assert positive_prompt(asked(), {"nodes": []}) is None
    computed = worded("s", 0, s=node("ShowText|pysssss", text=["a", 0], text_0=OTHER), **strings(a=WORDS))
    assert positive_prompt(computed) == WORDS


def test_a_model_s_text_in_the_middle_of_a_prompt_is_not_left_out() -> None:
    joined = node("StringConcatenate", string_a="masterpiece", string_b=["llm", 0], delimiter=", ")
    assert positive_prompt(asked(positive=text(["j", 0]), j=joined)) is None


def test_text_shown_beside() -> None:
    template = "a {grey|white} heron on a pier, misty morning"
    wild = node("DPRandomGenerator", text=template, seed=1, autorefresh="No")
    came_to = "a grey heron on a pier, misty morning"
    with_box = worded("w", 0, w=wild, show=node("ShowText|pysssss", text=["w", 0], text_0=came_to))
    assert positive_prompt(with_box) == came_to
    assert positive_prompt(with_box, shown("show", came_to.replace("grey", "white"))) == came_to.replace(
        "grey", "white"
    )
    other = worded("w", 0, w=wild, show=node("ShowText|pysssss", text=["w", 0], text_0=OTHER))
    assert positive_prompt(other) == template


NOT_IN_THE_FILE: dict[str, Graph] = {
    "a saved picture that was loaded": {
        "save": node("SaveImage", images=["c", 0]),
        "c": node("Canny", image=["load", 0], low_threshold=0.4),
        "load": node("LoadImage", image="x.png"),
        "show": node("PreviewImage", images=["decode", 0]),
        **{name: BASE[name] for name in ("model", "latent", "negative", "positive", "sampler", "decode")},
    },
    "an empty prompt, and another in a picture that is shown": graph(
        positive=text(""),
        show=node("PreviewImage", images=["d", 0]),
        d=node("VAEDecode", samples=["s", 0], vae=["model", 2]),
        s=sampler(positive=["o", 0]),
        o=text(OTHER),
    ),
    "a caption of a picture": worded(
        "c", 0, c=node("WD14Tagger|pysssss", image=["load", 0]), load=node("LoadImage", image="x.png")
    ),
    "a random line": worded(
        "r", 0, r=node("Text Random Line", text=["l", 0], seed=1), **strings(l="a\nb\nc")
    ),
    "a pattern that is more than a text": worded(
        "r", 0, r=node("RegexReplace", string=WORDS, regex_pattern="(a+)+$", replace="")
    ),
    "a switch by a comparison": worded(
        "s",
        0,
        s=node("ComfySwitchNode", switch=["c", 0], on_false=["x", 0], on_true=["y", 0]),
        c=node("CompareNumbers", a=1, b=2),
        **strings(x=OTHER, y=WORDS),
    ),
    "an input of a switch that is not connected": worded(
        "s", 0, s=node("ComfySwitchNode", switch=True, on_false=["x", 0]), **strings(x=OTHER)
    ),
    "only a negative prompt": graph(
        sampler=sampler(positive=["z", 0]), z=node("ConditioningZeroOut", conditioning=["negative", 0])
    ),
    "a loader whose positive is muted": {
        "k": node("easy kSampler", pipe=["l", 0], image_output="Save"),
        "l": node("easy a1111Loader", positive=["muted", 0], negative=NEGATIVE, ckpt_name="x"),
    },
    "text that is only shown": {"s": node("ShowText|pysssss", text=["a", 0]), **strings(a=OTHER)},
    "segments of a loaded picture": {
        "save": node("SaveImage", images=["s", 0]),
        "s": node("GroundingDinoSAMSegment (segment anything)", image=["load", 0], prompt="heron"),
        "load": node("LoadImage", image="x.png"),
    },
}


@pytest.mark.parametrize("name", NOT_IN_THE_FILE)
def test_what_is_not_in_the_file_is_no_prompt(name: str) -> None:
    assert positive_prompt(NOT_IN_THE_FILE[name]) is None


def test_names_of_outputs_in_the_workflow_tell_what_they_are() -> None:
    """An unknown node hands on the negative prompt by its first output."""
    unknown = node("BothPrompts", positive_words=WORDS, negative_words=NEGATIVE, seed=1)
    outputs = {"nodes": [{"id": "u", "type": "BothPrompts", "outputs": [{"name": "neg"}, {"name": "pos"}]}]}
    assert positive_prompt(worded("u", 1, u=unknown), outputs) == WORDS
    assert positive_prompt(worded("u", 0, u=unknown), outputs) == NEGATIVE


def test_graphs_inside_other_objects() -> None:
    assert positive_prompt({"prompt": BASE, "workflow": {"nodes": []}}) == WORDS
    assert positive_prompt({"client_id": "x", "prompt": BASE}) == WORDS
    assert positive_prompt({**BASE, "extra": {"airs": []}, "extraMetadata": "{}"}) == WORDS


def test_several_texts_are_joined_with_one_comma() -> None:
    both = node("ConditioningCombine", conditioning_1=["a", 0], conditioning_2=["b", 0])
    assert (
        positive_prompt(conditioned("c", 0, c=both, a=text("a heron,"), b=text("a pier")))
        == "a heron, a pier"
    )
