"""Runs without training: generation and evaluation are followed, and faults of the cache seen."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from family_grid import over
from family_models import batch, make
from tiny_models import Seen
from training_loops import kinds, scalar

import probe
from probe.schema import Scalars
from probe.trace import load

NEW = 5


def attach(model, path, **options):
    return probe.attach(
        model, trace=path, **{"endpoint": False, "every": 1, "budget": None} | options
    )


def prompts(left=True):
    torch.manual_seed(3)
    ids = torch.randint(5, 100, (3, 11))
    mask = torch.ones_like(ids)
    if left:
        mask[1, :4] = ids[1, :4] = 0
    return {"input_ids": ids, "attention_mask": mask}


def generate(model, left=True, **options):
    torch.manual_seed(4)
    chosen = {"max_new_tokens": NEW, "do_sample": True, "pad_token_id": 0, "eos_token_id": None}
    out = model.generate(**prompts(left), **chosen | options)
    return out, torch.get_rng_state()


def watched(model, path, run=generate, **options):
    with attach(model, path):
        found = run(model, **options)
    seen = Seen(path)
    assert not kinds(seen, "probe_off"), kinds(seen, "probe_off")
    return found, seen


@pytest.mark.works_with("Without training", "generation, left padding and a window")
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral"])
def test_generation(family, tmp_path):
    """Prompts of 11 tokens and a window of 8 in mistral: it is crossed."""
    plain = generate(make(family).eval())
    found, seen = watched(make(family).eval(), tmp_path / "t")
    assert all(map(torch.equal, plain, found))
    assert [frame.step for frame in seen.frames] == list(range(NEW))
    assert over(seen) == {}
    for key in ("key_error", "value_error", "last_error", "logits_error", "length_gap"):
        values = seen[f"kv_cache@1/{key}"]
        assert np.isnan(values[0]) and np.isfinite(values[1:]).all(), key
    assert np.isfinite(seen["mask@2/leaked"]).all()
    assert np.isfinite(seen["attention@1/entropy"][0])
    assert seen.header.absent["qkv/grad_norm"] == "the model runs without being trained"
    assert not kinds(seen, "dropout_on") and not kinds(seen, "skipped_step")


@pytest.mark.works_with("Without training", "beam search (the cache is not compared)")
def test_a_cache_that_beam_search_puts_in_order_is_not_compared(tmp_path):
    plain = generate(make("gpt2").eval(), num_beams=4)
    found, seen = watched(make("gpt2").eval(), tmp_path / "t", num_beams=4)
    assert all(map(torch.equal, plain, found))
    assert over(seen) == {} and np.isnan(seen["kv_cache@0/key_error"][-1])


def forgets(model):
    """The newest keys and values never reach the cache of layer 1."""
    attention = model.model.layers[1].self_attn
    forward = attention.forward

    def changed(*args, past_key_values=None, **kwargs):
        result = forward(*args, past_key_values=past_key_values, **kwargs)
        held = past_key_values.layers[1] if past_key_values is not None else None
        if held is not None and held.keys.shape[2] > prompts()["input_ids"].shape[1]:
            held.keys, held.values = held.keys[:, :, :-1], held.values[:, :, :-1]
        return result

    attention.forward = changed


def stale(model):
    """From the second token on, the past's keys are shifted by one."""
    attention = model.model.layers[1].self_attn
    forward = attention.forward

    def changed(*args, past_key_values=None, **kwargs):
        held = past_key_values.layers[1] if past_key_values is not None else None
        if held is not None and held.keys is not None and held.keys.numel():
            held.keys = held.keys.roll(1, dims=2)
        return forward(*args, past_key_values=past_key_values, **kwargs)

    attention.forward = changed


def wrong_position(model):
    """Each new token is given the position of the one before it."""
    rotary = model.model.rotary_emb
    forward = rotary.forward

    def changed(x, position_ids):
        return forward(x, position_ids - 1 if position_ids.shape[1] == 1 else position_ids)

    rotary.forward = changed


def masks_the_past(model):
    """Of the past only the last three positions are shown."""
    for layer in model.model.layers:
        forward = layer.self_attn.forward

        def changed(hidden_states, *args, attention_mask=None, forward=forward, **kwargs):
            if hidden_states.shape[1] == 1 and attention_mask is not None:
                attention_mask = attention_mask.clone()
                attention_mask[..., :-3] = False
            return forward(hidden_states, *args, attention_mask=attention_mask, **kwargs)

        layer.self_attn.forward = changed


def shows_padding(model):
    for layer in model.model.layers:
        forward = layer.self_attn.forward

        def changed(hidden_states, *args, attention_mask=None, forward=forward, **kwargs):
            shown = None if hidden_states.shape[1] == 1 else attention_mask
            return forward(hidden_states, *args, attention_mask=shown, **kwargs)

        layer.self_attn.forward = changed


