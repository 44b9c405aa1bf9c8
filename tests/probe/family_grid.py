"""Runs each family healthy under many conditions and with one fault per contract.

python tests/probe/family_grid.py            the table, as committed in probe/README.md
python tests/probe/family_grid.py --write    put it there
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import effect_grid  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from family_faults import MADE_FOR as OF_PARTS  # noqa: E402
from family_models import FAMILIES, PACKED, WITHOUT_MASK, batch, make, train  # noqa: E402
from fault_target import Inapplicable, target  # noqa: E402
from setting_faults import MADE_FOR as OF_SETTINGS  # noqa: E402
from tiny_models import Seen  # noqa: E402
from torch import nn  # noqa: E402

from diagnoser.columns import Columns  # noqa: E402
from probe.catalogue import METRICS  # noqa: E402

MADE_FOR = OF_PARTS | OF_SETTINGS
STEPS = 5
README = ROOT / "probe" / "README.md"
BEGIN, END = "<!-- family x contract: begin -->", "<!-- family x contract: end -->"
COMMAND = "python tests/probe/family_grid.py --write"


@dataclass(frozen=True)
class Condition:
    """How a healthy model is trained."""

    dropout: float = 0.0
    padding: str = "right"
    packed: bool = False
    autocast: bool = False
    warm_up: int = 0
    prepare: Callable[[nn.Module], nn.Module] = field(default=lambda model: model)


def frozen(model: nn.Module) -> nn.Module:
    """Embeddings and the first block do not train."""
    for name, parameter in model.named_parameters():
        if "emb" in name or "wte" in name or ".0." in name:
            parameter.requires_grad_(False)
    return model


def with_unused_head(model: nn.Module) -> nn.Module:
    """A pooler that is never called, as encoders often have."""
    model.unused_pooler = nn.Linear(32, 32)
    return model


CONDITIONS: dict[str, Condition] = {
    "float32": Condition(),
    "dropout": Condition(dropout=0.1),
    "bfloat16 autocast": Condition(autocast=True),
    "bfloat16 autocast, dropout": Condition(autocast=True, dropout=0.1),
    "bfloat16 weights": Condition(prepare=lambda model: model.to(torch.bfloat16)),
    "bfloat16 weights, dropout": Condition(
        dropout=0.1, prepare=lambda model: model.to(torch.bfloat16)
    ),
    "warm-up from 0": Condition(warm_up=4),
    "padding left": Condition(padding="left"),
    "no padding": Condition(padding="none"),
    "packed": Condition(packed=True),
    "frozen parts": Condition(prepare=frozen),
    "unused head": Condition(prepare=with_unused_head),
}


def possible(family: str, condition: Condition) -> bool:
    """Packing needs position ids; a model without a mask argument is not padded on the left."""
    if condition.packed:
        return family in PACKED
    return not (family in WITHOUT_MASK and condition.padding == "left")


def healthy(family: str, condition: Condition, trace: Path) -> Seen:
    """The trace of a healthy run."""
    model = condition.prepare(make(family, condition.dropout))
    train(
        model, family, STEPS, trace=trace, padding=condition.padding, packed=condition.packed,
        autocast=condition.autocast, warm_up=condition.warm_up,
    )  # fmt: skip
    return _read(trace)


def faulty(family: str, fault: Callable[[Any], None], trace: Path) -> Seen:
    """The trace of a run with a fault from its first step. Raises Inapplicable."""
    model = make(family, 0.1 if "dropout" in fault.__name__ else 0.0)
    packed = fault.__name__ == "padding_shown"
    if packed and family not in PACKED:
        raise Inapplicable

    def before(step: int, optimizer: torch.optim.Optimizer) -> None:
        if step == 0:
            with torch.no_grad():  # faults change weights in place
                fault(target(model, batch(family), optimizer))

    train(model, family, STEPS, trace=trace, before=before, packed=packed)
    return _read(trace)


def _read(trace: Path) -> Seen:
    seen = Seen(trace)
    off = [r.text for r in seen.records if getattr(r, "kind", "") == "probe_off"]
    assert not off, off
    return seen


def over(seen: Seen, at_start: bool = False) -> dict[str, float]:
    """Contracts beyond their tolerance in at least half the frames, with the median value.

    Tolerances are those of a diagnosis: wider for arithmetic in 16 bits.
    """
    columns = Columns(seen.header)
    raw = np.stack([columns.values(frame) for frame in seen.frames])
    tolerance = np.stack([columns.tolerance_at(values) for values in raw])
    found = {}
    for at, key in enumerate(columns.keys):
        values, known = np.abs(raw[:, at]), ~np.isnan(raw[:, at])
        beyond = values[known] > tolerance[known, at]
        if not columns.contract[at] or not known.any():
            continue
        # What a run began with shows in its first sample; training fills zeros again.
        if beyond.mean() >= 0.5 or (at_start and beyond[0]):
            found[key] = float(np.median(raw[known, at]))
    return found


def contract_of(key: str) -> str:
    """``decoder.mask@1/hidden`` -> ``mask/hidden``."""
    site, _, metric = key.rpartition("/")
    return f"{site.partition('@')[0].rpartition('.')[2]}/{metric}"


CONTRACTS = tuple(
    dict.fromkeys(f"{node}/{m.name}" for m in METRICS if m.contract for node in m.nodes)
)


def measured(seen: Seen) -> set[str]:
    """Contracts with a number at some site."""
    known = ~np.isnan(seen.array).all(axis=0)
    return {contract_of(c.key) for c, good in zip(seen.header.columns, known, strict=True) if good}


def reason(seen: Seen, contract: str) -> str:
    """Why a contract is not measured, in the header's words."""
    node, _, metric = contract.partition("/")
    keys = [c.key for c in seen.header.columns if contract_of(c.key) == contract]
    charts = [f"{key.partition('@')[0].partition('/')[0]}/{metric}" for key in keys]
    for key in (*charts, *keys, contract, metric, node):
        if key in seen.header.absent:
            return seen.header.absent[key]
    return "" if keys else "the model has no such component"


