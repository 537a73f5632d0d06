"""What is kept of what runs leave behind, and the removal of the rest.

A release is kept while it may be served again: see `releases_to_keep`. Kept with it are its package, its artifact, its
snapshot and the report of its run. What is removed is first moved aside, so that nothing is ever seen half removed.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Engine

from bentos.ledger import releases, runs, servers
from bentos.ledger.releases import ARCHIVED, CHAMPION_EVENTS, RETIRED, STOPPED, Event, Release
from bentos.package import package_lock
from flows.cli.views import CollectedView, RemovedView
from flows.ops.prefect_server import prefect_environment, reachable, start_server
from pipeline.errors import PackageError, StorageError
from pipeline.files import discard, read_json, sweep, write_text
from pipeline.processes import free_port
from pipeline.run_digests import artifact_folder, trained_folder
from pipeline.settings import Settings
from pipeline.snapshot import ERASURE_SUFFIX
from pipeline.spec import model_names

KINDS = ("snapshots", "trained", "artifacts", "bentos", "runs", "serving")
_SNAPSHOT = (".parquet", ".json", ".quarantine", ERASURE_SUFFIX)
"""How the parts of a snapshot end: its rows, its manifest, what was set aside to make it, what was forgotten of it."""
FINISHED_STATES = ("champion", "replaced", "rolled back", RETIRED, STOPPED, ARCHIVED)
"""The states in which a release waits for nothing more; in others, such as "canary", it is in use."""


@dataclass(frozen=True)
class Item:
    """One thing that a run left: its files or folders, and the bytes that their removal frees."""

    kind: str
    model: str | None
    paths: tuple[Path, ...]
    bytes: int


@dataclass(frozen=True)
class Collected:
    """What was removed, which releases are kept and why, which lost their package, and what could not be looked at."""

    removed: tuple[Item, ...]
    kept: Mapping[str, Mapping[int, str]]
    archived: Mapping[str, Sequence[int]]
    notes: tuple[str, ...]

    def view(self, dry_run: bool) -> CollectedView:
        """Return what `evergreen gc --json` prints, with counts and MB per kind."""
        by_kind = {kind: [item for item in self.removed if item.kind == kind] for kind in KINDS}
        return CollectedView(
            dry_run=dry_run,
            removed={kind: RemovedView(len(items), _mb(items)) for kind, items in by_kind.items()},
            mb=_mb(self.removed),
            kept={model: {str(number): why for number, why in kept.items()} for model, kept in self.kept.items()},
            archived={model: list(numbers) for model, numbers in self.archived.items() if numbers},
            notes=list(self.notes),
        )


def releases_to_keep(made: Sequence[Release], events: Sequence[Event], keep: int) -> dict[int, str]:
    """Return the numbers of the releases of a model that must stay, and why; newest first.

    Needed are the champion, also a retired one, which a rollback brings back; what it replaced and what was champion
    before it; a release that is a canary or awaits approval; and the newest `keep`. `made` and `events` are all there
    are of the model, oldest first.
    """
    needed: dict[int, str] = {}
    settled = [event for event in events if event.kind in CHAMPION_EVENTS]
    by_number = {release.number: release for release in made}
    if settled:
        champion = settled[-1].release
        needed[champion] = "champion" if settled[-1].kind != releases.RETIRED else "retired last"
        before = [event.release for event in settled if event.release != champion]
        for number in (by_number[champion].replaced, before[-1] if before else None):
            if number is not None:
                needed.setdefault(number, "champion before")
    for number, state in releases.states(events).items():
        if state not in FINISHED_STATES:
            needed.setdefault(number, state)
    for release in made[max(0, len(made) - keep) :]:
        needed.setdefault(release.number, f"one of the newest {keep}")
    return dict(sorted(needed.items(), reverse=True))


def collect_garbage(
    settings: Settings, ledger: Engine, keep: Mapping[str, int], dry_run: bool = False, running: str | None = None
) -> Collected:
    """Remove what is no longer needed of the models that `keep` names, each with how many of its releases to keep.

    What a run is busy with is left alone; `running` names the model whose run asks for this. Of a model without a
    release in this ledger, nothing but the reports of runs is removed: the ledger may be another one's.
    """
    home = settings.folder()
    if not dry_run:
        sweep(home)
    everybody = {*releases.models(ledger), *model_names(), *keep}
    notes: list[str] = []
    kept: dict[str, dict[int, str]] = {}
    archived: dict[str, list[int]] = {}
    found: list[Item] = []
    seen: set[tuple[int, int]] = set()
    with _lock_models(home, everybody, running) as free, _ended(home, keep) as ended:
        for model in sorted(keep):
            if model not in free:
                notes.append(f"a run or a rollback of {model} is going on: nothing of it is removed")
                continue
            made, events = releases.history(ledger, model)
            needed = releases_to_keep(made, events, keep[model])
            for server in servers.live_servers(ledger, model):
                if server.release is not None:
                    needed.setdefault(server.release, f"served by {server.server}")
            if made:
                kept[model] = needed
                packages = [release for release in made if release.number in needed]
                judged = runs.last_run(ledger, model, runs.VERDICTS)
                kept_trained = [judged.digests] if judged and judged.digests else []
                items = [*_of_model(home, model, packages, kept_trained, seen)]
                found += items
                gone = {f"{model}:{item.paths[0].name}" for item in items if item.kind == "bentos"}
                archived[model] = [release.number for release in made if release.bento in gone]
            elif _folders(home / "bentoml" / "bentos" / model):
                notes.append(f"the ledger has no release of {model}: only reports of its runs are removed")
            found += _runs(home, model, {*needed}, keep[model], seen)
        if everybody <= free:
            last = [runs.last_run(ledger, model) for model in everybody]
            # What was ingested last stays too where rows of it were set aside: by it an unchanged source is noticed.
            wanted = {run.digests.get(name, "") for run in last if run for name in ("snapshot", "ingested")}
            for model, needed in kept.items():
                made, _ = releases.history(ledger, model)
                wanted |= {release.digests["snapshot"] for release in made if release.number in needed}
            found += _snapshots(home, wanted, {path for item in found for path in item.paths}, seen)
        else:
            busy = ", ".join(sorted(everybody - free))
            notes.append(f"a run or a rollback of {busy} is going on: no snapshot is removed")
        found += [_item("serving", model, [folder], seen) for model, folder in ended]
        if not dry_run:
            cause = "retention" if running else "gc"
            # On a full disk it is told when there is space again.
            with suppress(StorageError):
                _archive(ledger, archived, cause)
            _remove(settings, found, notes)
            _archive(ledger, archived, cause)
            for model in keep:
                _mend_latest(home / "bentoml" / "bentos" / model)
    return Collected(tuple(found), kept, archived, tuple(notes))


@contextmanager
def serving(home: Path, name: str) -> Iterator[None]:
    """Mark a serving folder as in use while the block lasts."""
    with ExitStack() as stack:
        # A second server of the same model and port, on another address, needs no second mark.
        with suppress(Timeout):
            stack.enter_context(_lock(home, f"serving-{name}").acquire(timeout=0))
        yield


@contextmanager
def _lock_models(home: Path, models: Iterable[str], running: str | None) -> Iterator[set[str]]:
    """Yield the models that no other run and no rollback is busy with; none begins while the block lasts."""
    with ExitStack() as stack:
        free = set()
        for model in models:
            with suppress(Timeout, PackageError):
                if model != running:
                    stack.enter_context(_lock(home, model).acquire(timeout=0))
                stack.enter_context(package_lock(model, home / "bentoml", seconds=0))
                free.add(model)
        yield free


@contextmanager
def _ended(home: Path, models: Iterable[str]) -> Iterator[list[tuple[str, Path]]]:
    """Yield the models and folders of servers that have ended; none begins in them while the block lasts."""
    with ExitStack() as stack:
        found = []
        for folder in _folders(home / "serving"):
            model = folder.name.rpartition("-")[0]
            if model in models:
                with suppress(Timeout):
                    stack.enter_context(_lock(home, f"serving-{folder.name}").acquire(timeout=0))
                    found.append((model, folder))
        yield found


def _lock(home: Path, name: str) -> FileLock:
    (home / "locks").mkdir(exist_ok=True)
    return FileLock(home / "locks" / f"{name}.lock")


def _of_model(
    home: Path,
    model: str,
    needed: Sequence[Release],
    judged: Sequence[Mapping[str, str]],
    seen: set[tuple[int, int]],
) -> Iterator[Item]:
    """Yield the packages, artifacts and trained folders of a model that belong to no needed release.

    What was trained by a run with the digests in `judged` stays: another gate may pass it.
    """
    named = {
        "trained": {trained_folder(digests) for digests in [*(release.digests for release in needed), *judged]},
        "artifacts": {artifact_folder(release.digests) for release in needed},
    }
    versions = {release.bento.partition(":")[2] for release in needed}
    busy = _worked_in()
    for kind in ("trained", "artifacts"):
        for folder in _folders(home / kind / model):
            if folder.name not in named[kind]:
                yield _item(kind, model, [folder], seen)
    for folder in _folders(home / "bentoml" / "bentos" / model):
        if folder.name not in versions and folder.resolve() not in busy:
            yield _item("bentos", model, [folder], seen)


def _runs(home: Path, model: str, needed: set[int], keep: int, seen: set[tuple[int, int]]) -> Iterator[Item]:
    """Yield the folders of runs that made no needed release and are not among the newest."""
    folders = sorted(_folders(home / "runs" / model), key=lambda folder: folder.stat().st_mtime_ns)
    for folder in folders[: max(0, len(folders) - keep)]:
        with suppress(OSError, ValueError, LookupError):
            if read_json(folder / "outcome.json")["release"] in needed:
                continue
        yield _item("runs", model, [folder], seen)


def _snapshots(home: Path, wanted: set[str], going: set[Path], seen: set[tuple[int, int]]) -> Iterator[Item]:
    """Yield the snapshots that are neither wanted nor named by an artifact or a package that stays."""
    for pattern in ("artifacts/*/*", "bentoml/bentos/*/*"):
        for folder in home.glob(pattern):
            inside = folder / "src" / "artifact" if pattern.startswith("bentoml") else folder
            if folder not in going and not _half_written(folder):
                with suppress(OSError, ValueError, LookupError):
                    wanted.add(read_json(inside / "manifest.json")["digests"]["snapshot"])
    there = [path for path in (home / "snapshots").glob("*.*") if not _half_written(path)]
    names = {path.stem for path in there if path.suffix in _SNAPSHOT}
    for name in sorted(names - wanted):
        # The rows first: a manifest without them is no snapshot, and is ingested anew.
        paths = [home / "snapshots" / f"{name}{suffix}" for suffix in _SNAPSHOT]
        yield _item("snapshots", None, [path for path in paths if path.exists()], seen)


def _worked_in() -> set[Path]:
    """Return the packages that processes work in, where the system tells: a server may still serve an older one."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            found.add(link.readlink().parent)
    return found


