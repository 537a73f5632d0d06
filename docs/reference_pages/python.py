"""reference/python.md: the front door `evergreen`, its signatures and docstrings."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator

import evergreen
from docs.reference_pages.markdown import CHECKOUT, attributes, page, paragraphs, sentence, table


def names() -> dict[str, str]:
    """Return the module of every name that `evergreen` has."""
    return {name: evergreen._ELSEWHERE.get(name, "flows.notebook") for name in evergreen.__all__}


def python_page() -> str:
    """Return the page; nothing but the source is read."""
    order = sorted(names(), key=lambda name: (name[0].isupper(), name))
    about = inspect.cleandoc(evergreen.__doc__ or "").partition("\n\n")[2]
    example, _, rest = about.partition("\n\n")
    calls, _, rest = rest.partition("\n\n")
    shown = f"```\n{example.strip()}\n\n{textwrap.dedent(calls)}\n```"
    return page("Python", shown, rest, *(_section(name, names()[name]) for name in order))


def _section(name: str, module: str) -> str:
    tree = ast.parse((CHECKOUT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    (node,) = (one for one in tree.body if isinstance(one, ast.FunctionDef | ast.ClassDef) and one.name == name)
    if isinstance(node, ast.FunctionDef):
        return "\n\n".join([f"## {name}", _signature(node, "evergreen."), ast.get_docstring(node) or ""])
    docstring = ast.get_docstring(node)
    parts = [f"## {name}", paragraphs(docstring)]
    if lines := attributes(docstring):
        parts.append(table(["attribute", "meaning"], [[f"`{key}`", sentence(text)] for key, text in lines.items()]))
    for member in _public(node):
        if any(isinstance(one, ast.Name) and "property" in one.id for one in member.decorator_list):
            if member.name not in lines:
                parts += [f"### {name}.{member.name}", ast.get_docstring(member) or ""]
            continue
        parts += [f"### {name}.{member.name}", _signature(member), ast.get_docstring(member) or ""]
    return "\n\n".join(parts)


def _public(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    return (one for one in node.body if isinstance(one, ast.FunctionDef) and not one.name.startswith("_"))


def _signature(node: ast.FunctionDef, before: str = "") -> str:
    """Return a signature as code, with annotations that stand in quotes for the sake of imports unquoted."""
    for one in ast.walk(node.args):
        if isinstance(one, ast.arg):
            one.annotation = _unquoted(one.annotation)
    node.args.args = [one for one in node.args.args if one.arg not in ("self", "cls")]
    returns = _unquoted(node.returns)
    arrow = f" -> {ast.unparse(returns)}" if returns else ""
    # ast leaves no blanks around the = of an annotated argument.
    arguments = re.sub(r"(: [^,=()]+)=", r"\1 = ", ast.unparse(node.args))
    return f"```\n{before}{node.name}({arguments}){arrow}\n```"


def _unquoted(annotation: ast.expr | None) -> ast.expr | None:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return annotation
