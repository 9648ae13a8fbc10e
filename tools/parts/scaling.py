"""The arithmetic of tools/plan_scaling.py: what a batch on many GPUs needs in memory, communication and time.

training/memory.py estimates the memory. The collectives are those of PyTorch's wrappers (training/placement.py); a test counts
them in a real run. Seconds follow from data sheets and the constants below; they were never measured on such hardware.

Letters: L layers, S bytes of a whole tensor, n ranks that take part in a collective, m machines of these ranks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from config import Config
from jojo.machine.gpus import GPUS, Gpu, gpu_peak_flops
from jojo.networks import formulas
from jojo.optim import OPTIMIZERS
from tools.parts.gpu_names import find_gpu
from tools.parts.runs import USABLE
from training.memory import Parts, elements, gathers_low, peak_parts, sharing_ranks, weights_bytes
from utils import UserError, divisors, one_line

COMPUTE_SHARE = 0.4  # share of the published peak that the forward and backward pass reach
LINK_SHARE = 0.8  # share of a link's or network's bandwidth that collectives reach
MEMORY_SHARE = 0.8  # share of the memory's bandwidth that the update reaches
START_S = 10e-6  # to start a collective
HOP_S = 1e-6  # for each GPU that a ring passes inside a machine
NODE_HOP_S = 6e-6  # for each machine: a ring passes all m, the tree of an all-reduce log2 m, twice
# Once a batch the ranks exchange their stop flags over gloo and TCP. Both times were measured on one machine.
AGREE_STEP_S = 150e-6  # for each step of the tree
AGREE_MESSAGE_S = 60e-6  # for each message that rank 0 receives, one from every other rank
BLOCK_S = 0.3e-3  # the least time of a block, forward and backward: its kernels are started one by one
UPDATE_BYTES = 40  # read and written per parameter: norm 4, clipping 8, AdamW 28
FIRST_BUCKET_BYTES, BUCKET_BYTES = 1 << 20, 25 << 20  # DDP's: a bucket is sent as soon as it has this size
# A rank in a ring sends this many times (n - 1) / n S:
SENDS = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1, "all-to-all": 1}
LINKED = [gpu.name.lower() for gpu in GPUS if gpu.link]  # GPUs whose links are known


def linked_gpu(wanted: str) -> Gpu:
    """The GPU of this name. Raises UserError for a GPU whose links are not known."""
    gpu = find_gpu(wanted)
    if gpu is None or not gpu.link:
        raise UserError(f"--gpu '{one_line(wanted)}' is not one that this tool knows; it knows {', '.join(LINKED)}.")
    return gpu


@dataclass(frozen=True)
class Cluster:
    """Equal machines: the GPUs in each, the network in GB/s per GPU, and the share of the peak that they reach."""

    gpu: Gpu
    per_node: int = 8
    network_gb_s: float = 0.0
    efficiency: float = COMPUTE_SHARE

    @property
    def usable_bytes(self) -> int:
        """The part of each GPU's memory that a run may use."""
        return int(USABLE * (self.gpu.memory_gb or 0) * 1e9)


@dataclass(frozen=True)
class Collective:
    """A collective that runs `number` times in a batch: bytes of the whole tensor, its ranks and their machines.

    In an all-to-all, the bytes are those that one rank has for all ranks.
    """

    kind: str
    what: str
    bytes: int
    ranks: int
    nodes: int
    number: int = 1

    def sent(self) -> tuple[float, float]:
        """Bytes that each rank sends in one collective: inside its machine, and to other machines.

        NCCL makes a ring for each GPU of a machine, and every ring leaves the machine once. An all-to-all has no ring.
        """
        total = SENDS[self.kind] * (self.ranks - 1) / self.ranks * self.bytes
        if self.kind == "all-to-all":
            away = (1 - 1 / self.nodes) * self.bytes
        else:
            away = total / (self.ranks / self.nodes) if self.nodes > 1 else 0.0
        return total - away, away

    def seconds(self, cluster: Cluster) -> dict[str, float]:
        """Seconds of one collective, by cause. Links and network work at the same time; the slower one counts."""
        if self.ranks == 1:
            return {}
        inside, away = self.sent()
        link = inside / (LINK_SHARE * cluster.gpu.link_gb_s * 1e9)
        network = away / (LINK_SHARE * cluster.network_gb_s * 1e9)
        hops = 2 * math.log2(self.nodes) if self.kind == "all-reduce" else self.nodes - 1
        latency = START_S + HOP_S * (self.ranks / self.nodes - 1) + NODE_HOP_S * hops
        return {"latency": latency} | ({"network": network} if network > link else {"links": link})


def total(seconds: dict[str, float]) -> float:
    """The sum of all parts."""
    return sum(seconds.values())


# --- what is sent ---------------------------------------------------------------------------------------------------


