import httpx
import pytest

from flows.reports import http
from pipeline.files import write_json
from pipeline.settings import Settings

RUN = "45f2fbca-1388-400b-ae35-df4caafc313c"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    settings = Settings(home=tmp_path)
    run = settings.folder("runs", "houses", RUN)
    (run / http.CARD).write_text("<p>the card</p>", encoding="utf-8")
    (run / "outcome.json").write_text("{}")
    return settings


def test_a_run_s_pages_are_served_and_nothing_else_of_its_folder(settings):
    with http.serving(settings.folder("runs"), 0) as there:
        card = httpx.get(f"{there}/houses/{RUN}/{http.CARD}")
        assert (card.status_code, card.text) == (200, "<p>the card</p>")
        assert "default-src 'none'" in card.headers["content-security-policy"]
        for path in (
            "",
            "houses/",
            f"houses/{RUN}/outcome.json",
            f"houses/{RUN}/validation.html",
            f"../houses/{RUN}/x",
        ):
            assert httpx.get(f"{there}/{path}").status_code == 404
        elsewhere = httpx.get(f"{there}/houses/{RUN}/{http.CARD}", headers={"Host": "evil.example:4201"})
        assert elsewhere.status_code == 404


def test_where_the_port_is_taken_nothing_is_served_and_nothing_breaks(settings):
    with http.serving(settings.folder("runs"), 0) as there:
        port = int(there.rpartition(":")[2])
        with http.serving(settings.folder("runs"), port) as again:
            assert again is None


def test_links_lead_to_the_pages_that_are_there_and_where_they_are_served(settings, monkeypatch):
    run = settings.folder("runs", "houses", RUN)
    assert http.links(settings, run) == {"model card": f"http://127.0.0.1:4201/houses/{RUN}/card.html"}
    write_json(settings.folder("prefect") / "server.json", {"url": "", "pages": "http://127.0.0.1:5001"})
    (run / http.VALIDATION).write_text("")
    assert http.links(settings, run)["validation report"] == f"http://127.0.0.1:5001/houses/{RUN}/validation.html"
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example/api")
    assert http.links(settings, run) == {}
    shared = settings.model_copy(update={"pages_url": "https://pages.example/evergreen/"})
    assert http.links(shared, run)["model card"] == f"https://pages.example/evergreen/houses/{RUN}/card.html"
