"""Changing the release under load: 20 releases, a rollback, and a bad canary, while 40 clients ask all the time.

20 clients keep their connections and 20 make a new one for every request; none repeats a request. They are one process,
and with the server share the machine. "During a change" is from the release being wished until the last old worker has
gone; quiet is everything else. A folder given on the command line keeps the releases made, which takes a minute, for
the next time.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, func, select

from bentos.ledger import releases
from bentos.ledger.database import SERVER_EVENTS, open_ledger, reading
from bentos.ledger.releases import Release
from pipeline import digest
from pipeline.models import _ames as ames
from pipeline.processes import free_port, supervised_child
from pipeline.project import CODE_FOLDER
from pipeline.settings import Settings
from pipeline.spec import Canary

MODEL = "house_prices"
CLIENTS = CODE_FOLDER / "tests" / "support" / "clients.py"
EVERGREEN = [sys.executable, "-c", "from flows.cli.main import main; main()"]
KEPT, RECONNECTING, PAUSES = 20, 20, {"as fast as it goes": 0.005, "at leisure": 0.1}
"""By load: how long a client waits, in seconds, between an answer and its next request."""
RELEASES, QUIET_SECONDS, MAX_SECONDS = 20, 10.0, 300.0
WARM_UP_SECONDS = 2.0
"""All clients begin at once; what they ask in that time is answered, but not timed."""
WAIT_TIMEOUT = 60.0

BREAKS = """
import time
_whole, _asked = ServedModel.ask_quickly, []
def _breaking(self, batch):
    _asked.append(1)
    if len(_asked) <= 200:
        return _whole(self, batch)
    with open({path!r}, "a") as file:
        file.write(f"{{time.time()}}\\n")
    raise MemoryError
ServedModel.ask_quickly = _breaking
ServedModel._refused = lambda self, batch: []
"""
"""Added to a package: it answers 200 times, then never, and notes when. What follows a `raise` here is a 500."""


@dataclass(frozen=True)
class Answer:
    """One request: when it was begun and answered, in seconds since 1970, its status, and the release that answered."""

    begun: float
    answered: float
    status: str
    release: str

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return 1000 * (self.answered - self.begun)


def main() -> None:
    """Measure everything and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m bench.handover", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="where the releases are kept")
    kept = parser.parse_args().folder
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as folder:
        home = (kept or Path(folder)).resolve() / "home"
        env = _environment(home)
        ledger = open_ledger(Settings(home=home, database_url="").ledger_url)
        prepare(ledger, env, Path(folder))
        load = os.getloadavg()[0]
        print(table({name: changes(ledger, home, env, pause) for name, pause in PAUSES.items()}))
        print()
        for sentence in (*back(ledger, home, env), *bad_canary(ledger, home, env)):
            print(f"- {sentence}")
        ledger.dispose()
    print(f"\n{os.cpu_count()} cores, load {load:.1f} before")


