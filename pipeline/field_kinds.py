"""What a change to a field of the spec does: each field states its kind, and each kind has a digest of its own.

| kind | fields such as | a change |
|---|---|---|
| model | candidates, key, holdout | trains again |
| verdict | gate, value | judges the trained model again, without training |
| package | limits, log, sensitive | packages, tries and releases the same model again |
| operations | schedule, notify, keep_releases | takes effect at once and does nothing else |
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args

from pipeline import digest

FieldKind = Literal["model", "verdict", "package", "operations"]
FIELD_KINDS: tuple[FieldKind, ...] = get_args(FieldKind)
_ALWAYS_COUNTS = object()


def of_kind(name: FieldKind, *, before: Any = _ALWAYS_COUNTS) -> dict[str, Any]:
    """Return the metadata of a dataclass field of this kind.

    A field that is new in evergreen declares `before`, the value that says what evergreen did when the field did not
    exist. With that value it is left out of the digest, so a new field changes no digest, and a new default does.
    """
    return {"kind": name, "before": before}


def spec_digest(spec: Any, of: FieldKind) -> str:
    """Return the digest of the fields of one kind of a spec, those of the dataclasses in it included.

    It names fields by their path, such as `gate.tolerance`, and no module of evergreen, so that modules may move.
    """
    return digest.of_value(dict(sorted(values_of_kind(spec, of))))


def values_of_kind(spec: Any, of: FieldKind) -> list[tuple[str, Any]]:
    """Return path and value of every field of one kind that counts."""
    return [(path, value) for path, field_kind, value in _walk(spec, "", None) if field_kind == of]


def _walk(part: Any, above: str, inherited: FieldKind | None) -> Iterator[tuple[str, FieldKind, Any]]:
    """Yield path, kind and value of each field; of a dataclass in it its class first, then its own fields."""
    for field in fields(part):
        value, path = getattr(part, field.name), f"{above}{field.name}"
        # What states no kind of its own, such as a source, is of the kind of the field that holds it.
        of = field.metadata.get("kind", inherited)
        if of is None:
            raise TypeError(f"{type(part).__name__}.{field.name} has no kind; add metadata=of_kind(...)")
        if "before" in field.metadata and value == field.metadata["before"]:
            continue
        if is_dataclass(value) and not isinstance(value, type):
            yield path, of, type(value).__name__
            yield from _walk(value, f"{path}.", of)
        else:
            yield path, of, value
