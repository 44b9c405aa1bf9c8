"""All cases: those of the field study's manuscript first, then others."""

from __future__ import annotations

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
from diagnoser.corpus.realworld.case import Case

CASES: tuple[Case, ...] = (
    jax_23349.CASE,
    pytorch_103082.CASE,
    transformers_19045.CASE,
    transformers_17886.CASE,
    transformers_37574.CASE,
    nsa_pytorch_20.CASE,
    transformers_35896.CASE,
    pytorch_116333.CASE,
    diffusers_11903.CASE,
    xformers_103.CASE,
    nanovlm_201.CASE,
    trl_469.CASE,
    megatron_535.CASE,
    megatron_411.CASE,
    maxtext_3138.CASE,
    bitnet_32.CASE,
    transformers_15.CASE,
    keras_hub_642.CASE,
    tucker_17.CASE,
    transformers_35927.CASE,
    transformers_43429.CASE,
)
