"""Routine scans stand aside for STAT within one process, and not for ever."""

import threading

from worker.processing.priority_gate import RightOfWay

LONG_S = 30.0


def test_a_routine_scan_goes_on_where_there_is_no_stat():
    RightOfWay(LONG_S).giving_way()()


def test_a_routine_scan_stands_aside_until_the_last_stat_is_done():
    way, aside, went_on = RightOfWay(LONG_S), threading.Event(), threading.Event()
    give_way = way.giving_way()

    def routine():
        aside.set()
        give_way()
        went_on.set()

    with way.taken():
        with way.taken():
            thread = threading.Thread(target=routine)
            thread.start()
            assert aside.wait(LONG_S)
        assert not went_on.wait(0.1)
    assert went_on.wait(LONG_S)
    thread.join()


def test_the_patience_of_a_scan_is_for_all_its_steps_together():
    way = RightOfWay(patience_s=0.05)
    give_way = way.giving_way()
    with way.taken():
        give_way()
        # Its patience is gone: were it anew, these would take three quarters of a minute.
        for _ in range(1000):
            give_way()
