"""``python -m probe train.py``: the script's own behaviour, and what is found in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "probe"))
from tiny_models import Seen

EXAMPLES = Path(__file__).parents[2] / "examples"

SCRIPT = f"""\
from __future__ import annotations
import os, sys
assert "torch" not in sys.modules, "imported before the script did"
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(1, {str(EXAMPLES)!r})
print(__name__, __file__, __spec__, sys.argv, sys.path[0], sorted(globals()))
import torch
from torch import nn
from hand_written import Config, TinyGPT
import __main__
assert __main__.SCRIPT_OWN if (SCRIPT_OWN := True) else None


class Container(nn.Module):
    '''Holds the model, as trainers do, and is never called.'''

    def __init__(self):
        super().__init__()
        self.model = TinyGPT(Config())


def train(split):
    torch.manual_seed(0)
    inner = Container().model
    model = inner.train()
    own = list(model.parameters())
    groups = [own[:6], own[6:]] if split else [own]
    optimizers = [torch.optim.SGD(group, lr=0.1) for group in groups]
    for step in range(5):
        tokens = torch.randint(0, 96, (4, 17))
        logits = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        print(step, loss.item().hex())
    return torch.get_rng_state().sum().item()


print(train("split" in sys.argv))
if "fail" in sys.argv:
    raise ValueError("the script's own")
sys.exit(7)
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)

    def run(*words, watched):
        command = [sys.executable, *(["-m", "probe", *watched] if watched is not None else [])]
        environment = os.environ | {
            "DEFAULTPP_STATE_DIR": str(tmp_path / "state"),
            "DEFAULTPP_RUNTIME_DIR": str(tmp_path / "run"),
            "PYTHONPATH": str(EXAMPLES.parent),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [*command, *words],
            env=environment,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.works_with("Scripts and notebooks", "`python -m probe train.py`")
@pytest.mark.parametrize("words", [("fail", "--lr", "3"), ("split",)], ids=["fails", "exits"])
def test_the_script_behaves_as_if_run_plainly(run, words, tmp_path):
    options = ("--run", "mine", "--every", "1", "--budget", "1", "--trace", "t.trace")
    watched = run("train.py", *words, watched=options)
    assert watched[0] == (1 if "fail" in words else 7), watched[2]
    if "fail" in words:
        assert watched == run("train.py", *words, watched=None)
    seen = Seen(tmp_path / "t.trace")
    assert seen.header.name == "mine" and seen.header.anatomy.model == "TinyGPT"
    assert [frame.step for frame in seen.frames] == [1, 2, 3, 4]
    assert (seen["qkv@1/update_ratio"] > 0).all() and (seen["ffn@2/unmoved"] == 0).all()
    assert (seen["training/uncovered"] == 0).all()  # both optimizers are known
    assert seen.header.anatomy.norm_order == "pre"  # the first forward was seen from its start
    crashes = [r for r in seen.records if getattr(r, "kind", "") == "crash"]
    assert [c.details["message"] for c in crashes] == ["the script's own"] * ("fail" in words)


def test_a_script_that_is_not_there(run):
    status, out, err = run("none.py", watched=())
    assert (status, out) == (2, "")
    assert err == "python -m probe: can't open file 'none.py': No such file or directory\n"


def test_options_that_are_wrong(run):
    status, _, err = run("train.py", watched=("--every", "0"))
    assert status == 2 and "'0' is not a number of steps >= 1" in err
