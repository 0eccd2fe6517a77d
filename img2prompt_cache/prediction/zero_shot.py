"""Zero-shot prediction: models and a bank of prompts in the place of a run, for whoever has no pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from img2prompt_cache.cache.manifest import Column, Manifest
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.data.columns import UsedColumn, choose_target
from img2prompt_cache.errors import UsageError
from img2prompt_cache.extraction.request import ExtractConfig, choose_columns
from img2prompt_cache.files import hash_file
from img2prompt_cache.heads.zero_shot import Labels, ZeroShot
from img2prompt_cache.models.backbones.taps import NoClassifierError, Tap, model_of, split_spec
from img2prompt_cache.models.encoders.base import load_encoder
from img2prompt_cache.models.loader import Models
from img2prompt_cache.models.naming import load_classifier
from img2prompt_cache.models.recorded import load_recorded_backbone
from img2prompt_cache.numerics.hubs import ALPHA
from img2prompt_cache.numerics.metrics import unit
from img2prompt_cache.prediction.bank import Bank
from img2prompt_cache.prediction.kept import encode_kept, kept_path
from img2prompt_cache.prediction.starter import STARTER, find_bank
from img2prompt_cache.progress import Callback, ignore, note

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from img2prompt_cache.models.backbones.class_names import Classifier
    from img2prompt_cache.models.encoders.base import Encoder

    F32 = NDArray[np.float32]

CLIP = "open_clip:"
UNEXPECTED = "which cosine to expect is not known without pairs; fit a run on images with prompts to know it"
_NO_ROWS = Column("rows", "", "rows", (), "text", {})


@dataclass(frozen=True, slots=True, eq=False)
class ZeroShotModel:
    """What prediction needs, without a run: see `prediction.fitted.Fitted`.

    Attributes
    ----------
    features : tuple of UsedColumn
        Of the backbones whose texts are known.
    target : UsedColumn
    estimator : ZeroShot
    own_bank : Bank
        The prompts that the prior is the mean of.
    home : pathlib.Path or None
        The cache whose columns these are, if one was given.
    """

    features: tuple[UsedColumn, ...]
    target: UsedColumn
    estimator: ZeroShot
    own_bank: Bank
    home: Path | None
    name: ClassVar[str] = "zero-shot"
    head: ClassVar[str] = "zero-shot"
    cache: ClassVar[str] = ""
    carried: ClassVar[None] = None
    expectation: ClassVar[None] = None
    without_expectation: ClassVar[str] = UNEXPECTED
    doubts: ClassVar[str] = ""

    @property
    def mean_prediction(self) -> F32:
        """What prompts are corrected for hubs with: with its share taken away, no prior is left.

        Every prediction is so near to the prior that prompts are ranked by how an image differs from it.
        """
        prior: F32 = unit(self.estimator.prior_[None])[0] / np.float32(ALPHA)
        return prior


def refuse_what_takes_pairs(*, compose: bool, min_expected: float | None) -> None:
    """Refuse options of `predict` that make no sense without a run, before anything is loaded.

    Raises
    ------
    UsageError
        Naming the parameter.
    """
    if min_expected is not None:
        raise UsageError(f"`min_expected`: {UNEXPECTED}", parameter="min_expected")
    if compose:
        raise UsageError(
            "`compose=True` takes a run: without pairs, predictions are too near to the mean prompt",
            parameter="compose",
        )


def make_zero_shot(
    cache: Cache | None = None,
    *,
    bank: str | Path | None = None,
    device: str = "auto",
    tell: Callback = ignore,
) -> ZeroShotModel:
    """Make what predicts without pairs, of a bank of prompts and the models of a cache or of the preset.

    CLIP models compare images with the prompts of the bank; where there is none, classifiers give the names
    of their classes. Other backbones are left out.

    Parameters
    ----------
    cache : Cache, optional
        Its backbones and its encoder are taken; those of the preset that `extract` would choose if None.
    bank : path, optional
        Prompts like those to predict; the starter bank if None.
    device : str
        ``"auto"`` or as torch spells it.
    tell : callable
        Told what the predictions are made of.

    Raises
    ------
    UsageError
        If no backbone has a text tower or classes with known names, or the bank cannot be read.
    Img2PromptError
        If a model cannot be loaded, or is not the one a column of the cache was made with.
    """
    models = Models(device=device, precision="fp32" if cache is None else "auto")
    if cache is None:
        backbones, encoder, _ = choose_columns(ExtractConfig(device=device))
        chosen, classifiers = _choose({spec: _Model(spec) for spec in backbones})
        manifest = models.declare(Manifest(1, 1, (_NO_ROWS,)), chosen, [encoder], tell)
        target = next(iter(manifest.of_kind("targets")))
    else:
        manifest, target = cache.manifest, choose_target(cache, None)
        pooled = {
            column.spec: _Model.of(column, device)
            for column in manifest.of_kind("features")
            if split_spec(column.spec)[1] == Tap()
        }
        chosen, classifiers = _choose(pooled)
    columns = [column for column in manifest.of_kind("features") if column.spec in chosen]
    if not columns:
        raise UsageError(
            "`zero_shot=True` takes a backbone with a text tower (open_clip), or with a classifier whose "
            "classes have known names; "
            f"there is none among {', '.join(column.spec for column in manifest.of_kind('features'))}",
            parameter="zero_shot",
        )
    text_encoder = models.encoder(target)
    path = Path(STARTER if bank is None else bank)
    prompts = Bank.from_file(path, text_encoder, tell)
    labels = [
        _of_tower(column, prompts, path, device, tell)
        if model_of(column).startswith(CLIP)
        else _of_classes(column, classifiers[column.spec], text_encoder, prompts)
        for column in columns
    ]
    prior = prompts.vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    _tell_of(columns, classifiers, prompts, path, tell)
    return ZeroShotModel(
        features=tuple(map(UsedColumn.of, columns)),
        target=UsedColumn.of(target),
        estimator=ZeroShot.of(labels, prior),
        own_bank=prompts,
        home=None if cache is None else cache.folder,
    )


@dataclass(frozen=True, slots=True)
class _Model:
    """The model of a backbone: its spec, the commit of its weights, and where they lie, if elsewhere."""

    spec: str
    revision: str = ""
    folder: Path | None = None

    @classmethod
    def of(cls, column: Column, device: str) -> Self:
        """Give the model of a column; where its folder is gone, it is found by what it is."""
        spec = model_of(column)
        _, local, path = spec.partition(":local-dir:")
        if not local or Path(path).expanduser().is_dir():
            return cls(spec, column.revision)
        found = load_recorded_backbone(column, device=device, runtime="torch")
        return cls(found.spec, column.revision, found.folder)


def _choose(models: dict[str, _Model]) -> tuple[list[str], dict[str, Classifier]]:
    """Choose backbones by the names of their columns: CLIP models, else those with a classifier."""
    towers = [name for name, model in models.items() if model.spec.startswith(CLIP)]
    if towers:
        return towers, {}
    classifiers = {}
    for name, model in models.items():
        try:
            classifiers[name] = load_classifier(model.spec, model.revision, model.folder)
        except NoClassifierError:
            continue
    return [*classifiers], classifiers


def _of_classes(column: Column, classifier: Classifier, encoder: Encoder, prompts: Bank) -> Labels:
    if classifier.weight.shape != (len(classifier.descriptions), *column.shape):
        raise NoClassifierError(column.spec)
    names = encoder.encode(classifier.descriptions)
    weight, bias = (tensor.float().numpy() for tensor in (classifier.weight, classifier.bias))
    return Labels.of_classes(weight, bias, names, prompts.vectors)


def _of_tower(column: Column, prompts: Bank, path: Path, device: str, tell: Callback) -> Labels:
    from img2prompt_cache.models.devices import choose_device
    from img2prompt_cache.models.encoders.clip_text import TextTower

    model = _Model.of(column, device)
    tower = load_encoder(
        model.spec, device=choose_device(device), revision=model.revision, folder=model.folder
    )
    if not isinstance(tower.model, TextTower):
        raise TypeError(f"{column.spec} is no CLIP model")
    file = find_bank(path)
    kept = kept_path(f"{hash_file(file)}{file.suffix.lower()}", tower)
    texts = encode_kept(kept, prompts.prompts, tower, "encode prompts", tell)
    return Labels.of_prompts(texts, tower.model.scale, prompts.vectors)


def _tell_of(
    columns: list[Column], classifiers: dict[str, Classifier], prompts: Bank, path: Path, tell: Callback
) -> None:
    from img2prompt_cache.tables import counted

    classes = max((len(each.descriptions) for each in classifiers.values()), default=0)
    texts = f"names of {classes:,} classes" if classes else "comparison of images with prompts"
    note(
        tell,
        f"zero-shot: no pair was used, only the {texts} ({', '.join(column.spec for column in columns)}) and "
        f"{counted(len(prompts), 'prompt', 'prompts')} of the bank {path}; "
        "a run fitted on pairs like your images predicts much better",
    )
