"""How many gateways, GPUs and Redis shards a fleet needs, on paper.

    python -m benchmarks.capacity --images-per-day 1e6 --prompts-per-image 8 --gaze-streams 100 [--plots docs/images]

Arithmetic on the costs below and two models: the hit rate of an LRU cache under Zipf's law, and queues. The costs that
are measured come from `python -m benchmarks.costs`; those of a GPU are near what an H100 took in `python -m
benchmarks.gpu`. `docs/capacity.md` discusses both.
"""

import argparse
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

DAY = 86_400
MIB = 1 << 20
GIB = 1 << 30

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """What each step costs, for a model of SAM's sizes. Seconds are of one core, or of one GPU.

    Attributes:
        gateway_request: gateway processor time of a warm request with one prompt, the decoder's own excluded.
        gateway_new_image: of decoding an image file and resizing it.
        gateway_embedding: of reading or writing an embedding of Redis, header and checksum included.
        gateway_gaze_sample: of one gaze sample, the masks of some included.
        redis_embedding: Redis' processor time for an embedding read or written.
        encode: a GPU's for an image.
        decode: a GPU's for a prompt, batched, with the embedding copied from pageable memory and the masks copied back.
        embedding_bytes: as stored.
        gaze_decodes, gaze_encodes: a second, of one stream.
        shard_bytes: usable memory of a Redis shard.
        link_bytes: a second, usable, of one machine's network.
        cores: of one gateway machine; one gateway process runs on each.
    """

    gateway_request: float = 8.2e-3
    gateway_new_image: float = 32e-3
    gateway_embedding: float = 3.0e-3
    gateway_gaze_sample: float = 0.9e-3
    redis_embedding: float = 1.0e-3
    encode: float = 30e-3
    decode: float = 0.35e-3
    embedding_bytes: float = 2 * MIB
    image_bytes: float = 0.4 * MIB
    answer_bytes: float = 4096
    gaze_decodes: float = 2.2
    gaze_encodes: float = 0.2
    shard_bytes: float = 48 * GIB
    link_bytes: float = 25e9 / 8 * 0.6
    cores: int = 16


@dataclass(frozen=True)
class Demand:
    """What a fleet is asked for.

    Attributes:
        images_per_day: how often somebody turns to an image, with all its prompts in a short while.
        peak_to_mean: of the rate over the day.
        catalogue: how many images are turned to at all; popularity follows Zipf's law.
        cached_share: of the catalogue, that Redis has room for.
    """

    images_per_day: float
    prompts_per_image: float
    gaze_streams: float
    peak_to_mean: float = 3.0
    catalogue: float = 0.0
    cached_share: float = 0.1
    zipf: float = 0.8


@dataclass(frozen=True)
class Need:
    """So much of one resource.

    Attributes:
        load: in units of the resource, on average at the peak: Erlangs, shards, links.
        count: of units, with headroom.
        why: what the headroom is for.
    """

    name: str
    load: float
    count: int
    why: str


@dataclass(frozen=True)
class Plan:
    """The answer."""

    demand: Demand
    hit_rate: float
    images: float
    encodes: float
    requests: float
    needs: tuple[Need, ...]

    def count(self, name: str) -> int:
        """How many of a resource."""
        return next(need.count for need in self.needs if need.name == name)


def zipf_bins(catalogue: float, exponent: float, bins: int = 4000) -> tuple[Floats, Floats]:
    """A Zipf popularity by classes of nearly equal rank: how many images each has, and the share of one of them.

    The first thousand ranks are alone, the rest in geometric classes; so 10⁹ images cost what 5,000 do.
    """
    alone = int(min(catalogue, 1000))
    edges = np.arange(1, alone + 2, dtype=np.float64)
    if catalogue > alone:
        edges = np.concatenate([edges, np.unique(np.round(np.geomspace(alone + 1, catalogue + 1, bins)))[1:]])
    counts = np.diff(edges)
    weights = np.sqrt(edges[:-1] * (edges[1:] - 1)) ** -exponent
    return counts, weights / (counts * weights).sum()


