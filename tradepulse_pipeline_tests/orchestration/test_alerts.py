"""Alerts reach a file, a webhook and a mail server on this machine: each once, in words, and without secrets."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_string
from email.header import decode_header, make_header
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from tradepulse_pipeline.cli.config import _value
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.stage_changes import StageChange, newest_stage_change, stage_changes
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.orchestration import alerts
from tradepulse_pipeline.orchestration.alerts import (
    Alert,
    DeliveryCursors,
    DeliveryError,
    EmailChannel,
    LogChannel,
    WebhookChannel,
    channels_of,
    deliver_new,
    run_failure_alert,
    stage_change_alert,
)
from tradepulse_pipeline.orchestration.resources import DatabaseResource
from tradepulse_pipeline.orchestration.sensors import alerts as sensors
from tradepulse_pipeline.settings import load_settings
from tradepulse_pipeline_tests.orchestration.stored_configurations import change_stage, store_configuration

TOKEN = "s3cret-sentinel-token"
PASSWORD = "pa55-sentinel-word"
ALERT = Alert(
    id="run-1", subject="train_x of binance:BTC-USDT:5m failed", what="It failed.", why="No candles.",
    what_to_do="Import some.", link="http://web/runs/1", at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    facts={"series": "binance:BTC-USDT:5m"},
)  # fmt: skip


class Hook(ThreadingHTTPServer):
    """Takes posts, and answers with the statuses it is told to, then with 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Posted)
        self.posts: list[dict] = []
        self.statuses: list[int] = []
        self.silence = threading.Event()
        self.is_silent = False

    @property
    def url(self) -> str:
        return f"http://user:{TOKEN}@127.0.0.1:{self.server_port}/hooks/{TOKEN}?key={TOKEN}"


