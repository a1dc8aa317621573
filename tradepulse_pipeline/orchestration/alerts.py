"""Alerts: messages that a trader understands, brought to a log, a webhook and e-mail, each once."""

from __future__ import annotations

import json
import smtplib
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import dagster as dg

from tradepulse_pipeline.database.stage_changes import StageChange
from tradepulse_pipeline.errors import InvalidInputError, TradePulseError
from tradepulse_pipeline.market.sources.http import within
from tradepulse_pipeline.orchestration.names import PARTITION_TAG, SIMULATED_TAG, WILL_RETRY_TAG
from tradepulse_pipeline.settings import Settings
from tradepulse_pipeline.validation.lifecycle import STAGE_MULTIPLIERS

#: How long one delivery may take, and after how long no other is begun: Dagster gives a tick a minute.
DELIVERY_S: Final = 10.0
TICK_S: Final = 35.0

#: Alerts that are read at a time.
BATCH: Final = 50

#: Characters of a reason that are passed on; the run's page has all of it.
_LONGEST_REASON: Final = 2_000

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


class DeliveryError(TradePulseError):
    """An alert could not be delivered; the message holds neither the webhook's address nor a password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One message. Its ``id`` is the same whenever the same thing is told, so that a receiver can tell a repetition."""

    id: str
    subject: str
    what: str
    why: str
    what_to_do: str
    link: str | None = None
    at: datetime
    #: What programs may want to know: series, strategy, run.
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The message in a few lines."""
        reason = self.why if len(self.why) <= _LONGEST_REASON else f"{self.why[:_LONGEST_REASON]} …"
        lines = [self.what, f"Why: {reason}", f"What to do: {self.what_to_do}"]
        return "\n".join([*lines, *([f"See {self.link}"] if self.link else [])])


class Channel(Protocol):
    """Where alerts go."""

    @property
    def name(self) -> str:
        """How logs and cursors call it."""

    def deliver(self, alert: Alert) -> None:
        """Deliver ``alert``, or raise DeliveryError: then it was not delivered, as far as can be known."""


@dataclass(frozen=True, slots=True)
class LogChannel:
    """A file that alerts are appended to, a line each."""

    path: Path
    name: str = "log"

    def deliver(self, alert: Alert) -> None:
        """Append ``alert``."""
        line = " | ".join([f"{alert.at:%Y-%m-%dT%H:%M:%SZ}", alert.subject, *alert.text.splitlines()])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise DeliveryError(f"the file {self.path} cannot be written: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class WebhookChannel:
    """A URL that takes JSON: ``text`` for chat programs, the parts for others."""

    url: str = field(repr=False)
    name: str = "webhook"

    def deliver(self, alert: Alert) -> None:
        """Post ``alert``."""
        import requests

        content = {
            "text": f"{alert.subject}\n{alert.text}",
            "id": alert.id,
            "subject": alert.subject,
            "what": alert.what,
            "why": alert.why[:_LONGEST_REASON],
            "what_to_do": alert.what_to_do,
            "link": alert.link,
            "at": alert.at.isoformat(),
            **alert.facts,
        }

        def post() -> int:
            with requests.post(
                self.url, json=content, timeout=DELIVERY_S / 2, allow_redirects=False, stream=True
            ) as reply:
                return reply.status_code

        # Messages of requests name the URL, which may hold a token: none of them is passed on.
        try:
            status = within(DELIVERY_S, post)
        except TimeoutError:
            raise DeliveryError(f"the webhook did not answer within {DELIVERY_S:g} s") from None
        except (requests.RequestException, ValueError) as error:
            raise DeliveryError(f"the webhook cannot be reached ({type(error).__name__})") from None
        if not 200 <= status < 300:
            raise DeliveryError(f"the webhook answered HTTP {status}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailChannel:
    """A mail server."""

    recipients: tuple[str, ...]
    sender: str
    host: str
    port: int
    security: str
    user: str = ""
    password: str = field(default="", repr=False)
    name: str = "email"

    def __post_init__(self) -> None:
        if not self.host:
            raise InvalidInputError("alerts_smtp_host: found none, expected the mail server for alerts_email.")
        if self.password and self.security == "none" and self.host not in _LOOPBACK:
            raise InvalidInputError(
                "alerts_smtp_security: found 'none' with a password, which would cross the network unencrypted; "
                "expected 'starttls' or 'tls'."
            )

    def deliver(self, alert: Alert) -> None:
        """Mail ``alert``."""
        message = EmailMessage()
        message["Subject"] = " ".join(alert.subject.split())
        message["From"], message["To"] = self.sender, ", ".join(self.recipients)
        message["Date"] = alert.at
        message["Message-ID"] = f"<{alert.id}@tradepulse>"
        message.set_content(alert.text)
        try:
            within(DELIVERY_S, lambda: self._send(message))
        except TimeoutError:
            raise DeliveryError(f"the mail server {self.host} took longer than {DELIVERY_S:g} s") from None
        except smtplib.SMTPResponseException as error:
            raise DeliveryError(f"the mail server {self.host} refused: code {error.smtp_code}") from None
        except (OSError, smtplib.SMTPException) as error:
            raise DeliveryError(f"the mail server {self.host} failed ({type(error).__name__})") from None

    def _send(self, message: EmailMessage) -> None:
        context = ssl.create_default_context()
        timeout = DELIVERY_S / 2
        with (
            smtplib.SMTP_SSL(self.host, self.port, timeout=timeout, context=context)
            if self.security == "tls"
            else smtplib.SMTP(self.host, self.port, timeout=timeout)
        ) as server:
            if self.security == "starttls":
                server.starttls(context=context)
            if self.user:
                server.login(self.user, self.password)
            server.send_message(message)


def channels_of(settings: Settings) -> list[Channel]:
    """Return where alerts go by the settings.

    Raises
    ------
    InvalidInputError
        If the settings of e-mail lack something or contradict each other.
    """
    channels: list[Channel] = [LogChannel(Path(settings.alerts_log))]
    if settings.alerts_webhook is not None:
        channels.append(WebhookChannel(settings.alerts_webhook.get_secret_value()))
    if settings.alerts_email:
        password = settings.alerts_smtp_password
        channels.append(
            EmailChannel(
                recipients=settings.alerts_email,
                sender=settings.alerts_email_from,
                host=settings.alerts_smtp_host,
                port=settings.alerts_smtp_port,
                security=settings.alerts_smtp_security,
                user=settings.alerts_smtp_user,
                password=password.get_secret_value() if password is not None else "",
            )
        )
    return channels


class DeliveryCursors:
    """Up to which number each channel has got the alerts of one kind, kept by Dagster's storage.

    Written after each delivery, not at the end of a tick as a sensor's own cursor is: a tick that is cut off repeats
    nothing.
    """

    def __init__(self, instance: dg.DagsterInstance, kind: str) -> None:
        self._storage: Final = instance.daemon_cursor_storage
        self._key: Final = f"TRADEPULSE_ALERTS_{kind.upper()}"

    def read(self) -> dict[str, int]:
        """Return the number of each channel that has been served before."""
        values: dict[str, int] = json.loads(self._storage.get_cursor_values({self._key}).get(self._key, "{}"))
        return values

    def advance(self, channel: str, number: int) -> None:
        """Note that ``channel`` has got all up to ``number``."""
        self._storage.set_cursor_values({self._key: json.dumps({**self.read(), channel: number})})


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliveries:
    """What one tick delivered and what it could not, in words."""

    delivered: tuple[str, ...]
    failures: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What the page of the tick says."""
        if not self.delivered and not self.failures:
            return "Nothing has happened since the last tick."
        told = f"{len(self.delivered)} alert{'s' * (len(self.delivered) != 1)} delivered."
        return " ".join([told, *(f"{failure}; it is tried again at the next tick." for failure in self.failures)])


