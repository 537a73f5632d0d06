"""Garbage collection: remove the files of runs and releases that no servable release needs.

A release is kept while it may be served again: see `releases_to_keep`. Its package, its artifact, its snapshot and the
report of its run are kept with it. Files are moved aside before they are deleted: nobody sees them half removed.
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
_SNAPSHOT_SUFFIXES = (".parquet", ".json", ".quarantine", ERASURE_SUFFIX)
"""The parts of a snapshot: its rows, its manifest, the rows quarantined from it, the record of erased rows."""
FINISHED_STATES = ("champion", "replaced", "rolled back", RETIRED, STOPPED, ARCHIVED)
"""A release in one of these states waits for nothing; in others, such as "canary", it is in use."""


@dataclass(frozen=True)
class Item:
    """One thing that a run left.

    Attributes:
        kind: one of `KINDS`.
        model: its model; None for a snapshot, which models may share.
        paths: its files and folders.
        bytes: how much their removal frees.
    """

    kind: str
    model: str | None
    paths: tuple[Path, ...]
    bytes: int


@dataclass(frozen=True)
class Collected:
    """The result of a collection.

    Attributes:
        removed: what was removed, or would be.
        kept: by model, the releases that are kept and why.
        archived: by model, the releases whose package was removed.
        notes: what was left alone because it is in use, as sentences.
    """

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

    These are: the champion, also a retired one, which a rollback brings back; the release that it replaced, and the
    champion before it; releases that are a canary or await approval; and the newest `keep`.

    Args:
        made: all releases of the model, oldest first.
        events: all events of the model, oldest first.
        keep: how many of the newest releases stay in any case.
    """
    reasons: dict[int, str] = {}
    champion_events = [event for event in events if event.kind in CHAMPION_EVENTS]
    by_number = {release.number: release for release in made}
    if champion_events:
        champion = champion_events[-1].release
        reasons[champion] = "champion" if champion_events[-1].kind != releases.RETIRED else "retired last"
        earlier = [event.release for event in champion_events if event.release != champion]
        for number in (by_number[champion].replaced, earlier[-1] if earlier else None):
            if number is not None:
                reasons.setdefault(number, "champion before")
    for number, state in releases.states(events).items():
        if state not in FINISHED_STATES:
            reasons.setdefault(number, state)
    for release in made[max(0, len(made) - keep) :]:
        reasons.setdefault(release.number, f"one of the newest {keep}")
    return dict(sorted(reasons.items(), reverse=True))


def collect_garbage(
    settings: Settings, ledger: Engine, keep: Mapping[str, int], dry_run: bool = False, running: str | None = None
) -> Collected:
    """Remove the files that the models in `keep` no longer need; return what was removed, kept and left alone.

    Takes the locks of all models, lists what is not needed, then removes it. Files of a model with a run in progress
    stay. If this ledger has no release of a model, only reports of its runs are removed: its packages may belong to
    another ledger.

    Args:
        settings: where the home is.
        ledger: names the releases and runs.
        keep: by model, how many of its newest releases to keep.
        dry_run: list everything, and remove nothing.
        running: the model whose run calls this; its lock is held already.
    """
    home = settings.folder()
    if not dry_run:
        sweep(home)
    all_models = {*releases.models(ledger), *model_names(), *keep}
    with _lock_models(home, all_models, running) as locked, _lock_ended_servers(home, keep) as ended_servers:
        plan = _Plan(home, ledger)
        for model in sorted(keep):
            if model in locked:
                plan.add_model(model, keep[model])
            else:
                plan.notes.append(f"a run or a rollback of {model} is in progress: nothing of it is removed")
        if busy := sorted(all_models - locked):
            plan.notes.append(f"a run or a rollback of {', '.join(busy)} is in progress: no snapshot is removed")
        else:
            plan.add_snapshots(all_models)
        for model, folder in ended_servers:
            plan.add("serving", model, folder)
        if not dry_run:
            plan.carry_out(settings, "retention" if running else "gc")
            for model in keep:
                _mend_latest(home / "bentoml" / "bentos" / model)
    return Collected(tuple(plan.items), plan.kept, plan.archived, tuple(plan.notes))


