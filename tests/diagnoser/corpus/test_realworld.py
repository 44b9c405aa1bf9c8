"""The reproductions of public issues: each shows its fault, its fix is right, the chain runs."""

import importlib
import pkgutil
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from diagnoser import taxonomy
from diagnoser.corpus import realworld
from diagnoser.corpus.realworld import (
    bitnet_32,
    diffusers_11903,
    jax_23349,
    keras_hub_642,
    maxtext_3138,
    megatron_411,
    megatron_535,
    nanovlm_201,
    nsa_pytorch_20,
    pytorch_103082,
    pytorch_116333,
    table,
    transformers_15,
    transformers_17886,
    transformers_19045,
    transformers_35896,
    transformers_35927,
    transformers_37574,
    transformers_43429,
    trl_469,
    tucker_17,
    xformers_103,
)
from diagnoser.corpus.realworld.__main__ import examine, main
from diagnoser.corpus.realworld.catalogue import CASES
from diagnoser.corpus.realworld.recording import SEED
from diagnoser.corpus.realworld.token_rows import causal_batches, masked_batches

ROOT = Path(__file__).parents[3]
MODULES = [
    importlib.import_module(f"{realworld.__name__}.{found.name}")
    for found in pkgutil.iter_modules(realworld.__path__)
    if found.name != "__main__"
]


@pytest.fixture
def made(monkeypatch):
    """Builds a version of a case from the seed, without the training before it."""
    for module in MODULES:
        if hasattr(module, "pretrained"):
            monkeypatch.setattr(module, "pretrained", lambda model, *rest: model.train())
    torch.set_num_threads(1)

    def make(module, fixed):
        torch.manual_seed(SEED)
        return module.CASE.build(fixed)

    return make


def losses(script, steps):
    return [float(script.step()) for _ in range(steps)]


def logits(script, **batch):
    model = script.model.eval()
    with torch.no_grad():
        return model(**batch).logits


def gap_of_the_cache(model, steps=6):
    """Largest difference of the logits by cached decoding and by a fresh forward."""
    model.eval()
    ids = next(causal_batches(99, rows=2, length=20))["input_ids"]
    with torch.no_grad():
        fresh = model(ids).logits[:, -steps:]
        out = model(ids[:, :-steps], use_cache=True)
        told = []
        for at in range(ids.shape[1] - steps, ids.shape[1]):
            out = model(ids[:, at : at + 1], past_key_values=out.past_key_values, use_cache=True)
            told.append(out.logits)
    return float((torch.cat(told, dim=1) - fresh).abs().max())


# -- what they are ------------------------------------------------------------------------------


def test_every_case_expects_a_root_cause_of_the_taxonomy():
    keys = {f"{case.category}/{case.root_cause}" for case in CASES}
    assert keys <= set(taxonomy.root_causes())
    assert len(CASES) == len({case.issue for case in CASES}) >= 12


def test_every_file_of_a_case_is_in_the_catalogue():
    assert {id(m.CASE) for m in MODULES if hasattr(m, "CASE")} == {id(case) for case in CASES}


def test_nothing_that_trains_or_plans_knows_of_them():
    folder = Path(realworld.__file__).parent
    for package in ("diagnoser", "monitor", "probe"):
        for path in (ROOT / package).rglob("*.py"):
            if folder not in path.parents:
                assert "realworld" not in path.read_text(encoding="utf-8"), path


# -- the fault shows, the fix does not ----------------------------------------------------------

OTHER_LOSSES = [
    jax_23349, xformers_103, nanovlm_201, trl_469, megatron_535, maxtext_3138, bitnet_32,
    transformers_15, keras_hub_642, transformers_35896, tucker_17, transformers_43429,
]  # fmt: skip


@pytest.mark.parametrize("module", OTHER_LOSSES, ids=lambda m: m.__name__.rpartition(".")[2])
def test_the_first_losses_are_others_and_those_of_the_fixed_one_come_again(module, made):
    # A small fault may be lost in the rounding of the first losses, on some processors.
    buggy, fixed = losses(made(module, False), 10), losses(made(module, True), 10)
    assert buggy != fixed
    assert losses(made(module, True), 10) == fixed


AS_BY_SDPA = [
    (jax_23349, masked_batches),
    (xformers_103, causal_batches),
    (maxtext_3138, causal_batches),
    (transformers_35896, causal_batches),
    (pytorch_116333, causal_batches),
    (nsa_pytorch_20, causal_batches),
    (pytorch_103082, causal_batches),
    (megatron_411, causal_batches),
]


@pytest.mark.parametrize(
    ("module", "batches"), AS_BY_SDPA, ids=lambda v: v.__name__.rpartition(".")[2]
)
def test_an_attention_of_ones_own_is_right_when_fixed(module, batches, made):
    script, batch = made(module, True), next(batches(98))
    own = logits(script, **batch)
    script.model.set_attn_implementation("sdpa")
    torch.testing.assert_close(own, logits(script, **batch), rtol=1e-4, atol=1e-5)


CACHED = [pytorch_103082, transformers_19045, nsa_pytorch_20]


@pytest.mark.parametrize("module", CACHED, ids=lambda m: m.__name__.rpartition(".")[2])
def test_only_the_buggy_one_decodes_otherwise_with_a_cache(module, made):
    scripts = {fixed: made(module, fixed) for fixed in (False, True)}
    for script in scripts.values():  # as they come, weights are so small that little attends
        with torch.no_grad():
            for parameter in script.model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(5)
    assert gap_of_the_cache(scripts[False].model) > 1e-2
    assert gap_of_the_cache(scripts[True].model) < 1e-3


