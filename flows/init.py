"""Write a first spec and a first suite for a table into the project, for a person to edit."""

import keyword
import re
from pathlib import Path

from expectations.scaffold import suite_source
from flows.cli.views import InitView
from pipeline.errors import SpecError
from pipeline.files import write_text
from pipeline.init.profile import Ask, Profile, profile
from pipeline.init.scaffold import spec_source
from pipeline.init.sniff import check_header, sniffed, whole
from pipeline.project import from_here


def begin(checkout: Path, data: str, target: str, name: str, force: bool, ask: Ask) -> InitView:
    """Write a model's two files below `checkout`, with their folders, and return what they contain.

    Raises SpecError, before the table is read, if the name is invalid or the files exist and `force` is False. Raises
    SourceError or DataError if no model can be made of the table.
    """
    spec, suite = (checkout / folder / f"{name}.py" for folder in ("pipeline/models", "expectations/suites"))
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) or keyword.iskeyword(name):
        plain = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_")
        hint = f", as in {plain!r}" if re.fullmatch(r"[a-z][a-z0-9_]{0,62}", plain) and plain != name else ""
        raise SpecError(
            f"{name!r} cannot name a model; use lower-case letters, digits and _{hint}", code="spec.invalid_name"
        )
    if not force and (existing := [str(path.relative_to(checkout)) for path in (spec, suite) if path.exists()]):
        raise SpecError(
            f"{' and '.join(existing)} already {'exists' if len(existing) == 1 else 'exist'}; "
            "choose another --name, or replace with --force",
            code="spec.exists",
        )
    source, dialect_notes = sniffed(from_here(data))
    table, source, null_notes = whole(source)
    check_header(source, table.column_names)
    described = profile(table, source, target, ask)
    path_in_spec = _path_in_spec(checkout, data)
    # Both texts are made before either is written: one file alone is not a model.
    sources = {
        spec: spec_source(described, name, path_in_spec),
        suite: suite_source(described, name, path_in_spec),
    }
    new_folders = [path.parent for path in sources if not path.parent.is_dir()]
    for path, text in sources.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    created = [str(folder.relative_to(checkout)) for folder in new_folders]
    files = [str(path.relative_to(checkout)) for path in (spec, suite)]
    return _view(described, name, created, files, [*dialect_notes, *null_notes])


def _path_in_spec(checkout: Path, data: str) -> str:
    """Return the path of the data for the spec: relative if it is inside the checkout, else absolute."""
    path = Path(data).absolute()
    return path.relative_to(checkout).as_posix() if path.is_relative_to(checkout) else str(path)


def _view(described: Profile, name: str, created: list[str], files: list[str], decided: list[str]) -> InitView:
    roles = {column.role for column in described.features}
    return InitView(
        model=name,
        created=created,
        files=files,
        rows=described.rows,
        target=described.target.name,
        task=described.kind,
        key=[described.key] if described.key else [],
        time=described.time,
        group=described.group,
        features={role: list(described.named(role)) for role in sorted(roles)},
        left_out=described.left_out,
        decided=[*decided, *described.notes],
    )
