"""Watch what a model's routers do while anybody trains it, and raise the alarm if they collapse."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from speciate.watching.collapse_alarm import Alarm, CollapseAlarm
from speciate.watching.counter import ChoiceCounter
from speciate.watching.counts import CheckCounts, SelectorCounts, stack_ranks
from speciate.watching.probe import call_with_probe, digest, probing, refuse_compiled, unwrap

Sink = Callable[[int, Mapping[str, float]], object]
"""What takes the values of a check: (step, values by name)."""
OnAlarm = Literal["warn", "stop"] | Callable[[Alarm], object]
ARMED_AFTER = 0.1
"""Share of the steps before which no check counts for the alarm, as in a study: random routers may look collapsed."""
STATE_FORMAT = 1


class RoutingCollapsed(RuntimeError):
    """Raised by `Watch.step` at an alarm, if the watch was told to stop. A `with watch:` block ends quietly there."""

    def __init__(self, alarm: Alarm) -> None:
        super().__init__(alarm.sentence)
        self.alarm = alarm


class CollapseWarning(UserWarning):
    """Category of the warnings of a watch: an alarm, or that no alarm could be raised."""


class Watch:
    """Watches the routers of one model. Call `step` after each optimizer step.

    watch = Watch(model, probe=batch, every=50, steps=10_000)
    for step in range(1, 10_001):
        ...
        watch.step(step)
    """

    def __init__(
        self,
        model: nn.Module,
        probe: Mapping[str, Any] | Sequence[Any] | Tensor | None = None,
        *,
        every: int = 50,
        steps: int | None = None,
        armed_after: int | None = None,
        false_alarms: float = 0.05,
        on_alarm: OnAlarm = "warn",
        sink: Sink | None = None,
        domains: Sequence[str] | None = None,
        forward: Callable[[nn.Module, Any], object] | None = None,
        process_group: Any = None,
    ) -> None:
        """Hook the model's routers.

        Args:
            model: a model of transformers, or of this package. Wrappers (DistributedDataParallel, torch.compile) are
                looked through.
            probe: a batch of texts that the model is never trained on, on which choices are counted: the arguments of
                the model's forward, by name or in order. Its rows are the documents. None: the training batches.
            every: steps from one check to the next.
            steps: number of `step` calls that the whole training will make; None: unknown, and then the alarm is
                slower.
            armed_after: number of calls before which no check counts for the alarm. By default a tenth of `steps`, or
                ten checks where that is unknown.
            false_alarms: probability with which a healthy run may ever raise the alarm.
            on_alarm: `warn` warns once, `stop` raises RoutingCollapsed, and a function is called with the Alarm.
            sink: takes the values of each check, on the first rank alone.
            domains: the domain of each of the probe's rows; domains weigh alike. None: all rows are of one.
            forward: runs the probe in another way than `model(**probe)`.
            process_group: the ranks whose batches differ (data parallel); None: all ranks.

        Raises:
            ValueError: the model has no router, or one that cannot be read; or the choices of this model cannot be
                counted on training batches.
        """
        if every < 1:
            raise ValueError(f"every: is a number of steps, at least 1, not {every}")
        if isinstance(on_alarm, str) and on_alarm not in ("warn", "stop"):
            raise ValueError(f"on_alarm: is 'warn', 'stop' or a function, not {on_alarm!r}")
        if domains is not None and probe is None:
            raise ValueError("domains: are those of a probe batch's rows, and there is no probe")
        self.every, self.on_alarm, self.sink, self.probe = every, on_alarm, sink, probe
        self.model = unwrap(model)
        self.domains = None if domains is None else list(domains)
        self.process_group = process_group
        self._forward = forward or call_with_probe
        if probe is None:
            refuse_compiled(model)
        self.armed_after = armed_after if armed_after is not None else _armed_after(steps, every)
        self.alarm = CollapseAlarm(false_alarms, None if steps is None else _num_checks(steps, self.armed_after, every))
        """The evidence so far; its `raised` is the Alarm, once there is one."""
        self.values: dict[str, float] = {}
        """The values of the last check."""
        self.total: dict[str, list[float]] = {}
        """For each router, how often each of its experts was chosen in all checks."""
        self._calls = 0
        self._step: int | None = None
        self._probe_digest = None if probe is None else digest(probe)
        self._counter = ChoiceCounter(self.model)
        self._counter.in_training_only = probe is None
        self._await_next()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.close()
        return isinstance(error, RoutingCollapsed) and error.alarm == self.alarm.raised

    def close(self) -> None:
        """Remove every hook. The values and the alarm remain."""
        self._counter.close()

    def step(self, step: int) -> dict[str, float]:
        """Note that an update was made; at every `every`-th call, check the routers.

        Args:
            step: number of the step, under which values are logged; larger than that of the last call.

        Returns:
            The values of the check by name; empty where none was due.

        Raises:
            RoutingCollapsed: the alarm is raised by this check, and `on_alarm` is `stop`.
            ValueError: the step is not larger than the last one, or no forward pass of the model was seen.
        """
        if self._step is not None and step <= self._step:
            raise ValueError(f"step {step} comes after step {self._step}: resume a watch by its `load_state_dict`")
        self._step = step
        self._calls += 1
        if self._calls % self.every:
            self._await_next()
            return {}
        if self.probe is not None:
            self._run_probe()
        counts = self._gathered()
        self._await_next()
        return self._judge(step, counts)

    def _judge(self, step: int, counts: CheckCounts) -> dict[str, float]:
        """Log the values of a check, and raise the alarm if there is one."""
        is_armed, before = self._calls >= self.armed_after, self.alarm.checks
        alarm = self.alarm.add(step, counts, is_armed=is_armed)
        if is_armed and not before and np.isnan(self.alarm.checks_to_fire(counts)) and _rank() == 0:
            warnings.warn(
                f"no alarm can be raised: {counts.num_documents} documents a check are too few to tell a collapse from"
                " chance; use a probe with more rows (docs/watch.md)",
                CollapseWarning,
                stacklevel=3,
            )
        self.values = {**counts.values(), **self.alarm.values()}
        for one in counts.selectors:
            so_far = np.array(self.total.get(one.shape.path, [0.0] * one.shape.num_slots))
            self.total[one.shape.path] = (so_far + one.chosen_GS.sum(axis=0)).tolist()
        if self.sink is not None and _rank() == 0:
            self.sink(step, self.values)
        if alarm is not None:
            self._raise(alarm)
        return self.values

    def _raise(self, alarm: Alarm) -> None:
        if callable(self.on_alarm):
            self.on_alarm(alarm)
        elif self.on_alarm == "stop":
            raise RoutingCollapsed(alarm)
        elif _rank() == 0:
            warnings.warn(alarm.sentence, CollapseWarning, stacklevel=4)

    def _await_next(self) -> None:
        """Count training batches if the next call of `step` is due."""
        self._counter.active = self.probe is None and (self._calls + 1) % self.every == 0

    def _run_probe(self) -> None:
        self._counter.active = True
        try:
            with probing(self.model):
                self._forward(self.model, self.probe)
        finally:
            self._counter.active = False

    def _gathered(self) -> CheckCounts:
        """Return what was counted since the last check, on all ranks."""
        if not self._counter.num_documents:
            raise ValueError(
                "no forward pass of the watched model was seen before this step: watch the module that your loop calls"
                + ("" if self.probe is not None else ", in training mode")
            )
        chosen, null = self._counter.take()
        if not chosen:
            raise ValueError(
                "no router of experts chose anything: what an indexer of sparse attention chooses is not watched"
            )
        num_documents = max(len(count_GS) for count_GS in chosen.values())
        shapes = self._counter.shapes
        chosen = {path: chosen.get(path, np.zeros((num_documents, shapes[path].num_slots))) for path in shapes}
        # domains keep their places on every rank
        domain_of = {name: place for place, name in enumerate(sorted(set(self.domains or [])))}
        domain_G = [domain_of[name] for name in self.domains] if self.domains is not None else [0] * num_documents
        if len(domain_G) != num_documents:
            raise ValueError(f"domains: has {len(domain_G)}, and the probe {num_documents} documents")
        parts = self._all_ranks((self._probe_digest, chosen, domain_G))
        digests = [digest for digest, _, _ in parts]
        if self.probe is not None and len(set(digests)) < len(digests):
            if len(set(digests)) > 1:
                raise ValueError("probe: some ranks have the same rows, and others do not; give all the same, or none")
            parts = parts[:1]
        by_path = stack_ranks([part for _, part, _ in parts])
        every_shape = [shapes[path] for path in by_path]
        even = {path: np.full(shape.num_slots, 1 / shape.num_slots) for path, shape in shapes.items()}
        selectors = [
            SelectorCounts(shape, by_path[shape.path], null.get(shape.path, even[shape.path])) for shape in every_shape
        ]
        return CheckCounts(tuple(selectors), np.concatenate([np.array(part, dtype=np.int64) for _, _, part in parts]))

    def _all_ranks(self, part: Any) -> list[Any]:
        """Return this rank's part, or the parts of all ranks in their order."""
        if not _is_distributed():
            return [part]
        parts: list[Any] = [None] * torch.distributed.get_world_size(self.process_group)
        torch.distributed.all_gather_object(parts, part, group=self.process_group)
        return parts

    def state_dict(self) -> dict[str, Any]:
        """Return counts and evidence in plain numbers, lists and strings: what a checkpoint keeps."""
        return {
            "format": STATE_FORMAT,
            "every": self.every,
            "armed_after": self.armed_after,
            "calls": self._calls,
            "step": self._step,
            "probe": self._probe_digest,
            "total": {path: list(counts) for path, counts in self.total.items()},
            "alarm": self.alarm.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the saved watch was.

        Raises:
            ValueError: the saved watch had another plan or another probe; the message names the difference.
        """
        if state.get("format") != STATE_FORMAT:
            raise ValueError(f"the saved watch has format {state.get('format')}, and this version reads {STATE_FORMAT}")
        here = {"every": self.every, "armed_after": self.armed_after, "probe": self._probe_digest}
        for name, value in here.items():
            if state[name] != value:
                raise ValueError(
                    f"the saved watch has {name} {state[name]}, and this one {value}: they must be the same"
                )
        self.alarm.load_state_dict(state["alarm"])
        self._calls, self._step = int(state["calls"]), state["step"]
        self.total = {path: list(counts) for path, counts in state["total"].items()}
        # k of a selector that chooses more for some tokens is that of its first call
        self._counter.shapes = {shape.path: shape for shape in self.alarm.shapes}
        self._counter.drop()
        self._await_next()


def _armed_after(steps: int | None, every: int) -> int:
    """Return the number of calls before which no check counts."""
    return 10 * every if steps is None else int(ARMED_AFTER * steps)


def _num_checks(steps: int, armed_after: int, every: int) -> int:
    """Return how many checks of a training of so many steps count."""
    before = max(0, (armed_after - 1) // every)
    return max(1, steps // every - before)


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _rank() -> int:
    return torch.distributed.get_rank() if _is_distributed() else 0
