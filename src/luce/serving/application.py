"""The application: who may ask what, what is refused, and what is answered."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from luce.data.wording import listed, shown
from luce.errors import ArgumentError, LuceError
from luce.serving.answers import ARROW, CSV, JSON, accepted, labels_of, rendered
from luce.serving.inference import Inference, Predicted
from luce.serving.metrics import Metrics
from luce.serving.openapi import describe, summary_of
from luce.serving.protocols import inferred, invocation, metadata, of_tensors
from luce.serving.reader import BusyError, Reader
from luce.serving.rows import FORMS, Rows, form_of, parse, read
from luce.serving.served import Served, load
from luce.storage import read_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Message, Receive, Scope, Send

    from luce.serving.limits import Limits
    from luce.serving.watching import Watching

__all__ = ["Application"]

Endpoint = Callable[[Request], Awaitable[Response]]

SHORT = 65_536
"""Bytes of JSON that are read where they arrive: it takes less than a millisecond."""

QUICK = 2_000
"""Numbers of an answer that is written where it is awaited; longer ones are written aside."""

OPEN = {"/", "/health", "/ping", "/v2/health/live", "/v2/health/ready"}
"""What needs no token: the page has nothing of a run in it before it has the token."""

POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SAFE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


class RefusedError(LuceError):
    """A request that is answered with a status of its own."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


