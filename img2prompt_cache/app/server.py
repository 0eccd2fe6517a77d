"""The server: routes of the app, from requests to the worker and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles

from img2prompt_cache.app import schemas
from img2prompt_cache.app.answers import Ascii, npy, picture_of, problem, result_of, run_of, status_of
from img2prompt_cache.app.engine import Engine, threads
from img2prompt_cache.app.gallery import SIDES, Gallery
from img2prompt_cache.app.guard import COOKIE, Guard, session_of
from img2prompt_cache.app.metrics import Counted, Metrics
from img2prompt_cache.app.outcomes import Outcome, Prediction
from img2prompt_cache.app.settings import LONGEST_QUERY, MOST_RESULTS, Settings
from img2prompt_cache.app.texts import Texts
from img2prompt_cache.app.uploads import Refusal, RequestRefused, Upload, read_uploads
from img2prompt_cache.app.worker import Full, Worker
from img2prompt_cache.destination import begins_with
from img2prompt_cache.errors import ImageError, Img2PromptError, UsageError
from img2prompt_cache.progress import Callback, ignore, note
from img2prompt_cache.reporting.output import FILE
from img2prompt_cache.reporting.page import MARK
from img2prompt_cache.tables import printable, shorten

STATIC = Path(__file__).parent / "static"
RETRY_SECONDS = 2
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""Of a report: its own policy allows its one script only, and a sandbox keeps it away from the app."""

RunName = Annotated[str | None, Query(description="A run of `/runs`; the default one if absent.")]
TopK = Annotated[int, Query(ge=0, le=MOST_RESULTS, description="Nearest prompts of each image.")]
Refused: dict[int | str, dict[str, Any]] = {
    code: {"model": schemas.Problem, "description": why}
    for code, why in {
        401: "No token.",
        404: "No such run.",
        413: "Too large, or too many images.",
        415: "Neither a form, JSON nor an image.",
        422: "No image that can be used.",
        503: "Too many images wait; come again after `Retry-After` seconds.",
    }.items()
}


