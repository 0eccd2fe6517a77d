"""Text towers: the part of an open_clip model that embeds texts into the space of its image embeddings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import open_clip
import torch

from img2prompt_cache.errors import Img2PromptError, first_line
from img2prompt_cache.models.backbones.build import activation
from img2prompt_cache.models.backbones.open_clip_models import load_model
from img2prompt_cache.models.encoders.prompts import longest_text
from img2prompt_cache.models.fingerprints import weights_digest
from img2prompt_cache.models.specs import Spec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_OTHERS = ("visual.", "text_decoder.", "logit_")
"""Weights of an open_clip model that its text embeddings do not depend on."""

BATCH = 64
"""Texts run together."""


class TextTower:
    """The text tower of a CLIP model with its own tokenizer, in float32.

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
    UsageError, Img2PromptError
        As `load_model` does; also if its tokenizer cannot be loaded.
    """

    def __init__(
        self, spec: Spec, revision: str = "", device: str = "cpu", folder: Path | None = None
    ) -> None:
        found = load_model(spec, revision, folder)
        try:
            self.tokenize: Any = open_clip.get_tokenizer(found.name)
        except Exception as error:  # the libraries raise anything on files from anybody
            reason = first_line(error)
            raise Img2PromptError(f"{spec}: open_clip cannot load its tokenizer: {reason}") from error
        self.longest = longest_text(getattr(self.tokenize, "context_length", None))
        self.revision = found.revision
        self.model: Any = found.model.float().eval().requires_grad_(requires_grad=False)
        self.model.visual = torch.nn.Identity()
        self.model.to(device)
        self._device = device
        self._config = {key: found.config.get(key) for key in ("embed_dim", "text_cfg")}

    @property
    def scale(self) -> float:
        """What the model was trained to multiply cosines of images and texts with, before a softmax."""
        return float(self.model.logit_scale.detach().exp())

    def earlier(self) -> TextTower:
        """Return the same model, run as earlier versions ran it: it is run so still."""
        return self

    def encode(self, texts: Sequence[str], batch_tokens: int | None = None) -> NDArray[np.float32]:
        """Embed texts: float32, shape (len(texts), dim), unit norm. The tokenizer cuts and pads them."""
        window = getattr(self.tokenize, "context_length", None) or batch_tokens
        batch_size = max(1, batch_tokens // window) if batch_tokens and window else BATCH
        with torch.inference_mode():
            vectors = [
                self.model.encode_text(
                    self.tokenize(list(texts[start : start + batch_size])).to(self._device), normalize=True
                )
                for start in range(0, len(texts), batch_size)
            ]
        joined: NDArray[np.float32] = torch.cat(vectors).float().cpu().numpy()
        return joined

    def fingerprint(self, probe: str) -> dict[str, str]:
        """Return all that an embedding depends on; `probe` is a text that tokenizers split differently."""
        weights = {k: v for k, v in self.model.state_dict().items() if not k.startswith(_OTHERS)}
        words = getattr(self.tokenize, "encoder", None) or self.tokenize.tokenizer.get_vocab()
        tokens = json.dumps([words, self.tokenize([probe, ""]).tolist()], sort_keys=True)
        return {
            "library": "open_clip",
            "architecture": json.dumps(self._config, sort_keys=True),
            "activation": activation(self.model),
            "weights": weights_digest(weights),
            "tokenizer": f"sha256:{hashlib.sha256(tokens.encode()).hexdigest()}",
            "normalise": "l2",
        }
