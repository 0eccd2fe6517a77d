"""The models of a pass: which columns are wanted, and the backbones and encoders that fill them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from img2prompt_cache.cache.manifest import Column, Kind, Manifest, column_folder
from img2prompt_cache.errors import UsageError, unknown
from img2prompt_cache.models.backbones import choose_preset, load_backbone
from img2prompt_cache.models.backbones.fidelity import REQUIRED, falls_short, fidelity
from img2prompt_cache.models.backbones.taps import Tap, shape_of, split_spec
from img2prompt_cache.models.devices import choose_device, choose_precision
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.models.fingerprints import require_equal
from img2prompt_cache.models.specs import ENCODER_FAMILIES, PRESETS, parse_spec

if TYPE_CHECKING:
    from img2prompt_cache.models.backbones.base import Backbone, Precision
    from img2prompt_cache.models.encoders.base import Encoder


@dataclass(frozen=True, slots=True)
class Request:
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


def choose_columns(request: Request) -> tuple[tuple[str, ...], str, dict[str, str] | None]:
    """Settle which backbones and which encoder a new cache gets.

    Returns
    -------
    backbones : tuple of str
    encoder : str
    preset : dict or None
        ``{"name", "reason"}`` if a preset had a say.
    """
    if request.preset not in ("auto", *PRESETS):
        raise unknown("preset", request.preset, ("auto", *PRESETS))
    if request.backbones and request.encoder:
        return request.backbones, request.encoder, None
    name, reason = request.preset, "asked for"
    if name == "auto":
        name, reason = choose_preset()
    backbones, encoder = PRESETS[name]
    return request.backbones or backbones, request.encoder or encoder, {"name": name, "reason": reason}


def backbones_of(manifest: Manifest) -> tuple[str, ...]:
    """Name the backbones of a cache, without what else is kept of them."""
    return tuple(c.spec for c in manifest.of_kind("features") if split_spec(c.spec)[1] == Tap())


def _ignore(message: str) -> None:
    pass


class Models:
    """Backbones and encoders, loaded when first needed and checked against what their column was made with.

    Parameters
    ----------
    request : Request
        Says device, precision and cleaning rule.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        if request.device != "auto":
            choose_device(request.device)  # a wrong one is told even if nothing is to be done
        self._backbones: dict[str, Backbone] = {}
        self._encoders: dict[str, Encoder] = {}

    @cached_property
    def _device(self) -> str:
        # Asked when a model is loaded: a pass with nothing to do need not import torch.
        return choose_device(self._request.device)

    def declare(
        self,
        manifest: Manifest,
        backbones: Iterable[str],
        encoders: Iterable[str],
        note: Callable[[str], None] = _ignore,
    ) -> Manifest:
        """Add a column for every spec that has none yet; this loads its model.

        Parameters
        ----------
        manifest : Manifest
        backbones, encoders : iterable of str
            Their specs.
        note : callable
            Told, in a line, where a backbone does not get the precision that ``"auto"`` gives the others.

        Raises
        ------
        Img2PromptError
            If one that is there was made in another precision, or with another cleaning rule, than asked for.
        """
        for spec in backbones:
            parse_spec(spec)
            base, tap = split_spec(spec)
            if tap != Tap():
                raise UsageError(
                    f"{spec} is a column, not a backbone; name {base}, and what to keep of it with --trunk, "
                    "--levels and --views"
                )
            cached = manifest.column("features", spec)
            if cached is not None:
                self._require_field(cached, "precision", self._request.precision)
            else:
                backbone = self._new_backbone(spec, note)
                column = _column("features", spec, backbone.dim, "float16", backbone.fingerprint)
                manifest = manifest.with_column(
                    replace(column, revision=backbone.identity.get("revision", ""))
                )
            for tap in self._request.taps:
                manifest = self._declare_tap(manifest, spec, tap)
        for spec in encoders:
            parse_spec(spec, ENCODER_FAMILIES)
            cached = manifest.column("targets", spec)
            if cached is not None:
                self._require_field(cached, "clean", self._request.clean)
            else:
                encoder = self._load_encoder(spec, None)
                column = _column("targets", spec, encoder.dim, "float32", encoder.fingerprint)
                manifest = manifest.with_column(replace(column, revision=encoder.revision))
        return manifest

    def _declare_tap(self, manifest: Manifest, spec: str, tap: Tap) -> Manifest:
        name = f"{spec}{tap.suffix}"
        top = manifest.column("features", spec)
        if top is None or manifest.column(tap.kind, name) is not None:
            return manifest
        backbone = self.backbone(top)
        shape = shape_of(backbone, tap)
        fingerprint = {**backbone.fingerprint, **tap.fingerprint}
        folder = column_folder(tap.kind, name)
        return manifest.with_column(
            Column(tap.kind, name, folder, shape, tap.dtype, fingerprint, top.revision)
        )

    def _require_field(self, column: Column, field: str, asked: str | None) -> None:
        if asked not in (None, "auto"):
            made = column.fingerprint.get(field, "")
            require_equal(f"column {column.folder}", {field: made}, {field: asked}, _ADVICE)

    def load(self, columns: Iterable[Column]) -> None:
        """Load the models of these columns now, so that a mismatch shows before any work is done.

        Raises
        ------
        Img2PromptError
            If a model is not the one its column was made with.
        """
        for column in columns:
            if column.kind == "targets":
                self.encoder(column)
            elif column.kind != "rows":
                self.backbone(column)

    def backbone(self, column: Column) -> Backbone:
        """Give the backbone of a feature, trunk or view column: one for all columns made with it."""
        spec, tap = split_spec(column.spec)
        loaded = self._backbones.get(spec) or self._old_backbone(spec, column)
        now = {**loaded.fingerprint, **tap.fingerprint}
        require_equal(f"column {column.folder}", column.fingerprint, now, _ADVICE)
        return loaded

    def encoder(self, column: Column) -> Encoder:
        """Give the encoder of a target column."""
        loaded = self._encoders.get(column.spec) or self._load_encoder(column.spec, column)
        require_equal(f"column {column.folder}", column.fingerprint, loaded.fingerprint, _ADVICE)
        return loaded

    def _old_backbone(self, spec: str, column: Column) -> Backbone:
        """Load the backbone that a column was made with."""
        precision = choose_precision(column.fingerprint.get("precision", ""), self._device)
        return self._load_backbone(spec, precision, column.revision)

    def _new_backbone(self, spec: str, note: Callable[[str], None]) -> Backbone:
        """Load a backbone for a new column; try a short precision before settling on it by `auto`."""
        precision = choose_precision(self._request.precision, self._device)
        if self._request.precision != "auto" or precision == "fp32":
            return self._load_backbone(spec, precision)
        backbone = self._load_backbone(spec, "fp32")
        cosines = fidelity(backbone, precision)
        if falls_short(cosines):
            note(
                f"{spec} computes in fp32: its features in {precision} have a cosine of {cosines.mean():.4f} "
                f"to those, below {REQUIRED} (--precision {precision} takes them all the same)"
            )
        else:
            backbone.compute_in(precision)
        return backbone

    def _load_backbone(self, spec: str, precision: Precision, revision: str = "") -> Backbone:
        backbone = load_backbone(spec, precision=precision, device=self._device, revision=revision)
        self._backbones[spec] = backbone
        return backbone

    def _load_encoder(self, spec: str, column: Column | None) -> Encoder:
        clean = column.fingerprint.get("clean", "none") if column else self._request.clean or "none"
        revision = column.revision if column else ""
        encoder = load_encoder(spec, clean=clean, device=self._device, revision=revision)
        self._encoders[spec] = encoder
        return encoder


def _column(kind: Kind, spec: str, width: int, dtype: str, fingerprint: dict[str, str]) -> Column:
    return Column(kind, spec, column_folder(kind, spec), (width,), dtype, fingerprint)


_ADVICE = "Use what it was made with, or make a new cache with --cache."
