"""How steps run: one after the other in the run's own process, and cancelled means cancelled."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import DagsterEvent
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.storage.tags import RETRY_ON_ASSET_OR_OP_FAILURE_TAG

from tradepulse_pipeline.orchestration.failures import lost_dagsters_database
from tradepulse_pipeline.orchestration.launcher import PROCESS_TAG, LocalRunLauncher
from tradepulse_pipeline.orchestration.names import WILL_RETRY_TAG
from tradepulse_pipeline.processes import interrupts_arrive, this_process


class CancellableExecutor(InProcessExecutor):
    """Runs steps in process, and ends a run that is interrupted at its own machine as cancelled.

    Dagster takes an interrupt that nobody asked for in the web UI (Ctrl-C in the terminal, a server that is shut
    down) for a failure, which it would retry. So it is where a launcher sent the run to another machine: that one is
    shut down, and the run is to go on elsewhere.

    A step that failed because Dagster's own connection broke (its database restarted) has the run tried again, as one
    whose process died: Dagster would take it for a step that fails by itself. So it would where a run that was given
    up for dead, to be tried again, finds that it may not go on, and would take that back.
    """

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Run all steps of the plan."""
        plan_context.instance.add_run_tags(plan_context.run_id, {PROCESS_TAG: this_process()})
        try:
            with interrupts_arrive(DagsterExecutionInterruptedError):
                for event in super().execute(plan_context, execution_plan):
                    if event.is_step_failure and (lost_dagsters_database(event) or _is_to_be_retried(plan_context)):
                        tag = {RETRY_ON_ASSET_OR_OP_FAILURE_TAG: "true"}
                        plan_context.instance.add_run_tags(plan_context.run_id, tag)
                    yield event
        except (KeyboardInterrupt, DagsterExecutionInterruptedError):
            instance = plan_context.instance
            run = instance.get_run_by_id(plan_context.run_id)
            if run is not None and run.status is dg.DagsterRunStatus.STARTED and not _was_sent(run, instance):
                instance.report_run_canceling(run, "Interrupted: the run is cancelled.")
            raise


def _is_to_be_retried(plan_context: PlanOrchestrationContext) -> bool:
    """Return whether the run, while it still goes on here, counts as failed and is to be tried again."""
    run = plan_context.instance.get_run_by_id(plan_context.run_id)
    return run is not None and run.is_finished and run.tags.get(WILL_RETRY_TAG) == "true"


def _was_sent(run: dg.DagsterRun, instance: dg.DagsterInstance) -> bool:
    """Return whether a launcher, which may be for other machines, started the run; a command does so itself."""
    if isinstance(instance.run_launcher, LocalRunLauncher):
        return False
    return instance.get_run_stats(run.run_id).launch_time is not None


@dg.executor(name="in_process", requirements=[])
def cancellable_executor(context: dg.InitExecutorContext) -> CancellableExecutor:
    """Run all steps in the run's process: a step takes less time than a process takes to start."""
    return CancellableExecutor(retries=RetryMode.ENABLED)
