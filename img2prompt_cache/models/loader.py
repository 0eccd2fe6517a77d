"""The backbones and encoders that compute the columns of a cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from img2prompt_cache.cache.manifest import Column, Manifest, column_folder
from img2prompt_cache.errors import UsageError
from img2prompt_cache.models.backbones.taps import (
    NAMES,
    Described,
    NoClassifierError,
    Tap,
    blocks_of,
    split_spec,
)
from img2prompt_cache.models.declared import (
    named_column,
    names_encoder,
    new_column,
    require_new_name,
    with_further,
)
from img2prompt_cache.models.devices import choose_device
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.models.fingerprints import require_equal
from img2prompt_cache.models.new_backbones import load_new, start
from img2prompt_cache.models.recorded import (
    ADVICE,
    fingerprint_of,
    load_recorded_backbone,
    load_recorded_encoder,
    require_backbone,
    require_recorded,
)
from img2prompt_cache.models.runtimes import runtime_of
from img2prompt_cache.models.same_model import column_of_backbone, column_of_encoder, relocated
from img2prompt_cache.models.specs import ENCODER_FAMILIES, parse_spec, require_folder, split_alias
from img2prompt_cache.progress import Callback, ignore, note, warn

if TYPE_CHECKING:
    from img2prompt_cache.models.backbones.base import Backbone
    from img2prompt_cache.models.encoders.base import Encoder
    from img2prompt_cache.models.runtimes import Runtime


class Models:
    """Backbones and encoders, loaded when first needed; those of an existing column as it was made.

    Parameters
    ----------
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    precision : str
        ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``, for columns that are new.
    runtime : str
        ``"auto"``, ``"torch"`` or ``"openvino"``, for columns that are new.
    clean : str or None
        Cleaning rule for prompts before they are encoded; ``"none"`` for a new column if absent.
    taps : tuple of Tap
        What `declare` adds for each backbone besides its pooled feature; from `choose_taps`.
    preset_taps : mapping of str to tuple of Tap
        What it adds for some backbones besides.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        precision: str = "auto",
        runtime: str = "auto",
        clean: str | None = None,
        taps: tuple[Tap, ...] = (),
        preset_taps: Mapping[str, tuple[Tap, ...]] = MappingProxyType({}),
    ) -> None:
        self._asked_device, self._precision, self._clean = device, precision, clean
        self._runtime = runtime
        self._taps, self._preset_taps = taps, preset_taps
        if device != "auto":
            choose_device(device)  # a wrong one is refused even if there is nothing to do
        self._backbones: dict[tuple[str, str, str, Runtime], Backbone] = {}
        self._raced: list[str] = []
        self._encoders: dict[str, Encoder] = {}

    @cached_property
    def _device(self) -> str:
        # Chosen when a model is loaded: a pass with nothing to do does not import torch.
        return choose_device(self._asked_device)

    def declare(
        self,
        manifest: Manifest,
        backbones: Iterable[str],
        encoders: Sequence[str],
        tell: Callback = ignore,
        *,
        further: int = 0,
        images: int = 0,
    ) -> Manifest:
        """Add a column for every model that has none yet, by loading it.

        A model that has one under another name keeps that: it is known by its fingerprint, and from then on
        loaded from where it was named last.

        Parameters
        ----------
        manifest : Manifest
        backbones : iterable of str
        encoders : sequence of str
            Their specs, or ``NAME=SPEC`` with the name that a new column gets.
        tell : callable
            Called where a backbone does not get the precision that ``"auto"`` gives the others, or has no
            classifier to take class names from, or there is no room for further prompts.
        further : int
            Most prompts of a row beside its first.
        images : int
            How many are to be encoded by a new column on this machine: where they are as many as `RACE_FROM`,
            ``"auto"`` takes the faster runtime, and torch otherwise.

        Raises
        ------
        NoClassifierError
            If class names are wanted and no backbone has any.
        Img2PromptError
            If an existing column was made in another precision, or with another cleaning rule.
        """
        unnamed: list[NoClassifierError] = []
        manifest, encoders = self._find_encoders(manifest, encoders, tell)
        for text in (backbones := tuple(backbones)):
            column = self._known_backbone(manifest, text)
            if column is None:
                manifest, column = self._declare_backbone(manifest, text, tell, images)
            manifest = self._with_taps(manifest, column.spec, names_encoder(manifest, encoders), unnamed)
        if self._raced:
            note(
                tell,
                f"openvino computes faster than torch here, and is used: {', '.join(self._raced)}; "
                '`runtime="torch"` does without',
            )
            self._raced.clear()
        if any(tap.name == NAMES for tap in self._taps) and len(unnamed) == len(backbones) > 0:
            raise unnamed[0]
        for error in unnamed:
            warn(tell, str(error))
        for text in encoders:
            if self._known_encoder(manifest, text) is None:
                name, spec = split_alias(text)
                encoder = self._encoders[name]
                column = new_column("targets", name, encoder.dim, "float32", encoder.fingerprint, spec)
                manifest = manifest.with_column(replace(column, revision=encoder.revision))
        return with_further(manifest, further, tell)

    def outline(
        self, manifest: Manifest, backbones: Iterable[str], encoders: Iterable[str], *, further: int = 0
    ) -> Manifest:
        """Add the columns that `declare` adds, but load no model.

        Only the names of the new columns are known: they have the shape (0,) and no fingerprint. A backbone
        without a classifier gets a column of class names here, if they were asked for.

        Raises
        ------
        UsageError, Img2PromptError
            As `declare`, if it can be told without a model.
        """
        for text in backbones:
            known = self._known_backbone(manifest, text)
            name = known.spec if known else split_alias(text)[0]
            if known is None and manifest.column("features", name) is None:
                manifest = manifest.with_column(new_column("features", name, 0, "float16", {}))
            for tap in self._wanted_taps(manifest, name):
                column = new_column(tap.kind, f"{name}{tap.suffix}", 0, "float16", {})
                manifest = manifest.with_column(column)
        for text in encoders:
            name = split_alias(text)[0]
            if self._known_encoder(manifest, text) is None and manifest.column("targets", name) is None:
                manifest = manifest.with_column(new_column("targets", name, 0, "float32", {}))
        return with_further(manifest, further, ignore)

    def _known_backbone(self, manifest: Manifest, text: str) -> Column | None:
        """Check the spec of a backbone, and find the column of its pooled feature, if it has that name."""
        cached = named_column(manifest, "features", text)
        base, tap = split_spec(text)
        if tap != Tap():
            raise UsageError(
                f"{text} is a column, not a backbone; name {base}, and what to keep of it with "
                "`trunk`, `levels` and `views`"
            )
        if cached is None:
            require_folder(parse_spec(split_alias(text)[1]), "backbones")
        else:
            self._require_field(cached, "precision", self._precision)
            self._require_field(cached, "runtime", self._runtime, "torch")
        return cached

    def _declare_backbone(
        self, manifest: Manifest, text: str, tell: Callback, images: int
    ) -> tuple[Manifest, Column]:
        """Load a backbone, and find the column that it has by another name, or add one."""
        name, spec = split_alias(text)
        backbone, precision = load_new(spec, self._precision, self._device, tell)
        known = column_of_backbone(manifest, backbone)
        if known is not None:
            self._require_field(known, "precision", self._precision)
            self._require_field(known, "runtime", self._runtime, "torch")
            if known.spec != name:
                note(tell, f"{text} is the backbone of {known.spec}, which is cached")
            if (known.fingerprint.get("precision"), known.revision) == (precision, ""):
                start(backbone, precision, runtime_of(known.fingerprint), tell, images=0)
                self._keep(split_spec(known.spec)[0], backbone)
            return relocated(manifest, known, spec), known
        require_new_name(manifest, "features", name)
        # A trunk is computed by torch in any case, and a feature beside it costs nothing more.
        trunk = any(blocks_of(tap.name) for tap in self._taps)
        gain = start(backbone, precision, self._runtime, tell, images=0 if trunk else images)
        if gain:
            self._raced.append(f"{spec} ({gain:.1f} times)")
        self._keep(name, backbone)
        column = new_column("features", name, backbone.dim, "float16", backbone.fingerprint, spec)
        column = replace(column, revision=backbone.identity.get("revision", ""))
        return manifest.with_column(column), column

    def _known_encoder(self, manifest: Manifest, text: str) -> Column | None:
        """Check the spec of an encoder, and find the column of its targets, if it has that name."""
        cached = named_column(manifest, "targets", text)
        if cached is None:
            require_folder(parse_spec(split_alias(text)[1], ENCODER_FAMILIES), "encoder")
        else:
            self._require_field(cached, "clean", self._clean)
        return cached

    def _find_encoders(
        self, manifest: Manifest, texts: Sequence[str], tell: Callback
    ) -> tuple[Manifest, tuple[str, ...]]:
        """Load the encoders that no column is named after; name those that have one by their spec of now."""
        names = []
        for text in texts:
            if self._known_encoder(manifest, text) is None:
                name, spec = split_alias(text)
                encoder = load_encoder(spec, clean=self._clean or "none", device=self._device)
                known = column_of_encoder(manifest, encoder)
                if known is not None:
                    self._require_field(known, "clean", self._clean)
                    if known.spec != name:
                        note(tell, f"{text} is the encoder of {known.spec}, which is cached")
                    manifest, text = relocated(manifest, known, spec), spec
                else:
                    require_new_name(manifest, "targets", name)
                    self._encoders[name] = encoder
            names.append(text)
        return manifest, tuple(names)

    def _wanted_taps(self, manifest: Manifest, spec: str) -> dict[Tap, None]:
        """List, in order, what is wanted of a backbone besides its pooled feature and not there yet."""
        taps = dict.fromkeys((*self._preset_taps.get(spec, ()), *self._taps))
        return dict.fromkeys(tap for tap in taps if manifest.column(tap.kind, f"{spec}{tap.suffix}") is None)

    def _with_taps(
        self, manifest: Manifest, spec: str, encoder: str, unnamed: list[NoClassifierError]
    ) -> Manifest:
        """Add the columns that are wanted of a backbone besides its pooled feature."""
        taps = self._wanted_taps(manifest, spec)
        if any(tap.name == NAMES for tap in taps):
            try:
                self._require_names(manifest, spec, encoder)
            except NoClassifierError as error:
                unnamed.append(error)
                taps = dict.fromkeys(tap for tap in taps if tap.name != NAMES)
        for tap in taps:
            manifest = self._declare_tap(manifest, spec, tap)
        return manifest

    def _require_names(self, manifest: Manifest, spec: str, encoder: str) -> None:
        """Load the classifier of a backbone, where columns of it are to be added."""
        top, names = (manifest.column("features", f"{spec}{suffix}") for suffix in ("", Tap(NAMES).suffix))
        if names is not None:
            encoder = names.fingerprint.get("encoder", "")
        if top is not None:
            from img2prompt_cache.models.naming import attach_names

            attach_names(self.backbone(top), encoder)

    def _declare_tap(self, manifest: Manifest, spec: str, tap: Tap) -> Manifest:
        name = f"{spec}{tap.suffix}"
        top = manifest.column("features", spec)
        if top is None:
            return manifest
        from img2prompt_cache.models.backbones.build import blocks_of_output, shape_of

        if blocks_of(tap.name):  # trunks are torch's, whatever computes the features
            plain = {key: value for key, value in top.fingerprint.items() if key != "runtime"}
            backbone = self.backbone(replace(top, fingerprint=plain))
        else:
            backbone = self.backbone(top)
        return manifest.with_column(
            Column(
                tap.kind,
                name,
                column_folder(tap.kind, name),
                shape_of(backbone, tap),
                tap.dtype,
                fingerprint_of(backbone, tap),
                top.revision,
                blocks=blocks_of_output(backbone, tap),
                current=f"{top.current}{tap.suffix}" if top.current else "",
            )
        )

    def _require_field(self, column: Column, field: str, asked: str | None, absent: str = "") -> None:
        if asked not in (None, "auto"):
            made = column.fingerprint.get(field, absent)
            require_equal(f"column {column.folder}", {field: made}, {field: asked}, ADVICE)

    def load(self, columns: Iterable[Column]) -> None:
        """Load the models of some columns now, so that a mismatch is found before any work is done.

        Raises
        ------
        Img2PromptError
            If a model is not the one its column was made with.
        """
        for column in columns:
            if column.from_prompts:
                self.encoder(column)
            elif column.kind != "rows":
                self.backbone(column)

    def backbone(self, column: Described) -> Backbone:
        """Return the backbone of a feature, trunk or view column, the same one for all its columns.

        Raises
        ------
        Img2PromptError
            If it is not the one the column was made with.
        """
        spec = split_spec(column.spec)[0]
        precision, runtime = column.fingerprint.get("precision", ""), runtime_of(column.fingerprint)
        loaded = self._backbones.get((spec, precision, column.revision, runtime))
        if loaded is None:
            return self._keep(spec, load_recorded_backbone(column, device=self._device))
        require_backbone(column, loaded)
        return loaded

    def encoder(self, column: Described) -> Encoder:
        """Return the encoder of a target column.

        Raises
        ------
        Img2PromptError
            If it is not the one the column was made with.
        """
        loaded = self._encoders.get(column.spec)
        if loaded is None:
            self._encoders[column.spec] = load_recorded_encoder(column, device=self._device)
            return self._encoders[column.spec]
        require_recorded(column, loaded.fingerprint)
        return loaded

    def _keep(self, spec: str, backbone: Backbone) -> Backbone:
        revision = backbone.identity.get("revision", "")
        self._backbones[spec, backbone.precision, revision, backbone.runtime] = backbone
        return backbone