def said(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer as JSON."""
    return Response(msgspec.json.encode(content), status, headers, JSON)


class Application:
    """What uvicorn calls for each request.

    Parameters
    ----------
    paths : sequence of Path
        The run folders.
    limits : Limits
    coverage : float, optional
        Of the prediction sets of each answer.
    token : str, optional
        What a client must show.
    origins : sequence of str
        Whose pages may ask.
    watching : Watching
        Drift, and the log of inputs.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        limits: Limits,
        *,
        coverage: float | None = None,
        token: str | None = None,
        origins: Sequence[str] = (),
        watching: Watching,
    ) -> None:
        self.limits = limits
        self.paths = list(paths)
        self.coverage = coverage
        self.stopping = False
        self.metrics = Metrics()
        self.watching = watching
        self.served = load(self.paths, limits, coverage=coverage)
        watching.begin(self.served.values())
        self.inference = Inference(limits.waiting, self._watch)
        self.reader = Reader(limits)
        self._token = None if token is None else _digest(token)
        self._held = 0
        self._described: tuple[object, bytes] = (None, b"")
        self._page = files("luce.serving").joinpath("page.html").read_bytes()
        failed = dict.fromkeys((LuceError, HTTPException, Exception), self._failed)
        self._routed = Starlette(
            routes=self._routes(), exception_handlers=failed, lifespan=self._alive
        )
        self._direct = self._directly()
        app: Any = self._dispatch
        if origins:
            app = CORSMiddleware(
                app,
                allow_origins=list(origins),
                allow_methods=["GET", "POST"],
                allow_headers=["authorization", "content-type"],
            )
        self._app = app

    def _routes(self) -> list[Route]:
        def post(path: str, endpoint: Any) -> Route:
            return Route(path, endpoint, methods=["POST"])

        return [
            Route("/", self.page),
            post("/predict", self.predict),
            post("/v1/models/{name}/predict", self.predict),
            Route("/v1/models", self.models),
            Route("/v1/models/{name}", self.model),
            Route("/v1/models/{name}/report", self.report),
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/models/{name}", self.metadata),
            Route("/v2/models/{name}/versions/{version}", self.metadata),
            Route("/v2/models/{name}/ready", self.ready),
            Route("/v2/models/{name}/versions/{version}/ready", self.ready),
            post("/v2/models/{name}/infer", self.infer),
            post("/v2/models/{name}/versions/{version}/infer", self.infer),
            post("/invocations", self.invocations),
            Route("/ping", self.ready),
            Route("/health", self.health),
            Route("/metrics", self.figures),
            Route("/openapi.json", self.openapi),
        ]

    def _directly(self) -> dict[str, tuple[Endpoint, dict[str, str]]]:
        """Return by path what predicts, and its parameters: ten times as fast as a router."""
        found: dict[str, tuple[Endpoint, dict[str, str]]] = {
            "/predict": (self.predict, {}),
            "/invocations": (self.invocations, {}),
        }
        for name in self.served:
            found[f"/v1/models/{name}/predict"] = (self.predict, {"name": name})
            found[f"/v2/models/{name}/infer"] = (self.infer, {"name": name})
        return found

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for predictions here, any other by Starlette."""
        direct = self._direct.get(scope["path"]) if scope["type"] == "http" else None
        if direct is None or scope["method"] != "POST":
            await self._routed(scope, receive, send)
            return
        scope["endpoint"], scope["path_params"] = direct
        request = Request(scope, receive)
        try:
            response = await direct[0](request)
        except Exception as error:  # noqa: BLE001 - as Starlette's own handlers have it
            response = await self._failed(request, error)
        await response(scope, receive, send)

    @asynccontextmanager
    async def _alive(self, _: Starlette) -> AsyncIterator[None]:
        self.inference.start()
        starting = asyncio.create_task(self.reader.start())
        try:
            yield
        finally:
            await starting
            await asyncio.to_thread(self.inference.stop)
            await self.reader.stop()
            await asyncio.to_thread(self.watching.stop)

    async def reload(self) -> None:
        """Read the runs again; requests that are under way are answered by those they came to.

        If one cannot be read, all stay as they are, and standard error says why.
        """
        try:
            found = await asyncio.to_thread(load, self.paths, self.limits, coverage=self.coverage)
        except LuceError as error:
            self.metrics.reloads["failed"] += 1
            sys.stderr.write(f"note: not reloaded: {error}\n")
            return
        self.watching.begin(found.values())
        self.served = found
        self._direct = self._directly()
        self.metrics.reloads["done"] += 1
        each = ", ".join(f"{name} ({served.sha256[:12]})" for name, served in found.items())
        sys.stderr.write(f"note: reloaded {each}\n")

    def _watch(
        self, requests: int, served: Served, encoded: Any, probabilities: Any, rows: list[Rows]
    ) -> None:
        self.metrics.batch(requests, served.name, probabilities)
        self.watching.saw(served, encoded, probabilities, rows)

    # ---------------------------------------------------------------------------------------------
    # Every request
    # ---------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, after its token is checked, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        since, status = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        app: Any = self._app
        if self._token is not None and not self._may(scope):
            app = said(
                {"error": "this server needs a token. Send it as: Authorization: Bearer TOKEN."},
                401,
                {"www-authenticate": "Bearer"},
            )
        try:
            await app(scope, receive, sent)
        finally:
            name = getattr(scope.get("endpoint"), "__name__", "none")
            self.metrics.request(name, status, time.perf_counter() - since)

    def _may(self, scope: Scope) -> bool:
        """Say whether a request has the token; it takes as long for any other."""
        preflight = scope["method"] == "OPTIONS"
        if preflight or scope["path"] in OPEN:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, token = given.partition(" ")
        same = hmac.compare_digest(_digest(token.strip()), self._token or b"")
        return same and scheme.lower() == "bearer"

    async def _failed(self, _: Request, error: Exception) -> Response:
        """Return what is wrong, in a sentence; of what is our fault, nothing but that it is."""
        if isinstance(error, RefusedError):
            return said({"error": str(error)}, error.status, error.headers)
        if isinstance(error, BusyError):
            return said({"error": str(error)}, 503, {"retry-after": "1"})
        if isinstance(error, LuceError):
            return said({"error": str(error)}, 400)
        if isinstance(error, HTTPException):
            return said({"error": _of_status(error)}, error.status_code, error.headers)
        if isinstance(error, ClientDisconnect):
            return Response(status_code=400)  # nobody reads it
        sys.stderr.write("".join(traceback.format_exception(error)))
        return said({"error": "the server failed to answer this. Its log says why."}, 500)

    # ---------------------------------------------------------------------------------------------
    # Predictions
    # ---------------------------------------------------------------------------------------------

    async def predict(self, request: Request) -> Response:
        """POST /predict: the rows of a body → labels, probabilities, sets."""
        served = self._named(request)
        kind = accepted(request.headers.get("accept", ""))
        if kind is None:
            raise RefusedError(406, f"what is answered is {JSON}, {CSV} or {ARROW}.")
        held = served.sets(_coverage(request))
        predicted = await self._predicted(request, served, read)
        if predicted.probabilities.size <= QUICK:
            content = rendered(kind, served, predicted, held)
        else:
            content = await asyncio.to_thread(rendered, kind, served, predicted, held)
        headers = {"luce-run-sha256": served.sha256}
        if kind != JSON and predicted.notices:
            headers["luce-notices"] = _ascii("; ".join(predicted.notices))
        return Response(content, media_type=kind, headers=headers)

    async def infer(self, request: Request) -> Response:
        """POST /v2/models/NAME/infer: the Open Inference Protocol."""
        served = self._named(request)
        asked: Any = None

        def of_body(_: str, body: bytes, wanted: Any) -> Rows:
            nonlocal asked
            rows, asked = of_tensors(parse(body), wanted)
            return rows

        predicted = await self._predicted(request, served, of_body, only_json=True)
        return said(inferred(served, predicted, asked))

    async def invocations(self, request: Request) -> Response:
        """POST /invocations: what MLflow's and SageMaker's clients send."""
        served = self._named(request)

        def of_body(form: str, body: bytes, wanted: Any) -> Rows:
            return invocation(parse(body), wanted) if form == "json" else read(form, body, wanted)

        predicted = await self._predicted(request, served, of_body)
        if accepted(request.headers.get("accept", "")) == CSV:
            return Response(rendered(CSV, served, predicted, None), media_type=CSV)
        return said({"predictions": labels_of(served, predicted)})

    async def _predicted(
        self, request: Request, served: Served, of_body: Any, *, only_json: bool = False
    ) -> Predicted:
        """Return the predictions of a request's rows, in the time that there is."""
        length = 0
        try:
            body = await self._body(request)
            length = len(body)
            if not body:
                raise RefusedError(400, "the body is empty.")
            form = form_of(request.headers.get("content-type", ""), body)
            if form is None or (only_json and form != "json"):
                raise RefusedError(
                    415,
                    f"content-type {shown(request.headers.get('content-type', 'none'))} is none "
                    f"that is read: {JSON if only_json else ', '.join(FORMS)}.",
                )
            try:
                async with asyncio.timeout(self.limits.seconds):
                    if form == "json" and (length <= SHORT or of_body is not read):
                        rows = of_body(form, body, served.wanted)
                    else:
                        rows = await self.reader.read(form, body, served.wanted)
                    del body
                    return await self.inference.predict(served, rows)
            except TimeoutError as error:
                raise RefusedError(
                    503,
                    f"it took more than {self.limits.seconds:g} s. Try again, with fewer rows.",
                    **{"retry-after": "1"},
                ) from error
        finally:
            self._held -= length

    async def _body(self, request: Request) -> bytes:
        """Return a request's body, counted as it comes; what is returned counts as held."""
        declared = request.headers.get("content-length", "")
        if declared.isdigit():
            self._check_size(int(declared[:20]))
        parts, total = [], 0
        try:
            async with asyncio.timeout(self.limits.seconds):
                async for part in request.stream():
                    total += len(part)
                    self._held += len(part)
                    self._check_size(total)
                    parts.append(part)
        except TimeoutError as error:
            self._held -= total
            raise RefusedError(
                408,
                f"the body took more than {self.limits.seconds:g} s to arrive.",
                connection="close",
            ) from error
        except BaseException:
            self._held -= total
            raise
        return b"".join(parts)

    def _check_size(self, size: int) -> None:
        """Refuse a body of this size, or now."""
        most = self.limits.body
        if size > most:
            # What is still to come of the body is not waited for.
            raise RefusedError(
                413,
                f"the body is longer than {most:,} bytes. Send fewer rows at once.",
                connection="close",
            )
        if self._held > self.limits.held:
            raise BusyError("too much is being sent at once. Try again in a second.")

    def _named(self, request: Request) -> Served:
        """Return the run that a request is for."""
        served = self.served
        name = request.path_params.get("name")
        if name is None:
            if len(served) > 1:
                raise ArgumentError(
                    f"this server has several runs, {listed(list(served), 20)}. Ask one of them: "
                    f"/v1/models/{next(iter(served))}/predict."
                )
            return next(iter(served.values()))
        if name not in served:
            raise RefusedError(
                404, f"there is no run {shown(name)}; there is {listed(list(served), 20)}."
            )
        version = request.path_params.get("version")
        if version is not None and version != served[name].sha256[:12]:
            raise RefusedError(
                404, f"{name} is of version {served[name].sha256[:12]}, not {shown(version)}."
            )
        return served[name]

    # ---------------------------------------------------------------------------------------------
    # Everything else
    # ---------------------------------------------------------------------------------------------

    async def page(self, _: Request) -> Response:
        """GET /: a page to play with."""
        headers = {**SAFE, "content-security-policy": POLICY, "cache-control": "no-cache"}
        return Response(self._page, headers=headers, media_type="text/html")

    async def models(self, _: Request) -> Response:
        """GET /v1/models: the names of the runs."""
        return said({"models": [{"name": s.name, "sha256": s.sha256} for s in self._all()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME: what the run needs and knows."""
        return said(summary_of(self._named(request)))

    async def report(self, request: Request) -> Response:
        """GET /v1/models/NAME/report: the run's report.html."""
        served = self._named(request)
        path = served.run.path / "report.html"
        if not path.exists():
            raise RefusedError(404, f"{served.name} has no report.html. Make one: luce report.")
        content = await asyncio.to_thread(read_bytes, path)
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        policy += "script-src 'unsafe-inline'; sandbox allow-scripts"
        headers = {**SAFE, "content-security-policy": policy}
        return Response(content, headers=headers, media_type="text/html")

    async def server(self, _: Request) -> Response:
        """GET /v2: what the server is."""
        from luce import __version__

        return said({"name": "luce", "version": __version__, "extensions": []})

    async def metadata(self, request: Request) -> Response:
        """GET /v2/models/NAME: what the Open Inference Protocol says of a model."""
        return said(metadata(self._named(request)))

    async def live(self, _: Request) -> Response:
        """GET /v2/health/live: whether the server runs."""
        return said({"live": True})

    async def ready(self, request: Request) -> Response:
        """GET /v2/health/ready and /ping: whether it takes requests; not when it is to stop."""
        if "name" in request.path_params:
            self._named(request)
        return said({"ready": not self.stopping}, 503 if self.stopping else 200)

    async def health(self, _: Request) -> Response:
        """GET /health: how the server is."""
        content = {
            "status": "stopping" if self.stopping else "ok",
            "waiting": len(self.inference),
            "models": {served.name: served.sha256 for served in self._all()},
        }
        return said(content, 503 if self.stopping else 200)

    async def figures(self, _: Request) -> Response:
        """GET /metrics: figures for Prometheus."""
        classes = {served.name: served.classes for served in self._all()}
        lines = self.metrics.text(len(self.inference), classes)
        lines += await asyncio.to_thread(self.watching.lines)
        text = "\n".join(lines) + "\n"
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, _: Request) -> Response:
        """GET /openapi.json: all of this for programs."""
        if self._described[0] is not self.served:
            content = await asyncio.to_thread(describe, self._all(), self.limits)
            self._described = (self.served, msgspec.json.encode(content))
        return Response(self._described[1], media_type=JSON)

    def _all(self) -> list[Served]:
        return list(self.served.values())


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _coverage(request: Request) -> float | None:
    unknown = set(request.query_params) - {"sets"}
    if unknown:
        raise ArgumentError(f"there is no parameter {listed(sorted(unknown))}; there is sets.")
    text = request.query_params.get("sets")
    if text is None:
        return None
    try:
        coverage = float(text)
    except ValueError:
        coverage = -1.0
    if not 0 < coverage < 1:
        raise ArgumentError(
            f"sets must be a number between 0 and 1, both excluded, such as 0.95; got "
            f"{shown(text)}."
        )
    return coverage


def _of_status(error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing here. /openapi.json says what there is."
    if error.status_code == 405:
        return f"this needs {(error.headers or {}).get('Allow', 'another method')}."
    return str(error.detail)


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()[:1000]