def deliver_new(
    channels: Sequence[Channel],
    cursors: DeliveryCursors,
    newest: Callable[[], int],
    alerts_after: Callable[[int], Sequence[tuple[int, Alert | None]]],
) -> Deliveries:
    """Deliver to each channel, in order, what it has not got yet; a channel that fails keeps no other one waiting.

    ``alerts_after`` returns what has a number above the given one, None for what is no news. A channel that is seen
    for the first time begins after ``newest``: nobody wants the alerts of the past.
    """
    served = cursors.read()
    delivered: list[str] = []
    failures: list[str] = []
    end = time.monotonic() + TICK_S
    for channel in channels:
        if channel.name not in served:
            cursors.advance(channel.name, newest())
            continue
        last = served[channel.name]
        for number, alert in alerts_after(last):
            if time.monotonic() > end:
                break
            if alert is not None:
                try:
                    channel.deliver(alert)
                except DeliveryError as error:
                    failures.append(f"{channel.name}: '{alert.subject}' was not delivered: {error}")
                    break
                delivered.append(f"{channel.name}: {alert.subject}")
                cursors.advance(channel.name, number)
            last = number
        if last != cursors.read()[channel.name]:
            cursors.advance(channel.name, last)
    return Deliveries(delivered=tuple(delivered), failures=tuple(failures))


