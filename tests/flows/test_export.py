"""What an export holds, what it refuses, what its files say by their own schemas, and that its image would serve."""

import json
import os
import py_compile
import shutil
import subprocess
import sys

import httpx
import kubernetes_validate
import numpy as np
import pytest
import yaml
from project import CHECKOUT, MODEL, copy_of_the_project
from serving import client_of, ready

from flows.export import TEMPLATES, size, templates
from pipeline import digest
from pipeline.artifact import load_artifact
from pipeline.predict import Answers, disagreements
from pipeline.processes import free_port, wait_until

SCHEDULED = MODEL.replace(
    "    gate=", '    schedule=Cron("0 3 * * 1", timezone="America/Chicago"),\n    gate='
).replace("import Gate,", "import Cron, Gate,")


@pytest.fixture(scope="module")
def project(tmp_path_factory, prefect_server):
    """A project whose model has a schedule and a release."""
    project = copy_of_the_project(tmp_path_factory.mktemp("project"), prefect_server)
    for name in ("evergreen.py", "pyproject.toml", "requirements.in", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, project.folder / name)
    project.write("pipeline/models/points.py", SCHEDULED)
    assert project.json("run", "points")[0] == 0
    return project


@pytest.fixture(scope="module")
def exported(project, tmp_path_factory):
    """An export of the champion, from a checkout whose files were compiled, as an image's build does."""
    py_compile.compile(str(project.folder / "flows" / "exported" / "project" / "worker.py"), doraise=True)
    folder = tmp_path_factory.mktemp("exported") / "points"
    code, said = project.json("export", "points", str(folder), "--port", "3100")
    assert code == 0, said
    assert said == {
        "model": "points",
        "release": 1,
        "bento": facts(folder)["bento"],
        "folder": str(folder),
    }
    return folder


def facts(folder):
    return json.loads((folder / "release.json").read_text())


def refused(project, *arguments, exit_code=1):
    code, said = project.json("export", "points", *map(str, arguments))
    assert code == exit_code
    return said["error"]["message"]


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def documents(folder, *names):
    return [yaml.safe_load((folder / name).read_text()) for name in names]


def test_an_export_holds_the_package_and_the_project_as_they_are(project, exported):
    bento = project.home / "bentoml" / "bentos" / facts(exported)["bento"].replace(":", "/")

    assert digest.of_folder(exported / "package") == digest.of_folder(bento)
    for room in ("pipeline", "expectations", "bentos", "flows"):
        assert digest.of_folder(exported / "project" / room) == digest.of_folder(project.folder / room)
    assert facts(exported)["project"] == digest.of_folder(exported / "project")[:16]
    assert not [name for name in files(exported / "project") if ".evergreen" in name or "points.csv" in name]


def test_an_export_names_all_its_files_and_nothing_is_left_to_be_put_in(exported):
    assert set(facts(exported)["files"]) == files(exported)
    rendered = [exported / path.relative_to(TEMPLATES) for path in templates()]
    texts = [path.read_text() for path in rendered if path.name != "release.Dockerfile"]
    assert len(texts) > 20
    assert not [text for text in texts if "<<" in text.replace("<<: *", "").replace("<<-EOT", "")]


def test_the_image_is_bentomls_with_the_release_in_its_environment_and_is_not_run_by_root(exported):
    text = (exported / "Dockerfile").read_text()
    theirs = (exported / "package" / "env" / "docker" / "Dockerfile").read_text()
    artifact = load_artifact(exported / "package" / "src" / "artifact")

    assert text.startswith(theirs.rstrip())
    lines = text.removeprefix(theirs.rstrip()).splitlines()
    assert "ENV EVERGREEN_RELEASE=1" in lines
    assert f"ENV EVERGREEN_ARTIFACT={artifact.digest}" in lines
    assert "ENV BENTOML_PORT=3100" in lines
    assert "USER 1034:1034" in lines