@pytest.mark.parametrize("module", [nsa_pytorch_20, pytorch_116333])
def test_what_does_not_change_the_training_leaves_its_losses(module, made):
    assert losses(made(module, False), 2) == pytest.approx(losses(made(module, True), 2), rel=1e-4)


def test_116333_only_the_buggy_keys_have_another_stride(made, monkeypatch):
    strides = []
    plain = pytorch_116333.F.scaled_dot_product_attention

    def seen(query, key, *rest, **named):
        strides.append(key.stride(-1))
        return plain(query, key, *rest, **named)

    monkeypatch.setattr(pytorch_116333.F, "scaled_dot_product_attention", seen)
    made(pytorch_116333, False).step()
    assert 1 not in strides
    strides.clear()
    made(pytorch_116333, True).step()
    assert set(strides) == {1}


def test_37574_only_the_early_roll_loses_the_oldest_token():
    window = 4
    for early in (False, True):
        layer = transformers_37574.RollingLayer(window, early)
        tokens = torch.arange(1.0, 8.0).view(1, 1, -1, 1)
        layer.update(tokens[:, :, :2], tokens[:, :, :2])
        held = [
            layer.update(tokens[:, :, at : at + 1], tokens[:, :, at : at + 1])[0].flatten().tolist()
            for at in range(2, 6)
        ]
        right = [[1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]
        wrong = [[1, 2, 3], [2, 3, 0, 4], [3, 0, 4, 5], [0, 4, 5, 6]]
        assert held == (wrong if early else right)


def test_37574_the_fixed_cache_generates_what_transformers_own_does(made):
    script = made(transformers_37574, True)
    ids = next(causal_batches(97, rows=2, length=10))["input_ids"]
    told = []
    for layers in (None, transformers_37574.RollingLayer):
        cache = DynamicCache(config=script.model.config)
        if layers is not None:
            cache.layers = [layers(transformers_37574.WINDOW, False) for _ in cache.layers]
        told.append(
            script.model.generate(
                ids, past_key_values=cache, max_new_tokens=20, do_sample=False, pad_token_id=0
            )
        )
    assert told[0].tolist() == told[1].tolist()


def test_11903_only_the_fused_one_trains_no_projection(made):
    grown = {}
    for fixed in (False, True):
        script = made(diffusers_11903, fixed)
        script.step()
        grown[fixed] = {
            name for name, parameter in script.model.named_parameters()
            if ".query.lora_B" in name and parameter.detach().abs().sum() > 0
        }  # fmt: skip
    assert not grown[False]
    assert len(grown[True]) == 3


def test_17886_the_buggy_one_dies_when_heads_are_gone_the_fixed_one_trains_on(made, monkeypatch):
    monkeypatch.setattr(transformers_17886, "STEPS", 2)
    buggy, fixed = made(transformers_17886, False), made(transformers_17886, True)
    buggy.step()
    with pytest.raises(RuntimeError, match="must match"):
        buggy.step()
    before, after = losses(fixed, 2)
    assert after == pytest.approx(before, rel=0.1)


def test_411_only_the_buggy_one_trains_without_dropout_after_an_evaluation(made, monkeypatch):
    monkeypatch.setattr(megatron_411, "EVERY", 2)
    rates = []
    plain = megatron_411.F.scaled_dot_product_attention

    def seen(query, key, value, mask, rate, **named):
        rates.append(rate)
        return plain(query, key, value, mask, rate, **named)

    monkeypatch.setattr(megatron_411.F, "scaled_dot_product_attention", seen)
    for fixed, last in ((False, 0.0), (True, 0.1)):
        rates.clear()
        losses(made(megatron_411, fixed), 3)
        assert rates[0] == 0.1
        assert rates[-1] == last


def test_35927_only_the_buggy_norms_are_decayed(made):
    decayed = {}
    for fixed in (False, True):
        script = made(transformers_35927, fixed)
        norms = {id(p) for name, p in script.model.named_parameters() if "norm" in name}
        decayed[fixed] = any(
            id(parameter) in norms and group["weight_decay"] > 0
            for group in script.optimizer.param_groups
            for parameter in group["params"]
        )
    assert decayed == {False: True, True: False}


def test_43429_only_the_fixed_head_is_the_table(made):
    for fixed in (False, True):
        model = made(transformers_43429, fixed).model
        same = model.lm_head.weight is model.get_input_embeddings().weight
        assert same is fixed


# -- the chain ----------------------------------------------------------------------------------


def test_a_case_goes_from_the_script_to_a_line_of_the_table(tmp_path):
    outcome = examine(keras_hub_642.CASE, tmp_path)
    assert outcome.buggy.end.frames == outcome.fixed.end.frames == 16
    assert outcome.sign == "norm_attention@0/eps_ratio"
    assert outcome.fixed.firings == ()
    shown = table.results([outcome])
    assert shown.startswith("1 cases: ")
    assert "| layernorm/stability_parameter |" in shown


def test_an_unknown_name_says_so(capsys):
    assert main(["--only", "nothing-of-this-name"]) == 64
    assert "nothing-of-this-name" in capsys.readouterr().err


def test_the_readme_holds_the_table_of_these_cases():
    text = table.README.read_text(encoding="utf-8")
    assert table.descriptions(CASES) in text
    for case in CASES:
        assert (
            f"| [{case.name}]({case.url}) | {case.shown} | {case.category}/{case.root_cause} |"
            in text
        )


@pytest.mark.matrix
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_runs_and_its_fixed_version_to_the_end(case, tmp_path):
    outcome = examine(case, tmp_path)
    assert outcome.buggy.end.frames > 0
    assert outcome.fixed.end.crash is None
    assert examine(case, tmp_path).buggy.firings == outcome.buggy.firings
