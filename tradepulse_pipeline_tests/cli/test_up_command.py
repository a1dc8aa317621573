from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tradepulse_pipeline.cli.up import _Process
from tradepulse_pipeline.errors import TradePulseError

if TYPE_CHECKING:
    from tradepulse_pipeline_tests.cli.conftest import Run, Start


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def servers_of(project: Path) -> list[psutil.Process]:
    """The PostgreSQL servers on the project's data folder."""
    pgdata = str((project / ".tradepulse" / "pgdata").resolve())
    return [one for one in psutil.process_iter(["cmdline"]) if pgdata in (one.info["cmdline"] or [])]


def test_up_serves_the_web_ui_and_stops_everything_on_ctrl_c(own_project: Path, start: Start) -> None:
    process = start("up", "--port", "0")
    assert process.stdout is not None
    page = ""
    for line in process.stdout:
        page += line
        if "Logs" in line:
            break
    for part in ("PostgreSQL  embedded", "Migrations  applied 001_market_data.sql", "Web UI", "Daemon"):
        assert part in page
    (url,) = re.findall(r"http://127\.0\.0\.1:\d+", page)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/server_info", timeout=10) as reply:
        assert "dagster_webserver_version" in json.load(reply)
    family = psutil.Process(process.pid).children(recursive=True)
    commands = " ".join(" ".join(one.cmdline()) for one in family)
    assert "dagster_webserver" in commands
    assert "dagster._daemon" in commands
    assert servers_of(own_project)

    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Stopped." in rest
    assert alive(family) == []
    assert servers_of(own_project) == []
    for name in ("web-server.log", "daemon.log"):
        assert (own_project / ".tradepulse" / "logs" / name).stat().st_size > 0


def test_a_taken_port_is_named_with_the_way_out(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("up", "--port", str(port))
    assert done.exit_code == 2
    assert f"The web UI cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert f"tradepulse up --port {port + 1}" in done.stderr


def test_the_death_of_a_part_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    log.write_text("\n".join(f"line {number}" for number in range(40)))
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as dead:
        dead.wait()
    with pytest.raises(TradePulseError, match=r"(?s)The daemon ended with exit code 3\. .*log:.*line 25.*line 39"):
        _Process("daemon", log, dead).check()


def test_up_says_what_is_wrong_with_a_strategy_of_ones_own(own_project: Path, start: Start) -> None:
    (own_project / "tradepulse.toml").write_text('own_strategies = ["mine.py"]')
    (own_project / "mine.py").write_text("import nothing_like_that\n")
    process = start("up", "--port", "0")
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "Dagster cannot load the definitions" in errors
    assert "mine.py, line 1: ModuleNotFoundError" in errors
