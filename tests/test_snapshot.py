import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict

import pyarrow.parquet
import pytest
from conftest import CHECKOUT

from pipeline import digest, files
from pipeline.errors import ArtifactError
from pipeline.snapshot import ingest, load_snapshot, read_snapshot
from pipeline.sources import Csv, Parquet, read


@pytest.fixture
def source(tmp_path):
    (tmp_path / "x.csv").write_text("id,street,sold,new\n1,Pave,2024-01-01,true\n2,,2024-02-01,false\n")
    return Csv(str(tmp_path / "x.csv"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "snapshots").mkdir()
    return tmp_path / "snapshots"


def test_a_snapshot_is_named_by_the_digest_of_its_rows_and_its_manifest_says_what_it_is(source, folder):
    snapshot = ingest(source, folder)
    assert snapshot.digest == digest.of_table(read(source))
    assert sorted(path.name for path in folder.iterdir()) == [f"{snapshot.digest}.json", f"{snapshot.digest}.parquet"]
    assert (snapshot.rows, snapshot.origin) == (2, source.path)
    assert snapshot.columns == {"id": "number", "street": "text", "sold": "timestamp", "new": "boolean"}
    assert read_snapshot(snapshot).equals(read(source))
    assert load_snapshot(snapshot.path) == snapshot
    manifest = json.loads((folder / f"{snapshot.digest}.json").read_text())
    assert manifest == {key: value for key, value in asdict(snapshot).items() if key != "path"}


def test_the_same_rows_are_the_same_file_wherever_they_come_from(source, folder, tmp_path):
    first = ingest(source, folder)
    written = first.path.stat().st_mtime_ns
    pyarrow.parquet.write_table(read(source), tmp_path / "x.parquet", row_group_size=1)
    (tmp_path / "x.csv").touch()
    assert ingest(source, folder) == ingest(Parquet(str(tmp_path / "x.parquet")), folder) == first
    assert first.path.stat().st_mtime_ns == written
    assert len(list(folder.iterdir())) == 2


def test_a_snapshot_of_many_row_groups_is_found_whole(folder, tmp_path):
    # Parquet files are cut into groups of about a million rows, and texts come back in as many pieces.
    rows = 1_100_000
    (tmp_path / "long.csv").write_text("a\n" + "x\ny\n" * (rows // 2))
    first = ingest(Csv(str(tmp_path / "long.csv")), folder)
    written = first.path.stat().st_mtime_ns
    assert read_snapshot(first)["a"].num_chunks > 1
    assert ingest(Csv(str(tmp_path / "long.csv")), folder).path.stat().st_mtime_ns == written


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "other rows", "gone", "manifest cut", "manifest gone"])
def test_a_damaged_snapshot_is_replaced_by_the_next_ingest(damage, source, folder):
    snapshot = ingest(source, folder)
    path, manifest = snapshot.path, snapshot.path.with_suffix(".json")
    content = path.read_bytes()
    match damage:
        case "flipped":
            path.write_bytes(content[:20] + bytes([content[20] ^ 0xFF]) + content[21:])
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "other rows":
            pyarrow.parquet.write_table(read(source).slice(0, 1), path)
        case "gone":
            path.unlink()
        case "manifest cut":
            manifest.write_text(manifest.read_text()[:20])
        case "manifest gone":
            manifest.unlink()
    assert read_snapshot(ingest(source, folder)).equals(read(source))
    assert load_snapshot(path).rows == 2


def test_a_snapshot_that_is_not_there_or_damaged_is_an_artifact_error(source, folder):
    snapshot = ingest(source, folder)
    snapshot.path.write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"cannot be read .*run again to ingest anew"):
        read_snapshot(snapshot)
    with pytest.raises(ArtifactError, match=r"has no readable manifest .*run again to ingest anew"):
        load_snapshot(folder / "none.parquet")


SLOWLY = """
import sys, time
from pathlib import Path
import pyarrow.parquet
from pipeline.snapshot import ingest
from pipeline.sources import Csv

def write_half(table, path, **options):
    Path(path).write_bytes(b"PAR1 and then nothing")
    print("writing", flush=True)
    time.sleep(60)

pyarrow.parquet.write_table = write_half
ingest(Csv(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_kill_in_the_middle_of_writing_leaves_nothing_that_is_taken_for_a_snapshot(source, folder):
    writer = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, source.path, str(folder)],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
    )
    try:
        assert writer.stdout.readline() == b"writing\n"
        files.sweep(folder)
        [part] = folder.iterdir()
        writer.send_signal(signal.SIGKILL)
    finally:
        writer.kill()
        writer.communicate()
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".part-")] == []
    assert part.exists()
    files.sweep(folder)
    assert list(folder.iterdir()) == []
    assert read_snapshot(ingest(source, folder)).equals(read(source))
