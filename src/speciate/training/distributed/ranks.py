"""Several processes that train one run together, launched by torchrun: rank r of W on its part of a step's blocks.

    torchrun --standalone --nproc-per-node W --no-python python -m speciate train ...

ddp: every process holds the whole model, and gradients are averaged (Li et al. 2020). fsdp: each holds its part of
every tensor, gathered block by block when it is needed (FSDP2; Zhao et al. 2023). In both a step's loss is the mean
over the predictions of all processes, so W of them train as one does, but for the order of additions. Selectors' losses
are each process's own, averaged; the load that a balancing bias follows is everybody's (balance/bias.py).

Rank 0 alone writes. It also observes: with ddp by itself, while the others wait; with fsdp, where a forward pass is
everybody's, all of them do, and what the others see is dropped. Random numbers (routers' noise) are each process's own.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from speciate.config.run import TrainingSpec
from speciate.model.block import Block
from speciate.selection.selection import auxiliary_loss, recording
from speciate.training.distributed.devices import taken

CPU = torch.device("cpu")


class Step(nn.Module):
    """What a process computes of one micro-batch."""

    def __init__(self, objective: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.objective, self.model = objective, model

    def forward(self, token_BT: Tensor, document_BT: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The objective's loss and the selectors' own, scalars; None where there are no selectors."""
        with recording(self.model) as record:
            loss = self.objective(self.model, token_BT, document_BT)
        return loss, auxiliary_loss(record) if record else None


@dataclass(frozen=True)
class Ranks:
    """The processes of a run as one of them sees them."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    in_parts: bool = False
    """Whether checkpoints are distributed ones: of an fsdp run, also where one process continues it."""

    @property
    def sharded(self) -> bool:
        """Whether the model's tensors are spread over the processes."""
        return self.in_parts and self.world > 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @property
    def observes(self) -> bool:
        """Whether this one runs the model for the observer."""
        return self.first or self.sharded

    def mean(self, *values: float) -> list[float]:
        """Each value's mean over the processes, in double precision; the values themselves where there is one."""
        if self.world == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return [float(value) / self.world for value in sums.tolist()]

    def any(self, here: object) -> bool:
        """Whether it holds for some process: all of them then know."""
        return bool(here) if self.world == 1 else self.mean(float(bool(here)))[0] > 0

    def agreed(self, stop: Callable[[], object]) -> Callable[[], bool]:
        """`stop`, true for all processes as soon as it is for one of them; all of them call it equally often."""
        return lambda: self.any(stop())

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def spread(self, model: nn.Module) -> nn.Module:
        """Puts the model on the device and, for fsdp, its tensors in parts; the same model, its names as they were."""
        model.to(self.device)
        if self.sharded:
            # a second to import, for sharded runs alone; so are the other imports below
            from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

            for block in (part for part in model.modules() if isinstance(part, Block)):
                fully_shard(block)
            fully_shard(model)
            for method in ("hidden", "trunk_and_hidden"):
                register_fsdp_forward_method(model, method)
        return model

    def step(self, objective: nn.Module, model: nn.Module) -> nn.Module:
        """A Step whose backward pass averages gradients over the processes, unless inside `alone`."""
        step = Step(objective, model)
        if self.world == 1 or self.sharded:
            return step
        # buffers are kept equal by those who change them
        return DistributedDataParallel(step, forward_sync_buffers=False)

    @contextlib.contextmanager
    def synchronised(self, step: nn.Module, last: bool) -> Iterator[None]:
        """Inside the block gradients are only summed up, until the `last` micro-batch, which averages them."""
        if isinstance(step, DistributedDataParallel) and not last:
            with step.no_sync():
                yield
            return
        if self.sharded:
            assert isinstance(step, Step)
            step.model.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

    @contextlib.contextmanager
    def observing(self, model: nn.Module) -> Iterator[None]:
        """Inside the block the model may run with no backward pass to follow; afterwards tensors are in parts again."""
        yield
        if self.sharded:
            for part in model.modules():  # of the FSDP kind: the blocks and the whole
                reshard: Callable[[], None] | None = getattr(part, "reshard", None)
                if reshard is not None:
                    reshard()

    def random_states(self) -> Tensor:
        """The state of every process's random numbers, (W, bytes) uint8; one process's own, (bytes)."""
        state = torch.get_rng_state()
        if self.device.type == "cuda":
            state = torch.cat([state, torch.cuda.get_rng_state(self.device)])
        if self.world == 1:
            return state
        states = [torch.empty_like(state, device=self.device) for _ in range(self.world)]
        dist.all_gather(states, state.to(self.device))
        return torch.stack(states).cpu()

    def set_random_state(self, saved: Tensor) -> None:
        """Continues with one's own random numbers; as many processes as saved them, or all begin new ones."""
        states = saved.view(-1, saved.shape[-1])
        own = torch.get_rng_state()
        on_gpu = self.device.type == "cuda"
        length = len(own) + (len(torch.cuda.get_rng_state(self.device)) if on_gpu else 0)
        if states.shape != (self.world, length):
            seed_from(states[0].numpy().tobytes(), self.rank)
            return
        torch.set_rng_state(states[self.rank][: len(own)].clone())  # of a view it reads past the end
        if on_gpu:
            torch.cuda.set_rng_state(states[self.rank][len(own) :].clone(), self.device)


ALONE = Ranks()


def seed_from(what: bytes, rank: int) -> None:
    """Seeds a process's random numbers from what all processes have alike, and its rank."""
    digest = hashlib.sha256(what + rank.to_bytes(4, "big")).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextlib.contextmanager
def joined(settings: TrainingSpec, processes: int | None = None) -> Iterator[Ranks]:
    """The processes that torchrun launched, joined; or this one alone.

    Args:
        settings: the run's.
        processes: how many there are to be, where not as many as `settings` says.

    Raises:
        ValueError: another number of processes was launched; no GPU is there or left.
    """
    rank, world, local = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    world, expected = world or 1, processes or settings.processes
    if world != expected:
        raise ValueError(
            f"training.processes: {expected} processes train this run, and {world} started; launch it with torchrun "
            f"--nproc-per-node {expected}, or say --processes {world}: the same losses, with other last bits"
        )
    with taken(settings, local) as device:
        if world == 1:
            yield Ranks(device=device, in_parts=settings.parallel == "fsdp")
            return
        on_gpu = device.type == "cuda"
        dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
        try:
            yield Ranks(rank, world, device, settings.parallel == "fsdp")
        finally:
            dist.destroy_process_group()


def number(tensor: Tensor) -> float:
    """A scalar's value, which processes may hold parts of; a collective call where they do."""
    return float(full(tensor))


def full(tensor: Tensor) -> Tensor:
    """A DTensor gathered; another tensor as it is."""
    gather = getattr(tensor, "full_tensor", None)
    gathered: Tensor = tensor if gather is None else gather()
    return gathered
