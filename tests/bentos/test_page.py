"""The page for people, as a person uses it: a real service, asked by a real browser."""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from house_endpoints import HOUSE, Model, Server, serving
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SHELL = {
    "/": "text/html; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
    "/page.css": "text/css; charset=utf-8",
}
HISTORY = {
    "model": "houses",
    "releases": [
        {"release": 7, "created": "2024-06-03T03:00:00Z", "state": "champion", "reason": "It was better."},
        {
            "release": 6,
            "created": "2024-05-27T03:00:00Z",
            "state": "rolled back",
            "reason": "Ana saw odd prices.",
            "metrics": {"rmse": 12_345.6},
        },
    ],
}


@pytest.fixture(scope="module")
def houses(house_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serving(house_model, tmp_path_factory.mktemp("home"), EVERGREEN_RELEASE="7")


@pytest.fixture(scope="module")
def guarded(houses: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serving(houses.model, tmp_path_factory.mktemp("home"), EVERGREEN_TOKENS="old new")


@pytest.fixture(scope="module")
def classifier(dear_house_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serving(dear_house_model, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on the PATH")
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS.split())
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open the page of a server; afterwards nothing may have left its host, nor anything been said on the console."""
    contexts, asked, said = [], [], []

    def heard(message: ConsoleMessage) -> None:
        # The browser itself reports a refusal, which is no fault of the page.
        if not re.search("status of (400|401|413|503)", message.text):
            said.append(message.text)

    def visited(server: Server, path: str = "/", routes: dict[str, Any] | None = None, **options: Any) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", heard)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append((address(server), request.url)))
        for pattern, answer in (routes or {}).items():
            page.route(pattern, answer)
        page.goto(address(server) + path)
        return page

    yield visited
    for context in contexts:
        context.close()
    assert said == []
    assert [url for host, url in asked if not url.startswith((f"{host}/", "data:", "blob:"))] == []


def address(server: Server) -> str:
    return str(server.client.base_url).rstrip("/")


def field(page: Page, name: str) -> Locator:
    return page.get_by_label(re.compile(rf"^{name}( \*)?$"))


def predict(page: Page) -> Locator:
    """Press Predict; return where the number or label is shown."""
    page.get_by_role("button", name="Predict", exact=True).click()
    shown = page.locator(".result:not(.stale) .prediction data")
    shown.wait_for()
    return shown


def example(server: Server, token: str = "any") -> dict[str, Any]:
    found: dict[str, Any] = server.client.get("/model", headers=bearer(token)).json()["example"]
    return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def card_with(server: Server, **changes: Any) -> Callable[[Route], None]:
    card = server.client.get("/model").json()
    return lambda route: route.fulfill(json=card | changes)


def csv_of(rows: int) -> bytes:
    lines = [f"{50 + number},{number % 5},Ames,A,true,2021-01-01,{number:03}" for number in range(rows)]
    return "\n".join(["area,rooms,town,zone,new,sold,id", *lines]).encode()


def choose(page: Page, content: bytes) -> None:
    chosen = {"name": "houses.csv", "mimeType": "text/csv", "buffer": content}
    page.get_by_label("Choose a CSV file").set_input_files(chosen)


def violations(page: Page) -> str:
    found = Axe().run(page)
    return found.generate_report() if found.violations_count else ""


@pytest.mark.parametrize("path", SHELL)
def test_the_shell_is_open_and_bears_its_policy(guarded, path):
    response = guarded.client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == SHELL[path]
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert guarded.client.head(path).status_code == 200
    assert guarded.client.get("/model").status_code == 401


def test_the_form_is_filled_with_the_example_and_shows_exactly_the_number_of_the_endpoint(houses, visit):
    page, row = visit(houses), example(houses)
    expect(field(page, "area")).to_have_value(f"{row['area']:g}")
    expect(field(page, "town")).to_have_value(f"is {row['town']}")
    shown = predict(page)
    exact = houses.ask(row).json()["predictions"][0]
    assert float(shown.get_attribute("value")) == exact
    assert shown.inner_text() == f"{exact:,.0f}"
    expect(page.locator(".prediction")).to_contain_text("USD")


def test_every_kind_of_value_is_sent_as_it_was_given(houses, visit):
    page = visit(houses)
    field(page, "area").fill("75.5")
    field(page, "rooms").fill("")
    field(page, "town").select_option("Ürümqi")
    field(page, "new").select_option("false")
    field(page, "sold").fill("2021-02-03T04:05:06")
    row = {"area": 75.5, "rooms": None, "town": "Ürümqi", "new": False, "sold": "2021-02-03T04:05:06"}
    expected = houses.ask(example(houses) | row).json()["predictions"][0]
    assert float(predict(page).get_attribute("value")) == expected


def test_another_value_can_be_typed_where_training_saw_some(houses, visit):
    page = visit(houses)
    field(page, "town").select_option("another value…")
    page.get_by_label("Another value of town").fill("Rome")
    expected = houses.ask(example(houses) | {"town": "Rome"}).json()["predictions"][0]
    assert float(predict(page).get_attribute("value")) == expected


def test_a_changed_value_makes_the_prediction_an_old_one_and_the_example_comes_back(houses, visit):
    page = visit(houses)
    before = predict(page).get_attribute("value")
    field(page, "area").fill("60")
    expect(page.get_by_text("Values changed since")).to_be_visible()
    page.get_by_role("button", name="Back to the example").click()
    assert predict(page).get_attribute("value") == before


def test_a_value_that_the_service_refuses_is_shown_at_its_field_and_has_the_focus(houses, visit):
    page = visit(houses)
    sold = field(page, "sold")
    sold.fill("12024-05-31T12:00")
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(sold).to_be_focused()
    expect(sold).to_have_attribute("aria-invalid", "true")
    expect(sold).to_have_accessible_description(re.compile("ISO 8601"))
    sold.fill("2024-05-31T12:00")
    expect(sold).to_have_attribute("aria-invalid", "false")
    predict(page)


def test_values_that_are_needed_and_lacking_are_named_and_the_first_has_the_focus(houses, visit):
    page = visit(houses)
    for name in ("area", "sold"):
        field(page, name).fill("")
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(field(page, "area")).to_be_focused()
    expect(field(page, "area")).to_have_accessible_description("The model needs this: give a number.")
    expect(page.get_by_role("alert").filter(has_text="2 values need your attention")).to_be_visible()
    page.get_by_role("link", name="sold").click()
    expect(field(page, "sold")).to_be_focused()


def test_a_refusal_that_names_no_field_is_a_message(houses, visit):
    page = visit(houses)
    field(page, "zone").select_option("another value…")
    page.get_by_label("Another value of zone").fill("never")
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="The model has no answer for this row.")).to_be_visible()


def test_a_service_that_does_not_answer_is_a_message(houses, visit):
    page = visit(houses)
    expect(field(page, "area")).to_be_visible()
    page.route("**/predict", lambda route: route.fulfill(status=503, body="<p>later</p>"))
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="503")).to_be_visible()


def test_a_classifier_shows_its_label_and_the_probabilities(classifier, visit):
    page = visit(classifier)
    shown = predict(page)
    answer = classifier.ask(example(classifier)).json()
    assert shown.inner_text() == answer["predictions"][0]
    bars = page.get_by_role("list", name="Probabilities").get_by_role("listitem")
    found = {
        bar.locator(".label").inner_text(): float(bar.locator("data").get_attribute("value")) for bar in bars.all()
    }
    assert found == answer["probabilities"][0]
    assert list(found.values()) == sorted(found.values(), reverse=True)
    expect(bars.first).to_contain_text("%")


def test_of_many_labels_the_likeliest_are_shown_and_the_rest_summed(classifier, visit):
    shares = {f"town {number}": share for number, share in enumerate([0.5, 0.2, *[0.03] * 10])}
    answer = {"predictions": ["town 0"], "probabilities": [shares], "model": "towns", "release": 1}
    routes = {
        "**/model": card_with(classifier, task="multiclass", labels=list(shares)),
        "**/predict": lambda route: route.fulfill(json=answer),
    }
    page = visit(classifier, routes=routes)
    assert predict(page).inner_text() == "town 0"
    expect(page.get_by_role("list", name="Probabilities").get_by_role("listitem")).to_have_count(8)
    expect(page.get_by_text("4 others, together 12%")).to_be_visible()


def test_a_dropped_csv_gives_a_table_and_a_download_equal_to_the_answer_of_the_endpoint(houses, visit):
    page = visit(houses)
    expect(field(page, "area")).to_be_visible()
    drop = """text => {
        const carried = new DataTransfer();
        carried.items.add(new File([text], "houses.csv", { type: "text/csv" }));
        window.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, cancelable: true }));
    }"""
    page.evaluate(drop, csv_of(45).decode())
    table = page.get_by_role("group", name="Predictions of the file")
    expect(table.get_by_role("row")).to_have_count(46)
    expect(table.get_by_role("columnheader")).to_have_text(["id", "prediction (USD)"])
    expected = houses.send(csv_of(45), "text/csv").content
    first = expected.decode().splitlines()[1].split(",")
    expect(table.get_by_role("row").nth(1).get_by_role("cell")).to_have_text([first[0], f"{float(first[1]):,.0f}"])
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download all 45 predictions").click()
    assert downloading.value.suggested_filename == "houses-predictions.csv"
    assert Path(downloading.value.path()).read_bytes() == expected


def test_of_a_long_answer_the_first_200_rows_are_shown_and_all_are_counted(houses, visit):
    answer = "id,prediction\r\n" + "".join(f"{number},{number}.5\r\n" for number in range(1234))
    page = visit(houses, routes={"**/predict": lambda route: route.fulfill(body=answer, content_type="text/csv")})
    choose(page, csv_of(3))
    expect(page.get_by_text("1,234 rows predicted")).to_be_visible()
    expect(page.get_by_role("group", name="Predictions of the file").get_by_role("row")).to_have_count(201)


def test_the_problems_of_a_csv_name_row_and_field(houses, visit):
    page = visit(houses)
    choose(page, csv_of(3).replace(b"51,", b"much,"))
    problems = page.get_by_role("group", name="Problems of the file")
    cells = problems.get_by_role("row").nth(1).get_by_role("cell")
    expect(cells).to_have_text(["2", "area", re.compile("much")])
    choose(page, csv_of(51))
    expect(page.get_by_role("alert").filter(has_text="more than 50 rows")).to_be_visible()


def test_a_csv_over_the_limit_is_not_even_sent(houses, visit):
    page = visit(houses)
    choose(page, b" " * 20_001)
    expect(page.get_by_role("alert").filter(has_text="the most is 19.53 KiB")).to_be_visible()


def test_the_template_is_a_csv_that_is_predicted_as_the_form_is(houses, visit):
    page = visit(houses)
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download a template").click()
    answer = houses.send(Path(downloading.value.path()).read_bytes(), "text/csv")
    assert answer.text.splitlines()[1].split(",")[1] == predict(page).get_attribute("value")


def test_the_request_is_copied_as_a_command_that_works(houses, visit):
    page = visit(houses, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    command = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert command[:2] == ["curl", f"{address(houses)}/predict"]
    assert houses.send(command[-1].encode()).json() == houses.ask(example(houses)).json()


def test_where_the_clipboard_is_not_lent_the_command_is_shown(houses, visit):
    page = visit(houses)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_label("Copy this command")).to_have_value(re.compile("^curl '"))


def test_a_token_is_asked_for_and_used_and_a_wrong_one_is_said_to_be_wrong(guarded, visit):
    page = visit(guarded)
    token = page.get_by_label("Token", exact=True)
    expect(token).to_be_focused()
    assert token.get_attribute("type") == "password"
    for wrong in ("other", "ünlike"):
        token.fill(wrong)
        page.keyboard.press("Enter")
        expect(page.get_by_text("The service does not take this token.")).to_be_visible()
    assert violations(page) == ""
    token.fill("new")
    page.keyboard.press("Enter")
    records = {"records": [example(guarded, "new")]}
    expected = guarded.client.post("/predict", json=records, headers=bearer("new")).json()
    assert float(predict(page).get_attribute("value")) == expected["predictions"][0]
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.reload()
    predict(page)
    page.get_by_role("button", name="Forget the token").click()
    expect(page.get_by_label("Token", exact=True)).to_be_focused()


def test_without_a_token_the_page_says_so_and_can_be_asked_again(guarded, visit):
    page = visit(guarded)
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("alert").filter(has_text="A token is needed")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    page.get_by_label("Token", exact=True).fill("old")
    page.get_by_role("button", name="Use the token").click()
    predict(page)


def test_a_keyboard_alone_is_enough(houses, visit):
    page = visit(houses)
    expect(field(page, "area")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the form")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(field(page, "area")).to_be_focused()
    assert field(page, "area").evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("99")
    page.keyboard.press("Enter")
    shown = page.locator(".result:not(.stale) .prediction data")
    expect(shown).to_be_visible()
    expected = houses.ask(example(houses) | {"area": 99}).json()["predictions"][0]
    assert float(shown.get_attribute("value")) == expected
    for name in ("Predict", "Copy as curl"):
        button = page.get_by_role("button", name=name, exact=True)
        while not button.evaluate("one => one === document.activeElement"):
            page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Choose a CSV file")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_to_complain_of(houses, visit, scheme, width):
    importance = [{"feature": name, "importance": 1000 / (place + 1)} for place, name in enumerate(HOUSE)]
    champion = houses.client.get("/model").json()["metrics"] | {"rmse": 9_000, "mae": 20_000}
    routes = {
        "**/model": card_with(houses, importance=importance, champion=champion),
        "**/history": lambda route: route.fulfill(json=HISTORY),
    }
    page = visit(houses, routes=routes, color_scheme=scheme, viewport={"width": width, "height": 900})
    predict(page)
    choose(page, csv_of(20))
    expect(page.get_by_text("20 rows predicted")).to_be_visible()
    assert violations(page) == ""
    field(page, "area").fill("")
    page.get_by_role("button", name="Predict", exact=True).click()
    choose(page, csv_of(20).replace(b"51,", b"much,"))
    expect(page.get_by_role("group", name="Problems of the file")).to_be_visible()
    assert violations(page) == ""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_card_says_what_the_model_is_and_how_it_compares(houses, visit):
    metrics = {"rmse": 11_000.5, "r2": 0.95}
    routes = {
        "**/model": card_with(
            houses,
            metrics=metrics,
            champion={"rmse": 10_000.5, "r2": 0.91},
            importance=[{"feature": "area", "importance": 41_234.5}, {"feature": "rooms", "importance": -3.25}],
            reasons=["it held its own"],
        )
    }
    page = visit(houses, routes=routes)
    about = page.get_by_role("region", name="About this model")
    expect(about).to_contain_text(re.compile("Fitted on.*115 rows.*Held out.*35 rows"))
    expect(about).to_contain_text("it held its own")
    rows = page.get_by_role("group", name="Quality on held-out rows").get_by_role("row")
    expect(rows.nth(1)).to_contain_text(re.compile(r"rmse.*decides.*lower is better.*11,001.*10,001.*\+1,000.*worse"))
    expect(rows.nth(2)).to_contain_text(re.compile(r"r2.*higher is better.*0\.95.*0\.91.*\+0\.04.*better"))
    bars = page.get_by_role("table", name=re.compile("Importance of features")).get_by_role("row")
    expect(bars.nth(1)).to_contain_text(re.compile("area.*41,235"))
    assert bars.nth(2).locator(".bar span").bounding_box()["width"] == 0


def test_a_card_without_the_newer_fields_is_shown_too(houses, visit):
    card = houses.client.get("/model").json()
    first = {name: card[name] for name in ("model", "release", "task", "target", "features", "metrics", "snapshot")}
    routes = {"**/model": lambda route: route.fulfill(json=first | {"created": card["created"]})}
    page = visit(houses, routes=routes)
    expect(page.get_by_role("heading", level=1)).to_have_text("houses")
    expect(field(page, "area")).to_have_value("")
    field(page, "area").fill("100")
    for name, value in {"town": "Ames", "zone": "A", "new": "true"}.items():
        field(page, name).select_option(value)
    field(page, "sold").fill("2021-01-01T00:00")
    row = {"area": 100, "town": "Ames", "zone": "A", "new": True, "sold": "2021-01-01"}
    assert float(predict(page).get_attribute("value")) == houses.ask(row).json()["predictions"][0]


def test_the_history_is_shown_where_the_server_knows_it(houses, visit):
    page = visit(houses)
    expect(page.get_by_role("region", name="About this model")).to_be_visible()
    expect(page.get_by_role("heading", name="Releases")).to_have_count(0)
    page = visit(houses, routes={"**/history": lambda route: route.fulfill(json=HISTORY)})
    rows = page.get_by_role("group", name="Releases").get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.nth(2)).to_contain_text(re.compile("6.*May 2024.*rolled back.*12,346.*Ana saw odd prices"))


def test_of_many_features_those_are_shown_whose_name_is_looked_for(houses, visit):
    card = houses.client.get("/model").json()
    more = [{"name": f"extra {number}", "type": "number", "required": False} for number in range(94)]
    page = visit(houses, routes={"**/model": card_with(houses, features=card["features"] + more)})
    expect(page.locator(".field:visible")).to_have_count(100)
    page.get_by_label("Find a feature").fill("EXTRA 9")
    expect(page.locator(".field:visible label")).to_have_text(
        ["extra 9", "extra 90", "extra 91", "extra 92", "extra 93"]
    )
    expect(page.get_by_text("5 of 100 shown")).to_be_visible()
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(field(page, "extra 0")).to_be_focused()
    expect(field(page, "extra 0")).to_have_accessible_description("Is not a column of the model's data.")


def test_the_page_works_behind_a_prefix(houses, visit):
    here = address(houses)

    def behind(route: Route) -> None:
        url = route.request.url.replace(f"{here}/models/houses/", f"{here}/")
        route.fulfill(response=route.fetch(url=url))

    page = visit(houses, path="/models/houses/", routes={"**/models/houses/**": behind})
    assert float(predict(page).get_attribute("value")) == houses.ask(example(houses)).json()["predictions"][0]
    links = page.get_by_role("navigation").get_by_role("link")
    assert [link.evaluate("one => one.href") for link in links.all()] == [
        f"{here}/models/houses/{name}" for name in ("docs", "model", "metrics")
    ]


def test_what_the_data_holds_is_shown_as_text(houses, visit):
    bad = "<img src=x onerror=alert(1)>"
    card = houses.client.get("/model").json()
    features = [*card["features"], {"name": bad, "type": "text", "required": False, "categories": [bad]}]
    page = visit(houses, routes={"**/model": card_with(houses, model=bad, features=features, reasons=[bad])})
    expect(page.get_by_role("heading", level=1)).to_have_text(bad)
    assert page.locator("img").count() == 0


def test_the_built_page_names_no_other_host():
    for name in ("index.html", "page.js", "page.css"):
        text = (Path(__file__).parents[2] / "bentos" / "static" / name).read_text()
        hosts = set(re.findall(r"https?://([\w.-]+)", text)) - {"www.w3.org", "react.dev"}
        assert hosts == set(), "but for the names of SVG and the like, and React's page on its errors, which it prints"
