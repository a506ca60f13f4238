"""What `asr batch --ray` asks of a cluster, without one."""

from __future__ import annotations

import pytest

from asr_batch import ray_runner
from asr_batch.errors import BatchError
from asr_batch.manifest import Row
from asr_batch.ray_runner import RayRunner, num_actors

CPUS, GPUS = {"CPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "num_cpus", "num_gpus", "room"),
    [
        ([CPUS], 1, 0, 4),
        ([CPUS, CPUS], 3, 0, 2),  # one each, and no third of what both have left
        ([CPUS, GPUS], 1, 1, 2),
        ([CPUS, GPUS], 1, 0.5, 4),
        ([GPUS], 8, 0.5, 1),
        ([CPUS], 0.1, 0, 40),
    ],
)
def test_room_is_that_of_each_node(nodes, num_cpus, num_gpus, room):
    assert num_actors(nodes, num_cpus, num_gpus) == room


@pytest.mark.parametrize(("num_cpus", "num_gpus"), [(1, 1), (8, 0)])
def test_what_no_node_has_is_refused(num_cpus, num_gpus):
    flags = f"--num-cpus {num_cpus} and --num-gpus {num_gpus}"
    with pytest.raises(BatchError, match=f"no node has room for {flags}; .*: 4 CPUs, 0 GPUs; 4"):
        num_actors([CPUS, CPUS], num_cpus, num_gpus)


def test_a_long_manifest_goes_in_slices(monkeypatch):
    """The next is read when the one before is done."""
    monkeypatch.setattr(ray_runner, "SLICE_ROWS", 10)
    runner, read = RayRunner.__new__(RayRunner), []
    runner._num_workers = 1

    def rows():
        for index in range(25):
            read.append(index)
            yield Row(index, str(index), "a", "a", {})

    def done(tables, block_rows):
        assert block_rows == 6
        yield sum(table.num_rows for table in tables), len(read)

    monkeypatch.setattr(runner, "_run", done)
    assert list(runner.run(rows(), 25)) == [(6, 6), (6, 12), (6, 18), (6, 24), (1, 25)]
