"""``tradepulse jobs``: what was trained, is being trained, or failed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli.options import AsJson
from tradepulse_pipeline.cli.verdict import marked
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline.database.training_jobs import TrainingJob

_STYLES: Final = {"running": "cyan", "completed": "green", "failed": "red", "cancelled": "yellow"}


def jobs(
    status: Annotated[
        str | None,
        typer.Option("--status", metavar="STATUS", help="pending, running, completed, failed or cancelled."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="The latest N.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List training jobs: how far they are, what came of them.

    [dim]$[/dim] tradepulse jobs --status failed
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.database.training_jobs import list_jobs

    with open_database(load_settings()) as database:
        found = list_jobs(database, limit=limit, status=status)
    if as_json:
        console.print_json([_listed(job) for job in found])
    elif not found:
        console.say("No training jobs yet. 'tradepulse train' makes one.")
    else:
        page = console.stdout()
        columns = ["Job", "Trained", "Status", "Trials", "Stored", "Started", "Took"]
        page.print(console.table(columns, [_row(job) for job in found], left=3, folding=("Trained",)))
        for job in found:
            for one in job.series:
                if one.error_message:
                    page.print(f"{str(job.id)[:8]}  {one.series}: {one.error_message.splitlines()[0]}", markup=False)


def _row(job: TrainingJob) -> list[str]:
    style = _STYLES.get(job.status, "default")
    return [
        str(job.id)[:8],
        "\n".join((job.strategy_name, *(f"{one.series}{marked(one.series.exchange)}" for one in job.series))),
        f"[{style}]{job.status}[/]",
        _trials(job),
        str(job.configurations_created),
        "–" if job.started_at is None else console.day(job.started_at),
        "–" if job.started_at is None else console.duration(_seconds(job)),
    ]


def _trials(job: TrainingJob) -> str:
    done, total = job.completed_combinations, job.total_combinations
    return f"{done:,}" if done == total else f"{done:,}/{total:,}"


def _seconds(job: TrainingJob) -> float:
    assert job.started_at is not None
    return ((job.completed_at or datetime.now(UTC)) - job.started_at).total_seconds()


def _listed(job: TrainingJob) -> dict[str, Any]:
    return {
        "id": str(job.id),
        "strategy": job.strategy_name,
        "status": job.status,
        "total_combinations": job.total_combinations,
        "completed_combinations": job.completed_combinations,
        "failed_combinations": job.failed_combinations,
        "configurations_created": job.configurations_created,
        "best_net_profit": job.best_net_profit,
        "created_at": job.created_at.isoformat(),
        "started_at": None if job.started_at is None else job.started_at.isoformat(),
        "completed_at": None if job.completed_at is None else job.completed_at.isoformat(),
        "seed": job.seed,
        "run_ids": list(job.run_ids),
        "config": job.config,
        "series": [
            {"series": str(one.series), "status": one.status, "run_id": one.run_id, "error_message": one.error_message}
            for one in job.series
        ],
    }