class _Plan:
    """What a collection removes: first listed by the `add_...` methods, then removed by `carry_out`.

    Attributes:
        home: the folder of everything that runs leave.
        ledger: names the releases and runs.
        items: what is not needed.
        kept: by model, the releases that are kept and why.
        archived: by model, the releases whose package is not needed.
        notes: what is left alone, as sentences.
    """

    def __init__(self, home: Path, ledger: Engine) -> None:
        self.home, self.ledger = home, ledger
        self.items: list[Item] = []
        self.kept: dict[str, dict[int, str]] = {}
        self.archived: dict[str, list[int]] = {}
        self.notes: list[str] = []
        self._counted: set[tuple[int, int]] = set()
        """Device and inode of the files that are in an item: a file with several names counts once."""

    def add(self, kind: str, model: str | None, *paths: Path) -> None:
        """Add files and folders as one item, with their size."""
        size = 0
        for path in paths:
            for file in (path, *path.rglob("*")):
                stat = file.lstat()
                if not file.is_dir() and (stat.st_dev, stat.st_ino) not in self._counted:
                    self._counted.add((stat.st_dev, stat.st_ino))
                    size += stat.st_size
        self.items.append(Item(kind, model, paths, size))

    def add_model(self, model: str, keep: int) -> None:
        """Add the packages, artifacts, trained models and run folders of a model that no kept release needs."""
        made, events = releases.history(self.ledger, model)
        reasons = releases_to_keep(made, events, keep)
        for server in servers.live_servers(self.ledger, model):
            if server.release is not None:
                reasons.setdefault(server.release, f"served by {server.server}")
        if made:
            self.kept[model] = reasons
            self._add_artifacts(model, [release for release in made if release.number in reasons])
            self.archived[model] = self._add_packages(model, made)
        elif _folders(self.home / "bentoml" / "bentos" / model):
            self.notes.append(f"the ledger has no release of {model}: only reports of its runs are removed")
        self._add_runs(model, {*reasons}, keep)

    def _add_artifacts(self, model: str, kept: Sequence[Release]) -> None:
        """Add artifacts and trained models that belong neither to a kept release nor to the last verdict.

        The model of the last verdict stays, because another gate may pass it.
        """
        needed = {
            "trained": {trained_folder(release.digests) for release in kept},
            "artifacts": {artifact_folder(release.digests) for release in kept},
        }
        last_verdict = runs.last_run(self.ledger, model, runs.VERDICTS)
        if last_verdict and last_verdict.digests:
            needed["trained"].add(trained_folder(last_verdict.digests))
        for kind, names in needed.items():
            for folder in _folders(self.home / kind / model):
                if folder.name not in names:
                    self.add(kind, model, folder)

    def _add_packages(self, model: str, made: Sequence[Release]) -> list[int]:
        """Add packages that no kept release and no process needs; return the numbers of their releases."""
        versions = {release.bento.partition(":")[2] for release in made if release.number in self.kept[model]}
        in_use = _working_folders()
        removed = set()
        for folder in _folders(self.home / "bentoml" / "bentos" / model):
            if folder.name not in versions and folder.resolve() not in in_use:
                self.add("bentos", model, folder)
                removed.add(f"{model}:{folder.name}")
        return [release.number for release in made if release.bento in removed]

    def _add_runs(self, model: str, kept: set[int], keep: int) -> None:
        """Add the folders of runs that made no kept release and are not among the newest `keep`."""
        folders = sorted(_folders(self.home / "runs" / model), key=lambda folder: folder.stat().st_mtime_ns)
        for folder in folders[: max(0, len(folders) - keep)]:
            with suppress(OSError, ValueError, LookupError):
                if read_json(folder / "outcome.json")["release"] in kept:
                    continue
            self.add("runs", model, folder)

    def add_snapshots(self, models: Iterable[str]) -> None:
        """Add snapshots that no kept release, last run, artifact or package needs; call it after `add_model`."""
        last_runs = [runs.last_run(self.ledger, model) for model in models]
        # `ingested` is the snapshot before quarantine: by it the next run notices that the source is unchanged.
        needed = {run.digests.get(name, "") for run in last_runs if run for name in ("snapshot", "ingested")}
        for model, reasons in self.kept.items():
            made, _ = releases.history(self.ledger, model)
            needed |= {release.digests["snapshot"] for release in made if release.number in reasons}
        needed |= self._snapshots_of_remaining_artifacts()
        files = [path for path in (self.home / "snapshots").glob("*.*") if not _half_written(path)]
        for name in sorted({path.stem for path in files if path.suffix in _SNAPSHOT_SUFFIXES} - needed):
            # The rows are removed first: a manifest without rows is not a snapshot, and its source is ingested again.
            paths = [self.home / "snapshots" / f"{name}{suffix}" for suffix in _SNAPSHOT_SUFFIXES]
            self.add("snapshots", None, *(path for path in paths if path.exists()))

    def _snapshots_of_remaining_artifacts(self) -> set[str]:
        """Return the snapshots of artifacts and packages that stay, also of those that no ledger knows."""
        removed = {path for item in self.items for path in item.paths}
        artifacts = {folder: folder for folder in self.home.glob("artifacts/*/*")}
        artifacts |= {folder: folder / "src" / "artifact" for folder in self.home.glob("bentoml/bentos/*/*")}
        digests = set()
        for folder, artifact in artifacts.items():
            if folder not in removed and not _half_written(folder):
                with suppress(OSError, ValueError, LookupError):
                    digests.add(read_json(artifact / "manifest.json")["digests"]["snapshot"])
        return digests

    def carry_out(self, settings: Settings, cause: str) -> None:
        """Remove the items, and record in the ledger which releases have no package any more."""
        # Recorded first, so that a killed collection leaves no release whose missing package looks like damage. On a
        # full disk that is not possible until the files are removed.
        with suppress(StorageError):
            self._record_archived(cause)
        self._remove(settings)
        self._record_archived(cause)

    def _record_archived(self, cause: str) -> None:
        for model, numbers in self.archived.items():
            why = "no longer needed, so its package was removed"
            releases.mark_archived(self.ledger, model, numbers, cause, why)

    def _remove(self, settings: Settings) -> None:
        """Remove the items; the folders of runs stay if Prefect cannot delete the runs."""
        run_ids = [item.paths[0].name for item in self.items if item.kind == "runs"]
        if run_ids:
            # Prefect first: the folders name the runs, so the next collection finds those that Prefect still has.
            try:
                _delete_flow_runs(settings, run_ids)
            except Exception as error:
                self.notes.append(f"{len(run_ids)} runs and their reports stay: Prefect did not delete them: {error}")
                self.items = [item for item in self.items if item.kind != "runs"]
        for item in self.items:
            for path in item.paths:
                discard(path, settings.folder())