def buckets(config: Config) -> list[int]:
    """Bytes of DDP's buckets. The backward pass fills them from the last module to the first."""
    weights = formulas(config.model).weights()
    modules = [list(names) for _, names in itertools.groupby(weights, key=lambda name: name.rpartition(".")[0])]
    sizes, now, limit = list[int](), 0, FIRST_BUCKET_BYTES
    for name in itertools.chain(*reversed(modules)):
        now += 4 * math.prod(weights[name])
        if now >= limit:
            sizes, now, limit = [*sizes, now], 0, BUCKET_BYTES
    return sizes + ([now] if now else [])


def collectives(config: Config, ranks: int, per_node: int) -> list[Collective]:
    """All collectives of a batch, in the order of its backward pass and update."""
    if ranks == 1:
        return []
    nodes, L = -(-ranks // per_node), config.model.n_layer
    loss = Collective("all-reduce", "loss", 4, ranks, nodes)
    if config.system.parallel == "ddp":
        return [*(Collective("all-reduce", "bucket", size, ranks, nodes) for size in buckets(config)), loss]
    n, model = sharing_ranks(config, ranks), formulas(config.model)
    wide, copies = -(-n // per_node), ranks // n  # machines of one copy of the model, number of copies
    root, part = elements(model.outside, n), elements(model.block, n)
    micro = config.training.gradient_accumulation_steps // ranks
    low = 2 if gathers_low(config) else 4
    found = [
        Collective("all-gather", "embeddings", 4 * n * root, n, wide, micro),
        Collective("all-gather", "block", low * n * part, n, wide, 2 * L * micro),  # for forward and for backward
        Collective("reduce-scatter", "block", 4 * n * part, n, wide, L),
        Collective("reduce-scatter", "embeddings", 4 * n * root, n, wide),
    ]
    if copies > 1:
        between = min(copies, nodes)  # machines; the ranks of a copy are neighbours
        found += [
            Collective("all-reduce", "block", 4 * part, copies, between, L),
            Collective("all-reduce", "embeddings", 4 * root, copies, between),
        ]
    norms = Collective("all-reduce", "gradient norms", 4 * (len(model.outside) + L * len(model.block)), n, wide)
    exchanged = OPTIMIZERS[config.optimizer.kind].exchanged_bytes(model, config.system.dtype, n)
    return [*found, loss, norms, *(Collective("all-to-all", "matrices", size, n, wide) for size in exchanged)]


# --- a plan ---------------------------------------------------------------------------------------------------------


@dataclass
class Plan:
    """A layout on a number of GPUs. Sizes in bytes and times in seconds are of one batch, on one GPU."""

    layout: str
    gpus: int
    sequences: int
    batch_size: int
    micro_batches: int  # of each rank
    moment: str = ""
    memory: Parts = field(default_factory=dict)
    fits: bool = False
    collectives: list[Collective] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # by cause, without hidden communication
    hidden_s: float = 0.0  # sending while the GPU computes
    mfu: float = 0.0
    tokens_per_s: float = 0.0

    @property
    def step_s(self) -> float:
        return total(self.seconds)

    @property
    def peak_bytes(self) -> int:
        return sum(self.memory.values())

    def sent(self) -> tuple[float, float]:
        """Bytes that a GPU sends in a batch: inside its machine, and to other machines."""
        pairs = [(one.number * here, one.number * away) for one in self.collectives for here, away in [one.sent()]]
        return sum(here for here, _ in pairs), sum(away for _, away in pairs)

    def number(self) -> int:
        """The number of collectives in a batch."""
        return sum(one.number for one in self.collectives)


def split(config: Config, gpus: int, sequences: int) -> tuple[int, int] | None:
    """Size and number of each rank's micro-batches that come nearest to this batch; None: too few sequences."""
    if sequences < gpus:
        return None
    each = round(sequences / gpus)
    size = max(d for d in divisors(each) if d <= config.training.batch_size)
    return size, each // size


def no_fsdp(config: Config) -> str:
    """Why fsdp does not support this config; empty if it does."""
    return "they do not support float16 (use --dtype bfloat16)" if config.system.dtype == "float16" else ""


def layouts(config: Config, gpus: int, per_node: int) -> Iterator[tuple[str, Config]]:
    """The names of the layouts for this number of GPUs, with their configs."""
    alone = gpus == 1
    yield "one GPU" if alone else "ddp", replace(config, system=replace(config.system, parallel="ddp"))
    if alone or no_fsdp(config):
        return
    yield "fsdp", replace(config, system=replace(config.system, parallel="fsdp", shard_ranks=None))
    if gpus > per_node > 1:
        system = replace(config.system, parallel="fsdp", shard_ranks=per_node)
        yield f"{gpus // per_node} x {per_node}", replace(config, system=system)


def plans(config: Config, gpus: int, cluster: Cluster, sequences: int) -> list[Plan]:
    """A plan for each layout; an empty list if a batch has fewer sequences than GPUs."""
    if (shared := split(config, gpus, sequences)) is None:
        return []
    size, micro = shared
    training = replace(config.training, batch_size=size, gradient_accumulation_steps=micro * gpus)
    found = []
    for name, own in layouts(replace(config, training=training), gpus, cluster.per_node):
        moment, parts = peak_parts(own, gpus)
        plan = Plan(name, gpus, size * micro * gpus, size, micro, moment, parts)
        plan.fits = plan.peak_bytes <= cluster.usable_bytes
        plan.collectives = collectives(own, gpus, cluster.per_node)
        take_time(plan, own, cluster)
        found.append(plan)
    return found


def take_time(plan: Plan, config: Config, cluster: Cluster) -> None:
    """Fill in the plan's seconds, and what follows from them."""
    model, tokens = config.model, plan.batch_size * config.model.block_size
    peak = gpu_peak_flops(cluster.gpu.name, config.system.dtype, config.system.allow_tf32_matmul)
    assert peak is not None, "LINKED has only GPUs with a known peak"
    flops = formulas(model).flops_per_token
    useful = flops * tokens / peak / cluster.efficiency  # a micro-batch; backward takes twice as long as forward
    forward, backward = useful / 3, useful * (1 if config.training.activation_checkpointing else 2 / 3)
    slowed = max(1.0, BLOCK_S * model.n_layer / (forward + backward))  # factor if the GPU waits for kernels to start
    computing = plan.micro_batches * (forward + backward)
    seconds = {"compute": computing, "small kernels": (slowed - 1) * computing}
    sending, exposed = waits(plan, config, cluster, slowed * forward, slowed * backward)
    for name, taken in exposed.items():
        seconds[name] = seconds.get(name, 0.0) + taken
    own = weights_bytes(config, plan.gpus)["weights"] / 4
    updating = OPTIMIZERS[config.optimizer.kind].update_flops(formulas(model), sharing_ranks(config, plan.gpus))
    seconds["update"] = own * UPDATE_BYTES / (MEMORY_SHARE * cluster.gpu.memory_gb_s * 1e9)
    seconds["update"] += updating / peak / cluster.efficiency
    if plan.gpus > 1:
        started = BLOCK_S * model.n_layer * plan.micro_batches  # the flags are exchanged from then on
        steps = 1 + math.ceil(math.log2(plan.gpus))  # Ranks.all_reduce_max: to rank 0, then back along a tree
        agreeing = AGREE_STEP_S * steps + AGREE_MESSAGE_S * (plan.gpus - 1)
        seconds["agreement"] = max(0.0, agreeing - max(0.0, computing - started))
    plan.seconds, plan.hidden_s = seconds, max(0.0, sending - total(exposed))
    plan.tokens_per_s = plan.sequences * model.block_size / plan.step_s
    plan.mfu = plan.tokens_per_s * flops / peak / plan.gpus


def waits(
    plan: Plan, config: Config, cluster: Cluster, forward: float, backward: float
) -> tuple[float, dict[str, float]]:
    """Seconds of all collectives, and the seconds that a batch waits for them, by cause.

    Args:
        plan: a plan whose collectives are known.
        config: the layout's.
        cluster: the machines.
        forward: seconds of a micro-batch's forward pass.
        backward: seconds of a micro-batch's backward pass.
    """
    if plan.gpus == 1:
        return 0.0, {}
    once = {(one.kind, one.what): one.seconds(cluster) for one in plan.collectives}  # for buckets, the last one stays
    every = [(one.number, one.seconds(cluster)) for one in plan.collectives]
    sending = sum(number * total(parts) for number, parts in every)
    small = total(once["all-reduce", "loss"]) + total(once.get(("all-reduce", "gradient norms"), {}))
    small += sum(total(one.seconds(cluster)) for one in plan.collectives if one.kind == "all-to-all")
    if config.system.parallel == "ddp":
        # Buckets are sent during the last backward pass. The last one has the embeddings' gradient, which is ready at the end.
        late = max(sending - small - backward, total(once["all-reduce", "bucket"]))
    else:
        L, micro = config.model.n_layer, plan.micro_batches
        first, block = (total(once["all-gather", what]) for what in ("embeddings", "block"))
        leave, last = (total(once["reduce-scatter", what]) for what in ("block", "embeddings"))
        copies, last_copies = (total(once.get(("all-reduce", what), {})) for what in ("block", "embeddings"))
        # A block's weights arrive while the block before it computes. Its gradients are sent while the next block computes.
        late = micro * (first + 2 * block + (L - 1) * max(0.0, block - forward / L))
        late += (L - 1) * (micro - 1) * max(0.0, block - backward / L)
        late += (L - 1) * max(0.0, block + leave - backward / L, copies - backward / L)
        late += leave + copies + last + last_copies
    parts = {
        name: sum(number * one.get(name, 0.0) for number, one in every) for name in ("links", "network", "latency")
    }
    return sending, {name: (late + small) * taken / total(parts) for name, taken in parts.items() if taken}
