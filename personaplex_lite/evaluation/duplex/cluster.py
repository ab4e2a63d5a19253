"""The duplex benchmark on more than one GPU or machine: the same workers as Ray actors, the same results.

What departs from the plain engine: nothing but where a worker lives. Only this process writes, so the actors
need to see the data, not the results. An actor that dies is started again, and so is its batch.
"""
from __future__ import annotations

from collections.abc import Callable

from .instruments import fetch


def actors(worker: type, workers: int) -> Callable:
    """An engine (see run.run) of that many actors of the class `worker`, a GPU each if the device is cuda.

    Joins the cluster that RAY_ADDRESS names; else starts one on this machine and ends it.
    """
    def engine(settings: dict, todo: list):
        ray = fetch("ray", "-e '.[ray]'")
        from ray.util import ActorPool

        ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level="warning",
                 include_dashboard=False)
        try:
            gpus = int(settings["device"].startswith("cuda"))
            share = max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)
            one = ray.remote(num_gpus=gpus, num_cpus=share, max_restarts=3, max_task_retries=3)(worker)
            pool = ActorPool([one.remote(settings) for _ in range(min(workers, len(todo)))])
            for results in pool.map_unordered(lambda actor, batch: actor.__call__.remote(batch), todo):
                yield from results
        finally:
            ray.shutdown()
    return engine
