"""reference/README.md: what is in the reference."""

from docs.reference_pages.markdown import page, table

PAGES = {
    "spec.md": "Every field of a spec and of its parts: type, default, what it means, what a change does.",
    "commands.md": "Every command and option.",
    "outcomes.md": "How a run ends, and exit codes.",
    "http.md": "The endpoint's paths and statuses.",
    "metrics.md": "Metrics of a model, and of an endpoint.",
    "errors.md": "Every error code.",
    "environment.md": "Every environment variable.",
    "python.md": "`import evergreen`: functions and classes.",
}


def index_page() -> str:
    """Return the page."""
    rows = [[f"[{name.removesuffix('.md')}]({name})", text] for name, text in PAGES.items()]
    rows.append(["[schemas](schemas/)", "The JSON Schema of what each command prints with `--json`."])
    rows.append(["[schemas/http](schemas/http/)", "The JSON Schema of what the endpoint answers."])
    about = "All of this is made from the code by `python -m docs.generate`, and the tests compare it."
    return page("Reference", about, table(["page", ""], rows))
