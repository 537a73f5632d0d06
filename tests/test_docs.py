"""The README and the pages of docs/: their links lead somewhere, their commands exist, and their code runs."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from project import CHECKOUT

from flows.cli.main import app
from flows.outcome import EXIT_CODES

README = CHECKOUT / "README.md"
PAGES = sorted([README, *(CHECKOUT / "docs").rglob("*.md")])
LINKED = [*PAGES, CHECKOUT / "CONTRIBUTING.md"]
COMMANDS = typer.main.get_command(app).commands
TARGETS = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
NO_RUN = {
    "needs a remote",
    "needs a Prefect server of yours",
    "needs a release that waits; tests/flows/test_releasing.py makes one",
    "runs until Ctrl-C; tests/flows/test_up.py runs it",
}
"""Why a block may stay untried. A new reason is a decision, not a convenience."""


def page_name(path):
    return path.relative_to(CHECKOUT).as_posix()


@dataclass(frozen=True)
class Block:
    """One block of code of a page.

    Attributes:
        page: the file.
        line: its first line, from 1.
        language: what stands after the three backticks.
        text: the lines between them.
        no_run: why it is not run, as the comment before it says; None: it is.
    """

    page: Path
    line: int
    language: str
    text: str
    no_run: str | None


def blocks(page: Path) -> Iterator[Block]:
    pattern = r"^(?:<!-- no-run: (?P<why>.*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$"
    text = page.read_text()
    for match in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
        line = text[: match.start("text")].count("\n") + 1
        yield Block(page, line, match["language"], match["text"], match["why"])


BLOCKS = [block for page in LINKED for block in blocks(page)]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def inline(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def commands(program: str) -> list[tuple[str, list[str]]]:
    """The arguments of every call of a program in a block or between backticks, with the page it stands on."""
    lines = [(block.page, line) for block in BLOCKS if block.language == "sh" for line in block.text.splitlines()]
    lines += [(page, text) for page in LINKED for text in inline(page)]
    found = []
    for page, line in lines:
        call = re.match(rf"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/)?{program} (.*)", line.strip())
        if call:
            found.append((page_name(page), shlex.split(call[1].replace("…", ""), comments=True)))
    return found


def options(command: str) -> set[str]:
    return {option for parameter in COMMANDS[command].params for option in parameter.opts} | {"--help"}


# What is written


def test_the_readme_is_read_in_minutes():
    text = README.read_text()
    assert len(text.splitlines()) <= 120
    assert len(text.split()) <= 900


def test_the_readme_begins_with_make_run_and_make_test():
    assert [arguments for page, arguments in commands("make") if page == "README.md"][:2] == [["run"], ["test"]]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=page_name)
def test_every_link_and_image_leads_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != README], ids=page_name)
def test_every_page_is_in_the_index(page):
    index = CHECKOUT / "docs" / "README.md"
    if page == index or "reference" in page.parts:
        return
    linked = {
        (index.parent / link.partition("#")[0]).resolve() for link in re.findall(r"\]\(([^)\s]+)\)", prose(index))
    }
    assert page.resolve() in linked


@pytest.mark.parametrize(("page", "arguments"), commands("make"), ids=str)
def test_every_make_command_exists(page, arguments):  # noqa: ARG001
    assert {word for word in arguments if "=" not in word and not word.startswith("-")} <= TARGETS


@pytest.mark.parametrize(("page", "arguments"), commands("evergreen"), ids=str)
def test_every_evergreen_command_exists_with_its_options(page, arguments):  # noqa: ARG001
    command, *rest = arguments
    if command.startswith("-"):
        assert command == "--help"
        return
    assert command in COMMANDS
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= options(command)


def test_every_option_named_in_the_text_is_one_of_some_command():
    others = {"--line", "--listener", "--json", "--data-binary", "--check", "--minutes", "--durations"}
    named = {
        word
        for page in PAGES
        for text in inline(page)
        if " " not in text or text.startswith("--")
        for word in re.findall(r"^--[a-z-]+|(?<= )--[a-z-]+", text)
    }
    assert named
    assert named <= {option for command in COMMANDS for option in options(command)} | others


def test_the_table_of_outcomes_has_every_outcome_with_its_exit_code():
    rows = re.findall(r"^\| `([a-z-]+)` \|.*\| (\d) \|$", README.read_text(), re.MULTILINE)
    assert {name: int(code) for name, code in rows} == EXIT_CODES


@pytest.mark.parametrize("page", LINKED, ids=page_name)
def test_every_file_of_the_project_that_is_named_is_there(page):
    rooms = r"(?:pipeline|expectations|bentos|flows|tests|bench|docs)"
    named = {path for text in inline(page) for path in re.findall(rf"(?<![\w/]){rooms}/[\w/]+(?:\.\w+|/)", text)}
    yours = ("pipeline/models/sales.py", "expectations/suites/sales.py")
    assert [path for path in sorted(named) if path not in yours and not (CHECKOUT / path).exists()] == []


def test_the_records_that_are_sent_as_an_example_have_what_the_model_requires():
    from pipeline.models.house_prices import spec

    bodies = [json.loads(body) for body in re.findall(r"--json '(\{.*?GrLivArea.*?\})'", README.read_text())]
    assert bodies
    for record in (record for body in bodies for record in body["records"]):
        assert set(spec.required) <= set(record) <= set(spec.features)


def test_what_is_not_run_has_one_of_a_few_reasons():
    assert {block.no_run for block in BLOCKS if block.no_run} <= NO_RUN
    assert sum(block.no_run is not None for block in BLOCKS) <= 6


# What runs: Python


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if "tutorial" not in page.parts and any(block.language == "python" for block in blocks(page))
    ],
    ids=page_name,
)
def test_the_python_of_a_page_runs_in_one_namespace(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    script = [block for block in blocks(page) if block.language == "python"]
    if any("127.0.0.1:3000" in block.text for block in script):
        answer_as_house_prices(monkeypatch)
    namespace = {"load": pd.DataFrame, "__name__": request.node.name}
    for block in script:
        exec(compile("\n" * (block.line - 1) + block.text, page_name(page), "exec"), namespace)


def answer_as_house_prices(monkeypatch):
    """Let httpx clients reach, in place of a server, one that answers as the contract says."""
    import httpx

    def answer(sent):
        records = json.loads(sent.content)["records"]
        assert sent.url.path == "/predict"
        return httpx.Response(200, json={"predictions": [1.0] * len(records), "model": "house_prices", "release": 1})

    original = httpx.Client.__init__

    def begin(client, *arguments, **named):
        original(client, *arguments, **named, transport=httpx.MockTransport(answer))

    monkeypatch.setattr(httpx.Client, "__init__", begin)


# What runs: commands

MODEL = '''
"""House prices, in a size that is trained in a moment."""

from sklearn.linear_model import Ridge

from pipeline.sources import Csv
from pipeline.spec import Gate, ModelSpec, Regression, RequestLog

spec = ModelSpec(
    name="house_prices",
    source=Csv("house_prices.csv"),
    key=("Id",),
    target="SalePrice",
    task=Regression(unit="USD"),
    candidates={"ridge": Ridge()},
    metric="rmse",
    features=("GrLivArea", "OverallQual", "LotArea"),
    gate=Gate(at_most=50_000, tolerance=10_000),
    log=RequestLog(sample_rate=1.0),
)
'''
SUITE = """
from great_expectations import expectations as gxe