@contextmanager
def serving(home: Path, name: str) -> Iterator[None]:
    """Mark a serving folder as in use during the block."""
    with ExitStack() as stack:
        # A second server of the same model and port, on another address, needs no mark of its own.
        with suppress(Timeout):
            stack.enter_context(_lock(home, f"serving-{name}").acquire(timeout=0))
        yield


@contextmanager
def _lock_models(home: Path, models: Iterable[str], running: str | None) -> Iterator[set[str]]:
    """Lock every model that has no run and no rollback in progress, and yield these models.

    The lock of the `running` model is held by its run already.
    """
    with ExitStack() as stack:
        locked = set()
        for model in models:
            with suppress(Timeout, PackageError):
                if model != running:
                    stack.enter_context(_lock(home, model).acquire(timeout=0))
                stack.enter_context(package_lock(model, home / "bentoml", seconds=0))
                locked.add(model)
        yield locked


@contextmanager
def _lock_ended_servers(home: Path, models: Iterable[str]) -> Iterator[list[tuple[str, Path]]]:
    """Lock the folders of servers that have ended, and yield them, each with its model."""
    with ExitStack() as stack:
        ended = []
        for folder in _folders(home / "serving"):
            model = folder.name.rpartition("-")[0]
            if model in models:
                with suppress(Timeout):
                    stack.enter_context(_lock(home, f"serving-{folder.name}").acquire(timeout=0))
                    ended.append((model, folder))
        yield ended


def _lock(home: Path, name: str) -> FileLock:
    (home / "locks").mkdir(exist_ok=True)
    return FileLock(home / "locks" / f"{name}.lock")


def _working_folders() -> set[Path]:
    """Return the packages that processes run in, if the system lists them: a server may still serve an old release."""
    folders = set()
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            folders.add(link.readlink().parent)
    return folders


def _delete_flow_runs(settings: Settings, run_ids: Iterable[str]) -> None:
    """Delete runs from Prefect's history; start a Prefect server if none is running."""
    from uuid import UUID

    with ExitStack() as stack:
        url = reachable(settings) or stack.enter_context(start_server(settings, free_port()))
        # Prefect reads its settings when it is imported.
        os.environ.update({**prefect_environment(settings), "PREFECT_API_URL": url})
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound

        client = stack.enter_context(get_client(sync_client=True))
        for run_id in run_ids:
            with suppress(ObjectNotFound, ValueError):
                client.delete_flow_run(UUID(run_id))


def _mend_latest(folder: Path) -> None:
    """Make BentoML's file `latest` name the newest package that is still there."""
    latest = folder / "latest"
    if latest.exists() and not (folder / latest.read_text().strip() / "bento.yaml").exists():
        remaining = sorted(_folders(folder), key=lambda path: path.stat().st_mtime_ns)
        if remaining:
            write_text(latest, remaining[-1].name)
        else:
            latest.unlink()


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.glob("*") if path.is_dir() and not _half_written(path)]


def _half_written(path: Path) -> bool:
    # A dry run does not sweep, so it may find such leftovers of a killed process.
    return path.name.startswith(".")


def _mb(items: Iterable[Item]) -> float:
    return round(sum(item.bytes for item in items) / 1e6, 3)
