"""A callback by which transformers' Trainer watches the model that it trains."""

import warnings
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from speciate.watching.collapse_alarm import Alarm
from speciate.watching.watcher import CollapseWarning, Watch

STATE = "speciate.watch"
"""Name under which the trainer's checkpoints keep the watch's state."""


class WatchCallback(TrainerCallback):
    """Watches a Trainer's model: `Trainer(..., callbacks=[WatchCallback(probe=batch, on_alarm="stop")])`.

    The values go to `sink`, or into the trainer's `log_history` if there is none. The state is kept in the trainer's
    checkpoints, and a run that resumes from one goes on with it.
    """

    def __init__(self, probe: Any = None, **settings: Any) -> None:
        """Prepare the callback.

        Args:
            probe: see `Watch`.
            settings: further arguments of `Watch`; `steps` is the trainer's own number of steps.
        """
        self.probe, self.settings = probe, settings
        self.on_alarm = settings.pop("on_alarm", "warn")
        if isinstance(self.on_alarm, str) and self.on_alarm not in ("warn", "stop"):
            raise ValueError(f"on_alarm: is 'warn', 'stop' or a function, not {self.on_alarm!r}")
        self.watch: Watch | None = None
        """The watch, once training has begun."""
        self._stops = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Hook the model, and go on where the checkpoint was."""
        if args.torch_compile and self.probe is None:
            raise ValueError(
                "torch_compile: the choices of a compiled model's training batches cannot be counted; give the callback"
                " a probe, which runs without compilation"
            )
        self._stops = False
        settings = {"steps": state.max_steps, **self.settings}
        self.watch = Watch(kwargs["model"], self.probe, on_alarm=self._take_alarm, **settings)
        saved = _kept_states(state).get(STATE)
        if saved is not None:
            self.watch.load_state_dict(saved["attributes"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check the routers, if a check is due."""
        assert self.watch is not None, "training has begun"
        values = self.watch.step(state.global_step)
        # the form in which the trainer keeps the state of callbacks
        _kept_states(state)[STATE] = {"args": {}, "attributes": self.watch.state_dict()}
        if values and self.settings.get("sink") is None:
            state.log_history.append({**values, "step": state.global_step})
        if self._stops:
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove the hooks."""
        if self.watch is not None:
            self.watch.close()

    def _take_alarm(self, alarm: Alarm) -> None:
        if callable(self.on_alarm):
            self.on_alarm(alarm)
            return
        warnings.warn(alarm.sentence, CollapseWarning, stacklevel=2)
        self._stops = self.on_alarm == "stop"


def _kept_states(state: TrainerState) -> dict[str, Any]:
    """Return the states of callbacks that the trainer's checkpoints keep, by name."""
    kept: Any = state.stateful_callbacks  # a dict once the state is made, whatever its annotation says
    states: dict[str, Any] = kept
    return states