from expectations.validate import Suite

suite = Suite(error=[gxe.ExpectColumnValuesToBeUnique(column="Id")])
"""
FOREGROUND = re.compile(r"^(evergreen serve|make serve)\b")
EXIT = re.compile(r"#.*\bexit code (\d)")


def houses(rows, seed):
    """Sales with the columns that the pages name, at prices that a line fits; three years, a month each in turn."""
    rng = np.random.default_rng(seed)
    area, quality, lot = rng.integers(800, 3_000, rows), rng.integers(1, 11, rows), rng.integers(3_000, 15_000, rows)
    price = 20_000 + 80 * area + 9_000 * quality + 2 * lot + rng.normal(0, 5_000, rows)
    month = np.arange(rows) % 36
    return pd.DataFrame(
        {
            "Id": np.arange(1, rows + 1),
            "GrLivArea": area,
            "OverallQual": quality,
            "LotArea": lot,
            "Yr Sold": 2008 + month // 12,
            "Mo Sold": 1 + month % 12,
            "SalePrice": price.round(-2),
        }
    )


@dataclass
class Folder:
    """A project's folder in which the commands of a page are typed.

    Attributes:
        path: the folder.
        env: the environment of its commands.
        port: what stands for port 3000 of the pages.
        servers: the processes that a page started and left running.
    """

    path: Path
    env: dict[str, str]
    port: int
    servers: list[subprocess.Popen[bytes]]

    def type(self, block: Block) -> str:
        """Run the lines of a block as a shell would, each in turn; return what they printed."""
        printed = []
        for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            command = line.replace(":3000", f":{self.port}").replace("--port 3000", "")
            command = command.replace("/srv/evergreen", self.env["ELSEWHERE"])
            where = f"{page_name(block.page)}:{block.line}: {line}"
            if FOREGROUND.match(command):
                self.serve(command.partition("#")[0].strip(), where)
                continue
            done = subprocess.run(
                ["bash", "-c", command], cwd=self.path, env=self.env, capture_output=True, text=True, check=False
            )
            wanted = int(found[1]) if (found := EXIT.search(line)) else 0
            assert done.returncode == wanted, f"{where}\n{done.stdout}\n{done.stderr}"
            printed.append(done.stdout)
        text = "".join(printed)
        print(f"--- {page_name(block.page)}:{block.line}\n{text}")
        return text

    def serve(self, command: str, where: str) -> None:
        """Start a server and leave it running, once it answers."""
        command += f' ARGS="--port {self.port}"' if command.startswith("make") else f" --port {self.port}"
        log = self.path / "serve.log"
        with log.open("w") as out:
            self.servers.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec {command}"],
                    cwd=self.path,
                    env=self.env,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        for _ in range(600):
            answered = subprocess.run(
                ["curl", "-sf", f"127.0.0.1:{self.port}/readyz"], capture_output=True, check=False
            )
            if answered.returncode == 0:
                return
            assert self.servers[-1].poll() is None, f"{where}\n{log.read_text()}"
            time.sleep(0.1)
        raise AssertionError(f"{where} did not answer\n{log.read_text()}")

    def python(self, block: Block) -> None:
        """Run a Python block in the folder."""
        code = block.text.replace(":3000", f":{self.port}")
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=self.path, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{page_name(block.page)}:{block.line}\n{done.stderr}"

    def end(self) -> None:
        """End what the page left running."""
        for server in self.servers:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGINT)
                server.wait(60)
        self.servers.clear()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def new_folder(path: Path, prefect: str) -> Folder:
    """An empty project with the Makefile, whose set-up counts as done and whose tests are none."""
    for name in ("pipeline/models", "expectations/suites", ".venv"):
        (path / name).mkdir(parents=True)
    for name in ("bin", "lib", "pyvenv.cfg"):
        (path / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, path)
    for name in ("run", "dev"):
        (path / ".venv" / name).touch()
    dropped = ("EVERGREEN_", "PYTHONPATH", "MAKEFLAGS")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)} | {
        "PATH": f"{path / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PREFECT_API_URL": prefect,
        "MAKEFLAGS": "-- PYTEST=true",
        "SHOP_URL": f"sqlite:///{path / 'shop.db'}",
        "ELSEWHERE": str(path / "elsewhere"),
    }
    return Folder(path, env, free_port(), [])


@pytest.fixture(scope="module")
def two_releases(tmp_path_factory, prefect_server):
    """A project whose small model `house_prices` was released twice, with the files that the pages name."""
    import sqlite3

    folder = new_folder(tmp_path_factory.mktemp("docs") / "project", prefect_server)
    path = folder.path
    (path / "pipeline/models/house_prices.py").write_text(MODEL)
    (path / "expectations/suites/house_prices.py").write_text(SUITE)
    shutil.copy(CHECKOUT / "pipeline/models/_ames.py", path / "pipeline/models")
    for seed, rows in enumerate((300, 400)):
        houses(rows, seed).to_csv(path / "house_prices.csv", index=False)
        done = subprocess.run(
            ["evergreen", "run", "house_prices", "--json"], cwd=path, env=folder.env, capture_output=True, check=False
        )
        assert json.loads(done.stdout)["release"] == seed + 1, done
    more = houses(500, 3)
    for name in ("history.csv", "new.csv"):
        more.to_csv(path / name, index=False)
    more.rename(columns={"Id": "id", "SalePrice": "price"}).to_csv(path / "sales.csv", index=False)
    asked = more.drop(columns=["SalePrice", "Yr Sold", "Mo Sold"])
    asked.to_csv(path / "houses.csv", index=False)
    asked.to_parquet(path / "houses.parquet")
    with sqlite3.connect(path / "shop.db") as shop:
        asked.to_sql("houses", shop, index=False)
    return folder


@pytest.fixture
def folder(two_releases, tmp_path):
    """A copy of that project, with its own port; what a page starts ends with the test."""
    copy = tmp_path / "project"
    shutil.copytree(two_releases.path, copy, symlinks=True)
    env = {name: value.replace(str(two_releases.path), str(copy)) for name, value in two_releases.env.items()}
    found = Folder(copy, env, free_port(), [])
    yield found
    found.end()


def typed(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "sh" and block.no_run is None]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if "tutorial" not in page.parts and "internals" not in page.parts and typed(page)],
    ids=page_name,
)
def test_the_commands_of_a_page_do_what_they_say(page, folder):
    for block in typed(page):
        folder.type(block)


def test_the_javascript_client_runs(tmp_path):
    """Node asks a server that answers as the contract says."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not on the PATH")
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self):
            records = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["records"]
            right = self.path == "/predict" and self.headers["Content-Type"] == "application/json"
            body = json.dumps({"predictions": [1.5] * len(records), "release": 7} if right else {"detail": "wrong"})
            self.send_response(200 if right else 400)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    page = CHECKOUT / "docs/how-to/serving-and-clients.md"
    [script] = [block.text for block in blocks(page) if block.language == "js"]
    with HTTPServer(("127.0.0.1", 0), Endpoint) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        file = tmp_path / "client.mjs"
        file.write_text(script.replace(":3000", f":{server.server_port}"))
        done = subprocess.run([node, file], capture_output=True, text=True, check=False)
        server.shutdown()
    assert (done.returncode, done.stdout.strip()) == (0, "[ 1.5 ] 7"), done.stderr


@pytest.mark.slow
def test_the_first_tutorial_is_as_it_says(folder):
    """With the small model: what the page types works, in order."""
    for block in typed(CHECKOUT / "docs/tutorial/first-model.md"):
        folder.type(block)


@pytest.mark.slow
def test_the_second_and_the_third_tutorial_are_as_they_say(tmp_path, prefect_server):
    """One after the other in one folder, as people read them: the third goes on with the second one's model."""
    folder = new_folder(tmp_path / "project", prefect_server)
    try:
        for page in ("your-own-table.md", "a-month-of-operation.md"):
            for block in blocks(CHECKOUT / "docs/tutorial" / page):
                if block.language == "python":
                    folder.python(block)
                elif block.language == "sh":
                    folder.type(block)
            folder.end()
    finally:
        folder.end()
