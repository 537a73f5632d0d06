"""Every persisted format has a number, and one that this evergreen does not read is refused with a way out."""

import ast
import importlib.util
import re
from pathlib import Path
from typing import get_args

import pytest
from project import CHECKOUT

from pipeline import request_log, run_in_package
from pipeline.errors import FormatError
from pipeline.formats import FORMATS, Format, check_format
from pipeline.run_in_package import PROTOCOL, protocol_of, write_protocol

PAPER = Format("paper", 4, 3, "print it again")


def refusal(found):
    with pytest.raises(FormatError) as refused:
        check_format(PAPER, found, "page 1")
    return refused.value.code, str(refused.value)


def test_the_oldest_and_the_current_number_are_read():
    check_format(PAPER, 3, "page 1")
    check_format(PAPER, 4, "page 1")


def test_what_is_too_new_is_refused_with_both_numbers_and_a_way_out():
    assert refusal(5) == (
        "format.too_new",
        "page 1 has format 5, and this evergreen reads 3 to 4; use a later evergreen",
    )


@pytest.mark.parametrize(("found", "number"), [(2, 2), (None, 0)])
def test_what_is_too_old_or_has_no_number_is_refused_with_both_numbers_and_a_way_out(found, number):
    assert refusal(found) == (
        "format.too_old",
        f"page 1 has format {number}, and this evergreen reads 3 to 4; print it again",
    )


@pytest.mark.parametrize("found", ["4", True, 4.0, {}])
def test_what_is_not_a_number_is_refused(found):
    assert refusal(found)[0] == "format.invalid"


def test_every_format_and_its_number_are_on_the_page_of_formats():
    page = (CHECKOUT / "docs" / "internals" / "formats.md").read_text()
    rows = re.findall(r"^\| ([a-z ]+) \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    assert rows == [(one.name, str(one.current), str(one.oldest)) for one in FORMATS]


def test_the_ledgers_number_is_that_of_its_newest_migration():
    files = [*(CHECKOUT / "bentos").rglob("migrations/versions/*.py")]
    (number,) = [one.current for one in FORMATS if one.name == "ledger"]
    assert max(file.name for file in files).startswith(f"{number:04}_")


def test_a_package_says_what_may_be_started_inside_it(tmp_path):
    write_protocol(tmp_path)
    assert protocol_of(tmp_path) == PROTOCOL
    for module in PROTOCOL.modules.values():
        tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text())
        assert ast.unparse(tree.body[-1]).startswith("if __name__ == '__main__':"), module
    assert {*PROTOCOL.modules} == {*get_args(run_in_package.EntryPoint)}


def test_a_package_of_another_format_is_refused(tmp_path):
    with pytest.raises(FormatError) as refused:
        protocol_of(tmp_path)
    assert refused.value.code == "format.too_old"
    (tmp_path / run_in_package.MANIFEST).write_text('{"format": 99}')
    with pytest.raises(FormatError) as refused:
        protocol_of(tmp_path)
    assert refused.value.code == "format.too_new"


def test_a_worker_obeys_every_order_of_the_protocol_and_no_other():
    code = (CHECKOUT / "bentos" / "endpoint" / "uvicorn_worker.py").read_text()
    routes = re.findall(r'^ROUTES = \{"(\w+)": \w+, "(\w+)"', code, re.MULTILINE)[0]
    orders = {*re.findall(r'\w+\["do"\] == "(\w+)"', code), *routes}
    assert orders == {*PROTOCOL.orders} == {*get_args(run_in_package.Order)}


def test_a_worker_is_told_only_what_its_package_understands():
    import socket

    from bentos.serving.processes import WorkerProcess

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(0.1)
        worker = WorkerProcess(None, ours, 1, ("drain",))
        worker.send("shadow", path="x", share=0.5)
        worker.send("drain")
        assert theirs.recv(1000) == b'{"do": "drain"}\n'


def test_a_file_of_the_request_log_with_another_number_is_named_with_the_way_out(tmp_path):
    import json
    from datetime import UTC, datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    counts = request_log.Counts(1, 0.0, datetime(2026, 3, 1, tzinfo=UTC).timestamp())
    path = request_log.write(tmp_path, pa.table({"time": pa.array([], pa.timestamp("us"))}), counts)
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"evergreen"])
    assert facts["format"] == 1
    changed = {b"evergreen": json.dumps(facts | {"format": 7}).encode()}
    pq.write_table(table.replace_schema_metadata(changed), path)
    (said,) = request_log.read(tmp_path, datetime(2026, 1, 1, tzinfo=UTC)).unreadable
    assert said == f"request log {path.name} has format 7, and this evergreen reads 1; use a later evergreen"
