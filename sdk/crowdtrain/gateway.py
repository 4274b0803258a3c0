"""The gateway behind ``crowdtrain serve``: blobs over HTTP, and jobs, segments and disputes as JSON.

It holds no state of its own and no key: blobs are files in a folder, everything else is read from the chain.
What it serves need not be believed, for every blob is named by its hash.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import uvicorn
from eth_utils.address import to_checksum_address
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crowdtrain._errors import (
    BadAnswer,
    ChainUnavailable,
    Corrupt,
    CrowdtrainError,
    NotFound,
    Refused,
    StoreUnavailable,
)
from crowdtrain._gateway_models import (
    AccountModel,
    AuditModel,
    BlobModel,
    ErrorModel,
    GameModel,
    HealthModel,
    JobModel,
    SegmentModel,
)
from crowdtrain.chain import Address, Chain, GameId, JobId, SegmentKey
from crowdtrain.stores import LocalStore
from crowdtrain.stores.local import BlobWriter

__all__ = ["Limits", "create_app", "run"]

T = TypeVar("T")
PAGE = 100
"""most records in an answer"""
_STATUS: dict[type[CrowdtrainError], int] = {
    NotFound: 404,
    Refused: 404,
    Corrupt: 400,
    BadAnswer: 502,
    ChainUnavailable: 503,
    StoreUnavailable: 507,
}
_IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable", "Accept-Ranges": "bytes"}
_ERRORS: dict[int | str, dict[str, object]] = {
    400: {"model": ErrorModel, "description": "The request is malformed."},
    404: {"model": ErrorModel, "description": "There is no such thing."},
    503: {"model": ErrorModel, "description": "The chain does not answer; trying again may help."},
}
_UPLOAD_ERRORS: dict[int | str, dict[str, object]] = {
    400: {"model": ErrorModel, "description": "The bytes are not those that the CID names."},
    403: {"model": ErrorModel, "description": "This gateway takes no blobs."},
    408: {"model": ErrorModel, "description": "The bytes came too slowly."},
    413: {"model": ErrorModel, "description": "The blob is too large."},
    507: {"model": ErrorModel, "description": "There is no room left."},
}

CidPath = Annotated[str, Path(description="CID of version 1 in base32", max_length=80)]
AddressPath = Annotated[str, Path(description="address in hexadecimal", pattern="^0x[0-9a-fA-F]{40}$")]
Number = Annotated[int, Path(ge=0, lt=2**63)]
Index = Annotated[int, Path(ge=0, lt=2**32)]
First = Annotated[int, Query(ge=0, lt=2**63, description="number of the first record")]
Limit = Annotated[int, Query(ge=1, le=PAGE, description="most records in the answer")]


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers may use of a gateway."""

    max_blob: int = 2**33
    """bytes of a blob"""
    reserve: int = 2**30
    """bytes of the disk that blobs leave free"""
    idle: float = 30.0
    """seconds between two pieces of an upload"""
    slowest: int = 2**14
    """bytes a second that an upload must make, once it has lasted ``idle`` seconds"""
    uploads: bool = True
    """whether blobs are taken at all"""
    connections: int = 256
    """requests that are served at once"""


