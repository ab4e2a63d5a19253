"""The duplex benchmark on more than one GPU or machine: the same workers as Ray actors, the same results.

Only this process writes, so the actors need to see the data, not the results. An actor that dies is started
again, and so is its batch.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator

from .instruments import fetch


def actors(worker: type, workers: int) -> Callable[[dict, list[list]], Iterator[tuple]]:
    """An engine (see run.run) of that many actors of the class `worker`, a GPU each if the device is cuda.

    Joins the cluster that RAY_ADDRESS names; else starts one on this machine and ends it.
    """
    def engine(settings: dict, todo: list[list]) -> Iterator[tuple]:
        ray = fetch("ray", "-e '.[ray]'")
        from ray.util import ActorPool

        ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level="warning",
                 include_dashboard=False)
        try:
            gpus = int(settings["device"].startswith("cuda"))
            cores = int(ray.cluster_resources().get("CPU", 1))
            share = max(1, cores // workers)
            one = ray.remote(num_gpus=gpus, num_cpus=share, max_restarts=3, max_task_retries=3)(worker)
            count = min(workers, len(todo))
            pool = ActorPool([one.remote(settings) for _ in range(count)])
            for results in pool.map_unordered(lambda actor, batch: actor.__call__.remote(batch), todo):
                yield from results
        finally:
            ray.shutdown()
    return engine
