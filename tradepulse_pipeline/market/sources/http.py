"""One HTTP request to an exchange: no redirects, no silence, no waiting for ever."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tradepulse_pipeline.errors import SourceError, SourceUnreachableError

T = TypeVar("T")


class TransientError(SourceError):
    """A request that may succeed when made again: ``retry_after_s`` is how long the exchange asks to wait, if it does.

    ``is_answered`` tells an exchange that failed from one that was never reached.
    """

    def __init__(self, message: str, *, is_answered: bool, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.is_answered = is_answered
        self.retry_after_s = retry_after_s


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


class GuardedHttp:
    """Replaces how a ccxt client fetches; to be put before the exchange's class.

    ccxt follows redirects, hides the headers of a refusal and takes an HTML page or an empty body for 'no candles'.
    Here every reply that is not JSON from the very address asked for is an error that says what it was.
    """

    id: str
    session: Any
    timeout: int
    handle_errors: Callable[..., Any]
    #: The last reply as decoded JSON.
    reply: Any = None

    def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        """Make one request and return the decoded JSON.

        Raises
        ------
        TransientError
            For what may pass: no connection, 429, 5xx, a body that is cut short or not JSON.
        SourceUnreachableError
            For a refusal of requests from this place (403, 451).
        SourceError
            For what else will not pass: a ban (418), a redirect.
        """
        import requests

        try:
            response = self.session.request(
                method, url, headers=headers, data=body, timeout=self.timeout / 1000, allow_redirects=False
            )
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
            raise TransientError(f"{self.id} cut its reply short ({url}): {error}", is_answered=True) from error
        except requests.RequestException as error:
            raise TransientError(
                f"no connection to {urlsplit(url).netloc}: {_root_cause(error)}", is_answered=False
            ) from error
        status, reason, text = response.status_code, response.reason, response.content.decode(errors="replace")
        self._refuse(status, url, response.headers)
        try:
            self.reply = json.loads(text)
        except ValueError as error:
            message = (
                f"{self.id} sent no JSON (HTTP {status}, {len(text)} characters, "
                f"{response.headers.get('Content-Type', 'no content type')}, starts with {text[:60]!r}) for {url}"
            )
            raise (TransientError(message, is_answered=True) if status < 400 else SourceError(message)) from error
        self.handle_errors(status, reason, url, method, response.headers, text, self.reply, headers, body)
        if status >= 400:
            raise SourceError(f"{self.id} answered HTTP {status} {reason} to {url}: {text[:200]}")
        return self.reply

    def _refuse(self, status: int, url: str, headers: Mapping[str, str]) -> None:
        """Raise the error for a status that says all there is to say, whatever the body holds."""
        seconds = headers.get("Retry-After", "")
        retry_after = float(seconds) if seconds.isdigit() else None
        wait = f" for {seconds} s" if retry_after is not None else ""
        if 300 <= status < 400:
            raise SourceError(
                f"{self.id} redirects {url} to {headers.get('Location', 'nowhere')!r}; redirects are not followed. "
                "Check the exchange's address in the settings, and that no proxy or login page is in between."
            )
        if status == 418:
            raise SourceError(
                f"{self.id} has banned this address{wait} for too many requests (HTTP 418). "
                "Wait until the ban has ended, then run again: what was fetched is kept."
            )
        if status in {401, 403, 407, 451}:
            raise SourceUnreachableError(
                f"{self.id} refuses requests from here (HTTP {status}), as exchanges do for some countries and "
                "data centres. Use another exchange, or import files of its candles."
            )
        if status == 429 or status >= 500:
            raise TransientError(
                f"{self.id} answered HTTP {status} to {url}", is_answered=True, retry_after_s=retry_after
            )


def _root_cause(error: BaseException) -> str:
    """Return what the operating system said, without the layers of libraries that pass it on."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(getattr(error, "strerror", None) or error)
