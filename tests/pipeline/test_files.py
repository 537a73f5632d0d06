import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from project import CHECKOUT

from pipeline.files import read_json, sweep, whole_file, whole_folder, write_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_once_it_is_written(tmp_path):
    with whole_file(tmp_path / "x") as part:
        part.write_text("new")
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x").read_text() == "new"
    assert names(tmp_path) == ["x"]


def test_a_file_stays_as_it_was_when_writing_fails(tmp_path):
    write_text(tmp_path / "x", "old")
    with suppress(RuntimeError), whole_file(tmp_path / "x") as part:
        part.write_text("half")
        raise RuntimeError
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_a_folder_appears_only_once_it_is_written_and_replaces_all_that_was_there(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").touch()
    with whole_folder(tmp_path / "x") as part:
        (part / "sub").mkdir()
        (part / "sub" / "new").touch()
        assert names(tmp_path / "x") == ["old"]
    assert names(tmp_path / "x") == ["sub"]
    assert names(tmp_path) == ["x"]


def test_a_folder_stays_as_it_was_when_writing_fails(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").touch()
    with suppress(RuntimeError), whole_folder(tmp_path / "x") as part:
        (part / "half").touch()
        raise RuntimeError
    assert names(tmp_path / "x") == ["old"]
    assert names(tmp_path) == ["x"]


def test_what_a_dead_process_of_the_same_id_left_is_not_in_the_way(tmp_path):
    with whole_folder(tmp_path / "x") as part:
        left = part.name
    (tmp_path / left).mkdir()
    (tmp_path / left / "half").touch()
    with whole_folder(tmp_path / "x") as part:
        (part / "new").touch()
    assert names(tmp_path / "x") == ["new"]


def test_json_comes_back_as_it_was_written(tmp_path):
    value = {"a": [1, 0.1, None, True], "name": "Åse"}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_have_are_refused_and_nothing_is_written(number, tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": number})
    assert names(tmp_path) == []


WRITE = """
import sys, time
from pathlib import Path
from pipeline.files import whole_file, whole_folder
with whole_file(Path(sys.argv[1]) / "file") as file, whole_folder(Path(sys.argv[1]) / "folder") as folder:
    file.touch()
    (folder / "inside").touch()
    print("writing", flush=True)
    time.sleep(60)
"""


def test_sweeping_removes_what_dead_processes_left_and_nothing_of_the_living(tmp_path):
    (tmp_path / "deep").mkdir()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, str(tmp_path / "deep")],
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == b"writing\n"
        (tmp_path / "deep" / "mine").touch()
        dead, living = writers
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert len(list((tmp_path / "deep").iterdir())) == 5
        sweep(tmp_path)
        assert names(tmp_path / "deep") == [f".part-{living.pid}-file", f".part-{living.pid}-folder", "mine"]
        assert [path.name for path in Path(tmp_path, "deep", f".part-{living.pid}-folder").iterdir()] == ["inside"]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_sweeping_while_others_write_raises_nothing_and_takes_nothing(tmp_path):
    over = threading.Event()

    def write():
        while not over.is_set():
            with whole_folder(tmp_path / "x") as part:
                (part / "sub").mkdir()
                (part / "sub" / "inside").touch()

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        for _ in range(500):
            sweep(tmp_path)
        over.set()
        writing.result()
    assert names(tmp_path) == ["x"]
