"""Test that a sink gets every line of metrics.jsonl and changes nothing, and how a failing or missing sink ends."""

import json
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from speciate.config.run import RunSpec
from speciate.io import sha256
from speciate.stages import train as verb
from speciate.training.logs import sinks
from speciate.training.logs.sinks import Sinks

MakeRun = Callable[..., RunSpec]
RESULTS = ("model.safetensors", "metrics.jsonl", "telemetry.safetensors")


class Stop:
    """Ask to stop once a run has asked this many times."""

    def __init__(self, asked: int = 10**9) -> None:
        self.left = asked

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def trained(
    spec: RunSpec, mixture: pathlib.Path, folder: pathlib.Path, kinds: list[str], messages: list[str], stop: Any = None
) -> bool:
    run_sinks = Sinks([sinks.parse(kind) for kind in kinds], folder / "sinks", spec, messages.append)
    stop = Stop() if stop is None else stop
    return verb.train(spec, mixture, folder / "run", folder / "checkpoints", stop=stop, run_sinks=run_sinks)


def numbers(folder: pathlib.Path) -> list[tuple[int, str, float]]:
    """Return every (step, name, value) in metrics.jsonl."""
    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    return [(row["step"], name, value) for row in rows for name, value in sinks.flatten(row).items()]


def digests(folder: pathlib.Path) -> list[str]:
    return [sha256(folder / "run" / name) for name in RESULTS]


def events(file: pathlib.Path) -> list[tuple[int, str, float]]:
    """Return an event file's scalars: records of a length (8 bytes), its checksum (4), the event, its checksum (4)."""
    data, offset, scalars = file.read_bytes(), 0, []
    while offset < len(data):
        length = int.from_bytes(data[offset : offset + 8], "little")
        event = Event.FromString(data[offset + 12 : offset + 12 + length])
        scalars += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        offset += 16 + length
    return scalars


def test_tensorboard_gets_every_number_and_no_bit_of_the_run_changes(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    messages: list[str] = []
    assert trained(run_spec(), mixture, tmp_path / "plain", [], messages)
    assert trained(run_spec(), mixture, tmp_path / "watched", ["tensorboard"], messages)
    assert digests(tmp_path / "plain") == digests(tmp_path / "watched")
    (file,) = (tmp_path / "watched/sinks/tensorboard/small-seed0").iterdir()
    expected = numbers(tmp_path / "watched")
    assert {name for _, name, _ in expected} >= {"loss", "grad_norm", "lr", "validation/code", "validation/prose"}
    assert [(step, name) for step, name, _ in events(file)] == [(step, name) for step, name, _ in expected]
    values = [value for *_, value in events(file)]
    assert values == pytest.approx([value for *_, value in expected], rel=1e-6)
    assert not messages
    assert not (tmp_path / "plain/sinks").exists()


class Recorder(types.ModuleType):
    """Stand in for a tracker's client and record its calls."""

    def __init__(self, name: str, failing_after: int = 10**9) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.failing_after = failing_after
        self.config = None

    def init(self, **settings: Any) -> "Recorder":
        self.calls.append(("init", settings))
        return self

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        if len(self.logged) >= self.failing_after:
            raise ConnectionError("no route")
        rest = dict(values)
        at_step = rest.pop("step") if step is None else step
        self.logged.append((at_step, rest))

    def finish(self) -> None:
        self.calls.append(("finish", None))

    def define_metric(self, *names: str, **settings: Any) -> None:
        self.calls.append(("define", names))

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_a_tracker_gets_every_number(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    client = Recorder(kind)
    monkeypatch.setitem(sys.modules, kind, client)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    messages: list[str] = []
    assert trained(run_spec(), mixture, tmp_path / "watched", [f'{{"kind": "{kind}", "project": "mine"}}'], messages)
    assert [(step, name, value) for step, values in client.logged for name, value in values.items()] == numbers(
        tmp_path / "watched"
    )
    opened = dict(client.calls[0][1])
    assert (opened["project"], opened["name"]) == ("mine", "small-seed0")
    assert opened["config"]["seed"] == 0
    assert client.calls[-1][0] == "finish"
    assert not messages


def test_a_run_that_goes_on_sends_each_line_once(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Recorder("trackio")
    monkeypatch.setitem(sys.modules, "trackio", client)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    messages: list[str] = []
    assert not trained(run_spec(), mixture, tmp_path / "run", ["trackio"], messages, Stop(6))
    assert client.calls[-1][0] == "finish"
    assert trained(run_spec(), mixture, tmp_path / "run", ["trackio"], messages)
    sent = [(step, name, value) for step, values in client.logged for name, value in values.items()]
    assert sent == numbers(tmp_path / "run")


def test_a_sink_that_fails_is_dropped_and_the_run_goes_on(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Recorder("wandb", failing_after=3))
    messages: list[str] = []
    assert trained(run_spec(), mixture, tmp_path / "plain", [], messages)
    assert trained(run_spec(), mixture, tmp_path / "watched", ["wandb"], messages)
    assert digests(tmp_path / "plain") == digests(tmp_path / "watched")
    assert messages == ["--sink wandb: failed and is dropped; the run goes on: ConnectionError: no route"]


def test_a_sink_that_cannot_be_opened_is_refused(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Recorder("wandb")
    monkeypatch.setitem(sys.modules, "wandb", client)
    monkeypatch.setattr(client, "init", lambda **settings: {}["login"])
    with pytest.raises(ValueError, match="--sink wandb: cannot be opened: KeyError: 'login'"):
        trained(run_spec(), mixture, tmp_path / "run", ["tensorboard", "wandb"], [])


@pytest.mark.parametrize(
    ("kind", "module", "package"),
    [("tensorboard", "tensorboardX", "tensorboardX"), ("wandb", "wandb", "wandb"), ("trackio", "trackio", "trackio")],
)
def test_a_missing_package_is_named_before_the_run_begins(
    mixture: pathlib.Path,
    tmp_path: pathlib.Path,
    run_spec: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    module: str,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=f"--sink {kind}: needs a package: pip install {package} "):
        trained(run_spec(), mixture, tmp_path / "run", [kind], [])
    assert not (tmp_path / "run/run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("comet", "--sink comet: 'comet' is not a kind of training/logs/sink; available: tensorboard, trackio, wandb"),
        ('{"kind": ', r'--sink \{"kind": : is not JSON'),
        ('{"kind": "wandb", "team": "x"}', "team: unknown key"),
        ('{"kind": "wandb", "mode": "dry"}', "mode: input should be 'offline' or 'online', not 'dry'"),
    ],
)
def test_what_is_no_sink_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sinks.parse(text)


def test_the_environment_may_name_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sinks.VARIABLE, raising=False)
    assert sinks.from_environment() == []
    monkeypatch.setenv(sinks.VARIABLE, "tensorboard, wandb,")
    assert sinks.from_environment() == ["tensorboard", "wandb"]


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_the_real_client_takes_it_offline(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # the client reads it when it is imported
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "watched/sinks/trackio"))
    pytest.importorskip(kind, reason=f"{kind} is not in the lock; pip install {kind} runs this test")
    messages: list[str] = []
    assert trained(run_spec(), mixture, tmp_path / "plain", [], messages)
    assert trained(run_spec(), mixture, tmp_path / "watched", [kind], messages)
    assert digests(tmp_path / "plain") == digests(tmp_path / "watched")
    assert not messages
    (written,) = (tmp_path / "watched/sinks").rglob({"wandb": "*.wandb", "trackio": "*.db"}[kind])
    assert b"validation/prose" in written.read_bytes()
