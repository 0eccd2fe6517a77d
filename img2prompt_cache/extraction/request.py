"""What a pass is asked for, and which columns follow from that."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from img2prompt_cache.cache.manifest import Manifest
from img2prompt_cache.cache.writer import open_manifest
from img2prompt_cache.destination import refuse_url
from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.models.backbones.taps import PRESET_TAPS, Tap, model_of, split_spec
from img2prompt_cache.models.devices import PRECISIONS
from img2prompt_cache.models.encoders.prompts import CLEAN_RULES
from img2prompt_cache.models.loader import Models
from img2prompt_cache.models.runtimes import RUNTIMES
from img2prompt_cache.models.specs import PRESETS
from img2prompt_cache.models.weights.hub import choose_preset

MAX_PART_ROWS, MAX_BATCH_SIZE = 1 << 20, 1 << 16


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
    runtime : str
        ``"auto"``, ``"torch"`` or ``"openvino"``, for columns that are new.
    here : bool
        Whether this machine computes alone: only then does ``"auto"`` find out which runtime is faster here.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    part_rows, batch_size : int or None
        For a cache that is made now.
    taps : tuple of Tap
        What to keep of each backbone besides its pooled feature, and besides what is kept already; from
        `choose_taps`.
    plain : bool
        Keep no more than `taps` says where a new cache gets the backbones of a preset, either.
    retry_failed : bool
        Read rows that failed once more.
    update : bool
        Take in images and prompts that have changed, and leave out images that are gone.
    check : bool
        Compare the bytes of every image, not only of those whose file has another size or time.
    """

    preset: str = "auto"
    backbones: tuple[str, ...] = ()
    encoder: str | None = None
    clean: str | None = None
    precision: str = "auto"
    runtime: str = "auto"
    here: bool = True
    device: str = "auto"
    part_rows: int | None = None
    batch_size: int | None = None
    taps: tuple[Tap, ...] = ()
    plain: bool = False
    retry_failed: bool = False
    update: bool = False
    check: bool = False

    def make_models(self, *, new: bool = False) -> Models:
        """Give the models of a pass with these settings, of a new cache or an old one; none is loaded."""
        by_preset = new and not (self.plain or self.backbones)
        return Models(
            device=self.device,
            precision=self.precision,
            runtime=self.runtime,
            clean=self.clean,
            taps=self.taps,
            preset_taps=PRESET_TAPS if by_preset else {},
        )


def check_config(config: ExtractConfig, folder: Path) -> None:
    """Refuse unknown names, even those that would not be used, and what a cache that is there has settled.

    Parameters
    ----------
    config : ExtractConfig
    folder : pathlib.Path
        The cache; it need not be there.

    Raises
    ------
    UsageError
        Naming the parameter.
    """
    refuse_url(folder, "cache")
    if config.retry_failed and (config.update or config.check):
        raise UsageError(
            "`retry_failed` cannot be combined with `update` or `check`; run one after the other",
            parameter="retry_failed",
        )
    known = (
        ("preset", config.preset, ("auto", *PRESETS)),
        ("precision", config.precision, PRECISIONS),
        ("runtime", config.runtime, RUNTIMES),
        ("clean", config.clean or "none", tuple(CLEAN_RULES)),
    )
    for name, value, valid in known:
        if value not in valid:
            raise unknown(f"`{name}`", value, valid, parameter=name)
    require_within("part_rows", config.part_rows, MAX_PART_ROWS)
    require_within("batch_size", config.batch_size, MAX_BATCH_SIZE)
    made = open_manifest(folder)
    if made is None:
        return
    preset = None if config.preset == "auto" else config.preset
    settled = (
        ("preset", preset, (made.preset or {}).get("name", preset)),
        ("part_rows", config.part_rows, made.part_rows),
        ("batch_size", config.batch_size, made.batch_size),
    )
    for name, asked, kept in settled:
        if asked not in (None, kept):
            shown = f'"{asked}"' if isinstance(asked, str) else asked
            raise UsageError(
                f"`{name}={shown}`: {folder} was made with {kept}, which stays; make a new cache with "
                "`cache`",
                parameter=name,
            )


def require_within(name: str, value: int | None, most: int | None = None) -> None:
    """Refuse a parameter that is no whole number from 1 to `most`; None is fine.

    Raises
    ------
    UsageError
        Naming the parameter.
    """
    if value is None:
        return
    limits = f"from 1 to {most}" if most else "of at least 1"
    try:
        fits = 1 <= operator.index(value) <= (most or value)
    except TypeError:
        fits = False
    if not fits:
        raise UsageError(f"`{name}` must be a whole number {limits}, not {value!r}", parameter=name)


def choose_columns(config: ExtractConfig) -> tuple[tuple[str, ...], str, dict[str, str] | None]:
    """Settle which backbones and which encoder a new cache gets.

    Returns
    -------
    backbones : tuple of str
    encoder : str
    preset : dict or None
        ``{"name", "reason"}`` if a preset had a say.
    """
    if config.backbones and config.encoder:
        return config.backbones, config.encoder, None
    name, reason = config.preset, "asked for"
    if name == "auto":
        name, reason = choose_preset()
    backbones, encoder = PRESETS[name]
    return config.backbones or backbones, config.encoder or encoder, {"name": name, "reason": reason}


def describe_choice(
    config: ExtractConfig, backbones: Sequence[str], encoder: str, preset: Mapping[str, str]
) -> str:
    """Say in a line which columns of a new cache a preset decided, and why; nothing of what was named."""
    of = f"of the preset {preset['name']}: {preset['reason']}"
    if config.backbones:
        return f"encoder {encoder}, {of}; `encoder` names another"
    if config.encoder:
        return f"backbones {', '.join(backbones)}, {of}; `backbones` names others"
    return f"preset {preset['name']}: {preset['reason']}; backbones {', '.join(backbones)}, encoder {encoder}"


def backbones_of(manifest: Manifest) -> tuple[str, ...]:
    """Name the backbones of a cache by their specs, without what else is kept of them."""
    return tuple(model_of(c) for c in manifest.of_kind("features") if split_spec(c.spec)[1] == Tap())
