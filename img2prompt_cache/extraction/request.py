"""What a pass is asked for, and which columns follow from that."""

from __future__ import annotations

from dataclasses import dataclass

from img2prompt_cache.cache.manifest import Manifest
from img2prompt_cache.errors import unknown
from img2prompt_cache.models.backbones.taps import Tap, split_spec
from img2prompt_cache.models.loader import Models
from img2prompt_cache.models.specs import PRESETS
from img2prompt_cache.models.weights.hub import choose_preset


@dataclass(frozen=True, slots=True)
class ExtractConfig:
    """What `extract` was asked for.

    Attributes
    ----------
    preset : str
        ``"auto"``, ``"standard"`` or ``"packaged"``: used when a cache is made, unless `backbones` are named.
    backbones : tuple of str
        Specs to cache, besides those cached already.
    encoder : str or None
        Spec of the target encoder, besides those cached already.
    clean : str or None
        Cleaning rule for prompts before they are encoded; ``"none"`` for a new column if absent.
    precision : str
        ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``, for columns that are new.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    part_rows, batch_size : int or None
        For a cache that is made now.
    taps : tuple of Tap
        What to keep of each backbone besides its pooled feature, and besides what is kept already; from
        `choose_taps`.
    retry_failed : bool
        Read rows that failed once more.
    """

    preset: str = "auto"
    backbones: tuple[str, ...] = ()
    encoder: str | None = None
    clean: str | None = None
    precision: str = "auto"
    device: str = "auto"
    part_rows: int | None = None
    batch_size: int | None = None
    taps: tuple[Tap, ...] = ()
    retry_failed: bool = False

    def make_models(self) -> Models:
        """Give the models of a pass with these settings; none is loaded yet."""
        return Models(device=self.device, precision=self.precision, clean=self.clean, taps=self.taps)


def choose_columns(config: ExtractConfig) -> tuple[tuple[str, ...], str, dict[str, str] | None]:
    """Settle which backbones and which encoder a new cache gets.

    Returns
    -------
    backbones : tuple of str
    encoder : str
    preset : dict or None
        ``{"name", "reason"}`` if a preset had a say.
    """
    if config.preset not in ("auto", *PRESETS):
        raise unknown("preset", config.preset, ("auto", *PRESETS))
    if config.backbones and config.encoder:
        return config.backbones, config.encoder, None
    name, reason = config.preset, "asked for"
    if name == "auto":
        name, reason = choose_preset()
    backbones, encoder = PRESETS[name]
    return config.backbones or backbones, config.encoder or encoder, {"name": name, "reason": reason}


def backbones_of(manifest: Manifest) -> tuple[str, ...]:
    """Name the backbones of a cache, without what else is kept of them."""
    return tuple(c.spec for c in manifest.of_kind("features") if split_spec(c.spec)[1] == Tap())
