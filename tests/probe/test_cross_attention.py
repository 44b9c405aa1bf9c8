"""A decoder's attention over the encoder's states: found, healthy within tolerance, faults seen."""

from __future__ import annotations

import crossing_models
import numpy as np
import pytest
import torch
from crossing_faults import MADE_FOR, Crossed
from crossing_models import FAMILIES, LAYERS, Attention, batch, loss_of, make
from family_grid import contract_of, over
from fault_target import Inapplicable, target
from test_families import _told_why
from tiny_models import Seen
from torch import nn

import probe
from probe.inspection import inspect_model
from probe.nodes import CROSS, kind_of, of_cross
from probe.overrides import AnatomyError, find_with
from probe.schema import Event

MAIN = ("t5", "bart", "whisper", "torch decoder", "hand-written, softmax")
STEPS = 5


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(model: nn.Module, family: str, trace, autocast: bool = False, **options) -> list[float]:
    """Losses of a few steps; with a trace the probe watches them."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    fault = options.pop("fault", None)
    if fault is not None:
        found = target(model, batch(family), optimizer)
        # What is broken once the probe looks on, as where a script changes the model late.
        broken = Crossed(found.model, found.parts, optimizer)
    torch.manual_seed(7)
    watching, losses = None, []
    if trace is not None:
        anatomy = options.pop("anatomy", None)
        watching = probe.attach(
            model, optimizer, endpoint=False, every=1, budget=None, trace=trace, anatomy=anatomy
        )
    for _ in range(options.pop("steps", STEPS)):
        if fault is not None:
            fault(broken)
            fault = None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = loss_of(model, batch(family, **options))
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    if watching is not None:
        watching.close()
    return losses


def seen_of(model: nn.Module, family: str, trace, **options) -> Seen:
    train(model, family, trace, **options)
    seen = Seen(trace)
    assert not [r.text for r in seen.records if isinstance(r, Event) and "itself off" in r.text]
    return seen


READ = (
    "cross_qkv@1/q_error", "cross_qkv@1/k_error", "cross_qkv@1/v_error", "cross_mask@1/leaked",
    "cross_mask@1/hidden", "cross_score@1/scale_ratio", "cross_attention@1/reaches_output",
    "cross_attention@1/dropout_gap", "cross_attention@1/entropy", "cross_qkv@1/unmoved",
    "norm_cross@1/formula_error", "norm_cross@1/unmoved", "residual_cross@1/branch_ratio",
)  # fmt: skip


@pytest.mark.works_with("Model families")
@pytest.mark.parametrize("family", MAIN)
def test_cross_attention_is_read_and_nothing_fires_with_padding_and_dropout(family, tmp_path):
    seen = seen_of(make(family, 0.1), family, tmp_path / "t")
    sites = {site.name for site in seen.header.anatomy.sites}
    assert {f"decoder.{node}@{at}" for node in CROSS for at in range(LAYERS)} <= sites
    for key in READ:
        assert not np.isnan(seen[f"decoder.{key}"]).any(), key
    assert np.isnan(seen["decoder.cross_mask@1/padding_mass"]).all() == (family == "whisper")
    assert "decoder.cross_mask@1.h3" in {column.site for column in seen.header.columns}
    assert over(seen) == {}
    # Which stack a norm outside both is of shows only in the first sample.
    _told_why(seen, exactly="hand-written" not in family)


@pytest.mark.parametrize("family", ["t5", "bart", "hand-written, softmax"])
def test_nothing_fires_in_16_bits(family, tmp_path):
    seen = seen_of(make(family), family, tmp_path / "t", autocast=True)
    assert not np.isnan(seen["decoder.cross_attention@1/reference_error"]).any()
    assert over(seen) == {}


OTHERS = tuple(family for family in FAMILIES if family not in MAIN)
CONDITIONS: dict[str, dict] = {
    "plain": {},
    "bfloat16 autocast": {"autocast": True},
    "padding left": {"padding": "left"},
    "no padding": {"padding": "none"},
    "both sequences of one length": {"same_length": True},
}


@pytest.mark.matrix
@pytest.mark.parametrize("family", [f for f in FAMILIES if not f.startswith("bert and")])
@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_nothing_fires_under_any_condition(family, name, dropout, tmp_path):
    seen = seen_of(make(family, dropout), family, tmp_path / "t", **CONDITIONS[name])
    # Where features of padding are shown on purpose, it has an effect.
    shown = family == "torch decoder over features"
    assert {k for k in over(seen) if not (shown and k.startswith("output/"))} == set()


@pytest.mark.matrix
@pytest.mark.parametrize("family", OTHERS)
def test_the_second_attention_of_other_models_is_read_too(family, tmp_path):
    seen = seen_of(make(family), family, tmp_path / "t")
    at = "" if family == "torch decoder over features" else "decoder."
    # The config of two models in one states neither a scale nor a rate of dropout.
    unstated = ("scale_ratio", "dropout_gap") if family.startswith("bert and") else ()
    for key in READ:
        assert np.isnan(seen[at + key]).all() == (key.partition("/")[2] in unstated), key
    assert not [key for key in over(seen) if "cross" in key]


@pytest.mark.parametrize("same_length", [False, True])
def test_a_decoder_over_features_is_read_by_its_own_tokens(same_length, tmp_path):
    family = "torch decoder over features"
    seen = seen_of(make(family, 0.1), family, tmp_path / "t", same_length=same_length)
    for key in (*READ, "qkv@1/q_error", "mask@0/future_mass", "embedding/lookup_error"):
        assert not np.isnan(seen[key]).any(), key
    assert {key for key in over(seen) if not key.startswith("output/")} == set()


SHORT = [
    ("t5", "cross_mask/padding_mass"), ("hand-written, softmax", "cross_mask/leaked"),
    ("torch decoder", "cross_mask/leaked"), ("whisper", "cross_mask/hidden"),
    ("t5", "cross_score/scale_ratio"), ("bart", "cross_qkv/unmoved"),
    ("whisper", "cross_qkv/v_error"), ("torch decoder", "norm_cross/formula_error"),
    ("bart", "residual_cross/sum_error"),
]  # fmt: skip


def _fired(family: str, contract: str, tmp_path) -> set[str]:
    seen = seen_of(make(family), family, tmp_path / "t", fault=MADE_FOR[contract])
    return {contract_of(key) for key in over(seen) if key.partition("/")[0].endswith("@1")}


@pytest.mark.parametrize(("family", "contract"), SHORT)
def test_a_contract_fires_at_the_site_of_its_fault(family, contract, tmp_path):
    assert contract in _fired(family, contract, tmp_path)


@pytest.mark.matrix
@pytest.mark.parametrize("family", MAIN)
@pytest.mark.parametrize("contract", MADE_FOR)
def test_every_contract_fires_for_its_fault(family, contract, tmp_path):
    if (family == "whisper" and contract in ("cross_mask/leaked", "cross_mask/padding_mass")) or (
        family == "torch decoder" and contract == "cross_mask/hidden"
    ):
        pytest.skip("there is no mask to drop, or none of this shape can be given")
    try:
        assert contract in _fired(family, contract, tmp_path)
    except Inapplicable:
        pytest.skip("no fault of this kind can be made here")


@pytest.mark.parametrize("family", ["t5", "torch decoder"])
def test_results_are_the_same_bit_for_bit(family, tmp_path):
    plain, watched = make(family, 0.1), make(family, 0.1)
    without = train(plain, family, None)
    rng = torch.get_rng_state()
    assert train(watched, family, tmp_path / "t") == without
    assert torch.equal(torch.get_rng_state(), rng) and torch._C._len_torch_function_stack() == 0
    pairs = zip(plain.parameters(), watched.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# -- which of two attentions it is -----------------------------------------------------------------


def test_keys_of_other_states_tell_it_where_names_and_order_mislead(tmp_path):
    """The hand-written block stores its attention over the encoder's states first."""
    model = make("hand-written, SDPA")
    assert find_with(model, None).stacks[-1].layers[0].cross.attention is model.writing[0].two
    seen = seen_of(model, "hand-written, SDPA", tmp_path / "t", steps=2)
    site = seen.header.anatomy.site("decoder.cross_qkv@0")
    assert site.modules[0] == "writing.0.one"
    own = seen.header.anatomy.site("decoder.qkv@0")
    assert own.modules[0] == "writing.0.two"
    for key in ("decoder.qkv@0/k_error", "decoder.cross_qkv@0/k_error"):
        assert (seen[key] < 1e-5).all()


