"""Two servers behind a proxy: a stream stays where it is, and no restart costs a word."""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from reference import is_tied
from server.conftest import pcm
from server.replicas.cluster import HOSTS, Cluster, Proxy, Replica, free_ports, wait_for
from server.replicas.speakers import Held, Said, packets, speak_native, speak_riva, speak_websocket

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not shutil.which("haproxy"), reason="needs HAProxy"),
]
RESTARTS = int(os.environ.get("ASR_ROLLING_RESTARTS", 4))
DOORS = {"http": speak_websocket, "riva": speak_riva}


@pytest.fixture(scope="module")
def cluster(checkpoints, live_repository, tmp_path_factory):
    ports, folder = free_ports(), tmp_path_factory.mktemp("replicas")
    replicas = [
        Replica(name, ports, checkpoints("tiny"), live_repository, folder / f"{name}.log")
        for name in HOSTS
    ]
    proxy = Proxy(ports, folder)
    running = Cluster(replicas, proxy)
    try:
        for replica in replicas:
            replica.start()
        for replica in replicas:
            running.wait_until_ready(replica)
        yield running
        for replica in replicas:
            replica.tell_to_stop()
        assert [replica.wait() for replica in replicas] == [0, 0]
    finally:
        proxy.stop()
        for replica in replicas:
            replica.kill()


def is_whole(said: Said, recognizer) -> bool:
    assert said.text
    return said.text == recognizer.transcribe([said.audio], latency_ms=320)[0].text


def test_sessions_stay_and_end_on_a_server_that_drains_and_new_ones_go_to_the_other(
    cluster, recognizer
):
    """Nobody tells the proxy: it finds out by its check."""
    proxy, (a, b) = cluster.proxy, cluster.replicas
    seeds = itertools.count(100)

    def open_held(num_each: int) -> list[Held]:
        held = [
            Held(speak, proxy.address(door), next(seeds))
            for door, speak in DOORS.items()
            for _ in range(num_each)
        ]
        wait_for(lambda: all(one.half_said.is_set() for one in held))
        return held

    def open_at(replica: Replica) -> float:
        return replica.metric("asr_gateway_sessions")

    def started_at(replica: Replica) -> float:
        return replica.metric("asr_gateway_sessions_started_total")

    old = open_held(4)
    assert (open_at(a), open_at(b)) == (4, 4), "each call has a server of its own choice"
    a.tell_to_stop()
    wait_for(lambda: proxy.is_out("a"))
    new = open_held(2)
    assert (open_at(a), open_at(b)) == (4, 8)
    assert (started_at(a), started_at(b)) == (4, 8)
    said = [one.finish() for one in [*old, *new]]
    assert a.wait() == 0
    assert started_at(b) == 8, "none of a's was begun again elsewhere"
    assert all(is_whole(one, recognizer) for one in said)

    a.start()
    cluster.wait_until_ready(a)
    again = open_held(2)
    assert (open_at(a), open_at(b)) == (2, 2)
    assert all(is_whole(one.finish(), recognizer) for one in again)


class Talkers:
    """Streams and sessions at every door, one after another, while servers are restarted."""

    def __init__(self, proxy: Proxy):
        self.said: list[Said] = []
        self.failures: list[BaseException] = []
        self.restarts = 0  # that are over
        self._proxy = proxy
        self._seeds = itertools.count(1000)
        self._stopping = False
        self._pool = ThreadPoolExecutor(8)
        jobs = [self._native] * 3 + [self._session] * 4
        self._talks = [self._pool.submit(self._talk, job, n) for n, job in enumerate(jobs)]

    def _talk(self, job, number: int) -> None:
        try:
            while not self._stopping:
                self.said.append(job(number))
        except BaseException as error:
            self.failures.append(error)

    def _native(self, _number: int) -> Said:
        """Long enough that both servers are restarted meanwhile: it is cut at least once."""
        last = self.restarts + 3  # one of them may have begun before the stream
        address = self._proxy.address("triton")
        return speak_native(address, next(self._seeds), lambda: self._is_over(last))

    def _is_over(self, last: int) -> bool:
        return self._stopping or self.restarts >= last

    def _session(self, number: int) -> Said:
        seed = next(self._seeds)
        door = ("http", "riva")[number % 2]
        audio = pcm(16_000 * (2 + seed % 3), seed)
        return DOORS[door](self._proxy.address(door), audio, packets(audio))

    def stop(self) -> None:
        self._stopping = True
        self._pool.shutdown()


@pytest.mark.timeout(300 + 120 * RESTARTS)
def test_rolling_restarts_lose_no_word(cluster, recognizer, caplog):
    """Sessions at the gateways end where they are; streams that are cut go on at the other."""
    proxy = cluster.proxy
    talkers = Talkers(proxy)
    cut = []
    try:
        for number in range(RESTARTS):
            replica = cluster.replicas[number % 2]

            def is_busy(replica=replica) -> bool:
                assert not talkers.failures
                return streams_at(replica) > 0 and replica.metric("asr_gateway_sessions") > 0

            def streams_at(replica=replica) -> int:
                return int(proxy.state("triton", replica.name)["scur"])

            wait_for(is_busy)
            cluster.restart(replica, lambda at=streams_at: cut.append(at()))
            talkers.restarts += 1
    finally:
        talkers.stop()
    assert not talkers.failures
    back = sum("again" in record.message for record in caplog.records)
    assert back >= sum(cut) >= RESTARTS, "streams were in mid-sentence each time"
    assert {one.door for one in talkers.said} == {"native", "websocket", "riva"}
    others = [one for one in talkers.said if not is_whole(one, recognizer)]
    for one in others:
        where = f"{one.door}, {len(one.audio)} samples that begin {one.audio[:8]}"
        assert is_tied(recognizer, one.audio), f"{where}: {one.text}"
    assert len(others) <= 1 + len(talkers.said) // 50, "ties are rare"
    for replica in cluster.replicas:
        assert replica.metric("asr_gateway_refused_total") == 0
    counts = dict(Counter(one.door for one in talkers.said))
    words = sum(len(one.text.split()) for one in talkers.said)
    print(f"{RESTARTS} restarts, {sum(cut)} streams cut, {back} back; {counts}, {words} words")
    print(f"{len(others)} of {len(talkers.said)} texts differ by a tie of the random model")
