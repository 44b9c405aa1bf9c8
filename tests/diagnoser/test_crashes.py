"""Exceptions that ended a training: the study's four heuristics on messages as torch words them."""

from __future__ import annotations

import pytest

from diagnoser.crashes import in_attention, mask_is_odd, read
from diagnoser.taxonomy import categories
from probe.schema import Event


def crash(message, site="", module="", inputs="", kind="RuntimeError", phase="forward"):
    details = {
        "type": kind,
        "message": message,
        "phase": phase,
        "module": module,
        "class": "",
        "site": site,
        "inputs": inputs,
        "where": "model.py:1",
    }
    found = read(Event(seq=3, step=7, time=0.0, kind="crash", text="it died", details=details))
    assert found is not None and found.step == 7 and found.text == "it died"
    return found


QKV = [
    ("mat1 and mat2 shapes cannot be multiplied (168x32 and 48x96)", "qkv@1"),
    ("shape '[6, 28, 5, 8]' is invalid for input of size 5376", "attention@0"),
    ("expected m1 and m2 to have the same dtype, but got: c10::Half != float", "qkv@0"),
    (
        "Expected query, key, and value to have the same dtype, but got query.dtype: float key.",
        "attention@2",
    ),
    ("The size of tensor a (8) must match the size of tensor b (16) at dimension 3", "score@2"),
    ("Expected size for first two dimensions of batch2 tensor to be: [24, 8]", "score@2"),
]
MASKING = [
    ("The size of tensor a (28) must match the size of tensor b (27) at dimension 3", "mask@1"),
    ("The expanded size of the tensor (28) must match the existing size (27)", "attention@1"),
]
BY_MESSAGE = [
    (2, "masking", "Explicit attn_mask should not be set when is_causal=True"),
    (2, "masking", "cache_position must have as many elements as there are tokens"),
    (3, "masking", "The shape of the 2D attn_mask is torch.Size([8, 8]), but should be (9, 9)."),
    (3, "masking", "attention mask contains nan"),
    (3, "masking", "NaN or Inf found in attention scores"),
]
KERNEL = [
    ("CUDA out of memory. Tried to allocate 20.00 GiB.", "attention@3", "OutOfMemoryError"),
    ("No available kernel. Aborting execution.", "attention@0", "RuntimeError"),
    ("FlashAttention only supports head dimension at most 256", "score@0", "RuntimeError"),
    ("sequence length 70000 exceeds the kernel's limit of 65536", "attention@0", "ValueError"),
]


@pytest.mark.parametrize(("message", "site"), QKV)
def test_sizes_and_types_that_do_not_fit_speak_for_the_projections(message, site):
    found = crash(message, site)
    assert (found.category, found.heuristic) == ("qkv", 1)
    assert "93 %" in found.reason


@pytest.mark.parametrize(("message", "site"), MASKING)
def test_a_mask_among_the_inputs_makes_the_same_message_one_of_masking(message, site):
    inputs = "query float32 2x4x28x8; attention_mask bool 2x1x27x27"
    found = crash(message, site, inputs=inputs)
    assert (found.category, found.heuristic) == ("masking", 3)
    assert crash(message, site).category == "qkv"


@pytest.mark.parametrize(
    ("inputs", "odd"),
    [
        ("hidden_states float32 6x28x32; attention_mask bool 6x1x28x28", False),
        ("hidden_states float32 6x28x32; attention_mask bool 6x1x28x27", True),
        ("hidden_states float32 6x28x32; attention_mask int64 6x28", False),
        ("x bfloat16 6x28x32; mask bool 6x29", True),
        ("q float32 6x4x28x8; k float32 6x4x20x8; mask float32 28x20", False),
        ("float32 6x28x32; bool 6x28", False),
        ("", False),
    ],
)
def test_a_mask_fits_or_not(inputs, odd):
    assert mask_is_odd(inputs) is odd


@pytest.mark.parametrize(("heuristic", "category", "message"), BY_MESSAGE)
def test_some_messages_tell_wherever_they_come_from(heuristic, category, message):
    found = crash(message)
    assert (found.category, found.heuristic) == (category, heuristic)


@pytest.mark.parametrize(("message", "site", "kind"), KERNEL)
def test_limits_of_length_and_memory_in_attention_speak_for_the_kernel(message, site, kind):
    found = crash(message, site, kind=kind)
    assert (found.category, found.heuristic) == ("kernel", 4)


def test_the_same_messages_outside_of_attention_say_nothing_of_it():
    for message, _ in QKV:
        found = crash(message.replace("query, key, and value", "both"), "ffn@1")
        assert found.heuristic is None and found.category == "ffn"
    assert crash("CUDA out of memory. Tried to allocate 2 GiB", phase="optimizer").category is None
    assert crash("CUDA out of memory. Tried to allocate 2 GiB", "embedding").heuristic is None


def test_without_a_pattern_the_place_speaks_for_itself_and_says_so():
    found = crash("index out of range in self", "embedding", kind="IndexError")
    assert found.category == "embedding" and found.heuristic is None
    assert "embedding" in found.reason and "none of the patterns" in found.reason


def test_a_loop_that_died_by_itself_is_given_no_category():
    found = crash("no more data", kind="StopIteration", phase="loop")
    assert found.category is None and found.reason == ""


@pytest.mark.parametrize("module", ["h.0.self_attn.q_proj", "encoder.attention.self", ""])
def test_a_module_named_for_attention_is_in_it_without_a_site(module):
    assert in_attention({"module": module}) is bool(module)


def test_every_category_named_is_in_the_taxonomy():
    for site in ("qkv@1", "score@1", "mask@0", "ffn@2", "norm_ffn@1", "residual_ffn@0", "output"):
        category = crash("something else", site).category
        assert category in categories(), site


def test_other_events_are_no_crash():
    event = Event(seq=3, step=7, time=0.0, kind="note", text="out of memory in attention")
    assert read(event) is None
    old = Event(seq=3, step=7, time=0.0, kind="crash", text="without details")
    assert read(old).category is None
