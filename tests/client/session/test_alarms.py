"""Alarms: what comes due when."""

from tidewire.client.session.alarms import Alarms


def test_what_is_due_is_done_in_its_order_and_once() -> None:
    alarms, done = Alarms(), []
    for name, at in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        alarms.set(name, at, lambda name=name: done.append(name))
    assert alarms.next_at == 1.0
    alarms.run(2.0)
    assert done == ["a", "b"]
    assert alarms.next_at == 3.0
    alarms.run(10.0)
    alarms.run(11.0)
    assert done == ["a", "b", "c"]
    assert alarms.next_at is None


def test_a_name_has_one_alarm() -> None:
    alarms, done = Alarms(), []
    alarms.set("a", 1.0, lambda: done.append("old"))
    alarms.set("a", 5.0, lambda: done.append("new"))
    alarms.run(4.0)
    assert done == []
    assert alarms.next_at == 5.0
    alarms.run(5.0)
    assert done == ["new"]
    assert not alarms.has("a")


def test_what_was_cleared_is_not_done() -> None:
    alarms, done = Alarms(), []
    alarms.set("a", 1.0, lambda: done.append("a"))
    alarms.clear("a")
    alarms.clear("a")
    alarms.run(2.0)
    assert done == []


def test_an_action_may_clear_another_that_is_due() -> None:
    alarms, done = Alarms(), []
    alarms.set("a", 1.0, lambda: alarms.clear("b"))
    alarms.set("b", 1.0, lambda: done.append("b"))
    alarms.run(1.0)
    assert done == []


def test_an_action_that_sets_itself_does_not_hold_up_the_rest() -> None:
    alarms, done = Alarms(), []

    def again() -> None:
        done.append("a")
        alarms.set("a", 0.0, again)

    alarms.set("a", 1.0, again)
    alarms.run(5.0)
    assert done == ["a"]
    assert alarms.next_at == 0.0


def test_alarms_that_are_moved_all_the_time_take_no_room() -> None:
    alarms = Alarms()
    for number in range(10_000):
        alarms.set("a", number, lambda: None)
    assert len(alarms._heap) < 200
    assert alarms.next_at == 9999
