"""The shipped models on a simulated scene, seed by seed, without a broker: faults caught, false alarms, forecasts and
recognitions beside naive ones. What `transom demo --scenario NAME` shows in real time, as fast as it can."""

import argparse
from dataclasses import replace

from transom.core.pipeline import Message
from transom.edge.assembly import build_pipeline
from transom.scenes import NAMES, scene
from transom.verbs.demo import scene_settings
from transom.verbs.verdict import Told, judge
from transom.verbs.watch import Watch

BEGUN = 1_767_571_200_000  # ms since 1970, a Monday

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("scenes", nargs="*", default=list(NAMES))
parser.add_argument("--seconds", type=float, default=60, help="of the demo (default: 60)")
parser.add_argument("--seeds", nargs="+", type=int, default=list(range(1, 6)))
parser.add_argument("--streams", nargs="+", help="only these")
args = parser.parse_args()

for name in args.scenes:
    place = scene(name)
    if args.streams:
        place = replace(place, streams={s: place.streams[s] for s in args.streams})
    caught: dict[str, list[bool]] = {}
    false = 0
    for seed in args.seeds:
        pipeline = build_pipeline(scene_settings(place, 1883, "/nonexistent")).pipeline
        simulation, faults = scene(name).start(seed), list(scene(name).schedule(args.seconds))
        watch, begun = Watch(place, pipeline, simulation), place.begun(BEGUN)
        raised: list[Told] = []
        for beat in range(int(args.seconds * place.rate)):
            now = beat / place.rate
            active = next((f for f in faults if f.begin <= now <= f.end), None)
            ms = BEGUN + int(1000 * now)
            sent = simulation.send(now, place.stamp(begun, beat), active)
            events = pipeline.process([Message(t, p, ms) for t, p in sent], ms)
            watch.take(events)
            raised += [Told(a, now) for a in events.alerts if a.event == "raise"]
        verdict = judge([f for f in faults if f.kind.stream in place.streams], raised, place.grace)
        for outcome in verdict.outcomes:
            caught.setdefault(outcome.fault.kind.name, []).append(outcome.caught is not None)
        false += len(verdict.false)
        print(f"{name}, seed {seed}:", *watch.lines(), sep="\n  ", flush=True)
    print(f"{name}: {len(args.seeds)} runs of {args.seconds:.0f} s, {false} false alarms", flush=True)
    for kind, hits in caught.items():
        print(f"  {kind}: caught {sum(hits)} of {len(hits)}", flush=True)