class Twice(nn.Module):
    """Attends to its own states twice."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(3))
        self.near, self.far = Attention(0.0, False), Attention(0.0, False)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x):
        for norm, attention in zip(self.norms, (self.near, self.far), strict=False):
            y = norm(x)
            x = x + attention(y, y, None)
        return x + self.down(self.up(self.norms[2](x)).relu())


class TwiceModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(100, 32), nn.Linear(32, 100)
        self.blocks = nn.Sequential(Twice(), Twice())

    def forward(self, src, tgt, padding_mask):
        return self.head(self.blocks(self.table(src)))


def test_a_second_attention_over_the_same_states_is_none(tmp_path):
    torch.manual_seed(1)
    seen = seen_of(
        TwiceModel().train(), "hand-written", tmp_path / "t", same_length=True, padding="none"
    )
    assert not {site.node for site in seen.header.anatomy.sites} & set(CROSS)
    assert not np.isnan(seen["qkv@1/k_error"]).any() and over(seen) == {}


def test_a_decoder_that_reads_no_other_states_is_not_blamed_for_it(tmp_path):
    import transformers as hf

    torch.manual_seed(1)
    config = crossing_models._bert(0.0, True)
    model = hf.BertLMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    options = {"endpoint": False, "every": 1, "budget": None, "trace": tmp_path / "t"}
    with probe.attach(model, optimizer, **options):
        for _ in range(STEPS):
            given = crossing_models.batch("bert and bert", "none")
            model(given["input_ids"], labels=given["input_ids"]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    seen = Seen(tmp_path / "t")
    assert not {site.node for site in seen.header.anatomy.sites} & set(CROSS)
    assert over(seen) == {}


# -- what a person says and is told ----------------------------------------------------------------


def test_its_parts_can_be_named_by_hand():
    model = make("bart")
    block = model.model.decoder.layers[1]
    given = {
        "decoder.cross_attention": "encoder_attn", "decoder.cross_query": "encoder_attn.k_proj",
        "decoder.norm_cross": "final_layer_norm",
    }  # fmt: skip
    parts = find_with(model, given)
    cross = parts.stacks[1].layers[1].cross
    assert cross.attention is block.encoder_attn and cross.query is block.encoder_attn.k_proj
    assert cross.norm_attention is block.final_layer_norm
    assert cross.value is block.encoder_attn.v_proj and cross.attention_out is not None
    none = find_with(model, {"decoder.cross_attention": None})
    assert all(layer.cross is None for layer in none.layers)
    with pytest.raises(AnatomyError, match="has no attention over other states"):
        find_with(model, {"encoder.cross_key": "self_attn.k_proj"})


def test_a_norm_named_by_hand_stays(tmp_path):
    given = {"decoder.norm_cross": "final_layer_norm"}
    seen = seen_of(make("bart"), "bart", tmp_path / "t", steps=1, anatomy=given)
    site = seen.header.anatomy.site("decoder.norm_cross@1")
    assert site.modules == ("model.decoder.layers.1.final_layer_norm",)


def test_doctor_prints_its_parts():
    found = inspect_model(make("t5"))
    assert found.failure == ""
    assert found.roles["decoder.cross_attention"] == "decoder.block.*.layer.1.EncDecAttention"
    assert found.roles["decoder.norm_cross"] == "decoder.block.*.layer.1.layer_norm"
    assert "encoder.cross_attention" not in found.roles
    assert {"cross_mask/leaked", "norm_cross/formula_error"} <= set(found.contracts)


def test_nodes_of_cross_attention_are_like_their_own():
    assert [kind_of(of_cross(kind)) for kind in CROSS.values()] == list(CROSS.values())
    assert kind_of("ffn") == of_cross("ffn") == "ffn"
