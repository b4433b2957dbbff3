"""A backend for joblib: `import taskengine.joblib`, then `joblib.parallel_config(backend="taskengine", address=…)`.

`delayed(f)` takes a function that is a task, or a task's name, as `taskengine.Executor` does. joblib is an extra.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, register_parallel_backend

from taskengine.client.executor import Executor
from taskengine.errors import TaskEngineError
from taskengine.protocol.limits import DEFAULT_ADDRESS

NAME = "taskengine"
FEWEST_JOBS = 2
"""With one job joblib would call the functions itself, in this process."""


class TaskEngineBackend(AutoBatchingMixin, ParallelBackendBase):
    """Runs the calls of a `joblib.Parallel` as tasks of the engine at `address`; the rest as for `Executor`.

    Each batch of joblib's travels as one package, which the engine spreads over its workers.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._address = address
        self._options = options
        self._executor: Executor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many batches are to be under way: `n_jobs`, or as many as the engine has workers with -1."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        return max(FEWEST_JOBS, self._count_workers() if n_jobs is None or n_jobs < 0 else n_jobs)

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **options: Any
    ) -> int:
        """Connect for a `Parallel`, and return its number of jobs."""
        self.parallel = parallel
        self._running()
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Any, callback: Callable[[Any], Any] | None = None) -> Any:
        """Send a batch of calls, and have `callback` called with its future."""
        future = self._running().submit_all(func.items)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return the results of a batch. Raises its first error."""
        results = out.result()
        for result in results:
            if isinstance(result, TaskEngineError):
                raise result
        return results

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Give up all calls; the next one connects anew. No batch calls back afterwards, which joblib relies on."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.abort()

    def terminate(self) -> None:
        """Close the connection, once what was sent has ended."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    def _running(self) -> Executor:
        if self._executor is None:
            self._executor = Executor(self._address, **self._options)
        return self._executor

    def _count_workers(self) -> int:
        if self._executor is not None:
            return self._executor.workers
        with Executor(self._address, **self._options) as asked:
            return asked.workers


register_parallel_backend(NAME, TaskEngineBackend)
