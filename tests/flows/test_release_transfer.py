"""A release goes from one home to another with its proofs, and is entered there only when all of them hold."""

import json
import shutil
import tarfile
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from project import points
from serving import served

from bentos.ledger.database import open_ledger
from flows.release_transfer import unpack
from pipeline.errors import ArtifactError
from pipeline.settings import Settings


@pytest.fixture(scope="module")
def test_home(tmp_path_factory, first_release):
    """A project with two releases, both written to files."""
    project = first_release.copied(tmp_path_factory.mktemp("test") / "project")
    project.data(points(rows=300))
    assert project.json("run", "points")[1]["release"] == 2
    for number in (1, 2):
        said = project.json("archive", "points", str(number), str(project.folder / f"{number}.tar"))[1]
        assert (said["release"], said["file"]) == (number, str(project.folder / f"{number}.tar"))
    return project


@pytest.fixture
def production(test_home, tmp_path):
    """The same project with an empty home."""
    shutil.copytree(test_home.folder, tmp_path / "project", ignore=shutil.ignore_patterns(".evergreen"))
    return type(test_home)(tmp_path / "project", dict(test_home.env))


def changed(production, number, path, change):
    """One of the files, with a part of it changed."""
    folder = production.folder / Path(path).name
    with tarfile.open(production.folder / f"{number}.tar") as archive:
        archive.extractall(folder)
    (place,) = folder.glob(path)
    content = change(place.read_bytes())
    place.unlink()
    place.write_bytes(content)
    with tarfile.open(folder.with_suffix(".changed"), "w") as archive:
        for one in folder.iterdir():
            archive.add(one, one.name)
    return folder.with_suffix(".changed").name


def imported(production, name):
    code, said = production.json("import", str(production.folder / name))
    assert code in (0, 1)
    return said


@pytest.mark.parametrize(("name", "kind"), [("../out", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)])
def test_an_archive_with_what_is_no_file_of_its_own_is_refused_and_writes_nothing_elsewhere(tmp_path, name, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "odd.tar", "w") as archive:
        archive.addfile(member)
    settings = Settings(home=tmp_path / "home", database_url="")
    with pytest.raises(ArtifactError, match=r"odd\.tar is not a complete archive of a release: '(\.\./out|link)'"):
        unpack(settings, open_ledger(settings.ledger_url), tmp_path / "odd.tar")
    assert not [*tmp_path.rglob("out"), *tmp_path.rglob("link")]


@pytest.mark.slow
def test_a_release_is_champion_where_it_was_judged_against_the_champion_and_awaits_approval_elsewhere(
    production, tmp_path
):
    said = imported(production, "1.tar")
    assert (said["release"], said["state"], said["reasons"][1]) == (1, "champion", "there was no champion here")
    said = imported(production, "2.tar")
    assert (said["release"], said["state"]) == (2, "champion")
    assert said["reasons"][1] == "it was evaluated against the champion here, release 1"
    assert "it already is release 2 of points here: champion" in imported(production, "2.tar")["error"]["message"]

    explained = production.json("release", "points", "2")[1]
    assert (explained["cause"], explained["rows"]["all"], explained["trial"]["passed"]) == ("import", 300, True)
    assert json.loads((production.folder / explained["report"]).with_name("outcome.json").read_text())["release"] == 2
    assert production.json("reproduce", "points", "2")[1]["equal"]
    with served(production, "points", tmp_path / "log") as server:
        assert server.ask({"x": 1.0, "z": 0.0}).json()["release"] == 2
        assert production.json("rollback", "points", "--why", "no")[1]["release"] == 1
    assert "are blocked here: rolled back to 1" in imported(production, "2.tar")["error"]["message"]
    assert production.files("**/.part-*") == []


def test_a_snapshot_whose_rows_are_others_than_they_were_is_not_packed(test_home, tmp_path):
    mine = type(test_home)(shutil.copytree(test_home.folder, tmp_path / "mine"), dict(test_home.env))
    name = mine.json("release", "points", "1")[1]["digests"]["snapshot"]
    rows = mine.home / "snapshots" / f"{name}.parquet"
    table = pq.read_table(rows)
    other = table.set_column(table.column_names.index("x"), "x", pc.add(table["x"], 1.0))
    for damage, sentence in [
        (
            lambda: pq.write_table(other, rows),
            f"snapshot {name}.parquet of release 1 of points is not the one it was trained on",
        ),
        (lambda: rows.write_bytes(b"PAR1"), "the snapshot of release 1 of points cannot be read: "),
        (lambda: rows.unlink(), "the snapshot of release 1 of points cannot be read: "),
    ]:
        damage()
        code, said = mine.json("archive", "points", "1", str(tmp_path / "1.tar"))
        assert (code, said["error"]["type"]) == (1, "ArtifactError")
        assert said["error"]["message"].startswith(sentence)
        assert said["error"]["message"].endswith("; restore it from a copy, or another home will refuse the archive")
    assert not (tmp_path / "1.tar").exists()


