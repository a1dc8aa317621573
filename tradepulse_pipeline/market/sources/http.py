"""HTTP requests to a source: no redirects, no silence, no waiting for ever, and again where that can help."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from tradepulse_pipeline.errors import SourceError, SourceUnreachableError
from tradepulse_pipeline.market.sources.pace import Pace

T = TypeVar("T")

#: Longest reply that is read, in bytes: some ten times the largest list of markets, or month of packed 1m candles.
MAX_REPLY_BYTES: Final = 128 * 1024 * 1024

#: A source that asks for a longer wait than this, in seconds, is better left alone for now.
_SOON_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to try: each attempt ends after ``deadline_s``; the waits between them double, with jitter.

    An exchange that asks for a longer wait than ``longest_wait_s`` is not waited for.
    """

    attempts: int = 6
    deadline_s: float = 60.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 120.0

    def wait_s(self, attempt: int, jitter: float) -> float:
        """Return the wait after the ``attempt``-th failure (from 1), ``jitter`` in [0, 1) being random."""
        return min(self.first_wait_s * 2.0 ** (attempt - 1) * (0.5 + jitter), self.longest_wait_s)


#: A first contact is made in less than ten seconds or not at all.
FIRST_CONTACT: Final = Patience(attempts=2, deadline_s=4.0, first_wait_s=0.5)