@pytest.mark.parametrize(
    ("fault", "family", "contract"),
    [
        (forgets, "llama", "kv_cache@1/length_gap"),
        (stale, "llama", "kv_cache@1/key_error"),
        (wrong_position, "llama", "kv_cache@2/last_error"),
        (masks_the_past, "llama", "mask@1/hidden"),
        (shows_padding, "llama", "mask@0/leaked"),
    ],
)
def test_faults_of_cached_decoding_are_seen(fault, family, contract, tmp_path):
    model = make(family).eval()
    fault(model)
    # Without padding no mask is made, which would not fit a cache of another length.
    _, seen = watched(model, tmp_path / "t", left=fault is not forgets)
    values = np.abs(seen[contract][2:])
    assert (values > 1e-3).all(), seen[contract]
    assert contract in over(seen)


def test_a_window_that_is_one_too_wide_is_seen(tmp_path):
    model = make("mistral").eval()

    def widen(model, **options):
        # What keeps the window is the cache; the mask follows its size.
        kept = type(model).forward

        def forward(*args, past_key_values=None, **kwargs):
            for layer in past_key_values.layers if past_key_values is not None else ():
                layer.sliding_window = 9
            return kept(model, *args, past_key_values=past_key_values, **kwargs)

        model.forward = forward
        return generate(model, **options)

    _, seen = watched(model, tmp_path / "t", widen)
    assert (np.abs(seen["kv_cache@0/length_gap"][1:]) > 0.05).all()


def test_positions_the_caller_gives_wrongly_are_seen(tmp_path):
    def decode(model):
        given = prompts(left=False)
        out = model(**given, use_cache=True)
        for at in range(11, 14):
            mask = torch.ones(3, at + 1, dtype=torch.long)
            places = torch.full((3, 1), at - 2)
            next_ids = out.logits[:, -1:].argmax(dim=-1)
            out = model(
                next_ids, attention_mask=mask, position_ids=places,
                past_key_values=out.past_key_values,
            )  # fmt: skip

    with torch.no_grad():
        _, seen = watched(make("gpt2").eval(), tmp_path / "t", decode)
    assert (seen["positional/index_error"][1:] == 1).all()
    assert (seen["positional/offset"][1:] == -2).all()
    assert (seen["kv_cache@0/last_error"][1:] > 1e-2).all()


def evaluate(model, family="bert", count=3):
    torch.manual_seed(5)
    with torch.inference_mode():
        outs = [model(**batch(family)) for _ in range(count)]
    return [getattr(out, "loss", None) if hasattr(out, "loss") else out[1] for out in outs]


@pytest.mark.works_with("Without training", "evaluation")
def test_evaluation(tmp_path):
    plain = evaluate(make("bert", 0.1).eval())
    found, seen = watched(make("bert", 0.1).eval(), tmp_path / "t", evaluate)
    assert all(map(torch.equal, plain, found))
    assert over(seen) == {} and not kinds(seen, "dropout_on")
    np.testing.assert_allclose(list(scalar(seen, "loss").values()), [float(x) for x in plain])
    assert np.isfinite(seen["mask@1/padding_mass"]).all()
    assert seen.records[-1].step == 3


def test_dropout_that_was_left_on_is_told_once(tmp_path):
    model = make("bert", 0.1).train()
    plain = evaluate(make("bert", 0.1).train())
    found, seen = watched(model, tmp_path / "t", evaluate)
    assert all(map(torch.equal, plain, found))
    assert [event.step for event in kinds(seen, "dropout_on")] == [0]
    assert "model.eval()" in kinds(seen, "dropout_on")[0].text


def test_fused_layers_of_torch_stay_fused(tmp_path):
    """A hook inside would switch off the path that torch takes in evaluation."""
    plain = evaluate(make("torch encoder").eval(), "torch encoder")
    model = make("torch encoder").eval()
    with attach(model, tmp_path / "t"):
        found = evaluate(model, "torch encoder")
    assert all(map(torch.equal, plain, found))
    records = load(tmp_path / "t")
    assert not [r for r in records if getattr(r, "kind", "") == "probe_off"]
    assert scalar_losses(records) == [float(loss) for loss in plain]


def scalar_losses(records):
    rows = [r for r in records if isinstance(r, Scalars)]
    return [float(x) for r in rows for x in r.array[:, r.names.index("loss")]]


def test_a_training_without_optimizer_is_still_told_by_step(tmp_path):
    """Evaluation before it counts; evaluation within it is not looked at any more."""
    model = make("gpt2")
    with attach(model, tmp_path / "t") as p:
        evaluate(model.eval(), "gpt2", 2)
        model.train()
        for _ in range(3):
            model(**batch("gpt2")).loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(parameter.grad, alpha=1e-2)
                    parameter.grad = None
                model(**batch("gpt2"))
            p.step()
    seen = Seen(tmp_path / "t")
    assert [frame.step for frame in seen.frames] == [0, 1, 2, 3, 4]
    assert (seen["qkv@1/update_ratio"][2:] > 0).all() and np.isnan(seen["qkv@1/update_ratio"][0])


def test_unsampled_forwards_hook_nothing_and_caches_go_with_their_owner(tmp_path):
    model = make("llama").eval()
    with attach(model, tmp_path / "t", every=1000) as p:
        generate(model)
        inner = [m for m in model.modules() if m is not model]
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in inner)
        gc.collect()
        assert len(p._following._caches._known) == 0
    assert [frame.step for frame in Seen(tmp_path / "t").frames] == [0]
