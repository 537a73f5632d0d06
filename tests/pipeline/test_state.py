"""State is written by `pipeline/files.py` alone, so that files appear whole and can move to other storage one day."""

import ast
import re

import pytest
from project import CHECKOUT

STATE = "pipeline/files.py"
EXCEPTIONS = {
    "pipeline/processes.py": "the log of a child process is appended to while it runs",
    "bentos/trial.py": "the log of a child process",
    "bentos/score.py": "the log of a child process",
    "bentos/scoring/output.py": "streams a CSV into a path that whole_file gave",
    "pipeline/sources/remote.py": "streams a download into a scratch folder",
    "flows/release_transfer.py": "streams a tar file into a whole_file, and members into a scratch folder",
}
MODULES = sorted(
    path.relative_to(CHECKOUT).as_posix()
    for room in ("pipeline", "expectations", "bentos", "flows")
    for path in (CHECKOUT / room).rglob("*.py")
)
METHODS = {
    *("write_text", "write_bytes", "rename", "move", "to_csv", "to_parquet", "savez", "savez_compressed"),
    *("ParquetWriter", "CSVWriter", "new_file", "mkstemp", "NamedTemporaryFile", "fdopen"),
}
OF_MODULES = {
    "dump": ("json", "pickle", "joblib"),
    "write_table": ("pq", "pyarrow.parquet", "pa.parquet", "pyarrow.feather"),
    "save": ("np", "numpy"),
}


def writes(code):
    """Calls that write, rename or serialize into a file, as (line, what is called)."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        method = isinstance(node.func, ast.Attribute)
        owner = ast.unparse(node.func.value) if method else ""
        values = (*node.args, *(keyword.value for keyword in node.keywords))
        words = [one.value for one in values if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        opens = name in ("open", "OSFile") and any(re.fullmatch("[wax][bt+]{0,2}(:.*)?|rb?[+]b?", one) for one in words)
        # A text's `replace` takes two arguments.
        replaces = method and name == "replace" and len(node.args) == 1 and not node.keywords
        of_module = method and owner in OF_MODULES.get(name, ())
        streams = name == "fdopen" and ast.unparse(node.args[0]).startswith("os.dup")
        if opens or replaces or of_module or (method and name in METHODS and not streams):
            yield node.lineno, f"{owner}.{name}".removeprefix(".")


@pytest.mark.parametrize("name", MODULES)
def test_no_other_module_writes_files(name):
    found = [*writes((CHECKOUT / name).read_text(encoding="utf-8"))]
    if name == STATE:
        assert found
    elif name in EXCEPTIONS:
        assert found, f"{name} needs no exception any more: take it out of the list"
    else:
        assert found == [], f"{name} writes files itself; use {STATE}"


@pytest.mark.parametrize(
    "code",
    [
        *("open('log', 'w')", "path.open('ab')", "path.open(mode='w+')", "path.open('r+b')", "lzma.open(path, 'wb')"),
        *("tarfile.open(part, 'w:gz')", "path.write_text('')", "path.write_bytes(b'')"),
        *("path.rename(other)", "os.replace(one)", "path.replace(other)"),
        *("json.dump(value, file)", "joblib.dump(value, path)", "pickle.dump(value, file)", "np.savez(path, **arrays)"),
        *("pq.write_table(table, path)", "pyarrow.parquet.ParquetWriter(path, schema)", "frame.to_parquet(path)"),
        *("pa.ipc.new_file(path, schema)", "pa.OSFile(path, 'wb')", "shutil.move(one, other)", "tempfile.mkstemp()"),
    ],
)
def test_what_writes_is_recognized(code):
    assert [*writes(code)] != []


@pytest.mark.parametrize(
    "code",
    [
        *("open('log')", "path.open('rb')", "write_text(path, text)", "text.replace('a', 'b')", "replace(one, x=1)"),
        *("json.dumps(value)", "writer.write_table(table)", "os.fdopen(os.dup(1), 'w')", "tarfile.open(file, 'r:')"),
    ],
)
def test_what_does_not_write_is_not(code):
    assert [*writes(code)] == []