def run_failure_alert(run: dg.DagsterRun, reason: str, at: float, web_url: str) -> Alert:
    """Return what is to be told of a run that failed."""
    series = run.tags.get(PARTITION_TAG)
    work = "assets" if run.job_name.startswith("__") else run.job_name
    if run.job_name.startswith("__") and run.asset_selection:
        work = ", ".join(sorted(key.to_user_string() for key in run.asset_selection))
    place = f" of {series}" if series else ""
    simulated = "SIMULATED: " if SIMULATED_TAG in run.tags else ""
    moment = datetime.fromtimestamp(at, UTC)
    strategy = run.tags.get("strategy")
    return Alert(
        id=f"run-{run.run_id}",
        subject=f"{simulated}{work}{place} failed",
        what=f"{simulated}The run {run.run_id[:8]} of {work}{place} failed at {moment:%Y-%m-%d %H:%M} UTC"
        f"{f' (strategy {strategy})' if strategy else ''}.",
        why=reason,
        what_to_do="Nothing yet: it is launched again by itself."
        if run.tags.get(WILL_RETRY_TAG) == "true"
        else "Mend what the reason names, then launch it again: 'Re-execute' on the run's page, or 'Failed and "
        "missing' where partitions are launched. Configurations that were there before stay as they are.",
        link=f"{web_url.rstrip('/')}/runs/{run.run_id}" if web_url else None,
        at=moment,
        facts={
            "run_id": run.run_id,
            "job": run.job_name,
            **({"series": series} if series else {}),
            **({"strategy": strategy} if strategy else {}),
        },
    )


def stage_change_alert(change: StageChange, web_url: str) -> Alert:
    """Return what is to be told of a configuration that took another stage."""
    simulated = "SIMULATED: " if change.is_simulated else ""
    branch = change.strategy_name.lower()
    former = change.from_stage or "none"
    size = STAGE_MULTIPLIERS[change.to_stage]
    page = f"assets/{branch}/trained_configurations?view=partitions&partition={quote(str(change.series))}"
    if change.to_stage == "DECAY":
        advice = (
            "Open no new position with it, and let those that are open end as it says. Train it again "
            f"(train_{branch}), unless the sensor for retraining is on."
        )
    elif not size:
        advice = "Open no position with it: it goes on on paper alone."
    else:
        advice = f"It may be traded with {size:.0%} of the full position size."
    return Alert(
        id=f"stage-{change.id}",
        subject=f"{simulated}{change.strategy_name} on {change.series}: {former} → {change.to_stage}",
        what=f"{simulated}The configuration of {change.strategy_name} on {change.series} (version {change.version}, "
        f"{str(change.configuration_id)[:8]}) went from {former} to {change.to_stage} at "
        f"{change.at:%Y-%m-%d %H:%M} UTC.",
        why=change.reason,
        what_to_do=f"{advice} 'tradepulse show {str(change.configuration_id)[:8]}' has all figures.",
        link=f"{web_url.rstrip('/')}/{page}" if web_url else None,
        at=change.at,
        facts={
            "configuration_id": str(change.configuration_id),
            "strategy": change.strategy_name,
            "series": str(change.series),
            "from_stage": former,
            "to_stage": change.to_stage,
        },
    )
