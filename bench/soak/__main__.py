"""`python -m bench.soak [--minutes 10] [--seed 0]`: chaos for a while, then the books are checked and a report written.

`evergreen up` runs a model on a schedule of once a minute, a person runs it in between, months of data arrive, some of
them broken; clients ask all the time; processes are killed with -9, for a while the disk is full, and now and then the
clock of all but the clients is off by hours. Exits 1 when a request was lost that no kill explains, or anything is left
inconsistent.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from bench.soak import check, clock, market, parts
from bench.soak.check import Answer, Excursion, Kill
from bentos.ledger import releases, servers
from bentos.ledger.database import RUNS, open_ledger, reading
from pipeline.processes import free_port
from pipeline.project import CODE_FOLDER
from pipeline.settings import Settings

REPORT = CODE_FOLDER / "tests" / "bench" / "soak.md"
EVERGREEN = [sys.executable, "-c", "from flows.cli.main import main; main()"]
RUN = "flow run"
KILLED = ("service worker", RUN, "Prefect worker", "Prefect server", "endpoint")
MONTH_SECONDS, PERSON_SECONDS, KILL_SECONDS, FULL_SECONDS = 25.0, 70.0, 20.0, 8.0
BROKEN_SHARE = 0.3
CLOCK_SECONDS, AWAY_SECONDS = 75.0, 30.0
"""How often the clock is set, and for how long it stays so."""
HOURS = (3, -3, 24, -24, 24 * 400, -24 * 400)
SAMPLE_SECONDS = 5.0
CALM_SECONDS = 120.0
"""At the end nothing is broken any more: time for one more scheduled run, and for what is left to be closed."""
DISK = "1200m"


@dataclass
class Soak:
    """What goes on, and what happened so far."""

    folder: Path
    home: Path
    env: dict[str, str]
    url: str
    port: int
    chance: random.Random
    clock: Path | None
    """The file with the seconds that everybody else's clock is ahead; None where it cannot be set."""
    happened: list[tuple[float, str]] = field(default_factory=list)
    excursions: list[Excursion] = field(default_factory=list)
    calm: float = 0.0
    kills: list[Kill] = field(default_factory=list)
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def months(self) -> Path:
        """Where the data arrives."""
        return self.folder / "months"

    def note(self, what: str) -> None:
        """Remember what was done to it, and say it."""
        self.happened.append((time.time(), what))
        print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


