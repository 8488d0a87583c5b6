"""What is answered beside predictions: the page, which runs there are, how the server is."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from luce import __version__
from luce.serving.answers import JSON
from luce.serving.openapi import describe, metadata, summary_of
from luce.serving.refusals import RefusedError
from luce.storage import read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request

    from luce.serving.inference import Inference
    from luce.serving.limits import Limits
    from luce.serving.metrics import Metrics
    from luce.serving.served import Runs
    from luce.serving.watching import Watching

__all__ = ["OPEN", "About", "said"]

OPEN = {"/", "/health", "/ping", "/v2/health/live", "/v2/health/ready"}
"""What needs no token: the page has nothing of a run in it before it has the token."""

POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "sandbox allow-scripts"
)
SAFE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


def said(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer as JSON."""
    return Response(msgspec.json.encode(content), status, headers, JSON)


class About:
    """The endpoints that predict nothing.

    Parameters
    ----------
    runs : Runs
    limits : Limits
    inference : Inference
    metrics : Metrics
    watching : Watching

    Attributes
    ----------
    stopping : bool
        Whether the server answers what it has accepted, and then ends.
    """

    def __init__(
        self,
        runs: Runs,
        limits: Limits,
        inference: Inference,
        metrics: Metrics,
        watching: Watching,
    ) -> None:
        self.stopping = False
        self._runs, self._limits = runs, limits
        self._inference, self._metrics, self._watching = inference, metrics, watching
        self._page = files("luce.serving").joinpath("page.html").read_bytes()
        self._described: tuple[object, bytes] = (None, b"")

    def routes(self) -> Sequence[Route]:
        """Return the endpoints with their paths."""
        return [
            Route("/", self.page),
            Route("/v1/models", self.models),
            Route("/v1/models/{name}", self.model),
            Route("/v1/models/{name}/report", self.report),
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/models/{name}", self.metadata),
            Route("/v2/models/{name}/versions/{version}", self.metadata),
            Route("/v2/models/{name}/ready", self.model_ready),
            Route("/v2/models/{name}/versions/{version}/ready", self.model_ready),
            Route("/ping", self.ready),
            Route("/version", self.version),
            Route("/health", self.health),
            Route("/metrics", self.figures),
            Route("/openapi.json", self.openapi),
        ]

    async def page(self, _: Request) -> Response:
        """GET /: a page to play with."""
        headers = {**SAFE, "content-security-policy": POLICY, "cache-control": "no-cache"}
        return Response(self._page, headers=headers, media_type="text/html")

    async def models(self, _: Request) -> Response:
        """GET /v1/models: the names of the runs."""
        return said({"models": [{"name": s.name, "sha256": s.sha256} for s in self._runs.all]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME: what the run needs and knows."""
        return said(summary_of(self._runs.asked(request.path_params)))

    async def report(self, request: Request) -> Response:
        """GET /v1/models/NAME/report: the run's report.html."""
        served = self._runs.asked(request.path_params)
        path = served.run.path / "report.html"
        if not path.exists():
            raise RefusedError(404, f"{served.name} has no report.html. Make one: luce report.")
        content = await asyncio.to_thread(read_bytes, path)
        headers = {**SAFE, "content-security-policy": REPORT_POLICY}
        return Response(content, headers=headers, media_type="text/html")

    async def server(self, _: Request) -> Response:
        """GET /v2: what the server is."""
        return said({"name": "luce", "version": __version__, "extensions": []})

    async def version(self, _: Request) -> Response:
        """GET /version: the same for MLflow's clients."""
        return Response(__version__, media_type="text/plain")

    async def metadata(self, request: Request) -> Response:
        """GET /v2/models/NAME: what the Open Inference Protocol says of a model."""
        return said(metadata(self._runs.asked(request.path_params)))

    async def live(self, _: Request) -> Response:
        """GET /v2/health/live: whether the server runs."""
        return said({"live": True})

    async def ready(self, _: Request) -> Response:
        """GET /v2/health/ready and /ping: whether it takes requests; not when it is to stop."""
        return said({"ready": not self.stopping}, 503 if self.stopping else 200)

    async def model_ready(self, request: Request) -> Response:
        """GET /v2/models/NAME/ready: whether it takes requests for a run."""
        name = self._runs.asked(request.path_params).name
        ready = {"name": name, "ready": not self.stopping}
        return said(ready, 503 if self.stopping else 200)

    async def health(self, _: Request) -> Response:
        """GET /health: how the server is."""
        content = {
            "status": "stopping" if self.stopping else "ok",
            "waiting": len(self._inference),
            "models": {served.name: served.sha256 for served in self._runs.all},
        }
        return said(content, 503 if self.stopping else 200)

    async def figures(self, _: Request) -> Response:
        """GET /metrics: figures for Prometheus."""
        lines = self._metrics.lines(len(self._inference))
        lines += await asyncio.to_thread(self._watching.lines)
        text = "\n".join(lines) + "\n"
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, _: Request) -> Response:
        """GET /openapi.json: all of this for programs."""
        runs = self._runs.all
        if self._described[0] != runs:
            content = await asyncio.to_thread(describe, runs, self._limits)
            self._described = (runs, msgspec.json.encode(content))
        return Response(self._described[1], media_type=JSON)