def test_the_same_image_is_named_everywhere(exported):
    tag = facts(exported)["tag"]
    assert tag == f"1-{facts(exported)['artifact'][:16]}"

    (compose, kustomization, workflow) = documents(
        exported, "compose.yaml", "kubernetes/kustomization.yaml", ".github/workflows/deploy.yml"
    )
    assert compose["services"]["service"]["image"] == f"points:{tag}"
    assert kustomization["images"] == [{"name": "points", "newName": "points", "newTag": tag}]
    assert workflow["jobs"]["deploy"]["env"]["TAG"] == tag
    assert f'release = "{tag}"' in (exported / "terraform" / "release.auto.tfvars").read_text()


def test_the_worker_tells_the_prefect_server_the_schedule_of_the_spec(project, exported, tmp_path):
    url = project.env["PREFECT_API_URL"]
    with httpx.Client(base_url=url, trust_env=False) as client:
        # All tests share the server; another one may have deployed a model of that name.
        if before := deployed(client):
            client.delete(f"/deployments/{before['id']}").raise_for_status()
    process = subprocess.Popen(
        [sys.executable, "worker.py", "points"],
        cwd=exported / "project",
        env=os.environ | {"PREFECT_API_URL": url, "EVERGREEN_HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=url, trust_env=False) as client:
            assert wait_until(lambda: deployed(client) is not None, process, 60)
            said = deployed(client)
    finally:
        process.terminate()
        process.wait(30)
    assert said["parameters"] == {"model": "points", "cause": "schedule"}
    (schedule,) = said["schedules"]
    assert schedule["active"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 3 * * 1", "America/Chicago")


def deployed(client):
    answer = client.get("/deployments/name/retrain/points")
    return answer.json() if answer.status_code == 200 else None


@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_the_manifests_are_what_kubernetes_takes(exported, version):
    (kustomization,) = documents(exported, "kubernetes/kustomization.yaml")
    manifests = documents(exported / "kubernetes", *kustomization["resources"])

    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)
    assert {one["kind"] for one in manifests} == {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
    }
    assert {one["metadata"]["name"] for one in manifests} == {"points"}


def test_a_pod_may_do_nothing_but_write_below_tmp_and_ends_after_its_requests(exported):
    (deployment,) = documents(exported, "kubernetes/deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    assert container["ports"] == [{"name": "http", "containerPort": 3100}]
    # 10 seconds until no proxy sends anything, 30 for what is in flight.
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "10"]
    assert pod["terminationGracePeriodSeconds"] > 10 + 30


@pytest.mark.skipif(shutil.which("terraform") is None, reason="Terraform is not installed")
def test_terraform_files_are_written_as_terraform_writes_them(exported):
    checked = subprocess.run(["terraform", "fmt", "-check", "-recursive"], cwd=exported / "terraform", check=False)
    assert checked.returncode == 0


def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_was(project, exported, tmp_path):
    (tmp_path / "mine").write_text("mine")

    for options in ([], ["--force"]):
        assert refused(project, tmp_path, *options) == f"{tmp_path} is not empty and not an export; name another folder"
    assert refused(project, tmp_path / "mine") == f"{tmp_path / 'mine'} is a file; name a folder"
    inside = f"{tmp_path / 'mine'} is a file, not a folder; name another path"
    assert refused(project, tmp_path / "mine" / "sub") == refused(project, tmp_path / "mine" / "a" / "b") == inside
    code, found = project.json("archive", "points", "1", str(tmp_path / "mine" / "1.tar"))
    assert (code, found["error"]["message"]) == (1, inside)
    assert refused(project, exported) == f"{exported} holds an export; name another folder, or replace it with --force"
    assert files(tmp_path) == {"mine"}


def test_force_replaces_an_export_and_keeps_what_no_export_wrote(project, exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "points")
    (folder / "terraform" / "terraform.tfstate").write_text("{}")
    (folder / ".git" / "refs").mkdir(parents=True)
    (folder / "compose.yaml").write_text("changed by hand")
    listed = facts(folder) | {"files": [*facts(folder)["files"], "package/gone"]}
    (folder / "release.json").write_text(json.dumps(listed))
    (folder / "package" / "gone").write_text("of the release before")

    assert project.json("export", "points", "1", str(folder), "--port", "3100", "--force")[0] == 0
    assert files(folder) == {*files(exported), "terraform/terraform.tfstate"}
    assert (folder / "compose.yaml").read_bytes() == (exported / "compose.yaml").read_bytes()
    assert (folder / ".git" / "refs").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["points"]


def test_two_exports_of_a_release_are_the_same_to_the_byte(project, exported, tmp_path):
    assert project.json("export", "points", str(tmp_path), "--port", "3100")[0] == 0

    assert digest.of_folder(tmp_path) == digest.of_folder(exported)


def test_what_is_not_there_cannot_be_exported(project, tmp_path):
    assert refused(project, "7", tmp_path / "out") == "points has no release 7 to export; its releases are: 1"
    assert "is not `N DIR`" in refused(project, "one", tmp_path / "out", exit_code=2)
    nothing = "the folder is missing: `evergreen export points DIR`"
    assert refused(project, exit_code=2) == nothing
    assert not (tmp_path / "out").exists()


def test_a_package_that_was_damaged_is_not_exported(project, tmp_path):
    copied = shutil.copytree(project.folder, tmp_path / "project")
    home = copied / ".evergreen"
    (golden,) = home.glob("bentoml/bentos/points/*/src/artifact/golden.json")
    golden.write_text(golden.read_text() + " ")
    damaged = type(project)(copied, project.env)

    assert "is not what was released" in refused(damaged, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


@pytest.mark.parametrize(
    ("mebibytes", "expected"), [(0, (512, 1024)), (128, (512, 1024)), (129, (512, 2048)), (10_000, (4096, 30720))]
)
def test_a_service_asks_for_half_a_gibibyte_and_four_times_its_artifact_in_whole_gibibytes(mebibytes, expected):
    assert size(mebibytes * 2**20) == expected


@pytest.mark.slow
def test_the_images_command_with_its_requirements_alone_serves_what_was_released_and_writes_nothing_there(
    exported, tmp_path
):
    package = shutil.copytree(exported / "package", tmp_path / "package")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    needed = package / "env" / "python" / "requirements.txt"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", needed], check=True)
    (tmp_path / "tmp").mkdir()
    for path in (package, *package.rglob("*")):
        path.chmod(0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444)

    before = digest.of_folder(package)
    port = free_port()
    declared, arguments = environment_and_arguments(exported / "Dockerfile")
    env = declared | {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "BENTO_PATH": str(package),
        "BENTOML_HOME": str(tmp_path / "tmp" / "bentoml"),
        "TMPDIR": str(tmp_path / "tmp"),
        "BENTOML_PORT": str(port),
    }
    command = ["bash", str(package / "env" / "docker" / "entrypoint.sh"), *arguments]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=package, env=env, stdout=output, stderr=output)
    try:
        with client_of(port) as client:
            assert wait_until(lambda: ready(client), process, 120), log.read_text()
            check_golden(client, load_artifact(exported / "package" / "src" / "artifact"))
        process.terminate()
        assert process.wait(40) == 0
    finally:
        process.kill()
    assert digest.of_folder(package) == before


def environment_and_arguments(dockerfile):
    """What our part of a Dockerfile says: ENV, and the last CMD."""
    lines = dockerfile.read_text().partition("it is release")[2].splitlines()
    env = dict(line.removeprefix("ENV ").split("=", 1) for line in lines if line.startswith("ENV "))
    (arguments,) = [json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")]
    return env, arguments


def check_golden(client: httpx.Client, artifact):
    rows, expected = artifact.golden()
    together = client.post("/predict", json={"records": rows}).json()
    alone = [client.post("/predict", json={"records": [row]}).json() for row in rows]

    for predictions in (together["predictions"], [answer["predictions"][0] for answer in alone]):
        assert not disagreements(Answers(np.array(predictions)), expected, artifact.manifest["scale"])
    assert {answer["release"] for answer in (together, *alone)} == {1}
