"""The page, tested without a browser and with a toy model."""

import html
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the page is not installed: pip install 'promptmii[ui]'")
pytest.importorskip("python_multipart")

from starlette.testclient import TestClient
from tests.models.model_hub import DATA, TINY, Hub, serving
from tests.report.synthetic import write_run
from tests.ui.toy import RULES, Models
from tests.ui.trials import many_rows

from promptmii import Instruction
from promptmii.config import Endpoint
from promptmii.data import demo_path
from promptmii.errors import ConfigError
from promptmii.exports import ENDINGS
from promptmii.models import LanguageModel
from promptmii.ui.app import listening_socket, make_app
from promptmii.ui.filters import in_page_words
from promptmii.ui.jobs import Jobs
from promptmii.ui.store import Store

pytestmark = pytest.mark.slow

HOST = "http://localhost:8766"
LABELS = ["account", "billing", "defect", "delivery", "product question", "refund"]
RUN = {
    "data": "sample",
    "text": "text",
    "label_column": "label",
    "labels": LABELS,
    "generator": "other",
    "generator_other": "toy",
    "n": "12",
    "evaluate": "40",
}
EVIL = '<img src=x onerror="boom()">"\'{{ 7 * 7 }}'


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def client(tmp_path: Path, models: Models) -> Iterator[TestClient]:
    runs = tmp_path / "runs"
    runs.mkdir()
    with TestClient(make_app(tmp_path / "home", "token", runs=runs, load=models), base_url=HOST) as client:
        client.get("/?token=token")
        yield client