class _Posted(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.is_silent:
            self.server.silence.wait(30)
            return
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == 200:
            self.server.posts.append(json.loads(content))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class Mail(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as a client needs."""

    daemon_threads, allow_reuse_address = True, True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.mails: list[tuple[list[str], str]] = []
        self.logins: list[str] = []
        self.refuses = ""


class _Conversation(socketserver.StreamRequestHandler):
    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def handle(self) -> None:
        self.say("220 mail")
        recipients: list[str] = []
        while line := self.rfile.readline().decode().strip():
            verb = line.split()[0].upper()
            if verb == self.server.refuses:
                self.say(f"550 {PASSWORD} no")
            elif verb == "EHLO":
                self.say("250-mail")
                self.say("250 AUTH PLAIN")
            elif verb == "AUTH":
                self.server.logins.append(line)
                self.say("235 ok")
            elif verb == "RCPT":
                recipients.append(line)
                self.say("250 ok")
            elif verb == "DATA":
                self.say("354 go on")
                body = iter(lambda: self.rfile.readline().decode(), ".\r\n")
                self.server.mails.append((recipients, "".join(body)))
                self.say("250 taken")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")


def serving(server: Hook | Mail) -> Iterator[Hook | Mail]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    yield from serving(server)
    server.silence.set()


@pytest.fixture
def mail() -> Iterator[Mail]:
    yield from serving(Mail())


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch, in_project: Path) -> Iterator[None]:
    monkeypatch.setattr(alerts, "DELIVERY_S", 2.0)
    monkeypatch.setattr(sensors, "_SETTLED_S", 0.0)
    log = in_project / ".tradepulse" / "logs" / "alerts.log"
    log.unlink(missing_ok=True)
    yield
    log.unlink(missing_ok=True)


def logged(project: Path) -> list[str]:
    log = project / ".tradepulse" / "logs" / "alerts.log"
    return log.read_text().splitlines() if log.exists() else []


def email(mail: Mail, **changes: object) -> EmailChannel:
    made = EmailChannel(
        recipients=("ada@example.org", "bob@example.org"), sender="tradepulse@example.org", host="127.0.0.1",
        port=mail.server_address[1], security="none", user="ada", password=PASSWORD,
    )  # fmt: skip
    return replace(made, **changes)


class TestChannels:
    def test_a_file_has_a_line_for_each(self, tmp_path: Path) -> None:
        channel = LogChannel(tmp_path / "new" / "alerts.log")
        channel.deliver(ALERT)
        channel.deliver(replace(ALERT, subject="another"))
        first, second = channel.path.read_text().splitlines()
        assert first == (
            "2026-03-01T12:00:00Z | train_x of binance:BTC-USDT:5m failed | It failed. | Why: No candles. | "
            "What to do: Import some. | See http://web/runs/1"
        )
        assert "another" in second

    def test_a_file_that_cannot_be_written_is_said_so(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(DeliveryError, match=r"file/alerts.log cannot be written: "):
            LogChannel(tmp_path / "file" / "alerts.log").deliver(ALERT)

    def test_a_webhook_gets_the_text_and_its_parts(self, hook: Hook) -> None:
        WebhookChannel(hook.url).deliver(ALERT)
        (post,) = hook.posts
        assert post["text"].splitlines() == [
            "train_x of binance:BTC-USDT:5m failed", "It failed.", "Why: No candles.", "What to do: Import some.",
            "See http://web/runs/1",
        ]  # fmt: skip
        assert (post["id"], post["series"], post["link"]) == ("run-1", "binance:BTC-USDT:5m", "http://web/runs/1")

    @pytest.mark.parametrize("status", [302, 404, 429, 500])
    def test_a_webhook_that_refuses_has_not_got_it(self, hook: Hook, status: int) -> None:
        hook.statuses = [status]
        with pytest.raises(DeliveryError, match=f"the webhook answered HTTP {status}$"):
            WebhookChannel(hook.url).deliver(ALERT)

    def test_a_webhook_that_says_nothing_is_given_up(self, hook: Hook) -> None:
        hook.is_silent = True
        with pytest.raises(DeliveryError, match="webhook"):
            WebhookChannel(hook.url).deliver(ALERT)

    def test_a_mail_is_one_message_to_all(self, mail: Mail) -> None:
        email(mail).deliver(replace(ALERT, subject="VALIDATION → DECAY\nBcc: eve@example.org"))
        ((recipients, body),) = mail.mails
        message = message_from_string(body)
        assert [line.split("<")[1].split(">")[0] for line in recipients] == ["ada@example.org", "bob@example.org"]
        assert str(make_header(decode_header(message["Subject"]))) == "VALIDATION → DECAY Bcc: eve@example.org"
        assert message["Bcc"] is None
        assert message["Message-ID"] == "<run-1@tradepulse>"
        assert "What to do: Import some." in message.get_payload()
        assert len(mail.logins) == 1

    @pytest.mark.parametrize("verb", ["AUTH", "MAIL", "RCPT", "DATA"])
    def test_a_mail_server_that_refuses_is_told_without_what_it_said(self, mail: Mail, verb: str) -> None:
        mail.refuses = verb
        with pytest.raises(DeliveryError, match=r"the mail server 127\.0\.0\.1 (refused: code 550|failed)") as raised:
            email(mail).deliver(ALERT)
        assert PASSWORD not in str(raised.value)

    def test_nobody_there(self, mail: Mail) -> None:
        with pytest.raises(DeliveryError, match=r"the webhook cannot be reached \(ConnectionError\)"):
            WebhookChannel(f"http://127.0.0.1:1/{TOKEN}").deliver(ALERT)
        with pytest.raises(DeliveryError, match=r"the mail server 127\.0\.0\.1 failed \(ConnectionRefusedError\)"):
            email(mail, port=1).deliver(ALERT)
        with pytest.raises(DeliveryError, match="webhook"):
            WebhookChannel(f"no url {TOKEN}").deliver(ALERT)

    def test_encryption_is_not_given_up_in_silence(self, mail: Mail) -> None:
        with pytest.raises(DeliveryError, match="failed"):
            email(mail, security="starttls").deliver(ALERT)
        assert (mail.mails, mail.logins) == ([], [])
        with pytest.raises(InvalidInputError, match="alerts_smtp_security: found 'none' with a password"):
            email(mail, host="mail.example.org")

    def test_a_long_reason_is_cut(self) -> None:
        assert len(replace(ALERT, why="x" * 100_000).text) < 3_000


class TestDelivery:
    """Numbers 1 to 4, of which 3 is no news."""

    def deliver(self, instance: dg.DagsterInstance, *channels: object, newest: int = 0) -> alerts.Deliveries:
        def after(number: int) -> list[tuple[int, Alert | None]]:
            news = [(n, replace(ALERT, id=f"run-{n}", subject=f"number {n}") if n != 3 else None) for n in (1, 2, 3, 4)]
            return [one for one in news if one[0] > number]

        return deliver_new(channels, DeliveryCursors(instance, "test"), lambda: newest, after)

    def test_everything_once_and_in_order(self, instance: dg.DagsterInstance, hook: Hook, tmp_path: Path) -> None:
        channels = (LogChannel(tmp_path / "log"), WebhookChannel(hook.url))
        assert self.deliver(instance, *channels).sentence == "Nothing has happened since the last tick."
        assert self.deliver(instance, *channels).sentence == "6 alerts delivered."
        assert self.deliver(instance, *channels).delivered == ()
        assert [post["subject"] for post in hook.posts] == ["number 1", "number 2", "number 4"]
        assert len((tmp_path / "log").read_text().splitlines()) == 3

    def test_a_channel_that_fails_goes_on_where_it_was_and_keeps_no_other_waiting(
        self, instance: dg.DagsterInstance, hook: Hook, tmp_path: Path
    ) -> None:
        channels = (WebhookChannel(hook.url), LogChannel(tmp_path / "log"))
        self.deliver(instance, *channels)
        hook.statuses = [200, 500]
        first = self.deliver(instance, *channels)
        assert len(first.delivered) == 4
        assert first.failures == ("webhook: 'number 2' was not delivered: the webhook answered HTTP 500",)
        assert "it is tried again at the next tick" in first.sentence
        hook.statuses = [503]
        assert self.deliver(instance, *channels).delivered == ()
        assert len(self.deliver(instance, *channels).delivered) == 2
        assert [post["id"] for post in hook.posts] == ["run-1", "run-2", "run-4"]
        assert len((tmp_path / "log").read_text().splitlines()) == 3

    def test_a_tick_that_is_cut_off_repeats_nothing(
        self, instance: dg.DagsterInstance, hook: Hook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.deliver(instance, WebhookChannel(hook.url))
        deliver = WebhookChannel.deliver

        def killed_at_2(channel: WebhookChannel, alert: Alert) -> None:
            if alert.id == "run-2":
                raise KeyboardInterrupt
            deliver(channel, alert)

        monkeypatch.setattr(WebhookChannel, "deliver", killed_at_2)
        with pytest.raises(KeyboardInterrupt):
            self.deliver(instance, WebhookChannel(hook.url))
        monkeypatch.setattr(WebhookChannel, "deliver", deliver)
        self.deliver(instance, WebhookChannel(hook.url))
        assert [post["id"] for post in hook.posts] == ["run-1", "run-2", "run-4"]

    def test_a_new_channel_does_not_begin_with_the_past(
        self, instance: dg.DagsterInstance, hook: Hook, tmp_path: Path
    ) -> None:
        self.deliver(instance, LogChannel(tmp_path / "log"), newest=2)
        self.deliver(instance, LogChannel(tmp_path / "log"), WebhookChannel(hook.url), newest=4)
        assert len(self.deliver(instance, WebhookChannel(hook.url)).delivered) == 0
        assert [line.split(" | ")[1] for line in (tmp_path / "log").read_text().splitlines()] == ["number 4"]

    def test_a_tick_ends_in_time_and_the_next_goes_on(
        self, instance: dg.DagsterInstance, hook: Hook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.deliver(instance, WebhookChannel(hook.url))
        monkeypatch.setattr(alerts, "TICK_S", -1.0)
        assert self.deliver(instance, WebhookChannel(hook.url)).delivered == ()
        monkeypatch.setattr(alerts, "TICK_S", 30.0)
        assert len(self.deliver(instance, WebhookChannel(hook.url)).delivered) == 3


class TestMessages:
    def test_of_a_run_that_failed(self) -> None:
        run = dg.DagsterRun(
            job_name="train_liquidity_sweep_v3",
            tags={"dagster/partition": "simulated:BTC-USDT:5m", "strategy": "liquidity_sweep_v3",
                  "tradepulse/simulated": "true"},
        )  # fmt: skip
        alert = run_failure_alert(run, "No candles.", 1_772_366_400.0, "http://desk:3000/")
        assert alert.subject == "SIMULATED: train_liquidity_sweep_v3 of simulated:BTC-USDT:5m failed"
        assert alert.what.endswith(
            "of train_liquidity_sweep_v3 of simulated:BTC-USDT:5m failed at 2026-03-01 12:00 UTC (strategy "
            "liquidity_sweep_v3)."
        )
        assert alert.why == "No candles."
        assert "launch it again" in alert.what_to_do
        assert alert.link == f"http://desk:3000/runs/{run.run_id}"
        retried = dg.DagsterRun(job_name="__ASSET_JOB", tags={"dagster/will_retry": "true"})
        again = run_failure_alert(retried, "?", 0.0, "")
        assert (again.what_to_do, again.link) == ("Nothing yet: it is launched again by itself.", None)

    @pytest.mark.parametrize(
        ("stage", "advice"),
        [
            ("DECAY", "Open no new position with it"),
            ("PAPER", "Open no position with it"),
            ("DISCOVERY", "with 25% of the full position size"),
            ("MATURE", "with 100% of the full position size"),
        ],
    )
    def test_of_a_stage_that_changed(self, stage: str, advice: str) -> None:
        change = StageChange(
            id=7, configuration_id=uuid4(), strategy_name="LIQUIDITY_SWEEP_V3", is_simulated=False, is_active=True,
            series=SeriesKey.parse("binance:BTC-USDT:5m"), version=3, from_stage="VALIDATION", to_stage=stage,
            reason="The rolling Sharpe ratio is 0.2.", at=datetime(2026, 3, 1, tzinfo=UTC),
        )  # fmt: skip
        alert = stage_change_alert(change, "http://desk:3000")
        assert alert.subject == f"LIQUIDITY_SWEEP_V3 on binance:BTC-USDT:5m: VALIDATION → {stage}"
        assert advice in alert.what_to_do
        assert alert.link == (
            "http://desk:3000/assets/liquidity_sweep_v3/trained_configurations?view=partitions&partition="
            "binance%3ABTC-USDT%3A5m"
        )
        assert "version 3" in alert.text
        assert "The rolling Sharpe ratio is 0.2." in alert.text


class TestSensors:
    def tick(self, sensor: object, instance: dg.DagsterInstance, **resources: object) -> str:
        context = dg.build_sensor_context(instance=instance, resources=resources)
        return sensor(context).skip_message

    def test_failed_runs(self, instance: dg.DagsterInstance, in_project: Path) -> None:
        @dg.op
        def step() -> None:
            raise dg.Failure(description="binance:BTC-USDT:5m: no candles.")

        @dg.job
        def train_x() -> None:
            step()

        def fail() -> str:
            tags = {"dagster/partition": "binance:BTC-USDT:5m"}
            return train_x.execute_in_process(instance=instance, raise_on_error=False, tags=tags).run_id

        fail()  # before the first tick
        assert self.tick(sensors.alert_failed_runs, instance) == "Nothing has happened since the last tick."
        run_id = fail()
        assert self.tick(sensors.alert_failed_runs, instance) == "1 alert delivered."
        assert self.tick(sensors.alert_failed_runs, instance) == "Nothing has happened since the last tick."
        (line,) = logged(in_project)
        assert "train_x of binance:BTC-USDT:5m failed" in line
        assert run_id[:8] in line
        assert "Why: binance:BTC-USDT:5m: no candles." in line

    def test_a_failure_that_may_have_an_older_one_behind_it_waits(
        self, instance: dg.DagsterInstance, in_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @dg.job
        def train_x() -> None:
            dg.op(name="step")(lambda: 1 / 0)()

        self.tick(sensors.alert_failed_runs, instance)
        train_x.execute_in_process(instance=instance, raise_on_error=False)
        monkeypatch.setattr(sensors, "_SETTLED_S", 3_600.0)
        self.tick(sensors.alert_failed_runs, instance)
        assert logged(in_project) == []
        monkeypatch.setattr(sensors, "_SETTLED_S", 0.0)
        self.tick(sensors.alert_failed_runs, instance)
        assert "ZeroDivisionError" in logged(in_project)[0]

    def test_stages(self, instance: dg.DagsterInstance, in_project: Path, database: Database) -> None:
        series = SeriesKey.parse(f"binance:A{uuid4().hex[:6].upper()}-USDT:5m")

        def tick() -> str:
            return self.tick(sensors.alert_stage_changes, instance, database=DatabaseResource())

        tick()
        first = store_configuration(database, series, stage="PAPER")
        tick()
        assert logged(in_project) == []  # it was traded before as little as now
        second = store_configuration(database, series, stage="VALIDATION")
        database.run(lambda connection: change_stage(connection, first, "PAPER", "MATURE", "It is superseded."))
        database.run(lambda connection: change_stage(connection, second, "VALIDATION", "DECAY", "Two death signals."))
        assert tick() == "2 alerts delivered."
        tick()
        new, decayed = logged(in_project)
        assert f"on {series}: PAPER → VALIDATION" in new
        assert f"on {series}: VALIDATION → DECAY" in decayed
        assert "Why: Two death signals." in decayed

    def test_a_transition_that_commits_late_is_not_passed_over(self, database: Database) -> None:
        series = SeriesKey.parse(f"binance:L{uuid4().hex[:6].upper()}-USDT:5m")
        one, two = (store_configuration(database, series, stage="VALIDATION") for _ in range(2))
        start = newest_stage_change(database)
        begun, read = threading.Event(), threading.Event()

        def write_slowly() -> None:
            with database.connection() as connection:
                change_stage(connection, one, "VALIDATION", "DECAY", "slow")
                begun.set()
                read.wait(0.5)

        slow = threading.Thread(target=write_slowly)
        slow.start()
        assert begun.wait(10)
        with Database(database.url) as other:
            other.run(lambda connection: change_stage(connection, two, "VALIDATION", "DECAY", "quick"))
            seen = [change.reason for change in stage_changes(database, start, 10)]
        read.set()
        slow.join()
        assert seen == ["slow", "quick"]


class TestSecrets:
    def test_they_are_nowhere(
        self, instance: dg.DagsterInstance, in_project: Path, mail: Mail, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        monkeypatch.setenv("TRADEPULSE_ALERTS_WEBHOOK", f"http://user:{TOKEN}@127.0.0.1:1/{TOKEN}?k={TOKEN}")
        monkeypatch.setenv("TRADEPULSE_ALERTS_SMTP_PASSWORD", PASSWORD)
        monkeypatch.setenv("TRADEPULSE_ALERTS_SMTP_USER", "ada")
        monkeypatch.setenv("TRADEPULSE_ALERTS_SMTP_HOST", "127.0.0.1")
        monkeypatch.setenv("TRADEPULSE_ALERTS_SMTP_PORT", str(mail.server_address[1]))
        monkeypatch.setenv("TRADEPULSE_ALERTS_SMTP_SECURITY", "none")
        monkeypatch.setenv("TRADEPULSE_ALERTS_EMAIL", "ada@example.org,bob@example.org")
        mail.refuses = "AUTH"

        @dg.job
        def train_x() -> None:
            dg.op(name="step")(lambda: 1 / 0)()

        context = dg.build_sensor_context(instance=instance)
        with caplog.at_level("INFO"):
            sensors.alert_failed_runs(context)
            train_x.execute_in_process(instance=instance, raise_on_error=False)
            said = sensors.alert_failed_runs(context).skip_message
        assert "webhook: 'train_x failed' was not delivered: the webhook cannot be reached" in said
        assert "email: 'train_x failed' was not delivered: the mail server 127.0.0.1 refused: code 550" in said
        settings = load_settings()
        printed = capfd.readouterr()
        shown = [
            said, caplog.text, printed.out, printed.err, *logged(in_project), repr(settings),
            repr(channels_of(settings)), *(str(_value(settings, name)) for name in type(settings).model_fields),
        ]  # fmt: skip
        assert len(logged(in_project)) == 1
        for secret in (TOKEN, PASSWORD, "sentinel"):
            assert not any(secret in text for text in shown)

    @pytest.mark.parametrize("name", ["alerts_webhook", "alerts_smtp_password"])
    def test_they_are_refused_in_a_file(self, in_project: Path, name: str) -> None:
        file = in_project / "tradepulse.toml"
        file.write_text(f'{name} = "{TOKEN}"\n')
        try:
            with pytest.raises(InvalidInputError, match=f"{name} is a secret.*TRADEPULSE_{name.upper()}") as raised:
                load_settings()
        finally:
            file.unlink()
        assert TOKEN not in str(raised.value)

    def test_mail_without_a_server_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRADEPULSE_ALERTS_EMAIL", "ada@example.org")
        with pytest.raises(InvalidInputError, match="alerts_smtp_host: found none"):
            channels_of(load_settings())
