"""The parts of a dump made by Ray actors: one model each, fed as they become free, replaced when they die.

The actors do what `mmcam.dumps.dump` does on one machine, so the parts are the same. They find data, weights and the
folder by the names that the plan has: on several machines these must be shared paths, or URLs.
"""

import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcam.dumps.folder import Folder
from mmcam.dumps.loading import Loading
from mmcam.dumps.plan import Plan, part_name
from mmcam.errors import UserError

__all__ = ["Cluster", "dump_on_ray"]

logger = logging.getLogger(__name__)

MOST_TRIES = 4
"""A part whose actor dies so often is not only unlucky."""


@dataclass(frozen=True)
class Cluster:
    """Where actors run, and what each needs.

    Attributes:
        address: Of a running cluster ("auto", "ray://host:10001"); a cluster of this machine's own if empty.
        actors: How many; as many as find room if 0.
        gpus: Of each actor.
        cpus: Of each actor.
        device: As for `mmcam.load_task`.
        threads: Of torch in each actor; as many as its CPUs if None.
    """

    address: str = ""
    actors: int = 0
    gpus: float = 0.0
    cpus: float = 1.0
    device: str = "auto"
    threads: int | None = None


@dataclass
class Maker:
    """What an actor does: it loads the model at its first part, and makes one part after the other."""

    url: str
    plan: Plan
    loading: Loading
    cluster: Cluster
    strict: bool
    cwd: str
    loaded: tuple[Any, Any] | None = None

    def make(self, number: int) -> tuple[int, int]:
        """Make a part; returns how many samples it has and how many failed."""
        from mmcam.dumps.dump import dump_part

        task, source = self.loaded = self.loaded or self._load()
        failed = 0

        def tell(_: int, more: int) -> None:
            nonlocal failed
            failed += more

        dump_part(Folder(self.url), task, source, self.plan, number, self.loading, strict=self.strict, tell=tell)
        return len(self.plan.parts[number]), failed

    def _load(self) -> tuple[Any, Any]:
        import torch

        from mmcam.config import instantiate
        from mmcam.load import load_task, weights_sha256
        from mmcam.sources import Source

        if Path(self.cwd).is_dir():  # on another machine there may be no such folder
            os.chdir(self.cwd)
            sys.path.append(self.cwd)
        torch.set_num_threads(self.cluster.threads or max(1, int(self.cluster.cpus)))
        record = self.plan.record
        # Without a claim to a GPU of its own, every actor would take the first one.
        auto = "auto" if self.cluster.gpus else "cpu"
        device = auto if self.cluster.device == "auto" else self.cluster.device
        task = load_task({"task": record["task"]}, device=device)
        if weights_sha256(task) != record["weights_sha256"]:
            raise UserError(
                f"the weights on {os.uname().nodename} are others than in the plan; share one folder of them"
            )
        return task, instantiate({"data": record["data"]}, "data", Source)


def dump_on_ray(
    folder: Folder,
    plan: Plan,
    left: Sequence[int],
    loading: Loading,
    cluster: Cluster,
    *,
    strict: bool = False,
    tell: Callable[[int, int], None] = lambda done, failed: None,
) -> bool:
    """Make the missing parts in actors, and one file of all if these were the last.

    Args:
        folder: Where the dump is; every actor must reach it.
        plan: What is dumped.
        left: The parts to make.
        loading: How samples are read, in each actor.
        cluster: Where.
        strict: As for `mmcam.dumps.dump.dump`.
        tell: Called after every part, and every second with zeros; may raise to stop.

    Returns:
        Whether the dump is complete.

    Raises:
        UserError: Ray is not installed or not reached, a part cannot be made, or actors die again and again.
    """
    from mmcam.dumps.dump import finish

    folder.clean([*map(part_name, left)])
    if left:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody outside is told
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 starves on a busy machine
        try:
            import ray
        except ImportError as error:
            raise UserError("a cluster needs Ray: pip install 'mmcam[ray]'") from error
        started = not ray.is_initialized()
        try:
            if started:
                _start(ray, cluster.address)
            _run(ray, folder, plan, loading, cluster, deque(left), strict, tell)
        finally:
            if started:
                ray.shutdown()
    return finish(folder, plan, anew=bool(left))


def _start(ray: Any, address: str) -> None:  # noqa: ANN401
    """Join a cluster, or make one out of this machine that listens on loopback only."""
    alone = {} if address else {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
    host, colon, port = address.rpartition(":")
    try:
        if colon and "//" not in address and port.isdigit():  # or Ray would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.WARNING, **alone)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{address or 'local'}: expected a Ray cluster, got: {error}; see docs/clusters.md") from error


def _run(
    ray: Any,  # noqa: ANN401
    folder: Folder,
    plan: Plan,
    loading: Loading,
    cluster: Cluster,
    left: deque[int],
    strict: bool,
    tell: Callable[[int, int], None],
) -> None:
    """Feed actors until nothing is left."""
    url = folder.url if folder.local is None else str(folder.local.resolve())
    given = (url, plan, loading, cluster, strict, str(Path.cwd()))
    maker = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus)(Maker)
    free = [maker.remote(*given) for _ in range(min(len(left), cluster.actors or _room(ray, cluster)))]
    busy: dict[Any, tuple[Any, int]] = {}
    tries: dict[int, int] = {}
    try:
        while left or busy:
            while left and free:
                number, actor = left.popleft(), free.pop()
                busy[actor.make.remote(number)] = actor, number
            for ref in ray.wait([*busy], num_returns=1, timeout=1.0)[0]:
                actor, number = busy.pop(ref)
                try:
                    tell(*ray.get(ref))
                    free.append(actor)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause if isinstance(error.cause, UserError) else error from None
                except ray.exceptions.RayError as error:  # the actor or its node died, or had no memory
                    tries[number] = tries.get(number, 0) + 1
                    logger.warning("an actor died at part %d, which another one makes again", number)
                    if tries[number] >= MOST_TRIES:
                        raise UserError(
                            f"part {number}: its actor died {MOST_TRIES} times; the last: {error}"
                        ) from error
                    left.append(number)
                    free.append(maker.remote(*given))
            tell(0, 0)
    finally:
        for actor in [*free, *(actor for actor, _ in busy.values())]:
            ray.kill(actor)


def _room(ray: Any, cluster: Cluster) -> int:  # noqa: ANN401
    """How many actors the cluster has room for; at least one, which may have to wait for it."""
    has = ray.cluster_resources()
    counts = [has.get("CPU", 1) / cluster.cpus] if cluster.cpus else []
    counts += [has.get("GPU", 0) / cluster.gpus] if cluster.gpus else []
    return max(1, int(min(counts, default=1)))
