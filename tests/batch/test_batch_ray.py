"""`asr batch --ray`: on a cluster of two workers, one of which is killed midway."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from batch.conftest import TIMEOUT_S, records_of

STARTS = 6  # Ray gives its agent 15 s to start, which a busy machine needs more than once


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster below this process."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_raylet_start_wait_time_s"] = "40"  # noqa: SIM112
    import ray

    memory = {"object_store_memory": 100_000_000}
    for attempt in range(STARTS):
        try:
            ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, **memory)
            break
        except Exception:
            ray.shutdown()
            if attempt == STARTS - 1:
                raise
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def actors() -> list[psutil.Process]:
    """Processes of `RayWorker`, which Ray names so, that have started a process of their own."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayWorker" in " ".join(process.cmdline()) and process.children():
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for_actors(num_actors: int) -> list[psutil.Process]:
    deadline = time.monotonic() + TIMEOUT_S
    while len(found := actors()) < num_actors:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.mark.timeout(900)
def test_an_actor_killed_midway(clips, gate, start, cluster, tmp_path):
    output = tmp_path / "o.jsonl"
    manifest = clips.manifest("ray.jsonl", "none.wav", gate=gate.url)
    run = start(
        manifest, "-o", output, f"--ray={cluster}", "--workers", "2", "--window-s", "6",
        "--readers", "1",
    )  # fmt: skip
    run.wait_for_records(output, 1)
    found = wait_for_actors(2)
    models = found[0].children()
    found[0].kill()
    assert len(records_of(output)) < len(clips.texts)
    gate.open()
    code, said = run.finish()
    assert code == 0, said
    records = records_of(output)
    assert sorted(one["id"] for one in records) == sorted([*clips.texts, "none.wav"])
    assert {one["id"]: one["text"] for one in records} == {**clips.texts, "none.wav": None}
    assert not psutil.wait_procs(models, timeout=60)[1], (
        "a process with the model ends with its actor"
    )
    assert "1 failed" in said

    with output.open("ab") as file:
        file.truncate(output.stat().st_size - 10)
    code, said = start(manifest, "-o", output, f"--ray={cluster}", "--workers", "1").finish()
    assert code == 0, said
    assert "\n1 files in " in said
    assert len(records_of(output)) == len(records)


@pytest.mark.timeout(600)
def test_settings_that_no_actor_can_have(clips, start, cluster, tmp_path):
    arguments = ("-o", tmp_path / "o.jsonl", f"--ray={cluster}", "--workers", "1")
    code, said = start(clips.manifest("ray.jsonl"), *arguments, "--language", "xx-XX").finish()
    assert code == 1
    assert "Ray gave up: " in said
    assert "language 'xx-XX' is not supported; valid: " in said


def test_resources_that_no_node_has(clips, start, cluster, tmp_path):
    arguments = ("-o", tmp_path / "o.jsonl", f"--ray={cluster}", "--num-cpus", "3")
    code, said = start(clips.manifest("ray.jsonl"), *arguments).finish()
    assert code == 1
    assert "no node has room for --num-cpus 3 and --num-gpus 0; nodes have: 2 CPUs, 0 GPUs" in said


def test_no_cluster(clips, start, tmp_path):
    manifest = clips.manifest("ray.jsonl")
    code, said = start(manifest, "-o", tmp_path / "o.jsonl", "--ray=nonsense").finish()
    assert code == 1
    assert "cannot connect to Ray at 'nonsense': " in said
