"""A person at Dagster's web UI: headless Chromium, and what is done there in the words that stand on the screen."""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")

#: A busy machine may take long; whoever waits goes on as soon as it is there.
PATIENCE: Final = 180.0

_ARGUMENTS: Final = (
    "--headless=new",
    "--no-sandbox",  # the only page that it opens is our own
    "--disable-gpu",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def missing() -> str:
    """Return which program is not installed that a browser takes; an empty text if none is."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (Debian: apt install chromium chromium-driver)" if absent else ""


class Browser:
    """One window. Texts are those on the screen, in whole; waits end as soon as they are fulfilled."""

    def __init__(self, driver: Chrome, url: str, artefacts: Path) -> None:
        self.driver, self.url, self.artefacts = driver, url, artefacts

    def open(self, path: str) -> None:
        """Open a page of the web UI."""
        self.driver.get(f"{self.url}{path}")

    def open_partition(self, asset: str, series: str) -> None:
        """Open what an asset's page tells about one series, and wait until it does."""
        self.open(f"/assets/{asset}?view=partitions&partition={quote(series, safe='')}")
        self.see("Materialized")

    def find(self, xpath: str, what: str = "", seconds: float = PATIENCE) -> WebElement:
        """Return the first visible element at ``xpath``, as soon as there is one."""
        return self.wait_for(what or xpath, lambda: next(self._visible(xpath), None), seconds)

    def see(self, text: str, seconds: float = PATIENCE) -> WebElement:
        """Return the innermost element with ``text`` in it, as soon as it shows."""
        within = f"contains(normalize-space(.), {_quoted(text)})"
        return self.find(f"//body//*[{within} and not(./*[{within}])]", f"the text {text!r}", seconds)

    def click(self, text: str) -> None:
        """Click what has the very ``text``: a button, a link, a heading that unfolds."""
        whole = f"normalize-space(.)={_quoted(text)}"
        self.click_at(f"//body//*[{whole} and not(./*[{whole}])]", f"what says {text!r}")

    def click_at(self, xpath: str, what: str = "") -> None:
        """Click the first visible element at ``xpath`` that takes clicks, as soon as there is one."""
        from selenium.common.exceptions import ElementClickInterceptedException, ElementNotInteractableException

        def clicked() -> bool:
            element = next(self._visible(f"{xpath}[not(ancestor-or-self::button[@disabled])]"), None)
            if element is None:
                return False
            try:
                element.click()
            except (ElementClickInterceptedException, ElementNotInteractableException):  # under something that moves
                return False
            return True

        self.wait_for(what or xpath, clicked)

    def type(self, xpath: str, text: str) -> None:
        """Type into the first visible field at ``xpath``."""
        self.find(xpath).send_keys(text)

    def script(self, code: str, *arguments: object) -> object:
        """Run a script in the page."""
        return self.driver.execute_script(code, *arguments)  # type: ignore[no-untyped-call]

    def wait_for(self, what: str, done: Callable[[], T | None], seconds: float = PATIENCE) -> T:
        """Return what ``done`` comes to once it is true; the page changes while it is read."""
        from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
        from selenium.webdriver.support.wait import WebDriverWait

        wait = WebDriverWait(self.driver, seconds, 0.2, ignored_exceptions=[StaleElementReferenceException])
        try:
            return wait.until(lambda _: done() or None)
        except TimeoutException:
            self.keep("failed")
            raise AssertionError(f"{what}: not within {seconds:.0f} s. The page is in {self.artefacts}.") from None

    def keep(self, name: str) -> None:
        """Keep the page as it is: a picture and its source."""
        self.picture(self.artefacts / f"{name}.png")
        (self.artefacts / f"{name}.html").write_text(self.driver.page_source)

    def picture(self, file: Path) -> None:
        """Take a picture of the window."""
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        file.write_bytes(base64.b64decode(shot["data"]))

    def settle(self, seconds: float = 1.0) -> None:
        """Let animations end before a picture is taken."""
        time.sleep(seconds)

    def _visible(self, xpath: str) -> Iterator[WebElement]:
        return (element for element in self.driver.find_elements("xpath", xpath) if element.is_displayed())


@contextmanager
def open_browser(url: str, artefacts: Path, *, width: int = 1440, height: int = 1000) -> Iterator[Browser]:
    """Open a window on the web UI at ``url``; what failed is kept in the folder ``artefacts``."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (*_ARGUMENTS, f"--window-size={width},{height}"):
        options.add_argument(argument)
    driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield Browser(driver, url, artefacts)
    finally:
        driver.quit()


def _quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"
