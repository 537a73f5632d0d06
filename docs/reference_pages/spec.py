"""reference/spec.md: every field of a model's spec, of the dataclasses in it and of the sources."""

import ast
import inspect
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass

from docs.reference_pages.markdown import code, described, meanings, page, paragraphs, table
from pipeline.field_kinds import FIELD_KINDS, FieldKind


@dataclass(frozen=True)
class SpecField:
    """One field.

    Attributes:
        owner: the dataclass that has it.
        name: its name.
        type: its annotation, as it stands in the code.
        default: its default, as it stands in the code; empty if the field is required.
        kind: what a change to it does; None if that depends on the field that holds the dataclass.
        text: what it is; empty if no docstring says so.
    """

    owner: type
    name: str
    type: str
    default: str
    kind: FieldKind | None
    text: str


def parts() -> list[type]:
    """Return ModelSpec, and every dataclass that a field of it may hold, in the order of the fields."""
    from pipeline.spec import ModelSpec

    found: list[type] = [ModelSpec]
    for part in found:
        for hint in typing.get_type_hints(part).values():
            found += [inner for inner in _dataclasses(hint) if inner not in found]
    return found


def _dataclasses(hint: object) -> Iterator[type]:
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
    for inner in typing.get_args(hint):
        yield from _dataclasses(inner)


def fields_of(part: type) -> list[SpecField]:
    """Return the fields of a dataclass that can be given."""
    written = _written(part)
    return [
        SpecField(
            part,
            one.name,
            *written[one.name],
            one.metadata.get("kind"),
            described(part.__doc__, one.name),
        )
        for one in fields(part)
        if one.init
    ]


def _written(part: type) -> dict[str, tuple[str, str]]:
    """Return annotation and default of each field, as they stand in the code."""
    (tree,) = ast.parse(inspect.getsource(part)).body
    assert isinstance(tree, ast.ClassDef)
    by_name: dict[str, Field[object]] = {one.name: one for one in fields(part)}
    return {
        node.target.id: (ast.unparse(node.annotation), _default(node.value, by_name[node.target.id]))
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in by_name
    }


def _default(value: ast.expr | None, one: "Field[object]") -> str:
    if one.default_factory is not MISSING:
        return repr({}) if not (made := one.default_factory()) else f"{type(made).__name__}()"
    if one.default is MISSING or value is None:
        return ""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "field":
        (value,) = (keyword.value for keyword in value.keywords if keyword.arg == "default")
    return ast.unparse(value)


def undescribed() -> list[str]:
    """Return the fields that no docstring describes, such as `ModelSpec.name`."""
    return [f"{part.__name__}.{one.name}" for part in parts() for one in fields_of(part) if not one.text]


def spec_page() -> str:
    """Return the page."""
    kinds = table(["kind", "a change"], meanings("field_kind", FIELD_KINDS).items())
    about = (
        "A model is `spec = ModelSpec(...)` in `pipeline/models/<model>.py`. Each field states its kind, and the kind "
        "says what a change does at the next run. A field without a kind of its own, such as those of a source, has "
        "the kind of the field that holds it."
    )
    return page("The spec", about, kinds, *(_section(part) for part in parts()))


def _section(part: type) -> str:
    rows = [
        [
            code(one.name),
            code(one.type),
            code(one.default) or "required",
            one.kind or "of its holder",
            one.text,
        ]
        for one in fields_of(part)
    ]
    shown = [f"## {part.__name__}", paragraphs(part.__doc__)]
    return "\n\n".join([*shown, table(["field", "type", "default", "kind", "meaning"], rows)] if rows else shown)
