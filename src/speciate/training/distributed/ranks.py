"""Several processes that train one run together, launched by torchrun: rank r of W trains on its part of each step.

    torchrun --standalone --nproc-per-node W --no-python python -m speciate train ...

With ddp every process holds the whole model, and gradients are averaged (Li et al. 2020). With fsdp each holds a shard
of every tensor, gathered block by block when it is needed (FSDP2; Zhao et al. 2023). Either way a step's loss is the
mean over the predictions of all processes, so W processes train as one does, up to the order of additions. The
selectors' losses are computed in each process and averaged. The load that a balancing bias follows is summed over all
processes (balance/bias.py).

Only rank 0 writes. It also runs the observer: with ddp alone, while the others wait. With fsdp a forward pass is a
collective call, so all processes run the observer, and only rank 0 keeps what it records. Each process has its own
random numbers (routers' noise).
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
from speciate.model.transformer import Transformer
from speciate.selection.selection import auxiliary_loss, record_selections
from speciate.training.distributed.devices import acquire_device
from speciate.training.objective_base import Objective

CPU = torch.device("cpu")


class LossModule(nn.Module):
    """The objective and the model as one module, so that DDP can wrap what a process computes of a micro-batch."""

    def __init__(self, objective: Objective, model: Transformer) -> None:
        super().__init__()
        self.objective, self.model = objective, model

    def forward(self, token_BT: Tensor, document_BT: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the objective's loss and the selectors' own loss, scalars; None for a model without selectors."""
        with record_selections(self.model) as record:
            loss = self.objective(self.model, token_BT, document_BT)
        return loss, auxiliary_loss(record) if record else None


@dataclass(frozen=True)
class Ranks:
    """The processes of a run as one of them sees them."""

    rank: int = 0
    world: int = 1
    """The number of processes."""
    device: torch.device = CPU
    fsdp: bool = False
    """Whether it is an fsdp run, whose checkpoints are sharded, also where a single process resumes it."""

    @property
    def sharded(self) -> bool:
        """Whether the model's tensors are sharded over the processes."""
        return self.fsdp and self.world > 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def runs_observer(self) -> bool:
        """Whether this process runs the model for the observer."""
        return self.is_main or self.sharded

    def mean(self, *values: float) -> list[float]:
        """Return each value's mean over the processes, in double precision."""
        if self.world == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return [float(value) / self.world for value in sums.tolist()]

    def any(self, condition: object) -> bool:
        """Return, in all processes, whether the condition holds in at least one of them."""
        return bool(condition) if self.world == 1 else self.mean(float(bool(condition)))[0] > 0

    def any_stops(self, should_stop: Callable[[], object]) -> Callable[[], bool]:
        """Return a function, to be called equally often in all processes, that is true if one of them should stop."""
        return lambda: self.any(should_stop())

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def place(self, model: Transformer) -> Transformer:
        """Move the model to the device and, for fsdp, shard its tensors; return the same model, names unchanged."""
        model.to(self.device)
        if self.sharded:
            # takes a second to import, and only sharded runs need it; so do the other imports inside functions
            from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

            for block in (module for module in model.modules() if isinstance(module, Block)):
                fully_shard(block)
            fully_shard(model)
            for method in ("hidden", "trunk_and_hidden"):
                register_fsdp_forward_method(model, method)
        return model

    def loss_module(self, objective: Objective, model: Transformer) -> nn.Module:
        """Return a LossModule whose backward pass averages the gradients over the processes."""
        module = LossModule(objective, model)
        if self.world == 1 or self.sharded:
            return module
        # the modules that change buffers keep them equal themselves
        return DistributedDataParallel(module, forward_sync_buffers=False)

    @contextlib.contextmanager
    def gradient_sync(self, loss_module: nn.Module, last: bool) -> Iterator[None]:
        """Only accumulate gradients inside the block, unless this is the `last` micro-batch, which averages them."""
        if isinstance(loss_module, DistributedDataParallel) and not last:
            with loss_module.no_sync():
                yield
            return
        if self.sharded:
            assert isinstance(loss_module, LossModule)
            loss_module.model.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

    @contextlib.contextmanager
    def inference(self, model: nn.Module) -> Iterator[None]:
        """Allow forward passes inside the block that no backward pass follows; shard the tensors again afterwards."""
        yield
        if self.sharded:
            for module in model.modules():  # FSDP modules have it: the blocks and the whole model
                reshard: Callable[[], None] | None = getattr(module, "reshard", None)
                if reshard is not None:
                    reshard()

    def rng_states(self) -> Tensor:
        """Return the random state of every process, (W, bytes) uint8; of a single process (bytes)."""
        state = torch.get_rng_state()
        if self.device.type == "cuda":
            state = torch.cat([state, torch.cuda.get_rng_state(self.device)])
        if self.world == 1:
            return state
        states = [torch.empty_like(state, device=self.device) for _ in range(self.world)]
        dist.all_gather(states, state.to(self.device))
        return torch.stack(states).cpu()

    def set_rng_states(self, saved: Tensor) -> None:
        """Resume with this process's saved random state; seed all processes anew if another number of them saved."""
        states = saved.view(-1, saved.shape[-1])
        current = torch.get_rng_state()
        on_gpu = self.device.type == "cuda"
        length = len(current) + (len(torch.cuda.get_rng_state(self.device)) if on_gpu else 0)
        if states.shape != (self.world, length):
            seed_rank(states[0].numpy().tobytes(), self.rank)
            return
        torch.set_rng_state(states[self.rank][: len(current)].clone())  # it would read past the end of a view
        if on_gpu:
            torch.cuda.set_rng_state(states[self.rank][len(current) :].clone(), self.device)


ALONE = Ranks()


def seed_rank(shared: bytes, rank: int) -> None:
    """Seed this process's random numbers from bytes that all processes share, and its rank."""
    digest = hashlib.sha256(shared + rank.to_bytes(4, "big")).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextlib.contextmanager
def join_processes(
    settings: TrainingSpec, processes: int | None = None, wait: Callable[[], object] | None = None
) -> Iterator[Ranks]:
    """Join the processes that torchrun launched, inside the block; without torchrun this one is alone.

    Args:
        settings: the run's.
        processes: the number of processes to expect, if not the number in `settings`.
        wait: wait for a free GPU until this is true; None: do not wait.

    Raises:
        ValueError: another number of processes was launched; there is no GPU, or none is free.
    """
    rank, world, local = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    world, expected = world or 1, processes or settings.processes
    if world != expected:
        raise ValueError(
            f"training.processes: the run needs {expected} processes, but {world} started; launch it with torchrun "
            f"--nproc-per-node {expected}, or pass --processes {world}, which gives the same losses up to rounding"
        )
    with acquire_device(settings, local, wait) as device:
        if world == 1:
            yield Ranks(device=device, fsdp=settings.parallel == "fsdp")
            return
        on_gpu = device.type == "cuda"
        dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
        try:
            yield Ranks(rank, world, device, settings.parallel == "fsdp")
        finally:
            dist.destroy_process_group()


def scalar(tensor: Tensor) -> float:
    """Return a scalar tensor's value; a collective call where the tensor is sharded."""
    return float(full_tensor(tensor))


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a sharded tensor (DTensor) gathered, and any other tensor as it is."""
    gather = getattr(tensor, "full_tensor", None)
    gathered: Tensor = tensor if gather is None else gather()
    return gathered
