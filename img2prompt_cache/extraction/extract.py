"""Extraction: every image of a source read once, its features and its prompt's embedding cached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from img2prompt_cache.cache.opening import folder_of
from img2prompt_cache.cache.reader import Cache
from img2prompt_cache.errors import UsageError
from img2prompt_cache.extraction.engines import make_engine
from img2prompt_cache.extraction.execute import run_pass
from img2prompt_cache.extraction.listing import list_pairs
from img2prompt_cache.extraction.named import Named, open_sources
from img2prompt_cache.extraction.request import ExtractConfig, check_config, require_within
from img2prompt_cache.extraction.shards import ShardReport, extract_shard, parse_shard
from img2prompt_cache.extraction.shards import finish as finish_shards
from img2prompt_cache.models.backbones.taps import choose_taps
from img2prompt_cache.progress import Callback, Event, listening, note
from img2prompt_cache.sources import SourceOptions, table_of_prompts

if TYPE_CHECKING:
    from img2prompt_cache.extraction.report import Report


def extract(
    source: Named | Sequence[Named] = None,
    cache: str | Path | Cache = "cache/default",
    *,
    prompts: str | Path | None = None,
    preset: str = "auto",
    backbones: str | Sequence[str] = (),
    encoder: str | None = None,
    format: str = "auto",
    id_column: str | None = None,
    prompt_column: str | None = None,
    clean: str | None = None,
    precision: str = "auto",
    runtime: str = "auto",
    device: str = "auto",
    batch_size: int | None = None,
    part_rows: int | None = None,
    trunk: int | None = None,
    trunk_dtype: str = "float16",
    levels: str | None = None,
    names: bool = False,
    second_view: str = "none",
    views: int | None = None,
    flip: bool = False,
    retry_failed: bool = False,
    update: bool = False,
    check: bool = False,
    engine: str = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    shard: str | None = None,
    finish: bool = False,
    progress: bool | Callback = False,
) -> Cache:
    """Read every image of a source once, and cache its features and the embedding of its prompt.

    Call it again to go on after an interruption, to add new images, or, with another backbone, to add a
    column. Nothing is computed twice: killed anywhere, the same call goes on where it stopped and ends with
    the same bytes.

    Parameters
    ----------
    source : str, pathlib.Path or Source, or a sequence of them, optional
        A folder of images, a table, tar shards or parquet files, or a source from `open_source`. If absent:
        the source of the cache; for a new cache ``images/`` in the current folder, with ``prompts.csv`` in it
        or beside it. Where there is none, the current folder itself, if it holds a table of prompts, tar
        shards or parquet files, with all images below it but those in hidden folders and caches. Several
        sources are read one after the other into one cache; each of their rows has the name of its source in
        a column ``source``, and each imgId of all but the first begins with it. The name is that of the
        folder, or that in ``"name=path"``.
    cache : str, pathlib.Path or Cache
        The cache's folder; made if it is not there.
    prompts : str or pathlib.Path, optional
        Table of prompts: CSV, TSV, JSON, JSONL, parquet or ``captions.txt``.
    preset : {"auto", "standard", "packaged"}
        Which models a new cache gets: ``"standard"`` from the model hub, ``"packaged"`` from the package
        index, ``"auto"`` the former where its weights are at hand or the hub answers, else the latter. The
        choice is stored in the cache.
    backbones : str or sequence of str
        Specs of backbones to cache, such as ``"timm:resnet50.a1_in1k"``, or ``"NAME=SPEC"`` with the name
        that its column gets. If absent: those of the cache, or of the preset.
    encoder : str, optional
        Spec of the target encoder, such as ``"st:all-MiniLM-L6-v2"``. If absent: that of the cache, or of the
        preset. Where it is not MiniLM, a new cache gets a column of MiniLM as well, by which near-identical
        prompts are found, if its weights are on this machine.
    format : str
        The source's format, one of `sources.FORMATS`; ``"auto"`` detects it.
    id_column, prompt_column : str, optional
        The table's column of ids or file names, and that of prompts, where they have other names than usual.
    clean : {"none", "light", "seed"}, optional
        How prompts are cleaned before they are encoded; ``"none"`` for a new column.
    precision : {"auto", "fp32", "bf16", "fp16"}
        What backbones of new columns compute in. ``"auto"`` is bfloat16 where the processor and the backbone
        allow it.
    runtime : {"auto", "torch", "openvino"}
        What computes the features of new columns on a processor. ``"auto"`` takes OpenVINO where it is
        installed (extra ``cpu``), on a pass over 512 images or more, for each backbone that it computes
        faster than torch here. A column is continued with the runtime that it was made with.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    batch_size : int, optional
        Images encoded together, 1 to 65,536. A cache keeps the one it was made with; 32 for a new cache.
    part_rows : int, optional
        Rows of a part, 1 to 1,048,576. A cache keeps the one it was made with; 1,024 for a new cache. Where
        that would make more than 256 parts, it is doubled as often as needed.
    trunk : int, optional
        Also keep the activations before the last `trunk` blocks of each backbone, so that these blocks can be
        fine-tuned.
    trunk_dtype : {"float16", "int8"}
        How trunks are stored; ``"int8"`` has a scale for each channel and takes half the room.
    levels : {"top", "multi"}, optional
        ``"multi"`` also keeps pooled inner levels of each backbone, ``"top"`` does not. If absent: what the
        preset of a new cache keeps besides pooled features (levels, names, a second view), nothing for
        backbones that are named.
    names : bool
        Also keep what each backbone's own classifier sees, as a vector in the space of the encoder: the
        embeddings of its classes' descriptions, weighed by their probabilities.
    second_view : {"none", "squash"}
        ``"squash"`` also keeps the same of the whole image, squashed to the backbone's input size and
        mirrored.
    views : int, optional
        Also keep the same of this many augmented views of each image, 1 to 64.
    flip : bool
        Mirror half of the views.
    retry_failed : bool
        Read images that failed before once more; other rows stay as they are.
    update : bool
        Take in what has changed in the source: images that were replaced under their names are encoded again,
        prompts are taken over with their targets, and rows whose image is gone are left out from now on.
        Without it such changes are only reported. Columns of your own table are always taken over.
    check : bool
        Find replaced images by their bytes. Otherwise only those are compared whose file has another size or
        time of last change than when it was cached.
    engine : {"local", "ray"}
        What computes: this machine, or a Ray cluster.
    workers : int, optional
        Processes that compute side by side; one for each GPU if absent, one where there is none.
    ray_address : str, optional
        The Ray cluster: ``"auto"``, ``"host:port"`` or ``"ray://host:port"``. If absent, one is started on
        this machine.
    shard : str, optional
        ``"i/n"``: compute only the i-th of n shares of the pass, for a job array; call with ``finish=True``
        once all are computed.
    finish : bool
        Record what the shards computed, and add the targets. No source is needed.
    progress : bool or callable
        True shows notes, the plan and a progress bar; a callable takes every `Event`: notes, the `Plan`, the
        steps (rows) of the task ``"extract"``, and the `Report`, or `ShardReport` for a shard.

    Returns
    -------
    Cache
        Opened after the pass. For a shard it holds no new row before the last call with ``finish=True``.

    Raises
    ------
    UsageError
        If a parameter has a wrong value, does not fit another one or the cache, or the source is not there.
    Img2PromptError
        If the cache is being written or was made differently, no image has a prompt (unless
        ``format="folder"``), no image can be used, a model cannot be
        loaded, or the disk has too little room.

    Examples
    --------
    >>> from img2prompt_cache import extract
    >>> cache = extract("images", "cache/default", preset="packaged")
    >>> cache.rows
    6
    >>> [column.kind for column in cache.manifest.columns]
    ['rows', 'features', 'targets']
    """
    folder = folder_of(cache)
    require_within("trunk", trunk)
    require_within("views", views)
    require_within("workers", workers)
    options = SourceOptions(format, table_of_prompts(prompts), id_column, prompt_column)
    config = ExtractConfig(
        preset=preset,
        backbones=(backbones,) if isinstance(backbones, str) else tuple(backbones),
        encoder=encoder,
        clean=clean,
        precision=precision,
        runtime=runtime,
        here=engine == "local" and shard is None,
        device=device,
        part_rows=part_rows,
        batch_size=batch_size,
        taps=choose_taps(
            trunk=trunk or 0,
            trunk_dtype=trunk_dtype,
            levels=levels or "top",
            names=names,
            second_view=second_view,
            views=views or 0,
            flip=flip,
        ),
        plain=levels == "top",
        retry_failed=retry_failed,
        update=update,
        check=check,
    )
    check_config(config, folder)
    chosen = make_engine(engine, device=device, workers=workers, address=ray_address)
    shared = finish or shard is not None
    anew = retry_failed or update or check
    if shared and (engine != "local" or workers or anew or (finish and shard is not None)):
        raise UsageError(
            "`shard` and `finish` cannot be combined with each other, or with `engine`, `workers`, "
            "`retry_failed`, `update` or `check`",
            parameter="shard",
        )
    with listening(progress) as tell:
        report: Report | ShardReport
        if finish:
            report = finish_shards(folder, config, tell)
        elif shard is not None:
            share = parse_shard(shard)
            (opened,) = open_sources(source, options, folder, most=1)
            report = extract_shard(folder, opened, config, share, tell)
        else:
            sources = open_sources(source, options, folder)
            if len(sources) > 1:
                for opened in sources:
                    list_pairs(opened)  # one that cannot be read is found out before hours of work on others
            for number, opened in enumerate(sources, 1):
                if len(sources) > 1:
                    name = opened.settings.get("name", opened.root.name)
                    note(tell, f"source {name}, {number} of {len(sources)}: {opened.root}")
                report = run_pass(folder, opened, config, tell, chosen)
                if number < len(sources):
                    tell(Event("report", value=report))
        tell(Event("report", value=report))
    return Cache(folder)
