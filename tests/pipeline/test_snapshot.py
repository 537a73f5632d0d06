import json
import os
import signal
import subprocess
import sys

import pyarrow.parquet
import pytest
from project import CHECKOUT

from pipeline import digest, files
from pipeline.errors import ArtifactError, FormatError
from pipeline.models import _ames as ames
from pipeline.snapshot import SnapshotFile, ingest, load_snapshot
from pipeline.sources import Csv, Function, Parquet, read


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
    assert pyarrow.parquet.read_table(snapshot.path).equals(read(source))
    assert load_snapshot(snapshot.path) == snapshot
    manifest = json.loads((folder / f"{snapshot.digest}.json").read_text())
    table = {"rows": snapshot.rows, "columns": snapshot.columns}
    assert manifest == {
        "format": 1,
        "digest": snapshot.digest,
        "origin": snapshot.origin,
        "created": snapshot.created,
        "tables": {"main": table},
    }


def test_the_same_rows_are_the_same_file_wherever_they_come_from(source, folder, tmp_path):
    first = ingest(source, folder)
    written = first.path.stat().st_mtime_ns
    pyarrow.parquet.write_table(read(source), tmp_path / "x.parquet", row_group_size=1)
    (tmp_path / "x.csv").touch()
    assert ingest(source, folder) == ingest(Parquet(str(tmp_path / "x.parquet")), folder) == first
    assert first.path.stat().st_mtime_ns == written
    assert len(list(folder.iterdir())) == 2


# Written down before ingest worked in blocks. Other digests would retrain every model of every project.
KNOWN = {
    "house_prices.csv": "ede40ec0620d11f89bfa128e99465ba4ff94c63b6b4fac58a238fd0f7b13000c",
    "ames_sales.csv": "c4a0781d6b2d04e055476d1946f3710469d08addbae35b8cfa365273c01c6349",
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_digest_of_a_table_is_what_it_always_was(name, folder):
    path = CHECKOUT.parent / "shared" / "data" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    assert ingest(Csv(str(path), na_values=("NA", "")), folder).digest == KNOWN[name]


def test_the_digest_of_a_generated_table_is_what_it_always_was(folder):
    assert (
        ingest(Function(ames.market, na_values=("NA", "")), folder).digest
        == "90e84f8281f8a70747123e168b6650bedc57ccf98afbac7947d80389c3f260e7"
    )


TABLE = "id,a,b,c,d\n" + "".join(f'{i},{i}.0,"x {i}\n""y""",{"" if i % 3 else i},{i % 2}\n' for i in range(200))
LAST = {
    "the same": ("", "21ca6f4bfeab3be1fcaa4fd6f43711f38266480f7ba286c706d970db558936fc"),
    "a fraction": ("200,0.5,z,1,1\n", "d9d253347fbcaed7931b0effa7baa752f373f9979bd49a8bd248c0dd48b6ad22"),
    "past 2**53": (
        "200,9007199254740993,z,1,1\n",
        "6924c9325404aef09b7dde9364d02416ff30cbb606b2b61b059e3ebd2aaad242",
    ),
    "a word": ("200,x,z,1,1\n", "2d78ca632b176d6bcb8b657eadece07d13b38d65c8ba7307f738bcca4b3c1933"),
    "true and false": ("200,1,z,1,true\n", "257e40d1db8a34b1a67a85b2fdaac17001279fcf6fee33c6031a5561428863fb"),
    "a date": ("200,1,z,2024-01-01,1\n", "f00f4835bef15c4778a5b0eab1d5405bb724a4e7c9146944bf316c250f0e1289"),
    "a lone quote": ('200,1,5" pipe,1,1\n', "e53f1b2f941d6df8b0b4ef3702f03abb5993169fb3074af2f0d438b0a7710824"),
}


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("block", [64, 500, 2**24])
def test_the_digest_does_not_tell_how_large_the_blocks_were_that_a_file_was_read_in(
    last, block, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("pipeline.sources.csv.BLOCK", block)
    row, expected = LAST[last]
    (tmp_path / "x.csv").write_text(TABLE + row)
    source = Csv(str(tmp_path / "x.csv"))
    snapshot = ingest(source, folder)
    assert snapshot.digest == digest.of_table(read(source)) == expected
    assert snapshot.rows == 200 + (row != "")


def test_a_snapshot_of_many_row_groups_is_found_whole(folder, tmp_path):
    # Parquet files are cut into groups of about a million rows, and texts come back in as many pieces.
    rows = 1_100_000
    (tmp_path / "long.csv").write_text("a\n" + "x\ny\n" * (rows // 2))
    first = ingest(Csv(str(tmp_path / "long.csv")), folder)
    written = first.path.stat().st_mtime_ns
    assert pyarrow.parquet.read_table(first.path)["a"].num_chunks > 1
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
    assert pyarrow.parquet.read_table(ingest(source, folder).path).equals(read(source))
    assert load_snapshot(path).rows == 2


def test_a_manifest_that_is_too_old_is_written_again_and_one_that_is_too_new_is_left_as_it_is(source, folder):
    snapshot = ingest(source, folder)
    manifest = snapshot.path.with_suffix(".json")
    facts = json.loads(manifest.read_text())

    manifest.write_text(json.dumps({name: value for name, value in facts.items() if name != "format"}))
    assert ingest(source, folder).rows == 2
    assert json.loads(manifest.read_text())["format"] == 1

    manifest.write_text(newer := json.dumps(facts | {"format": 2}))
    with pytest.raises(FormatError) as refused:
        ingest(source, folder)
    assert refused.value.code == "format.too_new"
    assert manifest.read_text() == newer


def test_a_snapshot_that_is_not_there_or_damaged_is_an_artifact_error(source, folder):
    snapshot = ingest(source, folder)
    snapshot.path.write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"cannot be read .*run again to ingest the source again"):
        SnapshotFile(snapshot.path)
    with pytest.raises(ArtifactError, match=r"has no readable manifest .*run again to ingest the source again"):
        load_snapshot(folder / "none.parquet")


SLOWLY = """
import sys, time
from pathlib import Path
import pyarrow.parquet
from pipeline.snapshot import ingest
from pipeline.sources import Csv

def write_half(writer, table):
    Path(writer.where).write_bytes(b"PAR1 and then nothing")
    print("writing", flush=True)
    time.sleep(60)

pyarrow.parquet.ParquetWriter.write_table = write_half
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
    assert pyarrow.parquet.read_table(ingest(source, folder).path).equals(read(source))
