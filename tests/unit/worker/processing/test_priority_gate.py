"""Routine scans stand aside for STAT within one process, and not for ever."""

import threading

from worker.processing.priority_gate import PriorityGate

LONG_S = 30.0


def test_a_routine_scan_goes_on_where_there_is_no_stat():
    PriorityGate(LONG_S).waiter()()


def test_a_routine_scan_stands_aside_until_the_last_stat_is_done():
    gate, aside, went_on = PriorityGate(LONG_S), threading.Event(), threading.Event()
    wait = gate.waiter()

    def routine():
        aside.set()
        wait()
        went_on.set()

    with gate.closed():
        with gate.closed():
            thread = threading.Thread(target=routine)
            thread.start()
            assert aside.wait(LONG_S)
        assert not went_on.wait(0.1)
    assert went_on.wait(LONG_S)
    thread.join()


def test_the_patience_of_a_scan_is_for_all_its_steps_together():
    gate = PriorityGate(max_wait_s=0.05)
    wait = gate.waiter()
    with gate.closed():
        wait()
        # Its patience is gone: were it anew, these would take three quarters of a minute.
        for _ in range(1000):
            wait()
