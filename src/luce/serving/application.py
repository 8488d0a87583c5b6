"""The application: who may ask what, what is refused, and what is answered."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
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
from luce.serving.about import OPEN, About, said
from luce.serving.answers import ARROW, CSV, JSON, accepted, inferred, rendered
from luce.serving.bodies import Bodies, Held
from luce.serving.inference import Inference, Predicted
from luce.serving.metrics import Metrics
from luce.serving.protocols import asked_of
from luce.serving.refusals import BusyError, RefusedError
from luce.serving.served import Runs, Served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Message, Receive, Scope, Send

    from luce.serving.limits import Limits
    from luce.serving.rows import Rows
    from luce.serving.watching import Watching

__all__ = ["Application"]

Endpoint = Callable[[Request], Awaitable[Response]]

QUICK = 2_000
"""Numbers of an answer that is written where it is awaited."""


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
        self.runs = Runs(paths, limits, coverage=coverage)
        self.metrics, self.watching = Metrics(), watching
        watching.begin(self.runs.all)
        self.inference = Inference(limits.waiting, self._watch)
        self.bodies = Bodies(limits)
        self.about = About(self.runs, limits, self.inference, self.metrics, watching)
        self._token = None if token is None else _digest(token.encode(errors="surrogateescape"))
        self._writing, self._reloading = asyncio.Lock(), asyncio.Lock()
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
                expose_headers=["luce-run-sha256", "luce-notices", "retry-after"],
            )
        self._app = app

    def _routes(self) -> list[Route]:
        def post(path: str, endpoint: Any) -> Route:
            return Route(path, endpoint, methods=["POST"])

        return [
            *self.about.routes(),
            post("/predict", self.predict),
            post("/v1/models/{name}/predict", self.predict),
            post("/v2/models/{name}/infer", self.infer),
            post("/v2/models/{name}/versions/{version}/infer", self.infer),
            post("/invocations", self.invocations),
            post("/endpoints/{name}/invocations", self.invocations),
        ]

    def _directly(self) -> dict[str, tuple[Endpoint, dict[str, str]]]:
        """Return by path what predicts, and its parameters: ten times as fast as a router."""
        found: dict[str, tuple[Endpoint, dict[str, str]]] = {
            "/predict": (self.predict, {}),
            "/invocations": (self.invocations, {}),
        }
        for name in self.runs.names:
            found[f"/v1/models/{name}/predict"] = (self.predict, {"name": name})
            found[f"/v2/models/{name}/infer"] = (self.infer, {"name": name})
        return found

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for predictions here, any other by Starlette; none without the token."""
        if scope["type"] == "http" and not self._may(scope):
            sentence = "this server needs a token. Send it as: Authorization: Bearer TOKEN."
            refused = said({"error": sentence}, 401, {"www-authenticate": "Bearer"})
            await refused(scope, receive, send)
            return
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
        starting = asyncio.create_task(self.bodies.reader.start())
        try:
            yield
        finally:
            await starting
            await asyncio.to_thread(self.inference.stop)
            await self.bodies.reader.stop()
            await asyncio.to_thread(self.watching.stop)

    async def reload(self) -> None:
        """Read the runs again; requests that are under way are answered by those they came to.

        If one cannot be read, all stay as they are, and standard error says why.
        """
        async with self._reloading:
            await self._reload()

    async def _reload(self) -> None:
        try:
            await asyncio.to_thread(self.runs.reload)
        except LuceError as error:
            self.metrics.reloads["failed"] += 1
            sys.stderr.write(f"note: not reloaded: {error}\n")
            return
        self.watching.begin(self.runs.all)
        self._direct = self._directly()
        self.metrics.reloads["done"] += 1
        each = ", ".join(f"{served.name} ({served.sha256[:12]})" for served in self.runs.all)
        sys.stderr.write(f"note: reloaded {each}\n")

    def _watch(
        self, requests: int, served: Served, encoded: Any, probabilities: Any, rows: list[Rows]
    ) -> None:
        counts = served.counts(probabilities)
        self.metrics.batch(requests, served.name, served.classes, len(probabilities), counts)
        self.watching.saw(served, encoded, probabilities, rows)

    # ---------------------------------------------------------------------------------------------
    # Every request
    # ---------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        since, status = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            name = getattr(scope.get("endpoint"), "__name__", "none")
            self.metrics.request(name, status, time.perf_counter() - since)

    def _may(self, scope: Scope) -> bool:
        """Say whether a request has the token; it takes as long for any other."""
        if self._token is None or scope["path"] in OPEN:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, token = given.partition(b" ")
        same = hmac.compare_digest(_digest(token.strip()), self._token)
        return same and scheme.lower() == b"bearer"

    async def _failed(self, _: Request, error: Exception) -> Response:
        """Return what is wrong, in a sentence; of what is our fault, nothing but that it is."""
        if isinstance(error, RefusedError):
            return said({"error": str(error)}, error.status, error.headers)
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
        served = self.runs.asked(request.path_params)
        kind = accepted(request.headers.get("accept", ""))
        if kind is None:
            raise RefusedError(406, f"what is answered is {JSON}, {CSV} or {ARROW}.")
        held = served.sets(_coverage(request))
        predicted, _ = await self._predicted(request, served)
        content = await self._written(predicted, rendered, kind, served, predicted, held)
        return _answer(content, kind, served, predicted)

    async def infer(self, request: Request) -> Response:
        """POST /v2/models/NAME/infer: the Open Inference Protocol."""
        served = self.runs.asked(request.path_params)
        if "inference-header-content-length" in request.headers:
            raise RefusedError(
                415,
                "tensors as binary data are not read. Send them as JSON: Triton's client does so "
                "with binary_data=False.",
            )
        predicted, body = await self._predicted(request, served, as_json="tensors")
        content = await self._written(predicted, inferred, served, predicted, asked_of(body))
        return _answer(content, JSON, served, predicted)

    async def invocations(self, request: Request) -> Response:
        """POST /invocations: what MLflow's and SageMaker's clients send."""
        served = self.runs.asked(request.path_params)
        predicted, _ = await self._predicted(request, served, as_json="invocation")
        if accepted(request.headers.get("accept", "")) == CSV:
            content = await self._written(predicted, rendered, CSV, served, predicted, None)
            return _answer(content, CSV, served, predicted)
        labels = served.labels(predicted.probabilities)
        content = msgspec.json.encode({"predictions": labels})
        return _answer(content, JSON, served, predicted)

    async def _written(
        self, predicted: Predicted, write: Callable[..., bytes], *arguments: Any
    ) -> bytes:
        """Return an answer as bytes; long ones are written aside, one at a time."""
        if predicted.probabilities.size <= QUICK:
            return write(*arguments)
        async with self._writing:
            return await asyncio.to_thread(write, *arguments)

    async def _predicted(
        self, request: Request, served: Served, *, as_json: str = "json"
    ) -> tuple[Predicted, bytes]:
        """Return the predictions of a request's rows, in the time that there is; and its body."""
        seconds = self.limits.seconds
        with Held(self.bodies) as held:
            body = await held.body(request)
            try:
                async with asyncio.timeout(seconds):
                    rows = await held.rows(request, body, served.wanted, as_json)
                    self._check_numbers(rows, served)
                    return await self.inference.predict(served, rows), body
            except TimeoutError as error:
                raise BusyError(
                    f"it took more than {seconds:g} s. Try again, with fewer rows."
                ) from error

    def _check_numbers(self, rows: Rows, served: Served) -> None:
        """Refuse rows of which the answer would be too long: a few bytes can ask for gigabytes."""
        most = max(1, self.limits.numbers // len(served.classes))
        if rows.count > most:
            raise ArgumentError(
                f"{rows.count:,} rows have {rows.count * len(served.classes):,} probabilities; at "
                f"most {self.limits.numbers:,} are answered at once. Send at most {most:,} rows."
            )


def _answer(content: bytes, kind: str, served: Served, predicted: Predicted) -> Response:
    """Return an answer; what JSON of /predict says of run and rows, others have in headers."""
    headers = {"luce-run-sha256": served.sha256}
    if predicted.notices:
        headers["luce-notices"] = _ascii("; ".join(predicted.notices))
    return Response(content, media_type=kind, headers=headers)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


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
