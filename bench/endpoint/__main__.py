"""evergreen's endpoint beside its peers: `python -m bench.endpoint [--seconds S]`; the report goes to a file, too.

Every server of a comparison keeps to one core and the client to another. The servers of one piece of work are measured
in rounds, each once in a round, in an order that rotates; ratios are taken within a round. Before anything is timed,
each server's answers are compared with those of the estimator that evergreen trained and that all of them serve.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pandas as pd

from bench.endpoint import forms, pipelines, project, servers
from bench.endpoint.forms import Form, Row
from bench.endpoint.project import EIGHTY_COLUMNS, ONE_NUMBER
from bench.endpoint.report import Target, ratios, spread, table, targets_table
from bench.endpoint.servers import PeerServer, Running
from bench.endpoint.wrk import SERVERS_CORE, Bodies, Measured, load, pinned, write_bodies
from bentos.serving.processes import MEMORY
from pipeline.project import CODE_FOLDER

REPORT = CODE_FOLDER / "tests" / "bench" / "endpoint.md"
ROUNDS = 5
WARM_UP_SECONDS = 1.0
SETTLE_SECONDS = 30.0
POOL_ROWS, ALONE_ROWS, SINGLE_BODIES = 1_000, 100, 300
CLOSE, CLOSE_FLOAT32 = 1e-9, 1e-4
"""How far an answer may be from the estimator's, as a share of it; ONNX works with 32 bits."""
MEMORY_REQUESTS = (10_000, 50_000, 100_000)
MEMORY_SECONDS = 240.0
FLAT = 1.05
ROW, ROWS = 1, POOL_ROWS

EVERGREEN, NOTHING, UVICORN = "evergreen", "typed do-nothing BentoML", "bare uvicorn doing nothing"
SAME_ONE, SAME_EIGHTY = "evergreen, no model, 1 column", "evergreen, no model, 80 columns"
MLFLOW, MLSERVER, FASTAPI = "mlflow models serve", "MLServer", "FastAPI + pandas"
BENTO, BATCHING, ONNX = "BentoML + pandas", "BentoML + pandas, adaptive batching", "ONNX in BentoML"
MLFLOW_SPLIT, MLFLOW_RECORDS = "mlflow models serve, dataframe_split", "mlflow models serve, dataframe_records"

INTRODUCTION = """\
Made by `make bench ARGS=endpoint`. Every server has one worker, one core and one thread for linear algebra; the client,
wrk, has a core of its own. All serve the very estimator that `evergreen run` trained, and answered 100 rows as it does
before anything was timed. evergreen is as `evergreen serve` starts it: validation, metrics, access log and limits are
on. Ratios are evergreen's rate over the other's, round by round; where less is better they are evergreen's seconds or
megabytes over the other's."""


@dataclass(frozen=True)
class Asked:
    """A server, the form in which it is asked, and whether it knows the model or always answers the same."""

    server: PeerServer
    form: Form
    knows: bool = True
    features: tuple[str, ...] = tuple(pipelines.FEATURES)
    close: float = CLOSE


@dataclass(frozen=True)
class Workload:
    """One comparison: the same rows over as many connections to every server named in it."""

    title: str
    rows: int
    connections: int
    asked: dict[str, Asked]
    min_seconds: float = 0.0


@dataclass
class Measurements:
    """What the rounds of a work found of each server, and why one was left out."""

    work: Workload
    measured: dict[str, list[Measured]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)

    def rates(self, name: str) -> list[float]:
        """Requests a second, round by round; none where the server was left out."""
        return [] if name in self.left_out else [one.rate for one in self.measured.get(name, [])]

    def ratio(self, name: str) -> tuple[float, ...]:
        """How many times the rate of a server evergreen's is, round by round."""
        ours, theirs = self.rates(EVERGREEN), self.rates(name)
        return ratios(ours, theirs) if ours and theirs else ()