def test_into_a_model_that_is_held_nothing_is_imported_and_nothing_is_left(production):
    assert imported(production, "1.tar")["state"] == "champion"
    assert production.json("hold", "points", "--why", "audit")[0] == 0
    before = production.files("bentoml/bentos/*/*"), production.files("snapshots/*")
    message = imported(production, "2.tar")["error"]["message"]
    assert message.startswith("points is held at release 1 since")
    assert message.endswith("`evergreen unhold points` ends it")
    assert (production.files("bentoml/bentos/*/*"), production.files("snapshots/*")) == before
    assert production.json("unhold", "points")[0] == 0
    assert imported(production, "2.tar")["state"] == "champion"


@pytest.mark.slow
def test_what_was_judged_against_another_champion_waits_for_a_person(production):
    assert imported(production, "2.tar")["state"] == "champion"
    said = imported(production, "1.tar")
    assert (said["release"], said["state"]) == (2, "awaiting-approval")
    assert said["reasons"][1] == "it was not evaluated against the champion here, release 1"
    assert production.champion() == 1
    assert production.json("promote", "points", "2", "--why", "known")[0] == 0
    assert production.champion() == 2


def test_what_was_changed_on_the_way_is_refused_by_name_and_nothing_is_entered(production):
    (production.folder / "half.tar").write_bytes((production.folder / "1.tar").read_bytes()[:200_000])
    (production.folder / "none.tar").write_text("x")
    flip = lambda content: content[:-1] + bytes([content[-1] ^ 1])  # noqa: E731
    incomplete = ("artifact.not_an_archive", "is not a complete archive of a release")
    for name, (code, sentence) in [
        ("half.tar", incomplete),
        ("none.tar", incomplete),
        (
            changed(production, 1, "package/src/artifact/model.joblib", flip),
            ("artifact.changed", "package/src/artifact/model.joblib has changed since it was written"),
        ),
        (changed(production, 1, "snapshot/*.parquet", flip), ("artifact.changed", "has changed since it was written")),
    ]:
        said = imported(production, name)["error"]
        assert (said["code"], said["type"]) == (code, "ArtifactError")
        assert sentence in said["message"]
        assert (
            "write it again with `evergreen archive" in said["message"] or "write the archive again" in said["message"]
        )
    production.env["EVERGREEN_SIGNING_KEY"] = "ours"
    said = imported(production, "1.tar")["error"]
    assert said["code"] == "artifact.not_signed"
    assert "is not signed" in said["message"]
    assert production.json("history", "points")[1]["releases"] == []
    assert production.files("bentoml/bentos/*/*") == production.files("snapshots/*") == []
    assert production.files("**/.part-*") == []


def resealed(folder_of):
    """A row of the ledger that names another file, under a manifest that was made to fit."""

    def change(content):
        manifest = json.loads(content)
        folder_of(manifest["release"])
        return json.dumps(manifest).encode()

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda row: row.update(bento="points:../../x"), "is not the package of artifact"),
        (lambda row: row["digests"].update(snapshot="../../x"), "digests are 64 hexadecimal digits"),
        (lambda row: row.update(model="../x"), "there is no model '../x'"),
        (lambda row: row["digests"].update(bento="0" * 64), "is not what was released"),
        (lambda row: row.pop("verdict"), "does not hold a valid release: TypeError"),
        (lambda row: row["verdict"].update(reasons=["the best"]), "the verdict in"),
        (lambda row: row["digests"].update(code="0" * 64), "the digest of the code in"),
    ],
)
def test_a_row_that_somebody_wrote_names_no_file_of_this_home(production, change, sentence):
    assert (
        sentence in imported(production, changed(production, 1, "manifest.json", resealed(change)))["error"]["message"]
    )
    assert production.files("bentoml/bentos/*/*") == []
