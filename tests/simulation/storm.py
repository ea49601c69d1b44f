"""Brings the faults of a plan about. A fault counts as covered only when it has hit something."""

from collections.abc import Callable

from core.domain.state import Generation
from tests.simulation.checker import Checker
from tests.simulation.core_process import CoreProcess
from tests.simulation.faults import LONGEST_S, Fault
from tests.simulation.log import Disk
from tests.simulation.queues import SimQueue
from tests.simulation.store import SimBucket
from tests.simulation.worker_process import WorkerProcess
from tests.simulation.world import QUEUES, STORES, Weather, World

_AGAIN_S = 0.2
_MOMENT_S = 0.005
_SYNC_S = 0.002  # less than a commit takes


def _weather(fault: Fault) -> tuple[str, float | bool] | None:
    """The field of `Weather` that a fault turns, and how far."""
    turns: dict[str, tuple[str, float | bool]] = {
        "duplicate": ("duplicate", fault.size),
        "delay": ("delay_s", 20 * fault.size),
        "reorder": ("shuffled", True),
        "loss": ("lose", fault.size),
        "corrupt": ("corrupt", fault.size),
        "partial": ("refuse", fault.size),
        "throttled": ("throttled", fault.size),
        "answer_lost": ("answers_lost", fault.size),
        "slow": ("slow_s", 4 * fault.size),
    }
    return turns.get(fault.kind)


class Storm:
    """`strike` once for each fault of the plan."""

    def __init__(
        self,
        world: World,
        checker: Checker,
        *,
        core: CoreProcess,
        workers: dict[str, WorkerProcess],
        queues: dict[str, SimQueue],
        temp: SimBucket,
        disk: Disk,
    ) -> None:
        self._world = world
        self._checker = checker
        self._core = core
        self._workers = workers
        self._queues = queues
        self._temp = temp
        self._disk = disk
        self._dice = world.dice("storm")

    def strike(self, fault: Fault) -> None:
        """It happens now or at its point, and ends by itself."""
        self._world.note(f"FAULT {fault}")
        self._world.stormy += 1
        for worker in self._workers.values():
            worker.trouble()
        undo = self._begin(fault)
        over_s = self._world.loop.time() + fault.lasts_s
        if fault.point:
            moment_s = self._dice.expovariate(1 / (_SYNC_S if fault.point == "log.append" else _MOMENT_S))
            self._world.trips[f"{fault.target}:{fault.point}"] = lambda: self._later(
                moment_s, lambda: self._hit(fault, 0.0)
            )
        else:
            self._hit(fault, over_s)

        def end() -> None:
            undo()
            self._world.trips.pop(f"{fault.target}:{fault.point}", None)
            self._world.note(f"over: {fault.kind} {fault.target}")
            # What the fault has held up goes through, or is given up, within this time.
            self._later(LONGEST_S, self._calm)

        self._later(fault.lasts_s, end)

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        self._world.loop.call_later(delay_s, act, context=self._world.loop.neutral)

    def _calm(self) -> None:
        self._world.stormy -= 1

    def _hit(self, fault: Fault, until_s: float) -> None:
        """Try until there is something to hit."""
        if fault.kind.startswith("gpu_"):  # counted when it bites
            self._workers[fault.target].spoil(fault.kind.removeprefix("gpu_"))
        elif self._once(fault):
            self._world.note(f"{fault.kind} hits {fault.target}")
            self._world.faults[fault.kind] += 1
        elif self._world.loop.time() < until_s:
            self._later(_AGAIN_S, lambda: self._hit(fault, until_s))

    def _once(self, fault: Fault) -> bool:
        """Faults of a moment. Whether it hit anything."""
        if fault.target == "core":
            return self._at_core(fault)
        if fault.target in self._workers:
            return self._at_worker(fault, self._workers[fault.target])
        match fault.kind:
            case "purge":
                return bool(self._queues[fault.target].purge())
            case "queues_gone":  # as when their service is killed and comes back empty
                for queue in self._queues.values():
                    queue.purge()
                    queue.exists = False
                return True
            case "expose":
                return bool(self._queues[fault.target].expose())
            case "dead_letter":
                return bool(self._queues[fault.target].give_up(self._checker.protocol.out))
            case "object_gone" | "object_altered":
                return self._at_object(fault.kind)
            case "clock_step":
                self._world.wall_offset_ms += 3_600_000 if fault.size > 0.5 else -3_600_000
                return True
            case _:
                return False

    def _at_core(self, fault: Fault) -> bool:
        match fault.kind:
            case "crash_core":
                return self._core.kill(0.2 + fault.lasts_s / 2)
            case "stop_core":
                return self._core.stop(0.5)
            case _:
                return self._core.stall(fault.lasts_s / 2)

    def _at_worker(self, fault: Fault, worker: WorkerProcess) -> bool:
        match fault.kind:
            case "crash_worker":
                return worker.kill(0.2 + fault.lasts_s / 4)
            case "stop_worker":
                return worker.drain(1.0)
            case _:
                return worker.pause(fault.lasts_s)

    def _at_object(self, kind: str) -> bool:
        wanted = [key for key in sorted(self._temp.objects) if self._unpublished(key)]
        if not wanted:
            return False
        key = self._dice.choice(wanted)
        self._world.note(f"{kind} {key}")
        _, generation_id, index, _ = key.split("/")
        ref = (generation_id, int(index))
        self._checker.objects_hit[ref] = self._checker.objects_hit.get(ref, 0) + 1
        if kind == "object_gone":
            del self._temp.objects[key]
        else:
            self._temp.alter(key)
        return True

    def _unpublished(self, key: str) -> bool:
        state: Generation | None = self._checker.states.get(key.split("/")[1])
        return state is not None and state.open and not state.images[int(key.split("/")[2])].public_key

    def _begin(self, fault: Fault) -> Callable[[], None]:
        """Faults that last. What ends them."""
        match fault.kind:
            case "unreachable":
                targets = (*QUEUES, *STORES, "rpc") if fault.target == "all" else (fault.target,)
                return self._take_down([self._world.weather[each] for each in targets])
            case "log_full":
                return self._flag("full")
            case "log_busy":
                return self._flag("held")
            case "log_broken":
                self._disk.broken_once = True
                return lambda: setattr(self._disk, "broken_once", False)
            case _:
                return self._turn(fault)

    def _turn(self, fault: Fault) -> Callable[[], None]:
        turn, weather = _weather(fault), self._world.weather[fault.target]
        if turn is None:
            return lambda: None
        name, value = turn
        setattr(weather, name, value)
        return lambda: setattr(weather, name, type(value)(0))

    @staticmethod
    def _take_down(services: list[Weather]) -> Callable[[], None]:
        for weather in services:
            weather.down += 1

        def up() -> None:
            for weather in services:
                weather.down -= 1

        return up

    def _flag(self, name: str) -> Callable[[], None]:
        setattr(self._disk.content, name, True)
        return lambda: setattr(self._disk.content, name, False)
