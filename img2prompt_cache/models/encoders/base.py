"""Encoders: the frozen text encoder that computes the targets, of sentence-transformers or open_clip."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from img2prompt_cache.errors import Img2PromptError, UsageError, unknown
from img2prompt_cache.models.encoders.prompts import CLEAN_RULES
from img2prompt_cache.models.encoders.prompts import clean as clean_prompt
from img2prompt_cache.models.fingerprints import weights_digest
from img2prompt_cache.models.specs import ENCODER_FAMILIES, Spec, parse_spec
from img2prompt_cache.models.weights import hub
from img2prompt_cache.models.weights.packaged import packaged_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGED_ENCODERS = ("all-MiniLM-L6-v2",)

_DATA = ("*.json", "*.txt", "*.model", "*.safetensors")
"""What is downloaded of a repository of the hub: data files, no code and no pickles."""

_PROBE = "Two RED boats, 4k (naïve café) 船 ½ 🚤 -- don't"
"""A text that tokenizers of one vocabulary can split differently: case, accents, punctuation, scripts."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A frozen text encoder, ready to run.

    Attributes
    ----------
    spec : str
        As the user spells it: ``"st:all-MiniLM-L6-v2"``.
    model : sentence_transformers.SentenceTransformer or TextTower
        In float32, in eval mode.
    embed : callable
        The model's own function: takes texts and ``batch_size``, returns unit-norm float32 (n, dim).
    dim : int
        Width of an embedding.
    clean : str
        The rule of `prompts.CLEAN_RULES` that is applied to a prompt first.
    fingerprint : dict of str to str
        All that an embedding depends on. It does not contain where the weights are from: two specs of the
        same model have the same one.
    revision : str
        The commit of weights from the hub; empty for other weights.
    """

    spec: str
    model: Any
    embed: Callable[..., NDArray[np.float32]]
    dim: int
    clean: str
    fingerprint: dict[str, str]
    revision: str = ""

    def encode(self, prompts: Sequence[str], batch_size: int = 64) -> NDArray[np.float32]:
        """Embed prompts, each distinct one (after cleaning) once.

        The values depend on the set of distinct prompts in the call, on `batch_size` and on the machine, but
        not on order or repetition. Between calls with different sets a prompt's embedding can differ in its
        last bits, because shorter prompts are padded to the longest of their batch; call it with the same
        prompts where the same bytes are wanted.

        Parameters
        ----------
        prompts : sequence of str, length n
        batch_size : int
            Prompts run together.

        Returns
        -------
        numpy.ndarray, float32, shape (n, dim)
            Unit-norm embeddings.

        Raises
        ------
        Img2PromptError
            If an embedding is not finite.
        """
        cleaned = [clean_prompt(prompt, self.clean) for prompt in prompts]
        distinct = sorted(set(cleaned))
        if not distinct:
            return np.empty((0, self.dim), np.float32)
        vectors = self.embed(distinct, batch_size=batch_size)
        if not np.isfinite(vectors).all():
            raise Img2PromptError(
                f"{self.spec} gives embeddings that are not finite; its weights are damaged"
            )
        place = {prompt: row for row, prompt in enumerate(distinct)}
        return vectors[[place[prompt] for prompt in cleaned]]


def load_encoder(spec: str, *, clean: str = "none", device: str = "cpu", revision: str = "") -> Encoder:
    """Load a frozen text encoder.

    Parameters
    ----------
    spec : str
        ``st:NAME`` (of sentence-transformers), ``st:owner/name[@revision]``, ``st:local-dir:PATH``,
        ``packaged:NAME``, or a spec of an open_clip backbone, for its text tower.
    clean : str
        One of `prompts.CLEAN_RULES`.
    device : str
        As torch spells it.
    revision : str, optional
        Commit, tag or branch of weights from the hub, instead of the spec's.

    Raises
    ------
    UsageError
        If there is no such model or rule.
    Img2PromptError
        If the weights cannot be loaded, or not without running code or a pickle that comes with them.
    """
    parsed = parse_spec(spec, ENCODER_FAMILIES)
    if clean not in CLEAN_RULES:
        raise unknown("`clean` rule", clean, CLEAN_RULES, parameter="clean")
    with _quiet():
        if parsed.family == "open_clip":
            return _text_tower(parsed, clean, device, revision)
        folder, commit = _find(parsed, revision)
        model = _load(parsed, folder, device)
    embed = partial(model.encode, normalize_embeddings=True, show_progress_bar=False)
    dim = len(model.encode("", show_progress_bar=False))
    return Encoder(str(parsed), model, embed, dim, clean, _fingerprint(model, clean), commit)


def _text_tower(spec: Spec, clean: str, device: str, revision: str) -> Encoder:
    from img2prompt_cache.models.encoders.clip_text import TextTower

    tower = TextTower(spec, revision, device)
    dim = tower.encode([""], 1).shape[1]
    fingerprint = {**tower.fingerprint(_PROBE), "clean": clean}
    return Encoder(str(spec), tower, tower.encode, dim, clean, fingerprint, tower.revision)


def _find(spec: Spec, revision: str) -> tuple[Path, str]:
    """Find the folder of a model and, for one from the hub, its commit."""
    if spec.family == "packaged":
        if spec.name not in PACKAGED_ENCODERS:
            raise unknown("packaged encoder", spec.name, PACKAGED_ENCODERS)
        return packaged_path(spec.name), ""
    source, _, path = spec.name.partition(":")
    if source == "local-dir" and path:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise UsageError(f"encoder {spec}: there is no folder {folder}", parameter="encoder")
        return folder, ""
    name, _, asked = spec.name.partition("@")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name, re.ASCII):
        raise UsageError(
            f"encoder {spec} is not a name of the hub; for a folder write st:local-dir:PATH",
            parameter="encoder",
        )
    repository = name if "/" in name else f"sentence-transformers/{name}"
    commit = hub.fetch(str(spec), repository, [("modules.json", "config.json")], revision or asked).commit
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=commit, allow_patterns=list(_DATA))), commit
    except Exception as error:  # whatever the transport raises
        raise hub.unreachable(str(spec), error) from error


def _load(spec: Spec, folder: Path, device: str) -> Any:
    if not any(folder.rglob("*.safetensors")):
        raise Img2PromptError(
            f"encoder {spec}: there are no safetensors weights in {folder}; weights in other formats can run "
            "code and are not loaded. Save the model with sentence-transformers once, and name that folder"
        )
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:  # the libraries raise anything on files from anybody
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise Img2PromptError(
            f"encoder {spec}: {folder} cannot be loaded as a sentence-transformers model: {reason}"
        ) from error
    return model.float().eval()


def _fingerprint(model: Any, clean: str) -> dict[str, str]:
    transformer = getattr(model[0], "auto_model", model[0])
    config = getattr(transformer, "config", None)
    details = {
        name: getattr(config, name)
        for name in ("hidden_act", "layer_norm_eps", "num_attention_heads")
        if hasattr(config, name)
    }
    # The pooler of BERT is not used, and where a file lacks it, it is random.
    weights = {name: value for name, value in model.state_dict().items() if ".pooler." not in name}
    vocabulary = json.dumps([model.tokenizer.get_vocab(), _token_ids(model, _PROBE)], sort_keys=True)
    pooling = {
        type(module).__name__: module.get_config_dict()
        for module in list(model)[1:]
        if type(module).__name__ != "Normalize"
    }
    return {
        "library": "sentence-transformers",
        "architecture": json.dumps({type(transformer).__name__: details}, sort_keys=True),
        "weights": weights_digest(weights),
        "tokenizer": f"sha256:{hashlib.sha256(vocabulary.encode()).hexdigest()}",
        "max_seq_length": str(model.max_seq_length),
        "prefix": model.prompts.get(model.default_prompt_name, ""),
        "pooling": json.dumps(pooling, sort_keys=True),
        "normalise": "l2",
        "clean": clean,
    }


def _token_ids(model: Any, text: str) -> list[int]:
    ids: list[int] = model.preprocess([text])["input_ids"].flatten().tolist()
    return ids


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries from writing progress bars and messages to stderr while they load."""
    from huggingface_hub import utils
    from transformers.utils import logging as messages

    hub_utils: Any = utils  # neither of them is typed
    transformers_logging: Any = messages
    loggers = [
        logging.getLogger(name) for name in ("sentence_transformers", "transformers", "huggingface_hub")
    ]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    hub_bars = not hub_utils.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    hub_utils.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
        if hub_bars:
            hub_utils.enable_progress_bars()
