"""Write the pages of docs/reference that are made from the code: `python -m docs.generate`; `--check` only compares.

Each function of PAGES returns texts by path, relative to docs/reference. A new kind of page is a new function there.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

REFERENCE = Path(__file__).resolve().parent / "reference"


def schemas() -> dict[str, str]:
    """Return the JSON Schema of what each command prints with --json, and of each answer of the endpoint."""
    from bentos.endpoint import views as http_views
    from flows.cli import views

    every = {f"schemas/{command}.json": views.schema_of(view) for command, view in views.by_command().items()}
    for name, view in http_views.by_name().items():
        every[f"schemas/http/{name}.json"] = views.schema_of(view, sparse=True)
    return {path: json.dumps(schema, indent=2) + "\n" for path, schema in every.items()}


def markdown() -> dict[str, str]:
    """Return the pages for people."""
    from docs.reference_pages import commands, environment, errors, http, index, metrics, outcomes, python, spec

    return {
        "README.md": index.index_page(),
        "spec.md": spec.spec_page(),
        "commands.md": commands.commands_page(),
        "environment.md": environment.environment_page(),
        "http.md": http.http_page(),
        "outcomes.md": outcomes.outcomes_page(),
        "errors.md": errors.errors_page(),
        "metrics.md": metrics.metrics_page(),
        "python.md": python.python_page(),
    }


PAGES: tuple[Callable[[], Mapping[str, str]], ...] = (schemas, markdown)
GENERATED = ("schemas/**/*.json", "*.md")
"""Everything below docs/reference that these functions write: what they no longer return is removed."""


def pages() -> dict[str, str]:
    """Return every generated text by its path, relative to docs/reference."""
    return {path: text for page in PAGES for path, text in page().items()}


def stale(folder: Path = REFERENCE) -> list[str]:
    """Return the paths whose file is not what the code says: missing, different, or of nothing that is left."""
    wanted = pages()
    there = {path.relative_to(folder).as_posix() for pattern in GENERATED for path in folder.glob(pattern)}
    differs = {path for path in wanted if path in there and (folder / path).read_text() != wanted[path]}
    return sorted(differs | (wanted.keys() ^ there))


def write(folder: Path = REFERENCE) -> list[str]:
    """Write what is stale, remove what is of nothing that is left; return these paths."""
    wanted, changed = pages(), stale(folder)
    for path in changed:
        if path not in wanted:
            (folder / path).unlink()
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(wanted[path])
    return changed


def main() -> None:
    """Write, or with --check exit 1 and name what is stale."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is stale")
    given = parser.parse_args()
    changed = stale() if given.check else write()
    for path in changed:
        print(f"{'stale' if given.check else 'written'}: docs/reference/{path}")
    sys.exit(1 if given.check and changed else 0)


if __name__ == "__main__":
    main()
