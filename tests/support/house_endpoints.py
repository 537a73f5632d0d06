"""Endpoints of two models of houses: in this process through ASGI, in a worker of ours, and under `bentoml serve`.

What the HTTP contract says is tested in process, without a server. A real one shows sockets, processes and BentoML's
own paths.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from starlette.applications import Starlette

from bentos import logs
from bentos.endpoint.asgi import Contract
from bentos.endpoint.endpoint import Endpoint, EndpointSettings
from bentos.package import Bento, copy_carried
from bentos.serving import processes
from pipeline.artifact import write_artifact
from pipeline.evaluate import evaluate
from pipeline.gate import decide
from pipeline.run_in_package import write_protocol
from pipeline.snapshot import SnapshotFile, ingest
from pipeline.sources import Function
from pipeline.spec import BinaryClassification, Gate, Limits, ModelSpec, Regression
from pipeline.train import train

CHECKOUT = Path(__file__).parents[2]
FEATURES = ("area", "rooms", "town", "zone", "new", "sold")
HOUSE = {"area": 120, "rooms": 4, "town": "Ames", "zone": "A", "new": True, "sold": "2024-05-31T12:00:00"}


def houses() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = 150
    area = rng.uniform(50, 200, rows).round(1)
    rooms = np.where(rng.random(rows) < 0.2, np.nan, rng.integers(1, 7, rows))
    town = rng.choice(["Ames", "Nevada", "Ürümqi"], rows)
    price = 1000 * area + 5000 * np.nan_to_num(rooms) + 20_000 * (town == "Ames") + rng.normal(0, 2000, rows)
    return pd.DataFrame(
        {
            "id": [f"{number:03}" for number in range(rows)],
            "area": area,
            "rooms": rooms,
            "town": town,
            "zone": rng.choice(["A", "B"], rows),
            "new": rng.random(rows) < 0.5,
            "sold": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1500, rows), unit="D"),
            "agent": rng.choice(["x", "y"], rows),
            "price": price.round(),
            "dear": np.where(price > 140_000, "dear", "cheap"),
        }
    )


def prepared(*last: Any) -> Any:
    """A pipeline that ignores unseen towns and raises on unseen zones."""
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(add_indicator=True), ["area", "rooms", "new"]),
            ("time", FunctionTransformer(pd.DataFrame.astype, kw_args={"dtype": "int64"}), ["sold"]),
            ("towns", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["town"]),
            ("zones", OneHotEncoder(handle_unknown="error", sparse_output=False), ["zone"]),
        ]
    )
    return make_pipeline(columns, StandardScaler(), *last)


@dataclass(frozen=True)
class Model:
    """What a trained model left behind: the folder that a Bento carries, and the estimator itself."""

    folder: Path
    estimator: Any
    snapshot: str


def trained(folder: Path, **parts: Any) -> Model:
    """Train on the houses with the real functions, and lay the artifact beside the code as a Bento does."""
    spec = ModelSpec(
        source=Function(houses, na_values=("NA", "")),
        key=("id",),
        features=FEATURES,
        limits=Limits(max_rows=50, max_body_bytes=20_000),
        folds=2,
        **parts,
    )
    snapshot = ingest(spec.source, folder)
    challenger = train(spec, snapshot, folder / "trained", workers=1)
    evaluation = evaluate(spec, SnapshotFile(snapshot.path), challenger.rule, challenger.estimator(), None)
    source = folder / "src"
    source.mkdir()
    digests = {"snapshot": snapshot.digest, "spec": "s", "code": "c"}
    verdict = decide(evaluation, spec.gate)
    write_artifact(spec, snapshot, challenger, evaluation, verdict, digests, (), source / "artifact")
    write_protocol(source)
    copy_carried("house_prices", CHECKOUT, source)
    (source / "bentofile.yaml").write_text('service: "bentos.service:EndpointService"\n')
    return Model(source, challenger.estimator(), snapshot.digest)


def regression(folder: Path) -> Model:
    return trained(
        folder,
        name="houses",
        target="price",
        task=Regression(unit="USD"),
        candidates={"ridge": TransformedTargetRegressor(prepared(Ridge()), func=np.log, inverse_func=np.exp)},
        metric="rmse",
        gate=Gate(at_most=1e6),
    )


def classification(folder: Path) -> Model:
    return trained(
        folder,
        name="dear_houses",
        target="dear",
        task=BinaryClassification(positive="dear"),
        candidates={"logistic": prepared(LogisticRegression())},
        metric="roc_auc",
        gate=Gate(at_least=0.5),
    )


class Server:
    """A running service: its client, its model and its log."""

    def __init__(self, model: Model, client: httpx.Client, log: Path) -> None:
        self.model, self.client, self._log = model, client, log

    def ask(self, *records: dict[str, Any]) -> httpx.Response:
        return self.client.post("/predict", json={"records": records})

    def send(self, body: Any, content_type: str | None = "application/json") -> httpx.Response:
        headers = {} if content_type is None else {"Content-Type": content_type}
        return self.client.post("/predict", content=body, headers=headers)

    def log(self) -> str:
        return self._log.read_text()


def serving(model: Model, home: Path, **environment: str) -> Iterator[Server]:
    """A worker of evergreen's on the model."""
    log = home / "log"
    with processes.listen("127.0.0.1", 0) as listener, log.open("wb") as out:
        port = listener.getsockname()[1]
        bento = Bento("", model.folder.parent, "")
        worker = processes.start(bento, None, listener, home, environment, log=out)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                assert worker.becomes_ready(60), log.read_text()
                yield Server(model, client, log)
        finally:
            worker.stop(10)


