"""Sentence encoders of sentence-transformers: from the hub, a folder, or the packaged weights."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from img2prompt_cache.errors import Img2PromptError, UsageError, first_line
from img2prompt_cache.models.encoders.batches import batches, blocks
from img2prompt_cache.models.encoders.linears import use_onednn, without_onednn
from img2prompt_cache.models.encoders.prompts import longest_text
from img2prompt_cache.models.fingerprints import weights_digest
from img2prompt_cache.models.specs import Spec
from img2prompt_cache.models.weights import hub
from img2prompt_cache.models.weights.packaged import packaged_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATA = ("*.json", "*.txt", "*.model", "*.safetensors")
"""What is downloaded of a repository of the hub: data files, no code and no pickles."""


BATCH_TOKENS, GPU_BATCH_TOKENS = 2048, 16_384
"""Tokens run together, padding included. On a CPU more of them leave its caches, and fewer do not fill it."""

EARLIER_BATCH = 64
"""Texts that earlier versions ran together, in the library's own loop."""


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
        self._earlier = False
        if device == "cpu":
            use_onednn(self.model)

    def earlier(self) -> SentenceModel:
        """Return the same model, run as earlier versions ran it, which gives other last bits."""
        same = copy.copy(self)
        same._earlier = True
        return same

    def encode(self, texts: Sequence[str], batch_tokens: int | None = None) -> NDArray[np.float32]:
        """Embed texts: float32, shape (len(texts), dim), unit norm. The tokenizer cuts long ones.

        A batch has texts of similar length, and at most `batch_tokens` tokens with its padding.
        """
        if self._earlier:
            with without_onednn(self.model):
                return self._by_library(texts)
        budget = batch_tokens or (BATCH_TOKENS if self.model.device.type == "cpu" else GPU_BATCH_TOKENS)
        found = [(rows, self._block([texts[row] for row in rows.tolist()], budget)) for rows in blocks(texts)]
        vectors = np.empty((len(texts), found[0][1].shape[1]), np.float32)
        for rows, values in found:
            vectors[rows] = values
        return vectors

    def _block(self, texts: list[str], budget: int) -> NDArray[np.float32]:
        """Embed texts that are tokenized together."""
        model = self.model
        tokens = model.preprocess(texts, prompt=model.prompts.get(model.default_prompt_name) or None)
        mask = tokens.get("attention_mask")
        if not _is_padded(tokens, mask, len(texts)):
            return self._by_library(texts)
        lengths = mask.sum(dim=1).numpy()
        by_row: list[tuple[NDArray[np.int64], torch.Tensor]] = []
        with torch.inference_mode():
            for rows in batches(lengths, budget):
                longest = max(1, int(lengths[rows[0]]))
                batch = {
                    name: value[rows, :longest].to(model.device) if _is_table(value) else value
                    for name, value in tokens.items()
                }
                values = model(batch)["sentence_embedding"][:, : model.truncate_dim]
                by_row.append((rows, torch.nn.functional.normalize(values, p=2, dim=1)))
        # A GPU computes on while the next batch is prepared; only the end waits for it.
        vectors = np.empty((len(texts), by_row[0][1].shape[1]), np.float32)
        for rows, values in by_row:
            vectors[rows] = values.float().cpu().numpy()  # numpy has no bfloat16
        return vectors

    def _by_library(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = self.model.encode(
            list(texts), batch_size=EARLIER_BATCH, normalize_embeddings=True, show_progress_bar=False
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


def _is_table(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == 2


def _is_padded(tokens: dict[str, Any], mask: object, texts: int) -> bool:
    """Say whether a tokenizer gives one row for each text, padded at its end, and nothing else of them.

    Padding at the beginning moves a text's positions, so that some models give vectors that depend on how
    much of it there is: those batches are left to the library.
    """
    if not (isinstance(mask, torch.Tensor) and _is_table(mask) and len(mask) == texts):
        return False
    tensors = [value for value in tokens.values() if isinstance(value, torch.Tensor) and value.ndim]
    return all(tensor.shape == mask.shape for tensor in tensors) and bool((mask[:, :-1] >= mask[:, 1:]).all())


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
        reason = first_line(error, 300)
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
