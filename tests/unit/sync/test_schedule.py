from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from patrolserver_exporter.sync.schedule import Job, Schedule, Task

TASKS = st.builds(Task, st.sampled_from(Job), st.integers(1, 4))
TIMES = st.floats(0, 100)


class ScheduleMachine(RuleBasedStateMachine):
    """The schedule against a plain dictionary of due times."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule()
        self.model: dict[Task, float] = {}

    @rule(task=TASKS, at=TIMES)
    def put(self, task: Task, at: float) -> None:
        """A task is planned; sooner wins."""
        self.schedule.put(task, at)
        self.model[task] = min(at, self.model.get(task, at))

    @rule(server_id=st.integers(1, 4))
    def drop(self, server_id: int) -> None:
        """A server is gone."""
        self.schedule.drop(server_id)
        self.model = {task: at for task, at in self.model.items() if task.server_id != server_id}

    @rule(task=TASKS)
    def remove(self, task: Task) -> None:
        """A task is done in another way."""
        self.schedule.remove(task)
        self.model.pop(task, None)

    @rule(now=TIMES)
    def pop(self, now: float) -> None:
        """The task that has been due for longest is taken."""
        task = self.schedule.pop_due(now)
        due = [at for at in self.model.values() if at <= now]
        if task is None:
            assert not due
        else:
            assert self.model.pop(task) == min(due)

    @invariant()
    def is_as_the_model(self) -> None:
        """Length and next time are the model's."""
        assert len(self.schedule) == len(self.model)
        assert self.schedule.next_at() == min(self.model.values(), default=None)


TestScheduleMachine = ScheduleMachine.TestCase


@given(st.lists(st.floats(0, 1000), max_size=50))
def test_tasks_come_in_the_order_of_their_times(times: list[float]) -> None:
    """Everything that is due is taken, longest due first."""
    schedule = Schedule()
    for server_id, at in enumerate(times):
        schedule.put(Task(Job.POLL, server_id), at)
    taken = []
    while (task := schedule.pop_due(1000.0)) is not None:
        taken.append(times[task.server_id])
    assert taken == sorted(times)


def test_many_changes_of_plan_take_no_memory() -> None:
    """However often a task is moved forward, what is kept is bounded by the tasks."""
    schedule = Schedule()
    for n in range(100_000):
        schedule.put(Task(Job.POLL, n % 10), 1e9 - n)
    assert len(schedule) == 10
    assert len(schedule._heap) < 200  # noqa: SLF001  # Memory is what this is about.