def text_of(page: str) -> str:
    """The text that a reader sees."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def start_run(client: TestClient, **changes: object) -> str:
    """Start a run and return its address."""
    done = client.post("/trials", data=RUN | changes, follow_redirects=False)
    assert done.status_code == 303, text_of(done.text)
    return done.headers["location"]


def finished_page(client: TestClient, address: str) -> str:
    """The page of the run once it has ended."""
    key = address.rsplit("/", 1)[1]
    client.get(f"{address}/events/{key}")
    return client.get(address).text


def edited(client: TestClient, address: str, text: str) -> str:
    """Measure an edit and return the last HTML sent about it."""
    page = client.post(f"{address}/edits", data={"instruction": text}).text
    stream = re.search(r'sse-connect="([^"]+)"', page)
    assert stream
    events = client.get(stream[1]).text.split("event: job\n")
    assert events[-1].endswith("event: ended\ndata: \n\n")
    return events[-1].replace("data: ", "")


class TestFences:
    """Only a browser with the token gets in, and no other site."""

    def test_without_the_token_nothing_is_shown(self, client: TestClient) -> None:
        with TestClient(client.app, base_url=HOST) as other:
            for path in ("/", "/history", "/static/ui.css", "/?token=wrong"):
                assert other.get(path).status_code == 403
            refused = other.get("/", headers={"cookie": "; ".join(f"{name}=x" for name in client.cookies)})
            assert refused.status_code == 403

    def test_the_token_leaves_the_address_for_a_cookie_that_no_site_can_send(self, client: TestClient) -> None:
        with TestClient(client.app, base_url=HOST) as other:
            done = other.get("/history?token=token", follow_redirects=False)
        assert done.headers["location"] == "/history"
        assert "httponly" in done.headers["set-cookie"].lower()
        assert "samesite=strict" in done.headers["set-cookie"].lower()

    def test_cookies_of_other_programs_on_this_machine_lock_nobody_out(self, client: TestClient) -> None:
        own = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        with TestClient(client.app, base_url=HOST) as other:
            assert other.get("/", headers={"cookie": f'state={{"tab": 1}}; {own}'}).status_code == 200

    @pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8766", "192.168.0.7:8766", ""])
    def test_foreign_host_names_are_refused(self, client: TestClient, host: str) -> None:
        assert client.get("/", headers={"host": host}).status_code == 403

    @pytest.mark.parametrize("host", ["127.0.0.1:8766", "[::1]:8766", "localhost"])
    def test_local_host_names_are_accepted(self, client: TestClient, host: str) -> None:
        assert client.get("/", headers={"host": host}).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "http://localhost:9999"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ],
    )
    def test_posts_from_other_sites_do_nothing(self, client: TestClient, headers: dict[str, str]) -> None:
        assert client.post("/trials", data=RUN, headers=headers).status_code == 403
        assert "No runs yet" in client.get("/history").text

    def test_pages_load_nothing_from_other_sites(self, client: TestClient) -> None:
        page = client.get("/")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page.text)

    def test_files_of_the_folder_are_not_served(self, client: TestClient) -> None:
        for path in ("/reports/files/../../etc/passwd", "/reports/files/%2e%2e/trials", "/static/%2e%2e/app.py"):
            assert client.get(path).status_code == 404
        assert client.get("/trials/%2e%2e").status_code == 404


class TestData:
    """Uploading a table."""

    def test_columns_and_labels_are_detected_and_can_be_changed(self, client: TestClient) -> None:
        rows = "".join(f"text {i},{'ab'[i % 2]},{'xyz'[i % 3]}\n" for i in range(30))
        page = client.post("/data", files={"file": ("../my tickets.csv", f"body,label,kind\n{rows}".encode())})
        assert page.status_code == 200
        assert "my tickets.csv" in page.text
        assert re.search(r'name="text" value="body" checked', page.text)
        assert re.search(r'name="label_column" value="label" checked', page.text)
        data = str(page.url).rsplit("=", 1)[1]
        other = client.get("/new/columns", params={"data": data, "text": "body", "label_column": "kind"}).text
        assert re.findall(r'name="labels" value="(\w)"', other) == ["x", "y", "z"]
        kept = {"labels": ["x", "z"], "labels_of": "kind"}
        for label, ticks in ("kind", ["x", "z"]), ("label", None):
            again = client.get("/new/columns", params={"data": data, "text": "body", "label_column": label} | kept).text
            names = re.findall(r'name="labels" value="([^"]*)"', again)
            assert re.findall(r'name="labels" value="([^"]*)" checked', again) == (ticks or names)
        same = client.get("/new/columns", params={"data": data, "text": "body", "label_column": "body"}).text
        assert "they must differ" in same

    def test_a_table_keeps_a_long_name_with_dots(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "home")
        key = store.add(f"{'a' * 10}.{'b' * 115}.csv", b"text,label\n")
        assert store.path(key).name == f"{'b' * 115}.csv"
        assert store.path(store.add(f"{'表' * 110}.csv", b"text,label\n")).suffix == ".csv"

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("empty.csv", b" ", "empty.csv is empty"),
            ("photo.png", b"\x89PNG", "has the ending"),
            ("broken.parquet", b"PAR", "not a readable"),
        ],
    )
    def test_an_unreadable_table_is_reported_without_its_folder(
        self, client: TestClient, tmp_path: Path, name: str, content: bytes, message: str
    ) -> None:
        page = text_of(client.post("/data", files={"file": (name, content)}).text)
        assert message in page
        assert str(tmp_path) not in page

    def test_a_file_with_a_wrong_ending_can_be_renamed(self, client: TestClient) -> None:
        content = ("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))).encode()
        assert "has the ending" in client.post("/data", files={"file": ("rows.dat", content)}).text
        page = client.post("/data", files={"file": ("rows.csv", content)}).text
        assert 'value="label" checked' in page
        (n,) = re.findall(r'<input[^>]* name="n"[^>]* value="(\d+)"', page)
        assert 2 <= int(n) < 20  # no more examples than the training part of a small table has

    def test_the_address_of_a_refused_upload_leads_to_the_first_page(self, client: TestClient) -> None:
        assert 'id="file"' in client.get("/data").text

    def test_a_missing_file_is_reported(self, client: TestClient) -> None:
        assert "No file arrived" in client.post("/data", data={"x": "y"}).text
        assert "no longer exists" in client.get("/new?data=nothing").text

    def test_hostile_columns_labels_and_texts_stay_text(self, client: TestClient) -> None:
        rows = [{EVIL: f"{EVIL} {i}", "label": (EVIL, "good")[i % 2]} for i in range(20)]
        page = client.post("/data", files={"file": ("e.json", json.dumps(rows).encode())}).text
        assert "<img" not in page
        assert EVIL in html.unescape(page)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"labels": ["refund"]}, "at least two labels"),
            ({"generator_other": ""}, "Type a model reference"),
            ({"n": "many"}, "n = 'many' is refused"),
            ({"price_prompt": "1"}, "both prices"),
            ({"price_prompt": "0,15", "price_completion": "1"}, "'0,15' is not a number"),
            ({"price_prompt": "1", "price_completion": "-1"}, "'-1' is not a number"),
            ({"base_url": "not an address", "generator_other": "openai:m"}, "not an address"),
        ],
    )
    def test_an_invalid_form_is_refused_with_the_reason(
        self, client: TestClient, changes: dict[str, object], message: str
    ) -> None:
        assert message in text_of(client.post("/trials", data=RUN | changes).text)
        assert "No runs yet" in client.get("/history").text


class TestRun:
    """From the form to the result."""

    def test_an_instruction_beside_the_label_list_and_the_examples(
        self, client: TestClient, models: Models, tmp_path: Path
    ) -> None:
        prices = {"price_prompt": "1", "price_completion": "2"}
        address = start_run(client, **prices)
        page = text_of(finished_page(client, address))
        trial = Store(tmp_path / "home").trial(address.rsplit("/", 1)[1])
        assert trial is not None
        assert trial.own is not None
        assert [answers.name for answers in trial.answers] == [
            "Label list alone",
            "Examples in the prompt",
            "The instruction",
        ]
        for answers in trial.answers:
            measured = answers.instruction.measured
            assert measured is not None
            assert f"{answers.name} {measured.macro_f1:.3f}".replace("0.", ".") in page
        assert RULES in client.get(address).text
        assert "Cost per 1,000" in page
        assert len(trial.query) == 40
        assert models.loaded == ["toy"]
        assert "Sample: support tickets" in client.get("/history").text

    def test_a_trial_equals_the_result_of_the_library(self, client: TestClient, models: Models, tmp_path: Path) -> None:
        from promptmii import pipeline
        from promptmii.config import Endpoint

        address = start_run(client)
        finished_page(client, address)
        trial = Store(tmp_path / "home").trial(address.rsplit("/", 1)[1])
        induced = pipeline.induce(
            demo_path(), n=12, evaluate=40, generator="toy", models=lambda reference: models(Endpoint(), reference)
        )
        assert trial is not None
        assert [answers.instruction.measured for answers in trial.answers] == [
            row.instruction.measured for row in induced.rows
        ]
        assert trial.differences == tuple(induced.differences.values())

    def test_the_next_run_begins_with_the_models_of_the_last(self, client: TestClient) -> None:
        address = start_run(client, follower="other", follower_other="judge")
        key = address.rsplit("/", 1)[1]
        finished_page(client, address)
        page = client.get(f"/new?data=sample&like={key}").text
        selects = re.findall(r'<select id="(generator|follower)".*?value="(\w+)" selected', page, re.DOTALL)
        assert selects == [("generator", "toy"), ("follower", "judge")]

    def test_a_writer_with_a_style_follows_without_it(self, client: TestClient, models: Models) -> None:
        address = start_run(client, generator_other="toy#ours")
        finished_page(client, address)
        assert "Open the edit" in edited(client, address, f"{RULES}\n- defect: parcel")
        assert models.loaded == ["toy"]

    def test_the_users_own_prompt_is_measured_too(self, client: TestClient) -> None:
        address = start_run(client, start="- refund: money back.\r\n- delivery: a parcel.")
        page = text_of(finished_page(client, address))
        assert re.search(r"Your own prompt \.\d+", page)
        sent = edited(client, address, RULES + "\n- defect: parcel")
        link = re.search(r'href="(/trials/[^"]+)"', sent)
        assert link
        assert "Your own prompt" in client.get(link[1]).text

    def test_labels_without_a_tick_are_left_out(self, client: TestClient, tmp_path: Path) -> None:
        address = start_run(client, labels=["refund", "billing"], n="4", evaluate="10")
        finished_page(client, address)
        trial = Store(tmp_path / "home").trial(address.rsplit("/", 1)[1])
        assert trial is not None
        assert set(trial.gold) == {"refund", "billing"}

    def test_the_matrix_and_the_rows_behind_a_cell_agree(self, client: TestClient, tmp_path: Path) -> None:
        address = start_run(client)
        page = finished_page(client, address)
        trial = Store(tmp_path / "home").trial(address.rsplit("/", 1)[1])
        assert trial is not None
        for index, answers in enumerate(trial.answers):
            fragment = client.get(f"{address}/errors?answers={index}").text
            cells = re.findall(r'hx-get="([^"]+gold[^"]+)"[^>]*>(\d+)</button>', fragment)
            assert sum(int(count) for _, count in cells) == 40
            for link, count in cells:
                behind = client.get(html.unescape(link)).text
                assert behind.count('class="cell-text"') == int(count)
            wrong = sum(a != b for a, b in zip(trial.gold, answers.labels, strict=True))
            shown = client.get(f"{address}/rows?answers={index}&which=wrong").text
            assert shown.count('class="cell-text"') == wrong
        assert page.count('class="cell-text"') == wrong

    def test_an_export_is_what_the_instruction_exports(self, client: TestClient, tmp_path: Path) -> None:
        address = start_run(client)
        page = finished_page(client, address)
        path = tmp_path / "home" / address.removeprefix("/") / "instruction.json"
        instruction = Instruction.load(path)
        targets = re.findall(rf'href="{address}/export/([^"]+)"', page)
        assert {"json", "python", "txt"} <= set(targets)
        for target in targets:
            done = client.get(f"{address}/export/{target}")
            ending = {"json": ".json", **ENDINGS}.get(target, ".py")
            assert f'attachment; filename="classify{ending}"' == done.headers["content-disposition"]
            if target == "json":
                assert Instruction.model_validate_json(done.content) == instruction
            else:
                assert done.text == instruction.export(target)
        assert client.get(f"{address}/export/nothing").status_code == 404

    @pytest.mark.parametrize(
        ("model", "options"), [("toy", ""), ("openai:toy", ' --base-url "http://localhost:1/v1?a=1&amp;b=2"')]
    )
    def test_the_page_shows_the_command_that_labels_a_table(self, client: TestClient, model: str, options: str) -> None:
        address = start_run(client, generator_other=model, base_url="http://localhost:1/v1?a=1&b=2")
        command = re.search("<code>(promptmii predict [^<]*)</code>", finished_page(client, address))
        assert command
        assert command[1] == f"promptmii predict classify.json new.csv -o labelled.csv{options}"
        downloaded = client.get(f"{address}/export/json").headers["content-disposition"]
        assert 'filename="classify.json"' in downloaded

    def test_a_typed_text_gets_its_label_with_probabilities(self, client: TestClient) -> None:
        address = start_run(client)
        finished_page(client, address)
        answer = text_of(client.post(f"{address}/label", data={"text": "the courier lost my parcel"}).text)
        assert answer.startswith("delivery delivery")
        assert all(label in answer for label in LABELS)
        assert "Type a text first" in client.post(f"{address}/label", data={"text": " "}).text

    def test_a_failure_is_shown_and_saved(self, client: TestClient) -> None:
        page = text_of(finished_page(client, start_run(client, n="100")))
        assert "100 examples were asked for" in page
        assert "Try again" in page
        assert "failed" in client.get("/history").text

    def test_an_unforeseen_failure_is_shown_and_saved(self, tmp_path: Path) -> None:
        def load(endpoint: Endpoint, reference: str) -> LanguageModel:
            raise RuntimeError(f"{reference} does not fit at {endpoint.base_url}")

        with TestClient(make_app(tmp_path / "home", "token", load=load), base_url=HOST) as client:
            client.get("/?token=token")
            assert "RuntimeError: toy does not fit" in finished_page(client, start_run(client))
            assert "failed" in client.get("/history").text

    def test_hostile_instructions_stay_text(self, client: TestClient) -> None:
        address = start_run(client)
        finished_page(client, address)
        sent = edited(client, address, f"- refund: {EVIL}</textarea>")
        link = re.search(r'href="(/trials/[^"]+)"', sent)
        assert link
        page = client.get(link[1]).text
        assert "<img" not in page
        assert page.count("</textarea>") == 2


class TestEdit:
    """Editing an instruction."""

    def test_changed_rows_are_shown_and_the_edit_is_saved(self, client: TestClient, tmp_path: Path) -> None:
        address = start_run(client)
        finished_page(client, address)
        sent = edited(client, address, RULES.replace("money back, return, send back, refund, cancel", "coins"))
        store = Store(tmp_path / "home")
        parent, child = store.trial(address.rsplit("/", 1)[1]), next(store.trials())
        assert parent is not None
        assert parent.own is not None
        assert child.parent == parent.key
        assert child.own is not None
        changed = [i for i in range(40) if child.own.labels[i] != parent.own.labels[i]]
        assert changed
        assert sent.count('class="mark"') == len(changed)
        assert all(html.escape(parent.query[i].text, quote=False)[:40] in html.unescape(sent) for i in changed)
        worse = sum(parent.own.labels[i] == parent.query[i].label for i in changed)
        assert f"{worse} wrong now" in text_of(sent)
        measured = child.own.instruction.measured
        assert measured is not None
        assert f"{measured.macro_f1:.3f}"[1:] in sent
        assert [answers.name for answers in child.answers][-2:] == ["Before the edit", "After the edit"]
        page = text_of(client.get(f"/trials/{child.key}").text)
        assert "removed: - refund: money back" in page
        assert "added: - refund: coins" in page
        assert f"Rows {len(changed)}" in page
        listed = client.get("/history").text
        assert listed.index(parent.key) < listed.index(child.key)

    def test_an_unchanged_text_changes_nothing(self, client: TestClient, tmp_path: Path) -> None:
        address = start_run(client)
        finished_page(client, address)
        assert "No row changed its label" in edited(client, address, RULES)
        child, parent = Store(tmp_path / "home").trials()
        assert child.own is not None
        assert parent.own is not None
        assert child.own.labels == parent.own.labels
        assert child.own.probabilities == parent.own.probabilities

    def test_an_empty_text_is_not_measured(self, client: TestClient) -> None:
        address = start_run(client)
        finished_page(client, address)
        assert "The edited text is empty" in edited(client, address, " ")

    @pytest.mark.slow
    def test_a_new_edit_replaces_a_running_one_and_loads_no_model_again(
        self, client: TestClient, models: Models, tmp_path: Path
    ) -> None:
        models.delay = 0.005
        address = start_run(client)
        finished_page(client, address)
        client.post(f"{address}/edits", data={"instruction": "first"})
        edited(client, address, "second")
        texts = [trial.own.instruction.text for trial in Store(tmp_path / "home").trials() if trial.own]
        assert texts == ["second", RULES]
        assert models.loaded == ["toy"]


class TestJobs:
    """Jobs in the background."""

    def test_jobs_can_be_listed_while_others_start(self) -> None:
        def start(count: int) -> None:
            for number in range(count):
                jobs.start(f"{count} {number}", "trial", lambda _: None)

        jobs = Jobs()
        start(1000)
        starter = threading.Thread(target=start, args=(300,))
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            starter.start()
            while starter.is_alive():
                assert len(jobs.live) <= 1300
        finally:
            sys.setswitchinterval(interval)
            starter.join()

    def test_a_reloaded_page_finds_its_job_and_can_stop_it(
        self, client: TestClient, models: Models, tmp_path: Path
    ) -> None:
        models.delay = 0.02
        address = start_run(client)
        written = _until(lambda: client.get(address).text, lambda page: "Tickets of a shop" in page)
        assert "sse-connect" in written
        assert "Running" in client.get("/history").text
        client.post(f"{address}/cancel")
        page = finished_page(client, address)
        assert "You stopped this run" in page
        assert "Tickets of a shop" in page
        assert "stopped" in client.get("/history").text
        assert Instruction.load(tmp_path / "home" / address.removeprefix("/") / "instruction.json").text == RULES

    @pytest.mark.slow
    def test_progress_is_sent_as_it_comes(self, client: TestClient, models: Models) -> None:
        models.delay = 0.01
        address = start_run(client)
        stream = client.get(f"{address}/events/{address.rsplit('/', 1)[1]}").text
        seen = [text_of(event) for event in stream.split("event: job\n")[1:]]
        assert len(seen) > 5
        assert any("of 40 rows" in each for each in seen)
        assert "Tickets of a shop" in seen[-1]

    @pytest.mark.slow
    def test_jobs_run_in_turn_and_a_waiting_one_can_be_stopped(self, client: TestClient, models: Models) -> None:
        models.delay = 0.01
        first, second = start_run(client), start_run(client)
        assert "Waiting for another run to finish" in client.get(second).text
        client.post(f"{second}/cancel")
        assert "Side by side" in finished_page(client, first)
        assert "You stopped this run" in finished_page(client, second)

    def test_a_run_interrupted_by_the_end_of_the_server_says_so(
        self, client: TestClient, models: Models, tmp_path: Path
    ) -> None:
        models.delay = 0.02
        address = start_run(client)
        _until(lambda: client.get(address).text, lambda page: "Tickets of a shop" in page)
        with TestClient(make_app(tmp_path / "home", "new", load=models), base_url=HOST) as other:
            other.get("/?token=new")
            page = other.get(address).text
            assert "did not finish" in page
            assert "Tickets of a shop" in page
            again = other.get(html.unescape(re.search(r'href="(/new[^"]+)"', page)[1])).text  # type: ignore[index]
            assert 'value="toy" selected' in again
        client.post(f"{address}/cancel")

    def test_a_typed_text_waits_for_the_run_before_it(self, client: TestClient, models: Models) -> None:
        address = start_run(client)
        finished_page(client, address)
        models.delay = 0.005
        start_run(client)
        answers: list[str] = []
        asking = threading.Thread(
            target=lambda: answers.append(client.post(f"{address}/label", data={"text": "a parcel"}).text)
        )
        asking.start()
        asking.join(30)
        assert "delivery" in answers[0]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(Hub(pause=0.01)) as hub:
        places = {"PROMPTMII_CACHE": str(tmp_path / "cache"), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        for name, value in places.items():
            monkeypatch.setenv(name, value)
        yield hub


@pytest.fixture
def bare(tmp_path: Path, models: Models, hub: Hub) -> Iterator[TestClient]:  # noqa: ARG001
    """The page on a machine without models."""
    app = make_app(tmp_path / "home", "token", load=models, installable={"tiny": TINY})
    with TestClient(app, base_url=HOST) as client:
        client.get("/?token=token")
        yield client


class TestInstalling:
    def test_an_installed_model_can_be_chosen(self, bare: TestClient) -> None:
        page = bare.get("/new?data=sample").text
        assert 'value="tiny"  disabled' in page
        assert 'hx-post="/models/tiny"' in page
        page = bare.post("/models/tiny").text
        stream = re.search(r'sse-connect="([^"]+)"', page)
        assert stream
        events = bare.get(stream[1]).text.split("event: ")[1:]
        seen = [text_of(event) for event in events if event.startswith("job")]
        assert any("of 3 MB" in each and "left" in each for each in seen)
        assert seen[-1].endswith("Installed.")
        assert [event.split("\n")[0] for event in events[-2:]] == ["done", "ended"]
        page = bare.get("/new?data=sample").text
        assert 'value="tiny" selected' in page
        assert "/models/tiny" not in page
        assert TINY.path.read_bytes() == DATA

    @pytest.mark.slow
    def test_an_installation_can_be_stopped_and_resumed(self, bare: TestClient, hub: Hub) -> None:
        hub.pause = 0.05
        bare.post("/models/tiny")
        _until(lambda: bare.get("/new?data=sample").text, lambda page: bool(re.search(r"[1-9][\d.]* of 3 MB", page)))
        bare.post("/models/tiny/cancel")
        page = _until(lambda: bare.get("/new?data=sample").text, lambda page: "Continue" in page)
        assert "already downloaded is kept" in page
        hub.pause = 0.0
        bare.post("/models/tiny")
        assert "Installed." in bare.get("/models/tiny/events").text
        assert hub.requests[-1].split("=")[-1] != "0-"

    @pytest.mark.slow
    def test_a_broken_download_is_reported(self, bare: TestClient, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        hub.most = 1000
        bare.post("/models/tiny")
        assert "could not be fetched" in bare.get("/models/tiny/events").text
        assert "Continue" in bare.get("/new?data=sample").text
        assert bare.post("/models/nothing").status_code == 404


def _until(look, enough, timeout: float = 20.0) -> str:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if enough(page := look()):
            return page
        time.sleep(0.02)
    raise AssertionError(page)


def test_ten_thousand_rows_are_sent_page_by_page(client: TestClient, tmp_path: Path) -> None:
    address = many_rows(tmp_path / "home")
    page = client.get(address).text
    assert len(page) < 100_000
    fragment, seen = client.get(f"{address}/rows?which=all").text, 0
    while True:
        seen += fragment.count('class="cell-text"')
        following = re.search(r'hx-get="([^"]+)" hx-trigger="intersect once"', fragment)
        if not following or seen > 1_000:
            break
        fragment = client.get(html.unescape(following[1])).text
    assert seen > 1_000
    last = client.get(f"{address}/rows?which=all&from=9900").text
    assert last.count('class="cell-text"') == 100
    assert "intersect" not in last


def test_many_labels_have_a_matrix(client: TestClient, tmp_path: Path) -> None:
    labels = [f"intent number {i}" for i in range(77)]
    page = client.get(many_rows(tmp_path / "home", 400, labels)).text
    assert page.count('scope="row"') == 1 + 77
    assert 'class="matrix many"' in page


@pytest.mark.slow
def test_a_report_opens_in_the_page(client: TestClient, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "first", 4, ("naive", "mii"), (5,), 1, rows=20)
    listed = client.get("/reports").text
    assert "first" in listed
    run = html.unescape(re.search(r'name="run" value="([^"]+)"', listed)[1])  # type: ignore[index]
    response = client.post("/reports", data={"run": run})
    frame = _until(lambda: client.get(str(response.url)).text, lambda page: "<iframe" in page, 90)
    inside = client.get(re.search(r'<iframe[^>]+src="([^"]+)"', frame)[1])  # type: ignore[index]
    assert inside.status_code == 200
    assert "content-security-policy" not in inside.headers  # the report brings its own
    assert "default-src 'none'" in inside.text


@pytest.mark.parametrize("folder", [".", "~no-such-user/run"])
def test_a_report_of_no_run_says_so(client: TestClient, folder: str) -> None:
    nothing = str(client.post("/reports", data={"run": folder}).url)
    assert "not a run folder" in _until(lambda: client.get(nothing).text, lambda page: "Drawing" not in page)


def test_messages_name_fields_of_the_page_and_no_folder_of_it(client: TestClient) -> None:
    table = {"file": ("few.csv", b"text,label\na,x\nb,y\nc,x\nd,y\n")}
    data = client.post("/data", files=table, follow_redirects=False).headers["location"].partition("data=")[2]
    page = text_of(finished_page(client, start_run(client, data=data, labels=["x", "y"])))
    assert 'the training part of few.csv has 2. Use "Examples for the writer": 2 or less.' in page


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("name others with --text and --label.", 'name others with "Text" and "Label".'),
        ("or list the labels with --labels.", "or list the labels with the check boxes."),
        ("; -n 6 or more shows one of each", '; "Examples for the writer": 6 or more shows one of each'),
        ("give more rows per label, or --eval 0.", "give more rows per label."),
        ("correct --base-url (or OPENAI_BASE_URL).", 'correct "Server address" (or OPENAI_BASE_URL).'),
        ("Use fewer examples, or give --context-length, so that they fit.", "Use fewer examples."),
        ("It says: too long, raise --max-model-len.", "It says: too long, raise --max-model-len."),
        ("No memory for it; ask for a smaller one with --context-length.", "No memory for it."),
        ("Run again; with a --cache folder answers are kept. Or use --text.", 'Run again. Or use "Text".'),
        ("Use --mode generate.", 'Use "How the follower answers": generate.'),
        ("/my home/data/0123456789abcdef/a.csv is empty.", "a.csv is empty."),
        ("/my home/data cannot be written.", "/my home/data cannot be written."),
    ],
)
def test_options_become_fields(message: str, says: str) -> None:
    assert in_page_words(message, "/my home/data") == says


def test_a_port_in_use_is_an_error() -> None:
    with listening_socket(0) as bound:
        bound.listen()
        with pytest.raises(ConfigError, match="--port"):
            listening_socket(bound.getsockname()[1])
