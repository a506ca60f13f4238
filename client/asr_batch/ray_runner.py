"""The same on a Ray cluster: blocks of rows go to actors by Ray Data, each with its own pool.

Ray does a block again whose actor or machine died. A file that kills a decoder is the pool's: it
costs no actor.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from itertools import islice

import pyarrow as pa

from .errors import BatchError
from .manifest import Row
from .pool import Pool
from .records import Record
from .settings import WorkerSettings

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read at import: nothing is sent anywhere

import ray
import ray.data

MAX_BLOCK_ROWS = 128  # what is lost with an actor, and the answer that Ray holds
BLOCKS_PER_WORKER = 4  # at least, so that all end at about the same time
SLICE_ROWS = 100_000  # that Ray holds at a time


class RayRunner:
    """Actors on a cluster.  Use as a context manager: it lets go of the cluster.

    address: as `ray.init` takes it: "auto" for the running cluster, "local" for one of this
    process.  num_workers: actors; None for as many as the cluster has room for.
    num_cpus, num_gpus: of each; None for GPUs: one, where the cluster has some and settings allow.
    Raises BatchError where there is no cluster, or none of its nodes has room for an actor.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        address: str,
        num_workers: int | None = None,
        num_cpus: float = 1.0,
        num_gpus: float | None = None,
    ):
        local = {"include_dashboard": False} if address == "local" else {}
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR", **local)
        except Exception as error:  # Ray raises bare ones too
            raise BatchError(f"cannot connect to Ray at {address!r}: {error}") from error
        logging.getLogger("ray.data").setLevel("ERROR")  # plans and bars that nobody asked for
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if num_gpus is None:
            has_gpus = any(node.get("GPU") for node in nodes)
            num_gpus = 1.0 if settings.device != "cpu" and has_gpus else 0.0
        try:
            room = num_actors(nodes, num_cpus, num_gpus)
        except BatchError:
            ray.shutdown()
            raise
        self._num_workers = num_workers or room
        self._resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self._settings = replace(settings, threads=settings.threads or max(1, int(num_cpus)))

    def __enter__(self) -> RayRunner:
        return self

    def __exit__(self, *_exc) -> None:
        ray.shutdown()

    def run(self, rows: Iterable[Row], num_rows: int) -> Iterator[tuple[int, Record]]:
        """(index, record) of every row as they are ready.

        rows: SLICE_ROWS of them are kept by Ray until their records are there, in memory or where
        it spills.
        Raises BatchError where Ray or an actor gives up.
        """
        block_rows = num_rows // (BLOCKS_PER_WORKER * self._num_workers)
        block_rows = min(max(1, block_rows), MAX_BLOCK_ROWS)
        tables = _tables(rows, block_rows)
        while some := list(islice(tables, SLICE_ROWS // block_rows)):
            yield from self._run(some, block_rows)

    def _run(self, tables: list[pa.Table], block_rows: int) -> Iterator[tuple[int, Record]]:
        blocks = [ray.put(table) for table in tables]
        ray.data.DataContext.get_current().enable_progress_bars = False
        records = ray.data.from_arrow_refs(blocks).map_batches(
            RayWorker,
            fn_constructor_args=(self._settings,),
            batch_size=block_rows,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(self._num_workers, len(blocks))),
            **self._resources,
        )
        try:
            for batch in records.iter_batches(batch_size=None, batch_format="pyarrow"):
                for index, record in zip(batch["index"], batch["record"], strict=True):
                    yield index.as_py(), json.loads(record.as_py())
        except ray.exceptions.RayError as error:
            raise BatchError(f"Ray gave up: {_reason(error)}") from error


class RayWorker:
    """An actor, and the process of its own that has the model."""

    def __init__(self, settings: WorkerSettings):
        self._pool = Pool(settings, num_workers=1)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """batch: of `_tables`.  Returns `index` and `record`, JSON, in the order of the rows.

        All at once and in a fixed order: Ray tells the parts of a repeated answer by their number.
        """
        rows = [Row(**json.loads(row.as_py())) for row in batch["row"]]
        done = sorted(self._pool.run(rows, len(rows)), key=lambda one: one[0])
        return pa.table(
            {
                "index": pa.array([index for index, _ in done], pa.int64()),
                "record": pa.array([json.dumps(record) for _, record in done], pa.string()),
            }
        )


def num_actors(nodes: list[dict[str, float]], num_cpus: float, num_gpus: float) -> int:
    """How many actors nodes with these resources have room for: each is on one node.

    Raises BatchError for none: Ray would wait for a node that has room.
    """
    wanted = {"CPU": num_cpus, "GPU": num_gpus}
    wanted = {name: number for name, number in wanted.items() if number}
    room = sum(
        min(int(node.get(name, 0) / number + 1e-9) for name, number in wanted.items())
        for node in nodes
    )
    if not room:
        has = "; ".join(
            f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes
        )
        flags = f"--num-cpus {num_cpus:g} and --num-gpus {num_gpus:g}"
        raise BatchError(f"no node has room for {flags}; nodes have: {has}")
    return room


def _tables(rows: Iterable[Row], block_rows: int) -> Iterator[pa.Table]:
    rows = iter(rows)
    while block := list(islice(rows, block_rows)):
        yield pa.table({"row": [json.dumps(asdict(row)) for row in block]})


def _reason(error: BaseException) -> str:
    """What an actor's pool said, else Ray's last line: around them are tracebacks and advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if f"{BatchError.__name__}: " in line]
    if said:
        return said[-1].partition(f"{BatchError.__name__}: ")[2]
    return lines[-1] if lines else type(error).__name__
