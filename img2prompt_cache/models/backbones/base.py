"""A frozen image encoder, ready to run."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from img2prompt_cache.errors import UsageError
from img2prompt_cache.images.decode import DECODE_RULES
from img2prompt_cache.images.geometry import Geometry
from img2prompt_cache.models.backbones.taps import MULTI, NAMES, TOP, blocks_of
from img2prompt_cache.models.devices import Precision

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from img2prompt_cache.models.backbones.chain import Chain
    from img2prompt_cache.models.backbones.class_names import ClassNames
    from img2prompt_cache.models.backbones.levels import Levels
    from img2prompt_cache.models.runtimes import Runtime

_FINDING = Lock()


class Compiled(Protocol):
    """The forward pass of a backbone as another runtime computes it; see `compiled`."""

    precision: Precision

    def read(self, pixels: torch.Tensor, names: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """Compute outputs of a batch, each with the shape (n, …)."""


@dataclass(slots=True)
class Backbone:
    """A frozen image encoder and everything its features depend on.

    Attributes
    ----------
    spec : str
        As the user spells it: ``"timm:resnet50.a1_in1k"``.
    model : torch.nn.Module
        In eval mode, without gradients; maps normalised images (n, 3, height, width) to features (n, dim).
    dim : int
        Width of the pooled feature.
    geometry : Geometry
        How an image is brought to the model's input size.
    mean, std : tuple of float
        Per channel, for pixel values scaled to 0…1.
    identity : dict of str to str
        `library`, `architecture`, `activation`, `weights` (see `fingerprints.weights_digest`), and for
        weights from the hub `revision`, their commit.
    precision : str
        Number format that the model computes in.
    class_names : ClassNames or None
        What gives the output ``"names"``; see `naming.attach_names`.
    folder : pathlib.Path or None
        Where its weights lie, if not where the spec says.
    """

    spec: str
    model: torch.nn.Module
    dim: int
    geometry: Geometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    identity: dict[str, str] = field(default_factory=dict)
    precision: Precision = "fp32"
    class_names: ClassNames | None = field(default=None, repr=False, compare=False)
    folder: Path | None = None
    _compiled: Compiled | None = field(default=None, init=False, repr=False, compare=False)
    _chain: Chain | None = field(default=None, init=False, repr=False, compare=False)
    _levels: Levels | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def fingerprint(self) -> dict[str, str]:
        """All that a cached feature of this backbone depends on."""
        preprocessing = {"geometry": self.geometry.describe(), "mean": self.mean, "std": self.std}
        return {
            **{key: value for key, value in self.identity.items() if key != "revision"},
            "preprocessing": json.dumps(preprocessing, sort_keys=True),
            "decode": DECODE_RULES,
            "precision": self.precision,
            **({} if self.runtime == "torch" else {"runtime": self.runtime}),
        }

    @property
    def runtime(self) -> Runtime:
        """What computes its features."""
        return "torch" if self._compiled is None else "openvino"

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return next(self.model.parameters()).device

    def compute_in(self, precision: Precision, device: str | None = None) -> None:
        """Change the number format, and move the model to a device, if one is given.

        Raises
        ------
        ValueError
            If it does not compute in float32 any more: rounding cannot be undone.
        """
        import torch

        if self.precision != "fp32":
            raise ValueError(f"{self.spec} computes in {self.precision} already")

        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.model.to(dtype=dtype)  # before it is moved: fewer bytes are copied
        if device is not None:
            self.model.to(device)
        self.precision, self._chain, self._levels = precision, None, None
        if precision == "bf16" and self.device.type == "cpu":
            from img2prompt_cache.models.backbones.rewrites.packed_linear import pack_linears

            pack_linears(self.model, torch.zeros(1, 3, *self.geometry.crop, dtype=dtype))

    def compute_with(self, compiled: Compiled) -> None:
        """Let OpenVINO compute what `read` gives from now on, in the precision that was compiled for."""
        self.precision, self._compiled = compiled.precision, compiled

    def encode(self, pixels: torch.Tensor) -> np.ndarray:
        """Compute the features of a batch.

        Parameters
        ----------
        pixels : torch.Tensor, uint8, shape (n, height, width, 3)
            As `Geometry.apply` gives them.

        Returns
        -------
        numpy.ndarray, float32, shape (n, dim)
        """
        return self.read(pixels)[TOP]

    def read(self, pixels: torch.Tensor, names: Collection[str] = (TOP,)) -> dict[str, np.ndarray]:
        """Compute several outputs of a batch in one forward pass.

        Parameters
        ----------
        pixels : torch.Tensor, uint8, shape (n, height, width, 3)
            As `Geometry.apply` gives them.
        names : collection of str
            As `taps` names them: ``""`` for the features, ``"multi"``, ``"names"``, ``"k2"`` for the trunk
            before the last 2 blocks.

        Returns
        -------
        dict of str to numpy.ndarray, shape (n, …)
            By name: features, levels and names as float32, values of a trunk as float16, channels last.

        Raises
        ------
        UsageError
            If the model cannot be cut there, or not with the installed version of its library.
        """
        import torch

        if self._compiled is not None:
            return self._read_compiled(self._compiled, pixels, names)
        with torch.inference_mode():
            if self.device.type == "cuda":  # in the caller's stream, like all that follows
                pixels = pixels.pin_memory().to(self.device, non_blocking=True)
            found = self.outputs(pixels, names)
            return {name: value.contiguous().cpu().numpy() for name, value in found.items()}

    def _read_compiled(
        self, compiled: Compiled, pixels: torch.Tensor, names: Collection[str]
    ) -> dict[str, np.ndarray]:
        if MULTI in names:
            self.levels  # noqa: B018 refused where it is not known where they are
        found = compiled.read(pixels, {TOP if name == NAMES else name for name in names})
        if NAMES in names:
            import torch

            with torch.inference_mode():
                found[NAMES] = self._names(torch.from_numpy(found[TOP])).numpy()
        return {name: found[name] for name in names}

    def outputs(self, pixels: torch.Tensor, names: Collection[str] = (TOP,)) -> dict[str, torch.Tensor]:
        """Compute what `read` gives as tensors, from pixels on the model's device; with torch in any case.

        Parameters
        ----------
        pixels : torch.Tensor, uint8, shape (n, height, width, 3)
        names : collection of str

        Returns
        -------
        dict of str to torch.Tensor
        """
        import torch

        device, dtype = self.device, next(self.model.parameters()).dtype
        # Not scaled in place: a trace of torch would scale them twice.
        mean = torch.tensor(self.mean, device=device).mul(255).view(3, 1, 1)
        std = torch.tensor(self.std, device=device).mul(255).view(3, 1, 1)
        # A view of interleaved pixels as (n, 3, h, w) is channels-last already.
        images = pixels.permute(0, 3, 1, 2).float().sub_(mean).div_(std).to(dtype)
        found = self._compute(images, names)
        return {name: value if blocks_of(name) else value.float() for name, value in found.items()}

    def _compute(self, images: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        if set(names) == {TOP}:
            return {TOP: self.model(images)}
        import torch

        try:
            if MULTI not in names:
                found = self._run(images, names)
            else:
                with self.levels.collect() as pooled:
                    found = self._run(images, names)
                found[MULTI] = torch.cat([each for each in pooled if each is not None], 1)
        except UsageError as error:
            raise UsageError(f"{self.spec}: {error}") from None
        if NAMES in names:
            found[NAMES] = self._names(found[TOP].float())
        return {name: found[name] for name in names}

    def _names(self, features: torch.Tensor) -> torch.Tensor:
        if self.class_names is None:
            raise ValueError(f"{self.spec} was loaded without the names of its classes")
        return self.class_names.read(features)

    @property
    def levels(self) -> Levels:
        """Its inner levels.

        Raises
        ------
        UsageError
            If it is not known where they are in this architecture.
        """
        from img2prompt_cache.models.backbones.levels import levels_of

        with _FINDING:
            if self._levels is None:
                self._levels = levels_of(self.model)
        return self._levels

    def _run(self, images: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """Run the model, in the steps of its chain only where these are asked for."""
        steps = set(names) - {MULTI, NAMES}
        if steps < set(names):
            steps.add(TOP)
        if steps == {TOP}:
            return {TOP: self.model(images)}
        from img2prompt_cache.models.backbones.architectures import checked_chain

        if self._chain is None:
            self._chain = checked_chain(self.model, images[:1])
        return self._chain.read(images, steps)