def main() -> int:
    """Soak, write the report, and return 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evergreen-soak-") as place:
        folder = Path(place) / "project"
        folder.mkdir()
        with _small_disk(folder / ".evergreen") as small:
            soak = _prepare(folder, options.seed)
            asked = _first_release(soak)
            with _up(soak) as end:
                with _clients(soak, asked) as answers:
                    _chaos(soak, options.minutes * 60, small)
                    soak.note("calm")
                    soak.calm = time.time()
                    _watch(soak, CALM_SECONDS)
                zombies = _zombies(soak)
                ended = end()
            text, wrong = _report(soak, answers, zombies, ended, options, small)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(text)
    print(f"\n{text}\n\nwritten to {REPORT}")
    return 1 if wrong else 0


@contextmanager
def _small_disk(home: Path) -> Iterator[bool]:
    """Make the home a disk of its own that can be filled; False where that takes rights that this user lacks."""
    home.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "evergreen-soak", str(home)], capture_output=True, check=False
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(home)], check=False)


def _prepare(folder: Path, seed: int) -> Soak:
    market.build(folder)
    home, port = folder / ".evergreen", free_port()
    ours = ("EVERGREEN_", "PREFECT_", "BENTOML_", "GX_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    env = {**kept, "EVERGREEN_HOME": str(home), "PYTHONPATH": str(folder)}
    theirs = clock.build(folder)
    if theirs is not None:
        env |= clock.environment(theirs)
    return Soak(folder, home, env, "", port, random.Random(seed), theirs)


def _run(soak: Soak) -> "subprocess.Popen[str]":
    command = [*EVERGREEN, "run", market.MODEL, "--json"]
    log = (soak.folder / "person.log").open("a")
    return subprocess.Popen(command, cwd=soak.folder, env=soak.env, stdout=log, stderr=log, text=True)


def _first_release(soak: Soak) -> dict[str, Any]:
    """Make the first release, and return what clients ask."""
    soak.note("the first run")
    if _run(soak).wait() != 0:
        raise RuntimeError((soak.folder / "person.log").read_text()[-3000:])
    rows = market.month(1)[[*_features(soak)]]
    records = json.loads(rows.head(3).to_json(orient="records"))
    wrong = [{**records[0], "GrLivArea": "large"}]
    return {
        "json": {"media": "application/json", "body": json.dumps({"records": records[:1]})},
        "csv": {"media": "text/csv", "body": rows.head(20).to_csv(index=False)},
        "wrong": {"media": "application/json", "body": json.dumps({"records": wrong})},
    }


def _features(soak: Soak) -> list[str]:
    manifest = next(soak.home.glob(f"artifacts/{market.MODEL}/*/manifest.json"))
    return [feature["name"] for feature in json.loads(manifest.read_text())["schema"]["features"]]


@contextmanager
def _up(soak: Soak) -> Iterator[Any]:
    """Start everything, wait until the endpoint answers; yield what ends it and returns how that went, in sentences."""
    ui = free_port()
    soak.url = f"http://127.0.0.1:{ui}/api"
    log = (soak.folder / "up.log").open("wb")
    # Which port a model had before it has again.
    (soak.home / "up").mkdir(exist_ok=True)
    (soak.home / "up" / "ports.json").write_text(json.dumps({market.MODEL: soak.port}))
    command = [*EVERGREEN, "up", "--port", str(ui)]
    process = subprocess.Popen(command, cwd=soak.folder, env=soak.env, stdout=log, stderr=log, start_new_session=True)

    def end() -> list[str]:
        begun = time.monotonic()
        process.terminate()
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            return ["`evergreen up` did not end within 60 s of SIGTERM"]
        seconds = time.monotonic() - begun
        time.sleep(2)
        left = [part.kind for part in parts.running(soak.home)]
        said = [f"`evergreen up` exited {code} to SIGTERM"] if code not in (0, 130) else []
        soak.note(f"`evergreen up` ended {seconds:.1f} s after SIGTERM")
        return said + ([f"processes were left: {left}"] if left else [])

    try:
        _until(lambda: _answers(soak.port) or process.poll() is not None, 240)
        if process.poll() is not None:
            raise RuntimeError((soak.folder / "up.log").read_text()[-3000:])
        soak.note("everything is up")
        yield end
    finally:
        process.kill()
        log.close()


@contextmanager
def _clients(soak: Soak, asked: Mapping[str, Any]) -> Iterator[list[Answer]]:
    """Have clients ask while the block lasts; yield a list that has their answers afterwards."""
    bodies, report = soak.folder / "asked.json", soak.folder / "answers.jsonl"
    bodies.write_text(json.dumps(asked))
    script = CODE_FOLDER / "bench" / "soak" / "clients.py"
    process = subprocess.Popen([sys.executable, str(script), str(soak.port), str(report), str(bodies)])
    answers: list[Answer] = []
    try:
        yield answers
        process.terminate()
        process.wait(90)
        answers += [Answer(*json.loads(line)) for line in report.read_text().splitlines()]
    finally:
        process.kill()


def _chaos(soak: Soak, seconds: float, small: bool) -> None:
    """Let months arrive, break some, kill what runs and fill the disk until the time is over."""
    end = time.monotonic() + seconds
    due = {"month": 0.0, "person": 20.0, "kill": 15.0, "full": seconds / 2, "sample": 0.0, "clock": 30.0}
    began, number, mend, person, away = time.monotonic(), 1, None, None, 0
    while (now := time.monotonic()) < end:
        at = now - began
        if at >= due["sample"]:
            due["sample"] = at + SAMPLE_SECONDS
            _sample(soak)
        if at >= due["month"]:
            due["month"] = at + MONTH_SECONDS
            if mend is not None:
                mend()
                soak.note(f"month {number - 1} arrives again, whole")
                mend = None
            elif soak.chance.random() < BROKEN_SHARE:
                what, mend = market.breaks(soak.months, number, soak.chance)
                soak.note(f"month {number} arrives broken: {what}")
                number += 1
            else:
                market.arrive(soak.months, number, market.month(number))
                soak.note(f"month {number} arrives")
                number += 1
        if at >= due["person"] and (person is None or person.poll() is not None):
            due["person"] = at + PERSON_SECONDS
            soak.note("a person runs it")
            person = _run(soak)
        if soak.clock and at >= due["clock"]:
            due["clock"] = at + (CLOCK_SECONDS - AWAY_SECONDS if away else AWAY_SECONDS)
            away = 0 if away else soak.chance.choice(HOURS)
            _set_clock(soak, soak.clock, away)
        if at >= due["kill"]:
            due["kill"] = at + KILL_SECONDS * soak.chance.uniform(0.5, 1.5)
            _kill_one(soak)
        if small and at >= due["full"]:
            due["full"] = seconds * 2
            _fill(soak)
        time.sleep(0.2)
    if mend is not None:
        mend()
    if soak.clock and away:
        _set_clock(soak, soak.clock, 0)
    if person is not None:
        person.wait(300)


def _set_clock(soak: Soak, theirs: Path, hours: int) -> None:
    """Set everybody's clock but the clients' to so many hours ahead of theirs."""
    now = time.time()
    if soak.excursions and soak.excursions[-1].ended > now:
        soak.excursions[-1] = replace(soak.excursions[-1], ended=now)
    if hours:
        soak.excursions.append(Excursion(now, float("inf"), hours * 3600.0))
    clock.turn(theirs, hours * 3600)
    soak.note(f"the clock is set to {hours:+} hours" if hours else "the clock is set right")


def _kill_one(soak: Soak) -> None:
    found = [part for part in parts.running(soak.home) if part.kind in KILLED]
    kinds = sorted({part.kind for part in found})
    if not kinds:
        return
    # A run is seldom there, and dies otherwise only with its worker.
    kind = RUN if RUN in kinds and soak.chance.random() < 0.5 else soak.chance.choice(kinds)
    part = soak.chance.choice([one for one in found if one.kind == kind])
    at = time.time()
    if not parts.kill(part):
        return
    soak.note(f"kill -9: {kind}")
    if kind in ("service worker", "endpoint"):
        # Its workers notice a moment later that the endpoint is gone.
        _until(lambda: not _answers(soak.port), 3)
        _until(lambda: _answers(soak.port), 120)
        soak.kills.append(Kill(at, kind, time.time()))
        soak.note(f"the endpoint answers again after {time.time() - at:.1f} s")


def _fill(soak: Soak) -> None:
    """Fill the disk for a while."""
    soak.note("the disk is full")
    path = soak.home / "filler"
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 2**20)
    except OSError:
        pass
    end = time.monotonic() + FULL_SECONDS
    while time.monotonic() < end:
        _sample(soak)
        time.sleep(1)
    path.unlink()
    soak.note("the disk has room again")


def _watch(soak: Soak, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _sample(soak)
        time.sleep(SAMPLE_SECONDS)


def _sample(soak: Soak) -> None:
    now = time.time()
    for kind, found in _by_kind(soak).items():
        if kind not in ("other", "leash", RUN):
            soak.memory[kind].append((now, max(part.mb for part in found)))


def _by_kind(soak: Soak) -> dict[str, list[parts.Part]]:
    found: dict[str, list[parts.Part]] = defaultdict(list)
    for part in parts.running(soak.home):
        found[part.kind].append(part)
    return found


def _zombies(soak: Soak) -> list[str]:
    """Return the runs that Prefect takes for running though no process runs them."""
    body = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}}
    _until(lambda: not httpx.post(f"{soak.url}/flow_runs/filter", json=body, trust_env=False).json(), 60)
    found = httpx.post(f"{soak.url}/flow_runs/filter", json=body, trust_env=False).json()
    return [f"{run['name']} is {run['state_name']} since {run['start_time']}" for run in found]


def _report(
    soak: Soak, answers: list[Answer], zombies: list[str], ended: list[str], options: Any, small: bool
) -> tuple[str, list[str]]:
    """Return the report as Markdown, and what is wrong, in sentences."""
    ledger = open_ledger(Settings(home=soak.home, database_url="").ledger_url)
    made, events = releases.history(ledger, market.MODEL)
    served = servers.server_events(ledger, market.MODEL)
    with reading(ledger) as connection:
        found = connection.execute(select(RUNS.c.outcome, RUNS.c.cause, RUNS.c.started)).all()
    ledger.dispose()
    runs = Counter(run.outcome for run in found)
    scheduled = [check.moment(run.started, soak.excursions) for run in found if run.cause == "schedule"]
    killed, others = check.lost(answers, soak.kills)
    late = check.out_of_order(answers, events, served, soak.excursions)
    subprocess.run([*EVERGREEN, "gc"], cwd=soak.folder, env=soak.env, capture_output=True, check=False)
    orphans = [str(path.relative_to(soak.home)) for path in soak.home.rglob(".part-*")]
    wrong = [
        *(f"{n} times lost: {what}" for what, n in Counter(f"{one.kind}, {one.status}" for one in others).items()),
        *(f"release {one.release} answered after another was acknowledged" for one in late[:5]),
        *check.inconsistent(made, events, answers),
        *(f"left behind: {path}" for path in orphans),
        *([] if max(scheduled, default=0.0) > soak.calm else ["no scheduled run began after the chaos"]),
        *zombies,
        *ended,
    ]
    count = Counter(what.partition(":")[2].strip() for _, what in soak.happened if what.startswith("kill -9"))
    right = [one for one in answers if one.right]
    slowest = max(one.answered - one.begun for one in right)
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in Counter(one.kind for one in answers).items())
    lines = [
        "# Chaos, and what was left of it",
        "",
        f"Made by `make soak`: {options.minutes:g} minutes, seed {options.seed}, {os.cpu_count()} cores.",
        "`evergreen up` ran a model every minute, a person ran it in between, months of data arrived, clients",
        "asked all the time.",
        "",
        "| what | |",
        "|---|---|",
        f"| requests | {len(answers):,}: {kinds} |",
        f"| not answered as they should be, with a process that was killed | {len(killed):,} |",
        f"| not answered as they should be otherwise | {len(others):,} |",
        f"| slowest right answer | {slowest:.1f} s |",
        f"| answered by a release after another was acknowledged | {len(late):,} |",
        f"| releases made | {len(made)}, {len({a.release for a in right})} of them seen by clients |",
        f"| runs in the ledger | {', '.join(f'{n} {name}' for name, n in sorted(runs.items()))} |",
        f"| killed with -9 | {', '.join(f'{n} {kind}' for kind, n in sorted(count.items()))} |",
        f"| broken months | {sum('broken' in what for _, what in soak.happened)} |",
        f"| the disk full | {f'once, for {FULL_SECONDS:g} s' if small else 'not tried: no right to mount one'} |",
        f"| the clock set | {_clock_line(soak)} |",
        f"| runs that the schedule began after the chaos | {sum(one > soak.calm for one in scheduled)} |",
        f"| runs that Prefect took for running at the end | {len(zombies)} |",
        f"| files half written at the end | {len(orphans)} |",
        "",
        "| memory, MB | after a third | at the end | most |",
        "|---|---|---|---|",
        *(_memory_line(kind, samples) for kind, samples in sorted(soak.memory.items())),
        "",
        "What is wrong: " + ("nothing." if not wrong else ""),
        *(f"- {one}" for one in wrong[:40]),
        "",
        "<details><summary>What happened when</summary>",
        "",
        *(f"- {at - soak.happened[0][0]:.0f} s: {what}" for at, what in soak.happened),
        "",
        "</details>",
        "",
    ]
    return "\n".join(lines), wrong


def _clock_line(soak: Soak) -> str:
    if soak.clock is None:
        return "not tried: no C compiler"
    hours = ", ".join(f"{one.ahead / 3600:+g}" for one in soak.excursions)
    return f"{len(soak.excursions)} times, for {AWAY_SECONDS:g} s each, hours: {hours}"


def _memory_line(kind: str, samples: list[tuple[float, float]]) -> str:
    values = [mb for _, mb in samples]
    third = values[len(values) // 3]
    return f"| {kind} | {third:.0f} | {values[-1]:.0f} | {max(values):.0f} |"


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _until(condition: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    sys.exit(main())
