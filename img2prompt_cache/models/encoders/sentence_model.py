"""Sentence encoders of sentence-transformers: from the hub, a folder, or the packaged weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2prompt_cache.errors import Img2PromptError, UsageError
from img2prompt_cache.models.encoders.prompts import longest_text
from img2prompt_cache.models.fingerprints import weights_digest
from img2prompt_cache.models.specs import Spec
from img2prompt_cache.models.weights import hub
from img2prompt_cache.models.weights.packaged import packaged_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DATA = ("*.json", "*.txt", "*.model", "*.safetensors")
"""What is downloaded of a repository of the hub: data files, no code and no pickles."""


class SentenceModel:
    """A sentence encoder with its tokenizer, in float32.

    Parameters
    ----------
    spec : Spec
    revision : str, optional
        Commit, tag or branch of weights from the hub.
    device : str
        As torch spells it.
    folder : pathlib.Path, optional
        Where its weights lie, in place of where the spec says.

    Raises
    ------
    UsageError
        If there is no such model.
    Img2PromptError
        If the weights cannot be loaded, or not without running code or a pickle that comes with them.
    """

    def __init__(
        self, spec: Spec, revision: str = "", device: str = "cpu", folder: Path | None = None
    ) -> None:
        folder, self.revision = (folder, revision) if folder else find_folder(spec, revision)
        self.model = _load(spec, folder, device)
        self.longest = longest_text(self.model.max_seq_length)

    def encode(self, texts: Sequence[str], batch_size: int) -> NDArray[np.float32]:
        """Embed texts: float32, shape (len(texts), dim), unit norm. The tokenizer cuts long ones."""
        vectors: NDArray[np.float32] = self.model.encode(
            list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors

    def fingerprint(self, probe: str) -> dict[str, str]:
        """Return all that an embedding depends on; `probe` is a text that tokenizers split differently."""
        model = self.model
        transformer = getattr(model[0], "auto_model", model[0])
        config = getattr(transformer, "config", None)
        details = {
            name: getattr(config, name)
            for name in ("hidden_act", "layer_norm_eps", "num_attention_heads")
            if hasattr(config, name)
        }
        # The pooler of BERT is not used, and where a file lacks it, it is random.
        weights = {name: value for name, value in model.state_dict().items() if ".pooler." not in name}
        vocabulary = json.dumps([model.tokenizer.get_vocab(), _token_ids(model, probe)], sort_keys=True)
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
        }


def find_folder(spec: Spec, revision: str) -> tuple[Path, str]:
    """Find the folder of a model and, for one from the hub, its commit."""
    if spec.family == "packaged":
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
        return Path(snapshot_download(repository, revision=commit, allow_patterns=list(DATA))), commit
    except Exception as error:  # whatever the transport raises
        raise hub.unreachable(str(spec), error) from error


def _load(spec: Spec, folder: Path, device: str) -> Any:
    if not any(folder.rglob("*.safetensors")):
        raise Img2PromptError(
            f"encoder {spec}: there are no safetensors weights in {folder}; weights in other formats can run "
            "code and are not loaded. Save the model with sentence-transformers once, and name that folder"
        )
    _require_known_modules(spec, folder)
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


def _require_known_modules(spec: Spec, folder: Path) -> None:
    """Refuse a `modules.json` that names classes of other libraries: they would be imported and called."""
    try:
        modules = json.loads((folder / "modules.json").read_text("utf-8"))
        kinds = [module["type"] for module in modules]
        known = all(isinstance(kind, str) and kind.startswith("sentence_transformers.") for kind in kinds)
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        known = False
    if not known:
        raise Img2PromptError(
            f"encoder {spec}: {folder} cannot be loaded as a sentence-transformers model: its modules.json "
            "names classes of other libraries, which are not imported"
        )


def _token_ids(model: Any, text: str) -> list[int]:
    ids: list[int] = model.preprocess([text])["input_ids"].flatten().tolist()
    return ids