def _archive(ledger: Engine, archived: Mapping[str, Sequence[int]], cause: str) -> None:
    for model, numbers in archived.items():
        releases.mark_archived(ledger, model, numbers, cause, "no longer needed, so its package was removed")


def _remove(settings: Settings, items: Iterable[Item], notes: list[str]) -> None:
    runs = [item.paths[0].name for item in items if item.kind == "runs"]
    if runs:
        # First: by its folder the next one finds a run that is still there.
        try:
            _delete_runs(settings, runs)
        except Exception as error:
            notes.append(f"{len(runs)} runs stay, with their reports, since Prefect did not forget them: {error}")
            items = [item for item in items if item.kind != "runs"]
    for item in items:
        for path in item.paths:
            discard(path, settings.folder())


def _delete_runs(settings: Settings, runs: Iterable[str]) -> None:
    """Remove runs from Prefect's history; a server is started where none is up."""
    from uuid import UUID

    with ExitStack() as stack:
        url = reachable(settings) or stack.enter_context(start_server(settings, free_port()))
        # Prefect reads its settings when it is imported.
        os.environ.update({**prefect_environment(settings), "PREFECT_API_URL": url})
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound

        client = stack.enter_context(get_client(sync_client=True))
        for run in runs:
            with suppress(ObjectNotFound, ValueError):
                client.delete_flow_run(UUID(run))


