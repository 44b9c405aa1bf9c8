"""Hand-made models and runs: plausible values, and faults that move the metrics they should."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from probe.catalogue import METRICS, columns_for
from probe.schema import Anatomy, End, Frame, Header, Site, encode
from probe.trace import TraceWriter

FAMILIES = {
    "bert": ("encoder", "post", "learned"),
    "gpt2": ("decoder", "pre", "learned"),
    "llama": ("decoder", "pre", "rotary"),
}

FAULTS = {
    "masking/mask_application": {"mask/leaked": 0.4, "mask/padding_mass": 0.2},
    "score/normalization": {"score/scale_ratio": 2.0},
    "ffn/neuron_dropout": {"ffn/dead_neurons": 0.3},
    "residual/skip_connection": {"residual_ffn/skip_gain": -1.0, "residual_ffn/sum_error": 0.8},
    "layernorm/bias_parameter": {"norm_ffn/beta_mean": 1.0},
    "output/output_scaling": {"output/head_gain": 1.0},
}
"""``node/metric`` -> the value it takes. One of them moves no contract."""


NEAR_ZERO = ("grad_weight_cosine", "grad_limited")
"""No contracts, but no healthy run has large values of them."""


def anatomy(family: str = "bert", layers: int = 3) -> Anatomy:
    kind, order, positions = FAMILIES[family]
    sites = [Site("embedding", "embedding"), Site("positional", "positional")]
    nodes = ["qkv", "score", "mask", "attention"]
    nodes += ["kv_cache"] if kind == "decoder" else []
    nodes += ["residual_attention", "norm_attention", "norm_ffn", "ffn", "residual_ffn"]
    for layer in range(layers):
        sites += [Site(f"{node}@{layer}", node, layer) for node in nodes]
    sites += [Site("norm_final", "norm_final")] if order == "pre" else []
    sites += [Site("output", "output")]
    sites += [Site(f"drift@{layer}", "drift", layer) for layer in range(1, layers)]
    sites += [Site("training", "training"), Site("validation", "validation")]
    return Anatomy(
        model=family,
        kind=kind,
        layers=layers,
        width=64,
        heads=4,
        kv_heads=4,
        head_dim=16,
        vocabulary=1000,
        parameters=10_000,
        norm_order=order,
        positions=positions,
        sites=tuple(sites),
    )


def header(family: str = "bert", layers: int = 3, **settings: str) -> Header:
    found = anatomy(family, layers)
    return Header(
        seq=0,
        run=f"{family}-{layers}",
        name=family,
        created=0.0,
        host="here",
        pid=1,
        anatomy=found,
        metrics=METRICS,
        columns=columns_for(found.sites),
        settings={"dtype": "float32", **settings},
    )


def frames(
    head: Header,
    count: int = 20,
    seed: int = 0,
    fault: str | None = None,
    layer: int = 1,
    start: int = 0,
    interval: int = 10,
) -> list[Frame]:
    """``count`` frames; from step ``start`` on the fault's metrics take their faulty values."""
    random = np.random.default_rng(seed)
    nodes = {site.name: site for site in head.anatomy.sites}
    bases = []
    for column in head.columns:
        metric = head.metric(column.metric, nodes[column.site].node)
        unit = zlib.crc32(f"{head.name}{metric.name}{nodes[column.site].node}".encode()) % 100 / 100
        if metric.name == "clip_level":
            unit = 0.9
        base = {"positive": 0.1 + unit, "share": 0.2 + 0.6 * unit}.get(metric.form, 2 * unit - 1)
        bases.append(0.0 if metric.contract or metric.name in NEAR_ZERO else base)
    base = np.array(bases) * random.uniform(0.9, 1.1, len(bases))
    contract = np.array(bases) == 0.0
    residual = np.array(
        [head.metric(c.metric, nodes[c.site].node).form == "residual" for c in head.columns]
    )
    validation = np.array([nodes[c.site].node == "validation" for c in head.columns])
    cache = np.array([nodes[c.site].node == "kv_cache" for c in head.columns])
    changed = {}
    for key, value in (FAULTS[fault] if fault else {}).items():
        node, metric = key.split("/")
        for number, column in enumerate(head.columns):
            site = nodes[column.site]
            if site.node == node and column.metric == metric and site.layer in (None, layer):
                changed[number] = value * random.uniform(0.9, 1.1)
    result = []
    for number in range(count):
        step = number * interval
        values = base * (1 + 0.02 * random.standard_normal(len(base)))
        values[contract & residual] = 1e-7 * random.uniform(0.5, 2, (contract & residual).sum())
        if number % 4:
            values[cache | validation] = np.nan
        if step >= start:
            for place, value in changed.items():
                values[place] = value
        result.append(
            Frame(
                seq=number + 1,
                step=step,
                time=float(step),
                values=values.astype("<f4").tobytes(),
            )
        )
    return result


def write_corpus(folder: Path, runs_each: int = 2, count: int = 14) -> Path:
    """A small corpus in the layout the corpus builder writes: clean and faulty runs."""
    lines = []
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    number = 0
    for family in FAMILIES:
        for task in ("a", "b"):
            kinds = [None] * (runs_each * len(FAULTS)) + [
                f for f in FAULTS for _ in range(runs_each)
            ]
            for fault in kinds:
                number += 1
                layers = 2 + number % 2
                layer = number % layers
                start = 40 if number % 3 else 0
                head = header(family, layers)
                name = f"{family}-{task}-{number:04d}"
                records = [head, *frames(head, count, number, fault, layer, start)]
                records.append(End(seq=len(records), step=count * 10, time=0.0, reason="finished"))
                write_trace(folder / "runs" / f"{name}.trace", records)
                single = fault is not None and not fault.startswith("output")
                lines.append(
                    {
                        "id": name,
                        "group": f"{family}/{task}",
                        "family": family,
                        "task": task,
                        "size": "small",
                        "seed": number,
                        "interval": 10,
                        "kind": "faulty" if fault else "clean",
                        "operator": None,
                        "category": fault.split("/")[0] if fault else None,
                        "root_cause": fault.split("/")[1] if fault else None,
                        "layers": [layer] if single else [],
                        "parameter": None,
                        "value": None,
                        "start_step": start if fault else None,
                    }
                )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "manifest.jsonl").write_text(text, encoding="utf-8")
    return folder


def write_trace(path: Path, records: list) -> None:
    writer = TraceWriter(path)
    for record in records:
        writer.append(encode(record))
    writer.close()