def che_hit_rate(capacity: float, counts: Floats, shares: Floats) -> float:
    """Hit rate of an LRU cache of `capacity` entries under independent references.

    By the approximation of Che, Tung and Wang, Hierarchical Web Caching Systems, IEEE JSAC 2002: every entry stays for
    the same characteristic time T, the time in which `capacity` different entries are requested. Time is counted in
    requests.
    """
    if capacity >= counts.sum():
        return 1.0
    if capacity <= 0:
        return 0.0

    def filled(time: float) -> float:
        return float((counts * -np.expm1(-shares * time)).sum())

    low, high = 0.0, 1.0
    while filled(high) < capacity:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if filled(middle) < capacity else (low, middle)
    return float((counts * shares * -np.expm1(-shares * high)).sum())


def lru_hit_rate(capacity: int, requests: Iterator[int], warm_up: int) -> float:
    """The same hit rate by simulation. Requests before `warm_up` are not counted."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = counted = 0
    for number, key in enumerate(requests):
        hit = key in cache
        if hit:
            cache.move_to_end(key)
        else:
            cache[key] = None
            if len(cache) > capacity:
                cache.popitem(last=False)
        if number >= warm_up:
            counted += 1
            hits += hit
    return hits / counted


def erlang_c(servers: int, load: float) -> float:
    """Probability that an arrival has to wait in M/M/c (Erlang, 1917), by the recursion of Erlang B.

    Args:
        load: arrival rate times service time; below `servers`.
    """
    blocked = 1.0
    for server in range(1, servers + 1):
        blocked = load * blocked / (server + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def wait_p99(servers: int, load: float, service: float, variation: float = 1.0) -> float:
    """99th percentile of the wait in M/G/c, in the unit of `service`.

    That of M/M/c times (1 + variation) / 2: Lee and Longton, Queueing processes associated with airline passenger
    check-in, Operational Research Quarterly 1959, applied to the percentile.

    Args:
        variation: squared coefficient of variation of the service time; 1 is exponential, 0 constant.
    """
    if load >= servers:
        return math.inf
    waits = erlang_c(servers, load)
    return max(0.0, math.log(100 * waits)) * service / (servers - load) * (1 + variation) / 2 if waits else 0.0


def servers_for(load: float, service: float, budget: float, variation: float) -> int:
    """The smallest number of servers with which 99 % of arrivals wait no longer than the budget."""
    low = max(1, math.floor(load) + 1)
    step = 1
    while wait_p99(low + step - 1, load, service, variation) > budget:
        step *= 2
    few, enough = low + step // 2 - 1, low + step - 1
    while enough - few > 1:
        middle = (few + enough) // 2
        if wait_p99(middle, load, service, variation) > budget:
            few = middle
        else:
            enough = middle
    return enough


def plan(demand: Demand, costs: Costs) -> Plan:
    """Compute the resources that a demand needs at its peak, with one spare of each kind."""
    catalogue = demand.catalogue or demand.images_per_day
    cached = demand.cached_share * catalogue
    hit_rate = che_hit_rate(cached, *zipf_bins(catalogue, demand.zipf))
    images = demand.images_per_day / DAY * demand.peak_to_mean
    requests = images * demand.prompts_per_image
    gaze_encodes, gaze_decodes = demand.gaze_streams * costs.gaze_encodes, demand.gaze_streams * costs.gaze_decodes
    encodes = images * (1 - hit_rate) + gaze_encodes
    decodes = requests + gaze_decodes
    gateway_load = (
        requests * costs.gateway_request
        + images * costs.gateway_embedding
        + encodes * costs.gateway_new_image
        + demand.gaze_streams * 120 * costs.gateway_gaze_sample
    )
    # Bytes to and from Redis, once per visit. Traffic between gateways and encoders, and of clients, is smaller.
    redis_bytes = (images + gaze_encodes) * costs.embedding_bytes
    needs = [
        _queue("gateway cores", gateway_load, costs.gateway_request, 10e-3, 1.0),
        _queue("encoder GPUs", encodes * costs.encode, costs.encode, 0.1, 0.0),
        _queue("decoder GPUs", decodes * costs.decode, costs.decode, 5e-3, 1.0),
        _share("Redis shards, memory", cached * costs.embedding_bytes / costs.shard_bytes, 1.0),
        _share("Redis shards, network", redis_bytes / costs.link_bytes, 1.0),
        _share("Redis shards, processor", (images + gaze_encodes) * costs.redis_embedding, 0.5),
    ]
    gateways = math.ceil(needs[0].count / costs.cores) + 1
    shards = max(need.count for need in needs if need.name.startswith("Redis"))
    client_bytes = encodes * costs.image_bytes + requests * costs.answer_bytes
    needs += [
        Need("gateway machines", needs[0].load / costs.cores, gateways, f"{costs.cores} cores each, one spare"),
        Need("Redis connections", gateways * costs.cores * shards, gateways * costs.cores * shards, "each to each"),
        _share("client links", client_bytes / costs.link_bytes, 1.0),
    ]
    return Plan(demand, hit_rate, images, encodes, requests, tuple(needs))


def _queue(name: str, load: float, service: float, budget: float, variation: float) -> Need:
    count = servers_for(load, service, budget, variation) + 1
    return Need(name, load, count, f"p99 of the wait within {1000 * budget:g} ms, one spare")


def _share(name: str, load: float, utilisation: float) -> Need:
    return Need(name, load, max(1, math.ceil(load / utilisation)), f"at most {utilisation:.0%} of each")


def table(planned: Plan) -> str:
    """Render a Markdown table."""
    lines = [
        f"At the peak: {planned.images:,.1f} images/s, {planned.requests:,.1f} requests/s, hit rate "
        f"{planned.hit_rate:.0%}, {planned.encodes:,.1f} encodes/s.",
        "",
        "| resource | load | needed | headroom |",
        "|---|---|---|---|",
    ]
    lines += [f"| {need.name} | {need.load:,.2f} | {need.count:,} | {need.why} |" for need in planned.needs]
    return "\n".join(lines)


def main() -> None:
    """Print a plan, and draw the plots if requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images-per-day", type=float, default=1e6)
    parser.add_argument("--prompts-per-image", type=float, default=8)
    parser.add_argument("--gaze-streams", type=float, default=0)
    parser.add_argument("--peak-to-mean", type=float, default=Demand.peak_to_mean)
    parser.add_argument(
        "--catalogue", type=float, default=0, help="number of different images (default: visits per day)"
    )
    parser.add_argument(
        "--cached-share", type=float, default=Demand.cached_share, help="share of the images that Redis holds"
    )
    parser.add_argument("--zipf", type=float, default=Demand.zipf)
    parser.add_argument("--encode-ms", type=float, default=1000 * Costs.encode, help="GPU time for one image")
    parser.add_argument("--decode-ms", type=float, default=1000 * Costs.decode, help="GPU time for one prompt")
    parser.add_argument("--fp32-embeddings", action="store_true", help="embeddings of 4 MiB instead of 2 MiB")
    parser.add_argument("--plots", type=Path, help="folder for capacity-hits.png and capacity-machines.png")
    options = parser.parse_args()
    costs = Costs(
        encode=options.encode_ms / 1000,
        decode=options.decode_ms / 1000,
        embedding_bytes=(4 if options.fp32_embeddings else 2) * MIB,
    )
    demand = Demand(
        images_per_day=options.images_per_day,
        prompts_per_image=options.prompts_per_image,
        gaze_streams=options.gaze_streams,
        peak_to_mean=options.peak_to_mean,
        catalogue=options.catalogue,
        cached_share=options.cached_share,
        zipf=options.zipf,
    )
    print(table(plan(demand, costs)))
    if options.plots:
        from benchmarks.capacity_plots import draw_hits, draw_machines

        draw_hits(options.plots / "capacity-hits.png")
        draw_machines(options.plots / "capacity-machines.png", demand, costs)


if __name__ == "__main__":
    main()