def _environment(home: Path) -> dict[str, str]:
    """Return this process's environment without what the person has set for a project of their own."""
    theirs = ("EVERGREEN_", "PREFECT_", "BENTOML_", "GX_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return {**kept, "EVERGREEN_HOME": str(home)}


def prepare(ledger: Engine, env: Mapping[str, str], folder: Path) -> None:
    """Make two releases of different rows, the first with fewer; do nothing where they are there."""
    if releases.history(ledger, MODEL)[0]:
        return
    less = folder / "less.parquet"
    ames.market().head(1_300).to_parquet(less)
    for more in (["--data", str(less)], []):
        command = [*EVERGREEN, "run", MODEL, "--json", *more]
        done = subprocess.run(command, env=dict(env), cwd=CODE_FOLDER, capture_output=True, text=True, check=False)
        if done.returncode != 0 or json.loads(done.stdout)["outcome"] != "released":
            raise RuntimeError(f"{command} released nothing: {done.stdout[-1000:]} {done.stderr[-1000:]}")


def changes(ledger: Engine, home: Path, env: Mapping[str, str], pause: float) -> dict[str, str]:
    """Change between the two releases 20 times under load; return what to say of it by name."""
    _champion(ledger, 2)
    with _serving(home, env) as (port, body), _asking(port, pause, body) as answers:
        time.sleep(QUIET_SECONDS)
        spans = []
        for step in range(RELEASES):
            number = 1 + step % 2
            begun = time.time()
            before = _alone(ledger, number)
            releases.rollback(ledger, MODEL, number, "bench")
            _until(lambda n=number, b=before: _alone(ledger, n) > b)  # type: ignore[misc]
            spans.append((begun, time.time(), str(number)))
            time.sleep(0.5)
    found = answers()
    failed = sum(one.status != "200" for one in found)
    found = [one for one in found if one.begun > found[0].begun + WARM_UP_SECONDS]
    late = 0
    for (_, said, named), (wished, _, _) in zip(spans, [*spans[1:], (float("inf"), 0.0, "")], strict=True):
        # A second answer may be under way when the next release is wished.
        late += sum(said < one.begun and one.answered < wished and one.release != named for one in found)
    changing = [one for one in found if any(begun <= one.answered and one.begun <= end for begun, end, _ in spans)]
    quiet = sorted({*found} - {*changing}, key=lambda one: one.begun)
    usual, meanwhile = _quantile(quiet, 0.99), _quantile(changing, 0.99)
    return {
        "requests": f"{len(found):,}",
        "a second": f"{len(found) / (found[-1].answered - found[0].begun):,.0f}",
        "failed": f"{failed:,}",
        "answered by an older release after the newer was acknowledged": f"{late:,}",
        "slowest, ms": f"{max(one.milliseconds for one in found):,.0f}",
        "seconds a change, median": f"{statistics.median(end - begun for begun, end, _ in spans):.1f}",
        "requests in quiet times": f"{len(quiet):,}",
        "requests during a change": f"{len(changing):,}",
        "p50 quiet, ms": f"{_quantile(quiet, 0.5):.1f}",
        "p50 during a change, ms": f"{_quantile(changing, 0.5):.1f}",
        "p99 quiet, ms": f"{usual:.1f}",
        "p99 during a change, ms": f"{meanwhile:.1f}",
        "p99, ratio": f"{meanwhile / usual:.2f}",
    }


def back(ledger: Engine, home: Path, env: Mapping[str, str]) -> Iterator[str]:
    """Go back by the command under load; say how long it took, and whether the answers are those of before."""
    _champion(ledger, 1)
    with _serving(home, env) as (port, body):
        before = _predictions(port, body)
        releases.rollback(ledger, MODEL, 2, "bench")
        _until(lambda: _served(port) == "2")
        with _asking(port, PAUSES["as fast as it goes"], body) as answers:
            time.sleep(QUIET_SECONDS / 2)
            begun = time.time()
            command = [*EVERGREEN, "rollback", MODEL, "--to", "1", "--why", "bench", "--json"]
            done = subprocess.run(command, env=dict(env), cwd=CODE_FOLDER, capture_output=True, text=True, check=True)
            ended = time.time()
            time.sleep(QUIET_SECONDS / 2)
        found = answers()
        after = _predictions(port, body)
    last = max(one.answered for one in found if one.release == "2")
    failed = sum(one.status != "200" for one in found)
    same = "bit-equal to" if before == after else "NOT those of"
    yield (
        f"`evergreen rollback`: {last - begun:.1f} s from its start to the last answer of the newer release, "
        f"{ended - begun:.1f} s to its own end ({json.loads(done.stdout)['served']}); {failed} of {len(found):,} "
        f"requests failed; predictions are {same} those before"
    )


def bad_canary(ledger: Engine, home: Path, env: Mapping[str, str]) -> Iterator[str]:
    """Release a canary that soon fails every request; say how long until the champion answered everything again."""
    _champion(ledger, 1)
    with _serving(home, env) as (port, body), tempfile.TemporaryDirectory() as folder:
        noted = Path(folder) / "failures"
        number = _release_canary(ledger, home, BREAKS.format(path=str(noted)))
        with _asking(port, PAUSES["as fast as it goes"], body) as answers:
            _until(lambda: releases.desired_state(ledger, MODEL).canary is None)
            told = time.time()
            time.sleep(QUIET_SECONDS / 2)
        found = answers()
        failures = [float(line) for line in noted.read_text().split()]
    event = releases.history(ledger, MODEL)[1][-1]
    failed = sum(one.status != "200" for one in found)
    answered = sum(one.release == str(number) for one in found)
    yield (
        f"a canary that fails: {failures[-1] - failures[0]:.1f} s from its first failure to the last request it was "
        f"given, {len(failures):,} of them; {told - failures[0]:.1f} s until the ledger said so ({event.reason}); "
        f"{answered:,} requests were answered by it before, {failed} of {len(found):,} failed"
    )


def table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return a table with a column for each load."""
    names = list(next(iter(columns.values())))
    lines = [f"| 20 releases, 20 clients that keep their connection and 20 that reconnect | {' | '.join(columns)} |"]
    lines.append("|---" * (1 + len(columns)) + "|")
    lines += [f"| {name} | {' | '.join(column[name] for column in columns.values())} |" for name in names]
    return "\n".join(lines)


def _champion(ledger: Engine, number: int) -> None:
    now = releases.champion(ledger, MODEL)
    if now is None or now.number != number:
        releases.rollback(ledger, MODEL, number, "bench")


def _release_canary(ledger: Engine, home: Path, damage: str) -> int:
    """Release the second package again, under another name and damaged, as a canary; return its number."""
    second = releases.get_release(ledger, MODEL, 2)
    bentos, tag = home / "bentoml" / "bentos" / MODEL, f"bench{time.time_ns():x}"
    package = bentos / tag
    shutil.copytree(bentos / second.bento.partition(":")[2], package)
    (package / "src" / "bentos" / "served.py").open("a").write(damage)
    digests = {**second.digests, "bento": digest.of_folder(package / "src"), "snapshot": tag}
    canary = asdict(replace(Canary(), share=0.3, minutes=30.0, min_requests=100))
    made = Release(**{**asdict(second), "bento": f"{MODEL}:{tag}", "digests": digests, "replaced": 1, "canary": canary})
    return releases.add_release(ledger, made, kind=releases.CANARY).number


@contextmanager
def _serving(home: Path, env: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Serve the champion while the block lasts; yield the port, and the body of a request with one row."""
    port = free_port()
    command = [*EVERGREEN, "serve", MODEL, "--port", str(port)]
    log = home / "bench.log"
    with supervised_child(command, env, CODE_FOLDER, log):
        _until(lambda: _served(port) is not None)
        card = httpx.get(f"http://127.0.0.1:{port}/model", trust_env=False).json()
        yield port, json.dumps({"records": [card["example"]]})


def _served(port: int) -> str | None:
    """Return the release that answers, None where none does."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/model", timeout=5.0, trust_env=False).headers["evergreen-release"]
    except (httpx.HTTPError, KeyError):
        return None


def _predictions(port: int, body: str) -> Any:
    headers = {"Content-Type": "application/json"}
    asked = httpx.post(f"http://127.0.0.1:{port}/predict", content=body, headers=headers, trust_env=False)
    return asked.json()["predictions"], asked.content


@contextmanager
def _asking(port: int, pause: float, body: str) -> Iterator[Callable[[], list[Answer]]]:
    """Have clients ask while the block lasts; yield what returns their answers afterwards, in order."""
    options = [str(port), str(MAX_SECONDS), str(KEPT), str(RECONNECTING), body, str(pause)]
    clients = subprocess.Popen([sys.executable, str(CLIENTS), *options], stdout=subprocess.PIPE, text=True)
    found: list[Answer] = []

    def answers() -> list[Answer]:
        return found

    try:
        time.sleep(1.0)
        yield answers
    finally:
        clients.terminate()
        report = clients.communicate()[0]
    found += [Answer(*one) for one in sorted(json.loads(report))]


def _alone(ledger: Engine, number: int) -> int:
    """Return how often a server said that a release alone answers."""
    asked = select(func.count()).where(SERVER_EVENTS.c.kind == "alone", SERVER_EVENTS.c.release == number)
    with reading(ledger) as connection:
        return connection.execute(asked).scalar_one()


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_TIMEOUT
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("what was waited for did not come")
        # Who asks all the time takes from two cores what a change is measured by.
        time.sleep(0.2)


def _quantile(answers: Sequence[Answer], share: float) -> float:
    return statistics.quantiles([one.milliseconds for one in answers], n=100, method="inclusive")[
        round(100 * share) - 1
    ]


if __name__ == "__main__":
    main()