class TransientError(SourceError):
    """A request that may succeed when made again: ``retry_after_s`` is how long the exchange asks to wait, if it does.

    ``is_answered`` tells an exchange that failed from one that was never reached.
    """

    def __init__(self, message: str, *, is_answered: bool, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.may_pass = (retry_after_s or 0.0) <= _SOON_S
        self.is_answered = is_answered
        self.retry_after_s = retry_after_s


class StoppedError(SourceError):
    """A request that was not made, because the fetch that it belongs to has ended."""


class Stop:
    """Tells the threads of one fetch that it has ended; ``refusal`` is the error that ended it, if one did."""

    def __init__(self) -> None:
        self._event = Event()
        self.refusal: SourceError | None = None

    def now(self, refusal: SourceError | None = None) -> None:
        """End the fetch; the first refusal counts."""
        self.refusal = self.refusal or refusal
        self._event.set()

    def check(self) -> None:
        """Raise StoppedError if the fetch has ended."""
        if self._event.is_set():
            raise StoppedError("the fetch has ended")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what ``work`` returns; after ``seconds`` give up on it, whatever it is waiting for.

    A socket's timeout starts anew with every byte and does not cover the resolving of names, so the work runs in a
    thread of its own, which is left behind if it does not end in time.

    Raises
    ------
    TimeoutError
        If the work takes longer.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    return outcome.result(timeout=seconds)


def in_time(seconds: float, request: Callable[[], T]) -> T:
    """Return what ``request`` returns, as :func:`within` does.

    Raises
    ------
    TransientError
        If it takes longer than ``seconds``.
    """
    try:
        return within(seconds, request)
    except TimeoutError as error:
        raise TransientError(f"no full reply within {seconds:g} s", is_answered=False) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """Makes the requests of the source ``name``, again where that can help, and says what was tried when it does not.

    ``sleep`` is how to wait, ``jitter`` what to draw the waits' randomness from; ``hold`` is how to wait where the
    source has said how long, for all that ask it (None: as ``sleep`` does).
    """

    name: str
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    hold: Callable[[float], None] | None = None

    def ask(
        self,
        what: str,
        request: Callable[[], T],
        patience: Patience,
        *,
        on_refusal: Callable[[SourceError], None] = lambda error: None,
    ) -> T:
        """Return what ``request`` returns; a failure that may pass must be a :class:`TransientError`.

        ``on_refusal`` is told of a failure that no other request can escape, such as a ban.

        Raises
        ------
        SourceUnreachableError
            If no attempt was answered.
        SourceError
            If the last attempt failed otherwise, or the source asks to wait for longer than ``patience`` allows.
        """
        attempt = 1
        while True:
            try:
                return request()
            except TransientError as error:
                wait_s = error.retry_after_s
                is_too_long = (wait_s or 0.0) > patience.longest_wait_s
                if attempt == patience.attempts or is_too_long:
                    given_up = self._given_up(what, attempt, error)
                    if is_too_long:
                        on_refusal(given_up)
                    raise given_up from error
            except StoppedError:
                raise
            except SourceError as error:
                on_refusal(error)
                raise
            if wait_s is None:
                self.sleep(patience.wait_s(attempt, self.jitter()))
            else:
                (self.hold or self.sleep)(wait_s)
            attempt += 1

    def _given_up(self, what: str, attempts: int, error: TransientError) -> SourceError:
        tried = f"{attempts} attempt{'s' if attempts > 1 else ''}"
        if not error.is_answered:
            return SourceUnreachableError(f"{self.name} cannot be reached ({tried}): {error}. Check the network.")
        asked = "" if error.retry_after_s is None else f" It asks to wait {error.retry_after_s:.0f} s."
        return SourceError(
            f"{self.name} fails ({tried} to get {what}): {error}.{asked} "
            "Run again later: what was fetched is kept, and the next run goes on from there."
        )


class Reply(NamedTuple):
    """What a request was answered with."""

    status: int
    reason: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def beginning(self) -> str:
        """What kind of content it is, and how it starts, for a message."""
        content_type = self.headers.get("Content-Type", "no content type")
        return f"{content_type}, starts with {self.content[:60].decode(errors='replace')!r}"


def refuse(name: str, url: str, reply: Reply) -> None:
    """Raise the error for a status that says all there is to say, whatever the body holds.

    Raises
    ------
    TransientError
        For 429 and 5xx.
    SourceUnreachableError
        For a refusal of requests from this place (401, 403, 407, 451).
    SourceError
        For a ban (418) and a redirect.
    """
    status = reply.status
    seconds = reply.headers.get("Retry-After", "")
    retry_after = float(seconds) if seconds.isdigit() else None
    wait = f" for {seconds} s" if retry_after is not None else ""
    if 300 <= status < 400:
        raise SourceError(
            f"{name} redirects {url} to {reply.headers.get('Location', 'nowhere')!r}; redirects are not followed. "
            "Check the exchange's address in the settings, and that no proxy or login page is in between."
        )
    if status == 418:
        raise SourceError(
            f"{name} has banned this address{wait} for too many requests (HTTP 418). "
            "Wait until the ban has ended, then run again: what was fetched is kept."
        )
    if status in {401, 403, 407, 451}:
        raise SourceUnreachableError(
            f"{name} refuses requests from here (HTTP {status}), as exchanges do for some countries and "
            "data centres. Use another exchange, or import files of its candles."
        )
    if status == 429 or status >= 500:
        raise TransientError(f"{name} answered HTTP {status} to {url}", is_answered=True, retry_after_s=retry_after)


def request_once(
    session: Any,
    name: str,
    url: str,
    *,
    method: str = "GET",
    headers: Any = None,
    body: Any = None,
    deadline_s: float,
    refuse: Callable[[str, str, Reply], None] = refuse,
) -> Reply:
    """Make one request of the source ``name`` with a :class:`requests.Session`, and return the reply.

    After ``deadline_s`` it is given up, however far the reply has come; ``refuse`` raises for a status that is an
    error.

    Raises
    ------
    TransientError
        For what may pass: no connection, a body that is cut short, and as :func:`refuse` says.
    SourceError
        For a reply without end, and as :func:`refuse` says.
    """
    import requests

    def request() -> Reply:
        with session.request(
            method, url, headers=headers, data=body, timeout=deadline_s, allow_redirects=False, stream=True
        ) as response:
            content = bytearray()
            for part in response.iter_content(64 * 1024):
                content += part
                if len(content) > MAX_REPLY_BYTES:
                    raise SourceError(f"{name} sends more than {MAX_REPLY_BYTES // 1024**2} MiB for {url}; refused.")
        return Reply(response.status_code, response.reason, response.headers, bytes(content))

    try:
        reply = in_time(deadline_s, request)
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        raise TransientError(f"{name} cut its reply short ({url}): {error}", is_answered=True) from error
    except requests.RequestException as error:
        raise TransientError(
            f"no connection to {urlsplit(url).netloc}: {_root_cause(error)}", is_answered=False
        ) from error
    refuse(name, url, reply)
    return reply


def json_of(name: str, url: str, reply: Reply) -> Any:
    """Return the JSON that a reply holds.

    Raises
    ------
    TransientError, SourceError
        If it holds none: HTML, nothing, half of it. With a status that is an error it will not pass.
    """
    try:
        return json.loads(reply.content.decode(errors="replace"))
    except ValueError as error:
        size = len(reply.content)
        message = f"{name} sent no JSON (HTTP {reply.status}, {size} characters, {reply.beginning}) for {url}"
        raise (TransientError(message, is_answered=True) if reply.status < 400 else SourceError(message)) from error


class GuardedHttp:
    """Replaces how a ccxt client fetches; to be put before the exchange's class.

    ccxt follows redirects, hides the headers of a refusal and takes an HTML page or an empty body for 'no candles'.
    Here every reply that is not JSON from the very address asked for is an error that says what it was. A request
    waits for its turn at ``pace``, is not made once ``stop`` says so, and ends ``deadline_s`` after it has begun.
    """

    id: str
    session: Any
    rateLimit: float  # noqa: N815 - ccxt's name
    handle_errors: Callable[..., Any]
    pace: Pace
    stop: Stop
    deadline_s: float
    #: How much later the exchange's clock is than ours.
    clock_shift_ms: int = 0
    #: The last reply as decoded JSON.
    reply: Any = None

    def milliseconds(self) -> int:
        """Return the time by the exchange's clock, from which ccxt reckons what is recent."""
        return time.time_ns() // 1_000_000 + self.clock_shift_ms

    def throttle(self, cost: float | None = None) -> None:
        """Wait for the turn of a request that costs ``cost`` times what ccxt calls the exchange's rate limit."""
        self.pace.wait((1.0 if cost is None else cost) * self.rateLimit / 1000)
        self.stop.check()

    def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        """Make one request and return the decoded JSON.

        Raises
        ------
        TransientError
            For what may pass, as :func:`request_once` says, and for a body that is not JSON.
        SourceUnreachableError, SourceError
            As for :func:`request_once`, and for what else the exchange refuses.
        """
        got = request_once(
            self.session, self.id, url, method=method, headers=headers, body=body, deadline_s=self.deadline_s
        )
        status, text = got.status, got.content.decode(errors="replace")
        self.reply = json_of(self.id, url, got)
        self.handle_errors(status, got.reason, url, method, got.headers, text, self.reply, headers, body)
        if status >= 400:
            raise SourceError(f"{self.id} answered HTTP {status} {got.reason} to {url}: {text[:200]}")
        return self.reply


def _root_cause(error: BaseException) -> str:
    """Return what the operating system said, without the layers of libraries that pass it on."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(getattr(error, "strerror", None) or error)