def bentoml_serving(model: Model, home: Path, **environment: str) -> Iterator[Server]:
    """Plain `bentoml serve` on the model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = home / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", ".", "--host", "127.0.0.1", "--port", str(port)],
            cwd=model.folder,
            env={**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true", **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            for _ in range(300):
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            yield Server(model, client, log)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


class InProcess(httpx.BaseTransport):
    """Asks an ASGI application without a server, from any number of threads; its event loop has a thread of its own.

    The application starts with it and ends when it is closed, as under a server.
    """

    def __init__(self, app: Any) -> None:
        self.app, self.transport = app, httpx.ASGITransport(app, raise_app_exceptions=False)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.run(self._start())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Return what something that is to be awaited returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        sent = httpx.Request(request.method, request.url, headers=request.headers, stream=_Parts([*request.stream]))
        response: httpx.Response = self.run(self._answer(sent))
        return response

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        response = await self.transport.handle_async_request(request)
        return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

    async def _start(self) -> None:
        self.told: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self.said: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self.life = asyncio.create_task(self.app(scope, self.told.get, self.said.put))
        await self._tell("startup")

    async def _tell(self, moment: str) -> None:
        await self.told.put({"type": f"lifespan.{moment}"})
        answer = asyncio.create_task(self.said.get())
        await asyncio.wait({answer, self.life}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            self.life.result()
        assert (await answer)["type"] == f"lifespan.{moment}.complete"

    async def _end(self) -> None:
        await self._tell("shutdown")
        await self.life

    def close(self) -> None:
        self.run(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class _Parts(httpx.AsyncByteStream):
    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part


class EndpointInProcess(Server):
    """The endpoint of a model in this process: a server to its tests, and the contract itself."""

    def __init__(self, model: Model, settings: EndpointSettings, log: Path, around: Callable[[Any], Any]) -> None:
        self.endpoint = Endpoint.load(model.folder / "artifact", settings)
        self.lines = logs.Lines(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        self.contract = Contract(Starlette(), self.endpoint, self.lines)
        transport = InProcess(around(self.contract))
        super().__init__(model, httpx.Client(transport=transport, base_url="http://in.process"), log)

    def log(self) -> str:
        self.contract.flush()
        self.lines.flush()
        return super().log()


@contextmanager
def in_process(
    model: Model, log: Path, around: Callable[[Any], Any] = lambda app: app, **settings: Any
) -> Iterator[EndpointInProcess]:
    """Serve a model in this process, with nothing of BentoML's behind the contract.

    `settings` are the endpoint's; `around` returns an application that is asked first.
    """
    server = EndpointInProcess(model, EndpointSettings(**settings), log, around)
    handler = logs.JsonHandler(server.lines)
    logging.getLogger("evergreen").addHandler(handler)
    try:
        with server.client:
            yield server
    finally:
        logging.getLogger("evergreen").removeHandler(handler)


def with_limits(endpoint: Endpoint, **limits: float) -> None:
    """Give an endpoint other limits."""
    endpoint.limits = replace(endpoint.limits, **limits)


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = response.json()
    assert said["status"] == status
    assert said["type"]
    assert said["title"]
    assert said["detail"]
    assert "Traceback" not in response.text
    assert ".py" not in response.text
    return said


def first_error(response: httpx.Response) -> tuple[Any, Any]:
    error = problem(response, 400)["errors"][0]
    return error["row"], error["field"]


THREE_RECORDS = (
    HOUSE,
    {"area": 75.5, "rooms": None, "town": "Nevada", "zone": "B", "new": False, "sold": "2021-01-01"},
    {"area": 60, "rooms": 2, "town": "Ürümqi", "zone": "A", "new": True, "sold": "2020-03-01T00:30:00+02:00"},
)
THREE_CSV = """\
new,agent,sold,zone,town,rooms,area,id
true,x,2024-05-31T12:00:00,A,Ames,4,120,007
false,NA,2021-01-01,B,Nevada,NA,75.5,"1,5"
TRUE,,2020-03-01T00:30:00+02:00,A,"Ürümqi",2.0,6e1,NA
"""
