"""The figures of a run for people: rows of (what, figure, meaning). Results in, texts out; nothing is judged."""

from collections.abc import Iterator, Mapping
from typing import Any

Row = tuple[str, str, str]
Figures = Mapping[str, Any]


def rows(results: Figures) -> Iterator[Row]:
    """What was not measured has no row; why not stands in the notes."""
    if found := results.get("end_to_end"):
        yield from _end_to_end(found)
    if found := results.get("receive"):
        yield from _receive(found)
    if found := results.get("latency"):
        yield from _latency(found)
    if found := results.get("series"):
        for at in found:
            meaning = (
                f"{at['cpu_us']:,.0f} µs of CPU each; p50 {_ms(at['p50_ms'])}, p99 {_ms(at['p99_ms'])} at a steady rate"
            )
            yield f"{at['series']:,} series", f"{at['rate']:,.0f} readings/s", meaning
    if found := results.get("core"):
        yield from _core(found)
    if found := results.get("end_to_end"):
        for who, name in (("transom", "memory"), ("transom_onnx", "memory, ONNX Runtime")):
            if who in found:
                yield name, f"{found[who]['rss_bytes'] / 1e6:,.0f} MB", f"resident, with {found['series']:,} series"
    if found := results.get("core"):
        yield "memory of a series", f"{found['bytes_a_series'] / 1000:,.1f} kB", "of one more, its window in it"
    if found := results.get("start"):
        yield (
            "start to ready", f"{found['ready_s']:.1f} s",
            f"{found['ratio']:.1f} times import torch alone ({found['import_torch_s']:.1f} s); "
            f"{found['cpu_ratio']:.1f} times its CPU",
        )  # fmt: skip


def _end_to_end(found: Figures) -> Iterator[Row]:
    names = {
        "naive": ("a plain script", "paho, json, a deque, the network for each message"),
        "transom": ("Transom", "without a journal"),
        "transom_process": ("with its journal", 'durability "process"'),
        "transom_onnx": ("on ONNX Runtime", "without a journal"),
    }
    for who, (name, meaning) in names.items():
        if who in found:
            at = found[who]
            yield name, f"{at['rate']:,.0f} readings/s", f"{meaning}; {at['cpu_us']:,.0f} µs of CPU each"
    if found["ratio"] is not None:
        yield "ratio", f"{found['ratio']:.1f} times", "Transom to the plain script"
    if found["onnx_ratio"] is not None:
        yield "ratio, ONNX Runtime", f"{found['onnx_ratio']:.1f} times", "to the plain script"
    yield "the journal costs", f"{found['journal_cost']:.0%}", "of the readings a second"


def _receive(found: Figures) -> Iterator[Row]:
    for qos, at in ((0, found["qos0"]), (1, found["qos1"])):
        mine, ceiling = at["transom"], at["mosquitto_sub"]
        what = f"received, QoS {qos}"
        meaning = f"decoded, no window due; {mine['cpu_us']:.1f} µs of CPU each"
        if ceiling:
            meaning += f"; {at['rate_ratio']:.2f} times mosquitto_sub at {at['cpu_ratio']:.2f} times its CPU"
        yield what, f"{mine['rate']:,.0f} messages/s", meaning
        if ceiling:
            yield "  mosquitto_sub", f"{ceiling['rate']:,.0f} messages/s", f"{ceiling['cpu_us']:.1f} µs of CPU each"


def _latency(found: Figures) -> Iterator[Row]:
    for rate, at in found["at"].items():
        label = f"latency, {int(rate):,} readings/s"
        told = at["agent_ms"]
        from_arrival = (
            f"; arrival to publish p50 {told['p50']:.0f}, p99 {told['p99']:.0f}" if told.get("p50") is not None else ""
        )
        meaning = f"p50, p95, p99 from sensor to prediction{from_arrival}"
        if not at["kept_up"]:
            meaning += "; MORE THAN THIS MACHINE CAN DO"
        yield label, f"{at['p50_ms']:,.1f} {at['p95_ms']:,.1f} {_ms(at['p99_ms'])}", meaning


def _core(found: Figures) -> Iterator[Row]:
    yield (
        "agent's own time", f"{found['own_us']:.1f} µs a reading",
        f"batches of {found['batch']}, CPU; beside it the model {found['infer_us']:.1f} µs and the journal "
        f"{found['journal_us']:.1f} µs",
    )  # fmt: skip
    counts = list(found["total_us_by_series"])
    yield (
        f"{int(counts[0]):,} to {int(counts[-1]):,} series", f"{found['growth']:.2f} times",
        f"the cost of a reading; {found['own_growth']:.2f} times without the model",
    )  # fmt: skip


def _ms(value: float) -> str:
    return f"{value:,.1f} ms"
