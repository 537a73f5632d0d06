from sqlalchemy import make_url

from pipeline.settings import settings


def test_state_lives_under_one_folder_which_is_made_when_it_is_needed(home):
    assert not home.exists()
    assert settings().folder("trained", "houses") == home / "trained" / "houses"
    assert (home / "trained" / "houses").is_dir()
    assert str(settings().ledger_url) == f"sqlite:///{home}/ledger.sqlite"


def test_the_ledger_is_in_the_folder_whatever_its_name(home, monkeypatch):
    monkeypatch.setenv("EVERGREEN_HOME", f"{home}/a b?c#d%20")
    assert make_url(settings().ledger_url).database == f"{home}/a b?c#d%20/ledger.sqlite"


def test_without_an_environment_the_folder_is_in_the_project(home, tmp_path, monkeypatch):
    monkeypatch.delenv("EVERGREEN_HOME")
    (tmp_path / "project" / "pipeline" / "models").mkdir(parents=True)
    monkeypatch.setenv("EVERGREEN_PROJECT", str(tmp_path / "project"))
    assert settings().home == tmp_path / "project" / ".evergreen"
    assert not home.exists()


def test_the_ledger_may_live_in_another_database(home, monkeypatch):
    for name in ("postgresql+psycopg", "postgresql"):
        monkeypatch.setenv("EVERGREEN_DATABASE_URL", f"{name}://me:secret@host/ledger")
        url = settings().ledger_url.render_as_string(hide_password=False)
        assert url == "postgresql+psycopg://me:secret@host/ledger"
    assert not home.exists()
