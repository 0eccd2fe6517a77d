"""``img2prompt-cache push``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console


def push(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its name in the cache.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Made if it is not there.")],
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The cache. Default: the run's own, or `cache/default` to find the run."
        ),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Share this exported run, too, and the golden set beside it."),
    ] = None,
    with_prompts: Annotated[
        bool,
        typer.Option("--with-prompts", help="Share the prompts of the cache, too, as text."),
    ] = False,
    with_images: Annotated[
        bool,
        typer.Option("--with-images", help="Share the golden set though it holds images of the cache."),
    ] = False,
    license: console.LicenseOption = None,
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch, made if it is not there. Default: main.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run that is there; earlier commits stay.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files and what they hold, and send nothing.")
    ] = False,
    json: console.Json = False,
) -> None:
    """Upload a run and its model card to the Hugging Face Hub, in one commit.

    The token comes from the environment variable HF_TOKEN. No path or image
    name is uploaded; prompts and images only if you ask for it.
    """
    from img2prompt_cache.exporting.push import push as upload

    with console.telling() as tell:
        done = upload(
            run,
            repository,
            cache=cache,
            onnx=onnx,
            with_prompts=with_prompts,
            with_images=with_images,
            license=license,
            private=private,
            revision=revision,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=tell,
        )
    if json:
        files = [{"name": each.name, "bytes": each.bytes, "holds": each.holds} for each in done.files]
        console.result_json(
            {
                "repository": done.repository,
                "commit": done.commit or None,
                "run": done.address,
                "bytes": done.bytes,
                "files": files,
            }
        )
        return
    if dry_run:
        rows = [[each.name, f"{each.bytes:,}", each.holds] for each in done.files]
        console.result(console.table(["file", "bytes", "holds"], rows))
    else:
        console.result(f"{done.address}: {done.bytes / 1e6:,.1f} MB; predict with --run {done.address}")