def _mend_latest(folder: Path) -> None:
    """Let BentoML's mark of the latest package name one that is there."""
    mark = folder / "latest"
    if mark.exists() and not (folder / mark.read_text().strip() / "bento.yaml").exists():
        left = sorted(_folders(folder), key=lambda one: one.stat().st_mtime_ns)
        if left:
            write_text(mark, left[-1].name)
        else:
            mark.unlink()


def _folders(place: Path) -> list[Path]:
    return [path for path in place.glob("*") if path.is_dir() and not _half_written(path)]


def _half_written(path: Path) -> bool:
    # A dry run, which sweeps nothing away, finds what was left of a kill.
    return path.name.startswith(".")


def _item(kind: str, model: str | None, paths: Sequence[Path], seen: set[tuple[int, int]]) -> Item:
    """Return an item with its size; a file that has several names counts once."""
    size = 0
    for path in paths:
        for file in (path, *path.rglob("*")):
            facts = file.lstat()
            if not file.is_dir() and (facts.st_dev, facts.st_ino) not in seen:
                seen.add((facts.st_dev, facts.st_ino))
                size += facts.st_size
    return Item(kind, model, tuple(paths), size)


def _mb(items: Iterable[Item]) -> float:
    return round(sum(item.bytes for item in items) / 1e6, 3)
