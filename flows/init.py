"""A table -> a first spec and a first suite, written into the project for a person to edit."""

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
    """Write a model's two files below `checkout`, with their folders, and return what they say.

    Raises SpecError, before anything is read, when the name cannot be one, or the files are there and are not to be
    replaced; SourceError or DataError when no model can be made of the table.
    """
    spec, suite = (checkout / folder / f"{name}.py" for folder in ("pipeline/models", "expectations/suites"))
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) or keyword.iskeyword(name):
        plain = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_")
        hint = f", as in {plain!r}" if re.fullmatch(r"[a-z][a-z0-9_]{0,62}", plain) and plain != name else ""
        raise SpecError(
            f"{name!r} cannot name a model; use lower-case letters, digits and _{hint}", code="spec.invalid_name"
        )
    if not force and (there := [str(path.relative_to(checkout)) for path in (spec, suite) if path.exists()]):
        raise SpecError(
            f"{' and '.join(there)} already {'exists' if len(there) == 1 else 'exist'}; "
            "choose another --name, or replace with --force",
            code="spec.exists",
        )
    source, written = sniffed(from_here(data))
    table, source, missing = whole(source)
    check_header(source, table.column_names)
    found = profile(table, source, target, ask)
    where = _from(checkout, data)
    # Both before either is written: one alone is no model.
    sources = {spec: spec_source(found, name, where), suite: suite_source(found, name, where)}
    made = [path.parent for path in sources if not path.parent.is_dir()]
    for path, text in sources.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    created = [str(folder.relative_to(checkout)) for folder in made]
    files = [str(path.relative_to(checkout)) for path in (spec, suite)]
    return _said(found, name, created, files, [*written, *missing])


def _from(checkout: Path, data: str) -> str:
    """Return where the data is as the spec says it: from the checkout where it lies in there, else from the root."""
    path = Path(data).absolute()
    return path.relative_to(checkout).as_posix() if path.is_relative_to(checkout) else str(path)


def _said(found: Profile, name: str, created: list[str], files: list[str], decided: list[str]) -> InitView:
    roles = {column.role for column in found.features}
    return InitView(
        model=name,
        created=created,
        files=files,
        rows=found.rows,
        target=found.target.name,
        task=found.kind,
        key=[found.key] if found.key else [],
        time=found.time,
        group=found.group,
        features={role: list(found.named(role)) for role in sorted(roles)},
        left_out=found.left_out,
        decided=[*decided, *found.notes],
    )
