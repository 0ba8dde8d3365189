"""The worker thread: newest item only, errors survive, bounded stop."""

import threading
import time

import pytest

from mppe_ros.worker import Worker

TIMEOUT_S = 30


class Recorder:
    """A job that notes its items and can be held up."""

    def __init__(self):
        self.done, self.errors = [], []
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def job(self, item):
        self.begun.release()
        assert self.may_go_on.wait(TIMEOUT_S)
        if item == "bad":
            raise ValueError("bad item")
        self.done.append(item)
        self.ended.release()

    def on_error(self, item, error):
        self.errors.append((item, str(error)))
        self.ended.release()

    def wait(self, count=1):
        for _ in range(count):
            assert self.ended.acquire(timeout=TIMEOUT_S)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def worker(recorder):
    worker = Worker(recorder.job, recorder.on_error)
    yield worker
    recorder.may_go_on.set()
    assert worker.stop(TIMEOUT_S)


def test_idle_is_when_nothing_runs_and_nothing_waits(worker, recorder):
    assert worker.wait_idle(TIMEOUT_S)
    recorder.may_go_on.clear()
    worker.put("first")
    assert recorder.begun.acquire(timeout=TIMEOUT_S)
    assert not worker.wait_idle(0.01)
    worker.put("bad")
    recorder.may_go_on.set()
    assert worker.wait_idle(TIMEOUT_S)
    assert recorder.done == ["first"] and len(recorder.errors) == 1


def test_items_are_worked_on_one_after_another(worker, recorder):
    for item in range(5):
        assert worker.put(item) is False
        recorder.wait()
    assert recorder.done == [0, 1, 2, 3, 4]


def test_only_the_newest_waiting_item_is_kept(worker, recorder):
    recorder.may_go_on.clear()
    worker.put(0)
    assert recorder.begun.acquire(timeout=TIMEOUT_S)  # the slot is empty again
    replaced = [worker.put(item) for item in (1, 2, 3)]
    recorder.may_go_on.set()
    recorder.wait(2)
    assert replaced == [False, True, True]
    assert recorder.done == [0, 3]


def test_errors_are_handed_over_and_the_next_item_is_worked_on(worker, recorder):
    for item in ("bad", "good"):
        worker.put(item)
        recorder.wait()
    assert recorder.errors == [("bad", "bad item")]
    assert recorder.done == ["good"]


def test_a_failing_error_callback_does_not_end_the_thread(capsys):
    done = threading.Event()

    def on_error(item, error):
        raise RuntimeError("the callback is broken too")

    worker = Worker(lambda item: done.set() if item else 1 / item, on_error)
    worker.put(0)
    while worker._slot:
        time.sleep(0.01)
    worker.put(1)
    assert done.wait(TIMEOUT_S)
    assert worker.stop(TIMEOUT_S)
    assert "broken too" in capsys.readouterr().err


def test_stop_drops_what_waits(recorder):
    worker = Worker(recorder.job, recorder.on_error)
    recorder.may_go_on.clear()
    worker.put("busy")
    assert recorder.begun.acquire(timeout=TIMEOUT_S)
    worker.put("waiting")
    assert worker.stop(0.05) is False  # the job takes longer than we wait
    assert worker.stopping
    recorder.may_go_on.set()
    assert worker.stop(TIMEOUT_S) is True
    assert recorder.done == ["busy"]


def test_jobs_keep_their_distance(recorder):
    period_s = 0.1
    began_s = time.monotonic()
    worker = Worker(recorder.job, recorder.on_error, min_period_s=period_s)
    while len(recorder.done) < 4:
        worker.put("item")
        time.sleep(0.005)
    assert worker.stop(TIMEOUT_S)
    assert len(recorder.done) <= (time.monotonic() - began_s) / period_s + 1


def test_a_shorter_period_wakes_an_item_that_waits_for_a_long_one(worker, recorder):
    worker.set_min_period(3600)
    worker.put("first")
    recorder.wait()
    worker.put("second")
    worker.set_min_period(0)
    recorder.wait()
    assert recorder.done == ["first", "second"]