def main() -> int:
    """Prepare, measure, print the report and write it; return 1 when something that is needed is not there."""
    parser = argparse.ArgumentParser(prog="python -m bench.endpoint", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="the length of one measurement (2)")
    seconds = parser.parse_args().seconds
    if shutil.which("wrk") is None:
        print("wrk sends the requests, and it is not here: install wrk (on Debian: apt install wrk)")
        return 1
    for python in (servers.PYTHON, servers.PYTHON_UVICORN):
        if not python.exists():
            print(f"the peers are not installed: there is no {python}; `make bench` installs them")
            return 1
    started, busy = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as folder:
        text = Bench(Path(folder), seconds).run()
    minutes = (time.monotonic() - started) / 60
    text += (
        f"\n{platform.machine()}, {_processor()}, {os.cpu_count()} cores, load {busy:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after; "
        f"{ROUNDS} rounds of {seconds:g} s; {minutes:.0f} minutes in all.\n"
    )
    print(text)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(text)
    print(f"written to {REPORT.relative_to(CODE_FOLDER)}")
    return 0


class Bench:
    """One run: a project with the models, the rows that are asked, and what the estimators answer to them."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        _say("evergreen run: ridge, trees, forest, a pipeline that cannot be compiled, and two that do nothing")
        self.env = project.environment()
        (folder / "project").mkdir()
        self.project = project.build(folder / "project", self.env)
        pool = folder / "pool.csv"
        pipelines.houses(POOL_ROWS, seed=1)[pipelines.FEATURES].to_csv(pool, index=False)
        frame = pd.read_csv(pool).astype(object)
        self.pool: list[Row] = frame.where(frame.notna(), None).to_dict("records")
        _say("the peers' own formats of the same estimators")
        self.peers_env = self.env | {"PYTHONPATH": str(self.project.folder)}
        models = [f"{name}={self._joblib(name)}" for name in ("ridge", "trees", "forest", "custom")]
        prepared = subprocess.run(
            [str(servers.PYTHON), str(servers.PEERS / "prepare.py"), str(folder), str(pool), *models],
            env=self.peers_env,
            capture_output=True,
            text=True,
            check=False,
        )
        if prepared.returncode != 0:
            raise RuntimeError(f"prepare.py broke: {prepared.stderr[-3000:]}")
        self.expected: dict[str, list[float]] = json.loads((folder / "expected.json").read_text())
        self.not_converted: dict[str, str] = json.loads((folder / "not_converted.json").read_text())
        self.alone: dict[str, tuple[int, int]] = {}

    def run(self) -> str:
        """Measure everything and return the report."""
        ridge = self._ridge()
        trees, forest, custom = self._trees(), self._forest(), self._custom()
        memory = self._memory()
        starts = self._starts()
        found = [*ridge, *trees, forest, custom]
        row, one, csv, records = ridge
        targets = [
            Target(row.work.title, NOTHING, row.ratio(NOTHING), 3, 8),
            Target(row.work.title, MLFLOW, row.ratio(MLFLOW), 40, 100),
            Target(row.work.title, SAME_EIGHTY, row.ratio(SAME_EIGHTY), 0.85, 0.95),
            Target(trees[0].work.title, NOTHING, trees[0].ratio(NOTHING), 2, 5),
            Target(forest.work.title, NOTHING, forest.ratio(NOTHING), 1.5, 3),
            Target(one.work.title + ", median latency", NOTHING, _latencies(one, NOTHING), 0.5, 0.25, True),
            Target(csv.work.title, MLFLOW, csv.ratio(MLFLOW), 5, 10),
            Target(trees[1].work.title, MLFLOW, trees[1].ratio(MLFLOW), 2, 4),
            Target(records.work.title, *_best(records, (MLFLOW_SPLIT, MLFLOW_RECORDS)), 2.5, 6),
            Target(custom.work.title, BENTO, custom.ratio(BENTO), 5, 10),
            Target(
                f"memory of a worker after {memory[-1][0]:,} requests",
                f"itself after {memory[0][0]:,}",
                (memory[-1][1] / memory[0][1],),
                FLAT,
                FLAT,
                True,
            ),
            Target(
                f"memory of a worker after {memory[-1][0]:,} requests",
                f"{BENTO} after far fewer",
                (memory[-1][1] / row.megabytes[BENTO],),
                None,
                1,
                True,
            ),
            Target("process start to ready", NOTHING, ratios(starts[EVERGREEN], starts[NOTHING]), 1.5, 1.1, True),
        ]
        return self._report(targets, found, memory, starts)

    def _joblib(self, model: str) -> str:
        return str(self.project.artifacts[model] / "model.joblib")

    def _env_of(self, model: str) -> dict[str, str]:
        return self.peers_env | {
            "ENDPOINT_MODEL": self._joblib(model),
            "ENDPOINT_ONNX": str(self.folder / f"{model}.onnx"),
        }

    def _evergreen(self, model: str, form: Form = forms.RECORDS) -> Asked:
        return Asked(servers.evergreen(self.project, model, EVERGREEN), form)

    def _same(self, model: str, name: str, features: Sequence[str]) -> Asked:
        server = servers.evergreen(self.project, model, name)
        return Asked(server, forms.RECORDS, knows=False, features=tuple(features))

    def _nothing(self) -> Asked:
        about = "`bentoml serve`, default configuration, an endpoint typed as evergreen's that answers a constant"
        server = servers.bento("bento_nothing:Nothing", NOTHING, about, self.env, self.folder)
        return Asked(server, forms.RECORDS, knows=False)

    def _bento(self, model: str) -> Asked:
        about = "`bentoml serve`, default configuration, `records: pd.DataFrame`"
        return Asked(servers.bento("bento_pandas:Plain", BENTO, about, self._env_of(model), self.folder), forms.FRAME)

    def _batching(self, model: str) -> Asked:
        about = "the same with `batchable=True` and its defaults, a list of records made a frame"
        env = self._env_of(model)
        return Asked(servers.bento("bento_pandas:Batching", BATCHING, about, env, self.folder), forms.FRAME)

    def _onnx(self, model: str) -> dict[str, Asked]:
        """Return the ONNX peer, or nothing where the pipeline could not be converted."""
        if model in self.not_converted:
            return {}
        about = "`bentoml serve`, skl2onnx and onnxruntime on one thread; the texts' nulls and expm1 in Python"
        server = servers.bento("bento_onnx:Onnx", ONNX, about, self._env_of(model), self.folder)
        return {ONNX: Asked(server, forms.RECORDS, close=CLOSE_FLOAT32)}

    def _mlflow(self, model: str, form: Form = forms.MLFLOW_SPLIT) -> Asked:
        return Asked(servers.mlflow(self.folder / "mlflow" / model, self.peers_env), form)

    def _fastapi(self, model: str) -> Asked:
        about = "`uvicorn` with uvloop and httptools, one worker; all 78 columns typed fields of a Pydantic model"
        server = servers.uvicorn("fastapi_pandas:app", FASTAPI, about, "/health", self._env_of(model))
        return Asked(server, forms.RECORDS)

    def _uvicorn(self) -> Asked:
        about = "`uvicorn` with uvloop and httptools, one worker; reads the body, routes and checks nothing"
        server = servers.uvicorn("uvicorn_nothing:app", UVICORN, about, "/", self.env)
        return Asked(server, forms.RECORDS, knows=False)

    def _ridge(self) -> list[Measurements]:
        everyone = {
            EVERGREEN: self._evergreen("ridge"),
            NOTHING: self._nothing(),
            SAME_ONE: self._same(ONE_NUMBER, SAME_ONE, pipelines.NUMBERS[1:2]),
            SAME_EIGHTY: self._same(EIGHTY_COLUMNS, SAME_EIGHTY, pipelines.FEATURES),
            MLFLOW: self._mlflow("ridge"),
            MLSERVER: Asked(servers.mlserver(Path(self._joblib("ridge")), self.peers_env, self.folder), forms.V2),
            FASTAPI: self._fastapi("ridge"),
            BENTO: self._bento("ridge"),
            BATCHING: self._batching("ridge"),
            **self._onnx("ridge"),
            UVICORN: self._uvicorn(),
        }
        ours, theirs = everyone[EVERGREEN].server, everyone[MLFLOW].server
        csv = {EVERGREEN: Asked(ours, forms.CSV), MLFLOW: Asked(theirs, forms.MLFLOW_CSV)}
        records = {
            EVERGREEN: everyone[EVERGREEN],
            MLFLOW_SPLIT: Asked(theirs, forms.MLFLOW_SPLIT),
            MLFLOW_RECORDS: Asked(theirs, forms.MLFLOW_RECORDS),
        }
        works = [
            Workload("1 row JSON, ridge, 8 connections", ROW, 8, everyone),
            Workload("1 row JSON, ridge, 1 connection", ROW, 1, _only(everyone, EVERGREEN, NOTHING, SAME_ONE, UVICORN)),
            Workload("1,000 rows CSV, ridge, 2 connections", ROWS, 2, csv),
            Workload("1,000 rows JSON, ridge, 2 connections", ROWS, 2, records),
        ]
        return self._measured("ridge", works)

    def _trees(self) -> list[Measurements]:
        single = {
            EVERGREEN: self._evergreen("trees"),
            NOTHING: self._nothing(),
            MLFLOW: self._mlflow("trees"),
            BENTO: self._bento("trees"),
            **self._onnx("trees"),
        }
        csv = {
            EVERGREEN: Asked(single[EVERGREEN].server, forms.CSV),
            MLFLOW: Asked(single[MLFLOW].server, forms.MLFLOW_CSV),
        }
        works = [
            Workload("1 row JSON, histogram trees, 8 connections", ROW, 8, single),
            Workload("1,000 rows CSV, histogram trees, 2 connections", ROWS, 2, csv),
        ]
        return self._measured("trees", works)

    def _forest(self) -> Measurements:
        asked = {
            EVERGREEN: self._evergreen("forest"),
            NOTHING: self._nothing(),
            BENTO: self._bento("forest"),
            **self._onnx("forest"),
        }
        return self._measured("forest", [Workload("1 row JSON, forest of 200, 8 connections", ROW, 8, asked)])[0]

    def _custom(self) -> Measurements:
        asked = {
            EVERGREEN: self._evergreen("custom"),
            BENTO: self._bento("custom"),
            BATCHING: self._batching("custom"),
            FASTAPI: self._fastapi("custom"),
        }
        title = "1 row JSON, a pipeline that cannot be compiled, 64 connections"
        # The first of 64 that wait may be answered after seconds.
        return self._measured("custom", [Workload(title, ROW, 64, asked, min_seconds=4.0)])[0]

    def _measured(self, model: str, works: Sequence[Workload]) -> list[Measurements]:
        """Start every server of the works once, compare its answers, and measure one work after the other."""
        with ExitStack() as stack:
            up: dict[str, Running] = {}
            for asked in (asked for work in works for asked in work.asked.values()):
                if asked.server.name not in up:
                    up[asked.server.name] = stack.enter_context(servers.running(asked.server, self.folder))
            if model == "ridge":
                self.alone = {
                    name: self._wrong_alone(up[asked.server.name], asked)
                    for name, asked in works[0].asked.items()
                    if asked.knows
                }
            return [self._rounds(model, work, up) for work in works]

    def _rounds(self, model: str, work: Workload, up: dict[str, Running]) -> Measurements:
        _say(work.title)
        found = Measurements(work)
        bodies: dict[str, Bodies] = {}
        for name, asked in work.asked.items():
            try:
                self._compare(up[asked.server.name], asked, model, work.rows)
                bodies[name] = self._bodies(asked, work.rows)
                self._load(up[asked.server.name], work, bodies[name], WARM_UP_SECONDS)
            except (RuntimeError, httpx.HTTPError) as error:
                found.left_out[name] = str(error)
        for number in range(ROUNDS):
            names = [name for name in work.asked if name not in found.left_out]
            start = number % max(1, len(names))
            for name in (*names[start:], *names[:start]):
                try:
                    one = self._load(up[work.asked[name].server.name], work, bodies[name], self.seconds)
                    found.measured.setdefault(name, []).append(one)
                except (RuntimeError, httpx.HTTPError) as error:
                    found.left_out[name] = str(error)
        found.megabytes = {name: up[asked.server.name].worker_megabytes() for name, asked in work.asked.items()}
        return found

    def _load(self, up: Running, work: Workload, bodies: Bodies, seconds: float) -> Measured:
        """Measure once, and wait until the server is through with what wrk left behind when its time was over."""
        try:
            return load(up.url, bodies, work.connections, max(seconds, work.min_seconds))
        finally:
            end = time.monotonic() + SETTLE_SECONDS
            body = (bodies.folder / "1").read_bytes()
            while up.ask(bodies.media, body).status_code != 200 and time.monotonic() < end:
                time.sleep(0.1)

    def _rows(self, asked: Asked, rows: Sequence[Row]) -> list[Row]:
        return [{name: row[name] for name in asked.features} for row in rows]

    def _batches(self, rows: int) -> list[list[int]]:
        """Return which of the pool's rows each body holds: one each, or all of them, each time turned."""
        if rows == ROW:
            return [[number] for number in range(SINGLE_BODIES)]
        return [[(turn + number) % POOL_ROWS for number in range(POOL_ROWS)] for turn in range(0, POOL_ROWS, 250)]

    def _bodies(self, asked: Asked, rows: int) -> Bodies:
        batches = [[self.pool[number] for number in batch] for batch in self._batches(rows)]
        written = [asked.form.write(self._rows(asked, batch)) for batch in batches]
        return write_bodies(asked.form.media, written, Path(tempfile.mkdtemp(dir=self.folder)) / "bodies")

    def _compare(self, up: Running, asked: Asked, model: str, rows: int) -> None:
        """Raise RuntimeError unless the server answers 100 rows, or a body of the work, as the estimator does."""
        numbers = self._batches(rows)[-1] if rows > ROW else [*range(ALONE_ROWS)]
        answer = up.ask(asked.form.media, asked.form.write(self._rows(asked, [self.pool[n] for n in numbers])))
        if answer.status_code != 200:
            raise RuntimeError(f"it answered {answer.status_code}: {answer.text[:300]}")
        if asked.knows:
            answers, expected = asked.form.read(answer.content), [self.expected[model][n] for n in numbers]
            if len(answers) != len(expected) or not all(map(_near(asked.close), answers, expected)):
                raise RuntimeError("it does not answer as the estimator does")

    def _wrong_alone(self, up: Running, asked: Asked) -> tuple[int, int]:
        """Return how many of 100 rows with nulls are answered otherwise alone than in one batch; how many refused."""
        rows = [row for row in self._rows(asked, self.pool) if None in row.values()][:ALONE_ROWS]
        together = up.ask(asked.form.media, asked.form.write(rows))
        if together.status_code != 200:
            return 0, ALONE_ROWS
        wrong = refused = 0
        for row, expected in zip(rows, asked.form.read(together.content), strict=True):
            alone = up.ask(asked.form.media, asked.form.write([row]))
            if alone.status_code != 200:
                refused += 1
            elif not _near(asked.close)(asked.form.read(alone.content)[0], expected):
                wrong += 1
        return wrong, refused

    def _memory(self) -> list[tuple[int, float]]:
        """Return requests answered so far and the memory of evergreen's worker in MB, as often as it was looked at."""
        _say("memory of a worker")
        asked = self._evergreen("ridge")
        bodies, answered, seen = self._bodies(asked, ROW), 0, []
        end = time.monotonic() + MEMORY_SECONDS
        with servers.running(asked.server, self.folder) as up:
            rate = load(up.url, bodies, 8, WARM_UP_SECONDS).rate
            for mark in MEMORY_REQUESTS:
                while answered < mark and (left := end - time.monotonic()) > 0:
                    found = load(up.url, bodies, 8, min((mark - answered) / rate, left))
                    answered, rate = answered + found.requests, found.rate
                seen.append((answered, up.worker_megabytes()))
        return seen

    def _starts(self) -> dict[str, list[float]]:
        """Return the seconds from the start of the process until it is ready, in rounds."""
        _say("process start to ready")
        seconds: dict[str, list[float]] = {EVERGREEN: [], NOTHING: []}
        both = [self._evergreen("ridge").server, self._nothing().server]
        for number in range(ROUNDS):
            for server in both if number % 2 else reversed(both):
                with servers.running(server, self.folder) as up:
                    seconds[server.name].append(up.ready_seconds)
        return seconds

    def _stages(self) -> str:
        """Return a table of what each stage of a request costs, measured as a worker is started."""
        _say("where the time goes")
        (pool := self.folder / "pool.json").write_text(json.dumps(self.pool))
        command = [sys.executable, "-m", "bench.endpoint.stages", str(self.project.artifacts["ridge"]), str(pool)]
        done = subprocess.run(
            pinned(SERVERS_CORE, command),
            cwd=CODE_FOLDER,
            env=self.env | MEMORY,
            capture_output=True,
            text=True,
            check=True,
        )
        found = json.loads(done.stdout)
        names = [*next(iter(found.values()))]
        return table(
            ["request", *names],
            [[title, *(f"{stages[name]:,.0f}" for name in names)] for title, stages in found.items()],
        )

    def _report(
        self,
        targets: Sequence[Target],
        found: Sequence[Measurements],
        memory: Sequence[tuple[int, float]],
        starts: dict[str, list[float]],
    ) -> str:
        parts = [
            "# The endpoint beside its peers",
            INTRODUCTION,
            targets_table(targets),
        ]
        for one in found:
            parts += [f"## {one.work.title}", _work_table(one)]
            parts += [f"{name} is left out: {why}" for name, why in one.left_out.items()]
        alone = [[name, str(wrong), str(refused)] for name, (wrong, refused) in self.alone.items()]
        parts += [
            "## Rows with nulls, alone",
            f"Of {ALONE_ROWS} single rows with nulls, how many got another answer than in one batch. Those are wrong: "
            "in a frame of one row a null text stays None, which the pipeline's imputer does not take for missing.",
            table(["server", "another answer", "refused"], alone),
            "## Where the time goes",
            "Microseconds inside the worker, ridge, each stage by itself over and over, its fastest time. What is not "
            "in it is HTTP, the loop, the log and the change of threads. The parser alone is orjson or Arrow, which "
            "checks nothing; reading is that and every check of the contract.",
            self._stages(),
            "## Memory and start",
            table(["evergreen's worker, requests answered", "MB"], [[f"{n:,}", f"{mb:,.1f}"] for n, mb in memory]),
            table(
                ["process start to ready", "seconds, median (each)"],
                [
                    [name, f"{statistics.median(each):.2f} ({', '.join(f'{one:.2f}' for one in each)})"]
                    for name, each in starts.items()
                ],
            ),
            "## What was compared",
            _configurations(found),
            *(f"ONNX: {name} could not be converted: {why}" for name, why in self.not_converted.items()),
            "\n".join(
                f"- evergreen answers {model} by {project.answers_by(self.project, model)}"
                for model in self.project.artifacts
            ),
            "\n".join(f"- {name}: {said}" for name, said in servers.versions().items()),
        ]
        return "\n\n".join(parts) + "\n"