class App:
    """The routes of the app, and what they share."""

    def __init__(self, engine: Engine, settings: Settings, tell: Callback) -> None:
        self.engine, self.settings, self.limits, self._tell = engine, settings, settings.limits, tell
        self.metrics = Metrics(lambda: self.worker.waiting)
        self.worker = Worker(engine, settings.limits.waiting, engine.batch_size, self.metrics.batch)
        self.texts = Texts(settings.device, tell)
        # Few: memory that many threads have used for large files is not given back by all of them.
        self._checks = CapacityLimiter(threads())
        self._pictures = CapacityLimiter(threads() // 2)

    async def predict(
        self,
        request: Request,
        run: RunName = None,
        top_k: TopK = 5,
        pictures: Annotated[int, Query(ge=0, le=MOST_RESULTS, description="Pictures of the cache.")] = 0,
        compose: Annotated[bool, Query(description="Write a prompt for each image; slower.")] = False,
        embeddings: Annotated[bool, Query(description="Give the embeddings, too.")] = False,
    ) -> Response:
        """Predict for one image or many: the nearest prompts, and pictures of the cache that look alike.

        An image that cannot be used has an error of its own, and the others are answered. The status is 200
        if one could be used.
        """
        name, uploads, outcomes = await self._outcomes(request, run)
        results = [
            result_of(upload.name, outcome, top_k, embeddings=embeddings)
            for upload, outcome in zip(uploads, outcomes, strict=True)
        ]
        if pictures and self.engine.gallery is not None:
            await self._add_pictures(name, results, outcomes, pictures)
        if compose:
            await self._add_composed(name, results, outcomes)
        return Ascii({"run": name, "results": results}, status_of(outcomes))

    async def embed(
        self,
        request: Request,
        run: RunName = None,
        format: Annotated[
            str, Query(pattern="^(json|npy)$", description="`json`, or `npy` for NumPy.")
        ] = "json",
    ) -> Response:
        """Predict embeddings alone. With `format=npy` every image must be usable: row i is image i."""
        name, uploads, outcomes = await self._outcomes(request, run)
        if format == "npy" and all(isinstance(each, Prediction) for each in outcomes):
            vectors = np.stack([each.vector for each in outcomes if isinstance(each, Prediction)])
            return Response(npy(vectors), media_type="application/x-npy")
        results = [
            result_of(upload.name, outcome, embeddings=True)
            for upload, outcome in zip(uploads, outcomes, strict=True)
        ]
        return Ascii({"run": name, "results": results}, status_of(outcomes, strict=format == "npy"))

    async def runs(self) -> Response:
        """List the runs, the best first."""
        engine = self.engine
        found = sorted(
            (await to_thread.run_sync(lambda: engine.runs)).values(), key=lambda run: -run.metrics["cosine"]
        )
        gallery = engine.gallery
        return Ascii(
            {
                "default": engine.default,
                "cache": "" if engine.folder is None else engine.folder.resolve().name,
                "rows": 0 if gallery is None else len(gallery),
                "rows_in_cache": 0 if gallery is None else gallery.total,
                "report": self._report() is not None,
                "limits": {
                    "images": self.limits.images,
                    "file_bytes": self.limits.file_bytes,
                    "request_bytes": self.limits.request_bytes,
                    "pixels": self.limits.pixels,
                },
                "runs": [run_of(run, gallery) for run in found],
            }
        )

    async def gallery(
        self,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_RESULTS)] = 60,
    ) -> Response:
        """Give pictures of the cache, in its order."""
        gallery = self._gallery()
        rows = gallery.shown[offset : offset + limit].tolist()
        return Ascii(
            {"total": len(gallery), "offset": offset, "pictures": [picture_of(gallery, row) for row in rows]}
        )

    async def search(
        self,
        q: Annotated[
            str, Query(min_length=1, max_length=LONGEST_QUERY, description="A prompt, or part of one.")
        ],
        run: RunName = None,
        by: Annotated[
            str, Query(pattern="^(predicted|true)$", description="Embeddings of the pictures to search.")
        ] = "predicted",
        limit: Annotated[int, Query(ge=1, le=MOST_RESULTS)] = 60,
    ) -> Response:
        """Find the pictures of the cache that are nearest to a text.

        Either by what the run predicts for the pictures, or by the embeddings of their own prompts.
        """
        gallery, name = self._gallery(), await self._run(run)
        # Once it is loaded, the worker predicts for the pictures whenever nobody waits.
        fitted = (await asyncio.wrap_future(self.worker.call(lambda: self.engine.load(name)))).run

        def find() -> list[dict[str, Any]]:
            vector = self.texts.encode(fitted.target, q)
            if by == "true":
                return [
                    {**picture_of(gallery, row), "true": cosine}
                    for row, cosine in gallery.near(fitted, vector, limit)
                ]
            if gallery.problem(fitted):
                raise Img2PromptError(gallery.problem(fitted))
            if gallery.progress(fitted) < 1:
                raise HTTPException(
                    503,
                    f"the run has looked at {gallery.progress(fitted):.0%} of the pictures; come again",
                    {"Retry-After": str(RETRY_SECONDS)},
                )
            return [
                {**picture_of(gallery, row), "predicted": cosine, "true": gallery.cosine(fitted, row, vector)}
                for row, cosine in gallery.alike(fitted, vector[None], limit)[0]
            ]

        found = await asyncio.wrap_future(self.texts.call(find))
        return Ascii({"total": len(found), "offset": 0, "pictures": found})

    async def picture(self, row: int, side: int = SIDES[0]) -> Response:
        """Show a picture of the cache, small, as WebP."""
        gallery = self._gallery()
        if not gallery.has(row) or side not in SIDES:
            raise HTTPException(404, f"no such picture; `side` is {' or '.join(map(str, SIDES))}")
        try:
            made = await to_thread.run_sync(gallery.thumbnail, row, side, limiter=self._pictures)
        except ImageError as error:
            raise HTTPException(404, printable(shorten(str(error)))) from None
        return Response(made, media_type="image/webp", headers={"Cache-Control": "private, max-age=3600"})

    async def report(self) -> Response:
        """Show the report of the cache, where there is one."""
        path = self._report()
        if path is None:
            if self.engine.folder is None:
                raise HTTPException(404, "the cache of this run is gone, and its report with it")
            name = printable(shorten(self.engine.folder.resolve().name))
            raise HTTPException(
                404,
                f"there is no report of {name}; `img2prompt-cache report` makes one of the folder that is "
                "given as its cache",
            )
        headers = {"Content-Security-Policy": REPORT_POLICY}
        return FileResponse(path, media_type="text/html; charset=utf-8", headers=headers)

    async def health(self) -> Response:
        """Tell that the app is up."""
        return Ascii({"status": "ok", "waiting": self.worker.waiting})

    async def metrics_text(self) -> Response:
        """Give counters in the text format of Prometheus."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def session(self) -> Response:
        """Give the page a cookie in place of the token, so that it can show pictures."""
        answer = Response(status_code=204)
        if self.settings.token:
            answer.set_cookie(COOKIE, session_of(self.settings.token), httponly=True, samesite="strict")
        return answer

    async def failed(self, request: Request, error: Exception) -> Response:
        """Answer for an error, and say it where the app was started."""
        if isinstance(error, ClientDisconnect):
            return problem(400, "the connection was closed before the body had come")
        if isinstance(error, Full):
            return problem(503, "too many images wait; come again", {"Retry-After": str(RETRY_SECONDS)})
        if isinstance(error, RequestRefused):
            return problem(error.status, str(error))
        if isinstance(error, UsageError) and error.parameter == "run":
            return problem(404, str(error))
        note(self._tell, f"{request.url.path}: {type(error).__name__}: {error}")
        return problem(500, str(error) if isinstance(error, Img2PromptError) else "an error of the app")

    def stop(self) -> None:
        """Finish what was taken, and end the threads."""
        self.worker.stop()
        self.texts.stop()

    async def _run(self, name: str | None) -> str:
        if name is None:
            return self.engine.default
        return (await to_thread.run_sync(self.engine.find, name)).name

    async def _outcomes(
        self, request: Request, run: str | None
    ) -> tuple[str, list[Upload | Refusal], list[Outcome]]:
        name = await self._run(run)
        uploads = await read_uploads(request, self.limits, self._checks)
        futures = self.worker.predict(name, [each for each in uploads if isinstance(each, Upload)])
        found = iter(await asyncio.gather(*map(asyncio.wrap_future, futures)))
        outcomes = [each if isinstance(each, Refusal) else next(found) for each in uploads]
        for outcome in outcomes:
            self.metrics.image(outcome.status if isinstance(outcome, Refusal) else 200)
        return name, uploads, outcomes

    async def _add_pictures(
        self, name: str, results: list[dict[str, Any]], outcomes: list[Outcome], most: int
    ) -> None:
        """Add the pictures of the cache that the run sees as most alike."""
        gallery, run = self._gallery(), self.engine.find(name)
        usable = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, Prediction)]
        if not usable:
            return
        vectors = np.stack([each.vector for each in outcomes if isinstance(each, Prediction)])
        found = await asyncio.wrap_future(self.worker.call(lambda: gallery.alike(run, vectors, most)))
        for at, nearest in zip(usable, found, strict=True):
            results[at]["pictures"] = [
                {**picture_of(gallery, row), "cosine": cosine} for row, cosine in nearest
            ]

    async def _add_composed(self, name: str, results: list[dict[str, Any]], outcomes: list[Outcome]) -> None:
        """Write a prompt for each image; one by one, so that others get their turn between them."""
        served = await asyncio.wrap_future(self.worker.call(lambda: self.engine.load(name)))
        for result, outcome in zip(results, outcomes, strict=True):
            if isinstance(outcome, Prediction):
                write = partial(self.texts.compose, served.run.target, served.bank, outcome.vector)
                prompt, cosine = await asyncio.wrap_future(self.texts.call(write))
                result["composed"] = {"prompt": prompt, "cosine": cosine}

    def _gallery(self) -> Gallery:
        if self.engine.gallery is None:
            raise HTTPException(404, "the cache of this run is gone, and its pictures with it")
        return self.engine.gallery

    def _report(self) -> Path | None:
        path = None if self.engine.folder is None else self.engine.folder / FILE
        try:
            return path if path is not None and begins_with(path, MARK.encode()) else None
        except OSError:
            return None


def create_app(settings: Settings, tell: Callback = ignore, engine: Engine | None = None) -> Any:
    """Make the app, an ASGI application.

    Parameters
    ----------
    settings : Settings
    tell : callable
        Told of errors.
    engine : Engine, optional
        Made of the settings if absent.

    Returns
    -------
    ASGI application

    Raises
    ------
    UsageError, Img2PromptError
        As `Engine`; also if the models of the default run cannot be loaded.
    """
    routes = App(engine or Engine(settings, tell), settings, tell)
    try:
        routes.worker.call(lambda: routes.engine.load(routes.engine.default)).result()
    except BaseException:
        routes.stop()
        raise

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await to_thread.run_sync(routes.stop)

    api = FastAPI(
        title="img2prompt-cache",
        version=version("img2prompt-cache"),
        description="Predict the prompt that made an image.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    for kind in (ClientDisconnect, Full, RequestRefused, Img2PromptError, Exception):
        api.add_exception_handler(kind, routes.failed)
    images: dict[str, Any] = {
        "methods": ["POST"],
        "response_model": schemas.Predicted,
        "responses": Refused,
        "openapi_extra": {"requestBody": schemas.IMAGES},
    }
    add = api.add_api_route
    add("/predict", routes.predict, **images)
    add("/embed", routes.embed, **images)
    add("/runs", routes.runs, response_model=schemas.Runs)
    add("/gallery", routes.gallery, response_model=schemas.GalleryPage)
    add("/search", routes.search, response_model=schemas.GalleryPage, responses={503: Refused[503]})
    add("/pictures/{row}", routes.picture, response_class=Response)
    add("/report", routes.report, response_class=Response)
    add("/health", routes.health, response_model=schemas.Health)
    add("/health", routes.health, methods=["HEAD"], include_in_schema=False)
    add("/metrics", routes.metrics_text, response_class=Response)
    add("/session", routes.session, methods=["POST"], include_in_schema=False)
    for path, file in {"/": "index.html", "/docs": "docs.html"}.items():
        add(path, _page(STATIC / file), methods=["GET", "HEAD"], include_in_schema=False)
    api.mount("/static", StaticFiles(directory=STATIC), name="static")
    return Counted(Guard(api, settings), routes.metrics)


def _page(path: Path) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return FileResponse(path, media_type="text/html; charset=utf-8")

    return page
