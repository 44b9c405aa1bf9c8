"""Facts of a run from its start: each says what the model and the optimizer hold."""

from __future__ import annotations

import msgspec
import pytest
import torch
from tiny_models import Seen, make, train
from torch import nn

from probe import facts
from probe.absence import Seen as Observed
from probe.anatomy import find
from probe.facts import FACTS, INITIAL, Subject, initial_weights, read_all
from probe.schema import decode_record, encode


def told(model: nn.Module, *groups: dict) -> dict[str, str]:
    optimizers = [torch.optim.AdamW(list(groups), lr=1e-3)] if groups else []
    return read_all(Subject(find(model), optimizers, Observed()))


def test_the_header_carries_all_of_them(tmp_path):
    train(make("gpt2", 0.1), "gpt2", 2, attach={"trace": tmp_path / "t"})
    found = Seen(tmp_path / "t").header.facts
    assert set(found) == {*(fact.name for fact in FACTS), INITIAL[0]}
    assert found["optimizer"] == "AdamW (1 group)"
    assert found["coverage"].startswith("all ")
    assert found["tied weights"] == "transformer.wte.weight = lm_head.weight"
    assert found["dropout"] == (
        "attention by the config 0.1; embeddings 0.1 (config 0.1); branches 0.1 (config 0.1)"
    )
    assert found["heads"] == "4 for queries, 4 for keys and values, of dimension 8"
    assert found["attention"] == "sdpa by the config; a kernel in 3 of 3 layers"
    assert found["initial weights"] == "alike within a factor of 1.5"


def test_a_trace_of_before_them_still_reads(tmp_path):
    train(make("bert"), "bert", 2, attach={"trace": tmp_path / "t"})
    plain = msgspec.msgpack.decode(encode(Seen(tmp_path / "t").header))
    del plain["facts"]
    assert decode_record(msgspec.msgpack.encode(plain)).facts == {}


def test_what_the_optimizer_leaves_out_holds_twice_and_decays():
    model = make("bert")
    rest = [p for n, p in model.named_parameters() if ".query." not in n and "LayerNorm" not in n]
    norms = [p for n, p in model.named_parameters() if "LayerNorm" in n]
    found = told(
        model, {"params": rest, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}
    )
    total = len(list(model.parameters()))
    assert found["coverage"] == (
        f"6 of {total} parameters that train are in no group: "
        "bert.encoder.layer.0.attention.self.query.weight, "
        "bert.encoder.layer.0.attention.self.query.bias, "
        "bert.encoder.layer.1.attention.self.query.weight and 3 more"
    )
    assert found["weight decay"] == "matrices 0.1; embeddings 0.1; norms 0; biases 0.1"
    assert found["optimizer"] == "AdamW (2 groups)"
    both = Subject(
        find(model),
        [torch.optim.SGD([p], lr=1.0) for p in (norms[0], norms[0])],
        Observed(),
    )
    assert read_all(both)["duplicates"] == "bert.embeddings.LayerNorm.weight"


def test_frozen_parameters_and_mixed_dtypes_are_told():
    model = make("llama")
    model.model.embed_tokens.weight.requires_grad_(False)
    model.lm_head.to(torch.bfloat16)
    found = told(model)
    total = len(list(model.parameters()))
    assert found["frozen"] == f"1 of {total} parameters: model.embed_tokens.weight"
    assert found["dtypes"] == f"float32 in {total - 1} parameters, bfloat16 in 1 parameters"
    assert found["optimizer"] == "none was given"
    assert "coverage" not in found and "weight decay" not in found


def test_a_layer_far_from_its_peers_is_named():
    numbers = {(f"ffn@{layer}", "in_weight"): 0.02 for layer in range(4)}
    assert initial_weights(numbers) == "alike within a factor of 1.5"
    numbers["ffn@2", "in_weight"] = 0.1
    assert initial_weights(numbers) == "ffn@2/in_weight is 5 times the median layer's"
    assert initial_weights({("ffn@0", "in_weight"): 1.0, ("ffn@1", "in_weight"): 9.0}) == ""


def test_an_odd_model_costs_one_fact_and_not_the_run(monkeypatch):
    def broken(subject):
        raise AttributeError("made on purpose")

    odd = facts.Fact("optimizer", "", broken)
    monkeypatch.setattr(facts, "FACTS", (odd, *FACTS[1:]))
    found = told(make("bert"))
    assert found["optimizer"] == "could not be read: AttributeError: made on purpose"
    assert found["dtypes"] == "float32"


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_every_fact_says_what_it_means(fact):
    assert fact.meaning