def _only(asked: dict[str, Asked], *names: str) -> dict[str, Asked]:
    return {name: asked[name] for name in names}


def _near(close: float) -> Callable[[float, float], bool]:
    return lambda one, other: abs(one - other) <= close * abs(other)


def _latencies(found: Measurements, name: str) -> tuple[float, ...]:
    if {EVERGREEN, name} & found.left_out.keys():
        return ()
    return ratios(*([one.median_ms for one in found.measured[server]] for server in (EVERGREEN, name)))


def _best(found: Measurements, names: Sequence[str]) -> tuple[str, tuple[float, ...]]:
    """Return the fastest of some servers, and evergreen's ratios to it."""
    measured = [name for name in names if found.rates(name)]
    if not measured:
        return names[0], ()
    best = max(measured, key=lambda name: statistics.median(found.rates(name)))
    return best, found.ratio(best)


def _work_table(found: Measurements) -> str:
    rows = []
    for name, measured in found.measured.items():
        if name not in found.left_out:
            middle = [statistics.median(values) for values in zip(*map(_figures, measured), strict=True)]
            ours = "" if name == EVERGREEN else spread(found.ratio(name))
            figures = [f"{middle[0] * found.work.rows:,.0f}", f"{middle[1]:.2f}", f"{middle[2]:.2f}"]
            rows.append([name, *figures, f"{found.megabytes[name]:,.0f}", ours])
    header = ["server", "rows a second", "median ms", "99th percentile ms", "worker's MB", "evergreen's rate over its"]
    return table(header, rows)


def _figures(measured: Measured) -> tuple[float, float, float]:
    return measured.rate, measured.median_ms, measured.p99_ms


def _configurations(found: Sequence[Measurements]) -> str:
    about = {asked.server.name: asked.server.about for one in found for asked in one.work.asked.values()}
    return table(["server", "as"], [[name, said] for name, said in about.items()])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
