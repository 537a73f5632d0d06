"""A served release, as `evergreen serve` starts it, and what is left of processes afterwards."""

import signal
import ssl
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from project import schema

from pipeline.processes import free_port, wait_until

LOGGED = """
import os, sys
log = os.open(sys.argv.pop(), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1)
os.dup2(log, 2)
from flows.cli.main import main
main()
"""


@dataclass
class Served:
    """A running server: its process, its port, a client of it, and its log."""

    process: Any
    port: int
    client: httpx.Client
    log: Path

    def ask(self, *records):
        return self.client.post("/predict", json={"records": records})

    def send(self, text):
        return self.client.post("/predict", content=text, headers={"Content-Type": "text/csv"})

    def workers(self):
        return [pid for pid, _ in processes_with("bentos.worker", f"--ppid={self.process.pid}")]


@contextmanager
def served(project, model, log, *options, end=signal.SIGTERM, certificate=None):
    """`evergreen serve` of a project's model on a free port, ready; ended by a signal."""
    port = free_port()
    process = project.start("serve", model, "--port", str(port), *options, str(log), code=LOGGED, cold=True)
    try:
        with client_of(port, certificate) as client:
            assert wait_until(lambda: ready(client), process, 60), log.read_text()
            yield Served(process, port, client, log)
    finally:
        process.send_signal(end)
        try:
            process.communicate(timeout=30)
        finally:
            process.kill()


def client_of(port, certificate=None):
    """A client of this machine; with a certificate it speaks HTTPS and trusts nothing else."""
    hooks = {"response": [validate_answer]}
    if certificate is None:
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, event_hooks=hooks)
    trusted = ssl.create_default_context(cafile=certificate)
    url = f"https://127.0.0.1:{port}"
    return httpx.Client(base_url=url, timeout=60, trust_env=False, verify=trusted, event_hooks=hooks)


def validate_answer(response):
    """Fail unless an answer in JSON is as the reference's schema of its path says, or, a refusal, that of a problem."""
    named = {"/history": "history", "/model": "model", "/predict": "predict", "/readyz": "degraded"}
    media = response.headers.get("content-type", "").partition(";")[0]
    name = "problem" if media == "application/problem+json" else named.get(response.url.path)
    if name and media.endswith("json"):
        response.read()
        schema(f"http/{name}").validate(response.json())


def ready(client):
    try:
        return client.get("/readyz", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


def processes_with(text, *selected):
    """The id and command line of every process whose command line has a text in it."""
    # Without -ww, ps cuts its lines to the width of the terminal that pytest was started in.
    command = ["ps", *(selected or ["-e"]), "-ww", "-o", "pid=,args="]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = [line.strip().partition(" ") for line in listed.splitlines() if text in line]
    return [(int(pid), command) for pid, _, command in found]


def until(condition, seconds=30):
    """Whether a condition comes to hold."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return found