def create_app(store: LocalStore, chain: Chain | None, limits: Limits | None = None) -> FastAPI:
    """The gateway as an ASGI application; without ``chain`` it serves only blobs."""
    app = FastAPI(
        title="crowdtrain gateway",
        description="Blobs by content (CIDv1), and the jobs, segments and disputes of one deployment. "
        "Nothing here needs to be believed: blobs are verified against their CIDs, states against roots.",
        version="1",
    )
    metrics = _Metrics()
    app.add_middleware(_Observed, metrics=metrics)
    app.add_exception_handler(CrowdtrainError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    _add_blobs(app, store, limits or Limits(), metrics)
    _add_service(app, store, chain, metrics)
    if chain is not None:
        _add_records(app, _Reads(chain))
    return app


def run(app: FastAPI, host: str, port: int, limits: Limits | None = None) -> None:
    """Serves until SIGINT or SIGTERM."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        limit_concurrency=(limits or Limits()).connections,
        timeout_keep_alive=10,
    )


# ---------------------------------------------------------------- blobs


def _add_blobs(app: FastAPI, store: LocalStore, limits: Limits, metrics: _Metrics) -> None:
    @app.put("/blobs/{cid}", tags=["blobs"], responses=_UPLOAD_ERRORS)
    async def put_blob(cid: CidPath, request: Request) -> BlobModel:
        """Stores the body under its CID, if the body is what the CID names."""
        store.path(cid)
        return await _receive(request, store, limits, metrics, expected=cid)

    @app.post("/blobs", tags=["blobs"], status_code=201, responses=_UPLOAD_ERRORS)
    async def post_blob(request: Request) -> BlobModel:
        """Stores the body and says what its CID is."""
        return await _receive(request, store, limits, metrics, expected=None)

    @app.head("/blobs/{cid}", include_in_schema=False)
    @app.get(
        "/blobs/{cid}",
        tags=["blobs"],
        response_class=Response,
        responses={**_ERRORS, 206: {"description": "The range."}, 416: {"model": ErrorModel}},
    )
    def get_blob(cid: CidPath, request: Request) -> Response:
        """The blob, or the range of its bytes that the header ``Range`` asks for."""
        if not store.has(cid):
            raise NotFound(f"{cid} is not in the store")
        size = store.path(cid).stat().st_size
        start, stop, partial = _range(request.headers.get("range"), size)
        headers = {**_IMMUTABLE, "ETag": f'"{cid}"', "Content-Length": str(stop - start)}
        if partial:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        status, kind = (206 if partial else 200), "application/octet-stream"
        if request.method == "HEAD":
            return Response(None, status, headers, kind)
        metrics.sent.inc(stop - start)
        return StreamingResponse(store.stream(cid, start, stop - start), status, headers, kind)

    @app.get("/nodes/{cid}", tags=["blobs"], response_class=Response, responses=_ERRORS)
    def get_node(cid: CidPath) -> Response:
        """A node of the tree of a blob of more than one chunk, with which ranges can be verified."""
        return Response(store.node(cid), media_type="application/octet-stream", headers=_IMMUTABLE)


async def _receive(
    request: Request, store: LocalStore, limits: Limits, metrics: _Metrics, expected: str | None
) -> BlobModel:
    if not limits.uploads:
        raise HTTPException(403, "this gateway takes no blobs")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and len(declared) < 20:
        _check_room(store, limits, int(declared))
    with store.writer() as writer:
        await _write_body(request, writer, store, limits)
        cid = await run_in_threadpool(writer.commit, expected)
        metrics.received.inc(writer.size)
        return BlobModel(cid=cid, size=writer.size)


async def _write_body(request: Request, writer: BlobWriter, store: LocalStore, limits: Limits) -> None:
    stream, start = request.stream(), time.monotonic()
    while True:
        if time.monotonic() - start > limits.idle + writer.size / limits.slowest:
            raise HTTPException(408, f"the upload makes less than {limits.slowest} bytes a second")
        try:
            async with asyncio.timeout(limits.idle):
                part = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HTTPException(408, f"nothing came for {limits.idle:g} s") from None
        except ClientDisconnect:
            raise HTTPException(400, "the upload was cut off") from None
        _check_room(store, limits, writer.size + len(part), len(part))
        await run_in_threadpool(writer.write, part)


def _check_room(store: LocalStore, limits: Limits, size: int, new: int | None = None) -> None:
    """Refuses a blob of ``size`` bytes, ``new`` of which are still to be written."""
    if size > limits.max_blob:
        raise HTTPException(413, f"a blob has at most {limits.max_blob} bytes")
    if shutil.disk_usage(store.folder).free < limits.reserve + (size if new is None else new):
        raise HTTPException(507, "there is no room left")


def _range(header: str | None, size: int) -> tuple[int, int, bool]:
    """First byte, byte after the last, and whether that is a range; a header of another form counts as
    none."""
    match = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", header or "")
    if match is None or match[0] == "bytes=-":
        return 0, size, False
    if match[1]:
        start, stop = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    else:
        start, stop = max(0, size - int(match[2])), size
    if start >= stop:
        raise HTTPException(416, f"the blob has {size} bytes", {"Content-Range": f"bytes */{size}"})
    return start, stop, True


# ---------------------------------------------------------------- records of the chain


class _Reads:
    """Reads of the chain, each kept for a second, so that requests cannot overload the node behind."""

    AGE, KEPT = 1.0, 4096

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[float, object]] = OrderedDict()

    def get(self, key: Hashable, read: Callable[[], T]) -> T:
        """What ``read`` gives, or gave under ``key`` less than a second ago."""
        now = time.monotonic()
        with self._lock:
            found = self._kept.get(key)
            if found is not None and now - found[0] < self.AGE:
                return found[1]  # type: ignore[return-value]
        value = read()
        with self._lock:
            self._kept[key] = (now, value)
            self._kept.move_to_end(key)
            if len(self._kept) > self.KEPT:
                self._kept.popitem(last=False)
        return value

    def job(self, number: int) -> JobModel:
        """A job."""
        return self.get(("job", number), lambda: JobModel.of(self.chain.job(JobId(number))))

    def segment(self, job: int, index: int) -> SegmentModel:
        """A segment. Raises NotFound if the job has no such segment."""
        count = self.job(job).terms.segments
        if index >= count:
            raise NotFound(f"job {job} has {count} segments")
        key = SegmentKey(JobId(job), index)
        return self.get(key, lambda: SegmentModel.of(self.chain.segment(key)))

    def audit(self, job: int, index: int) -> AuditModel:
        """The audit of a segment's present or last attempt. Raises NotFound if the job has no such segment."""
        key, attempt = SegmentKey(JobId(job), index), self.segment(job, index).attempt

        def read() -> AuditModel:
            audit = self.chain.round(key, attempt)
            return AuditModel.of(key, attempt, audit, self.chain.attestors(key, attempt))

        return self.get(("audit", key, attempt), read)

    def account(self, address: Address) -> AccountModel:
        """What an account's work came to."""

        def read() -> AccountModel:
            return AccountModel.of(address, self.chain.record(address), self.chain.weight(address))

        return self.get(("account", address), read)

    def game(self, number: int) -> GameModel:
        """A dispute."""
        return self.get(("game", number), lambda: GameModel.of(self.chain.game(GameId(number))))


def _add_records(app: FastAPI, reads: _Reads) -> None:
    @app.get("/jobs", tags=["jobs"], responses=_ERRORS)
    def jobs(first: First = 1, limit: Limit = 20) -> list[JobModel]:
        """Jobs by number, from 1."""
        count = reads.get("jobs", reads.chain.job_count)
        return [reads.job(number) for number in range(max(first, 1), min(first + limit, count + 1))]

    @app.get("/jobs/{job}", tags=["jobs"], responses=_ERRORS)
    def job(job: Number) -> JobModel:
        """A job as it stands."""
        return reads.job(job)

    @app.get("/jobs/{job}/segments", tags=["jobs"], responses=_ERRORS)
    def segments(job: Number, first: First = 0, limit: Limit = 20) -> list[SegmentModel]:
        """Segments of a job, in the order of its plan."""
        count = reads.job(job).terms.segments
        return [reads.segment(job, index) for index in range(first, min(first + limit, count))]

    @app.get("/jobs/{job}/segments/{index}", tags=["jobs"], responses=_ERRORS)
    def segment(job: Number, index: Index) -> SegmentModel:
        """A segment as it stands."""
        return reads.segment(job, index)

    @app.get("/jobs/{job}/segments/{index}/audit", tags=["jobs"], responses=_ERRORS)
    def audit(job: Number, index: Index) -> AuditModel:
        """The audit of a segment's present attempt; its outcome is none before there is a commitment."""
        return reads.audit(job, index)

    @app.get("/accounts/{address}", tags=["accounts"], responses=_ERRORS)
    def account(address: AddressPath) -> AccountModel:
        """What an account's work came to, and its stake in audits."""
        return reads.account(Address(to_checksum_address(address)))

    @app.get("/games", tags=["disputes"], responses=_ERRORS)
    def games(first: First = 1, limit: Limit = 20) -> list[GameModel]:
        """Disputes by number, from 1."""
        count = reads.get("games", reads.chain.game_count)
        return [reads.game(number) for number in range(max(first, 1), min(first + limit, count + 1))]

    @app.get("/games/{game}", tags=["disputes"], responses=_ERRORS)
    def game(game: Number) -> GameModel:
        """A dispute as it stands, with its events."""
        return reads.game(game)


# ---------------------------------------------------------------- service


def _add_service(app: FastAPI, store: LocalStore, chain: Chain | None, metrics: _Metrics) -> None:
    @app.get("/health", tags=["service"], responses=_ERRORS)
    def health() -> HealthModel:
        """Whether store and chain can be read."""
        free = shutil.disk_usage(store.folder).free
        return HealthModel(status="ok", block=chain.head()[0] if chain else None, free_bytes=free)

    @app.get("/metrics", tags=["service"], response_class=Response)
    def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


class _Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names = ["method", "route", "status"]
        self.requests = Counter("crowdtrain_requests", "requests answered", names, registry=self.registry)
        self.seconds = Histogram(
            "crowdtrain_request_seconds", "time to the end of the answer", ["route"], registry=self.registry
        )
        self.received = Counter("crowdtrain_blob_bytes_received", "bytes stored", registry=self.registry)
        self.sent = Counter("crowdtrain_blob_bytes_sent", "bytes of blobs sent", registry=self.registry)


class _Observed:
    """Counts requests by route: what a stranger writes into a path must not become a new series."""

    def __init__(self, app: ASGIApp, metrics: _Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "PUT", "POST") else "other"
            self._metrics.requests.labels(method, route, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)


def _answer(status: int, error: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(ErrorModel(error=error, message=message).model_dump(), status, headers)


def _failed(request: Request, error: Exception) -> JSONResponse:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    return _answer(status, type(error).__name__, str(error))


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _answer(400, "InvalidRequest", f"{'.'.join(map(str, first['loc']))}: {first['msg']}")


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _answer(error.status_code, "Refused", str(error.detail), dict(error.headers or {}))