@dataclass
class Cell:
    """What is known of a contract on a family."""

    held: bool
    fired: bool | None
    """None where no fault was made for it here."""
    absent: str


@lru_cache(maxsize=1)
def _scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="families-"))


def examine(family: str) -> dict[str, Cell]:
    """Every contract on one family: held in float32 with and without dropout, fired for its
    fault."""
    runs = [
        healthy(family, CONDITIONS[name], _scratch() / "healthy")
        for name in ("float32", "dropout", *(("packed",) if family in PACKED else ()))
    ]
    beyond = {contract_of(key) for seen in runs for key in over(seen)}
    known = set().union(*(measured(seen) for seen in runs))
    fired: dict[Callable[[Any], None], set[str] | None] = {}
    cells = {}
    for contract in CONTRACTS:
        if contract not in known:
            cells[contract] = Cell(True, None, reason(runs[0], contract))
            continue
        results = []
        for fault in MADE_FOR.get(contract, ()):
            if fault not in fired:
                fired[fault] = _fires(family, fault)
            results.append(fired[fault])
        applied = [names for names in results if names is not None]
        went_off = any(contract in names for names in applied) if applied else None
        cells[contract] = Cell(contract not in beyond, went_off, "")
    # Their turn comes too rarely for so short a run.
    return cells | {f"output/{m}": Cell(*cell) for m, cell in effect_grid.examine(family).items()}


def _fires(family: str, fault: Callable[[Any], None]) -> set[str] | None:
    try:
        seen = faulty(family, fault, _scratch() / "faulty")
        return {contract_of(key) for key in over(seen, at_start=True)}
    except Inapplicable:
        return None


def table(cells: dict[str, dict[str, Cell]]) -> str:
    """Markdown: a row per contract, a column per family, reasons as notes."""
    notes: dict[str, int] = {}
    families = list(cells)
    lines = [
        f"Generated by `{COMMAND}`. **f**: holds when healthy (float32, with dropout, packed",
        "where the family packs) and fires for the fault made for it; h: holds when healthy, no",
        "fault made for it applies here; FIRES: fires when healthy; misses: does not fire for its",
        "fault; a number: not measured, for the reason below.",
        "",
        "| contract | " + " | ".join(families) + " |",
        "|---|" + "---|" * len(families),
    ]
    for contract in CONTRACTS:
        shown = []
        for family in families:
            cell = cells[family][contract]
            if cell.absent:
                shown.append(str(notes.setdefault(cell.absent, len(notes) + 1)))
            elif not cell.held:
                shown.append("FIRES")
            else:
                shown.append({True: "**f**", False: "misses", None: "h"}[cell.fired])
        lines.append(f"| `{contract}` | " + " | ".join(shown) + " |")
    lines += ["", *(f"{number}. {text}" for text, number in notes.items())]
    return "\n".join(lines)


def main() -> None:
    """Print the table or write it between the README's markers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = table({family: examine(family) for family in options.families})
    if not options.write:
        print(made)
        return
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}")


if __name__ == "__main__":
    main()
