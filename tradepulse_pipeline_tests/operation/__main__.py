"""Tell the day on the terminal: python -m tradepulse_pipeline_tests.operation."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path

from tradepulse_pipeline_tests.operation.day import a_day


def main() -> None:
    """Pass the day in a folder that is removed after it; what Dagster logs is left out."""
    warnings.simplefilter("ignore")

    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory(prefix="day-") as folder:
        Path(folder).chmod(0o755)
        errors = os.dup(2)
        with (Path(folder) / "dagster.log").open("wb") as log:
            os.dup2(log.fileno(), 2)
        try:
            with a_day(Path(folder), tell) as day:
                day.pass_the_day()
        finally:
            os.dup2(errors, 2)


if __name__ == "__main__":
    main()
