"""What all measurements of one sampled forward share: the capture and the mask it implies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from probe.adapters import added, base_of
from probe.anatomy import LayerParts, ModelParts, Stack, weight_of
from probe.batch import Batch
from probe.captured import Capture, Flow, LayerCapture
from probe.habits import Habits
from probe.intent import Intent
from probe.measure.numbers import relative
from probe.recognition import gamma_of
from probe.rows import Picked
from probe.shards import is_sharded

Values = dict[str, "torch.Tensor | float"]


@dataclass
class Projections:
    """q, k, v as the weights say, at the picked tokens, (r, p, heads * head_dim) each."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    dtype: torch.dtype
    one_length: torch.Tensor | None = None
    """0-d bool: queries and keys were brought to one length, by what is no module: how long they
    would be otherwise says nothing of the scores' scale. None where it was not asked."""
    gate: torch.Tensor | None = None
    """What a head's output is multiplied by, before its sigmoid, where the query projection makes
    that too (Qwen3-Next): (r, p, heads * head_dim)."""


@dataclass
class Sampled:
    """One stack's part of a sampled forward, ready to be measured.

    ``picked``, ``batch``: the tokens the stack worked on. ``implied`` (r, p, n) bool: which keys a
    query should see, windows aside; ``padding`` (r, n) bool: padding keys; ``documents`` (r, n)
    ints, or None where nothing is packed; ``causal`` 0-d bool tensor or None where neither config
    nor peers tell. ``memory``: of its cross-attention (see :func:`over_memory`), what was picked of
    the states that keys and values come from.
    """

    parts: ModelParts
    capture: Capture
    stack: Stack
    kept: list[LayerCapture]
    picked: Picked
    batch: Batch
    implied: torch.Tensor
    padding: torch.Tensor | None
    documents: torch.Tensor | None
    causal: torch.Tensor | None
    memory: Picked | None = None

    @property
    def intent(self) -> Intent:
        return self.stack.intent or self.parts.intent

    @property
    def valid(self) -> torch.Tensor:
        """(r, p) 1.0 at real tokens."""
        return self.picked.valid

    @property
    def tokens(self) -> torch.Tensor:
        """(r, p, 1), to weigh hidden states."""
        return self.valid[..., None]

    @property
    def key_valid(self) -> torch.Tensor:
        """(r, p) 1.0 at real tokens among those that keys and values were picked at."""
        return self.valid if self.memory is None else self.memory.valid

    def implied_at(self, layer: int) -> torch.Tensor:
        """``implied`` within the layer's window, where it has one."""
        window = self.window(layer)
        if window is None:
            return self.implied
        keys = torch.arange(self.picked.length, device=self.implied.device)
        back = self.picked.positions[:, None] - keys[None, :]
        # A bidirectional window reaches as far to both sides, a causal one counts the token itself.
        near = back < window if self.stack.causal else back.abs() <= window
        return self.implied & near

    def window(self, layer: int) -> int | None:
        """How far back the config lets a layer see; None: everywhere."""
        if self.stack.name in ("encoder", "decoder") or self.memory is not None:
            return None
        windows = self.intent.windows
        return windows[layer] if layer < len(windows) else None


def prepare(parts: ModelParts, capture: Capture, counted: bool = False) -> list[Sampled]:
    """Each stack's part, with the mask implied by attention_mask, causality and position ids.

    ``counted``: where nothing states these, what the layers do counts towards the model's habits.
    """
    found = []
    done = 0
    for stack in parts.stacks:
        kept = capture.layers[done : done + len(stack.layers)]
        done += len(stack.layers)
        found.append(_prepare(parts, capture, stack, kept, counted))
    return found or [_prepare(parts, capture, Stack("", [], parts.intent.causal), [], False)]


def _prepare(
    parts: ModelParts, capture: Capture, stack: Stack, kept: list[LayerCapture], counted: bool
) -> Sampled:
    picked, batch = capture.of_stack(stack.name)
    device = picked.rows.device
    keys = torch.arange(picked.length, device=device)
    implied = torch.ones(
        len(picked.rows), len(picked.positions), picked.length, dtype=torch.bool, device=device
    )
    padding = None
    if batch.mask is not None:
        padding = batch.mask.index_select(0, picked.rows) == 0
        implied = implied & ~padding[:, None, :]
    later = keys[None, :] > picked.positions[:, None]
    # One token has no later one.
    counted = counted and picked.length > 1
    causal = _causal(parts.habits, counted, stack, kept, later)
    told = predicts_next(batch) if stack.causal is None else None
    if causal is not None and told is not None:
        causal = causal | told
    if causal is not None:
        implied = implied & ~(later[None] & causal)
    documents = _documents(picked, batch)
    if documents is not None:
        own = documents[:, picked.positions]
        implied = implied & (own[:, :, None] == documents[:, None, :])
    built = _given_mask(picked, batch)
    if built is not None:
        implied = built
    elif batch.mask is None and (not parts.intent.family or batch.other_mask):
        habit = parts.habits, f"{stack.name}/hides", counted
        implied = _as_most_layers(*habit, implied, kept)
    return Sampled(parts, capture, stack, kept, picked, batch, implied, padding, documents, causal)


def over_memory(sampled: Sampled) -> Sampled | None:
    """The same stack's cross-attention: every query may see every real token of the states that
    keys and values come from. None where none was seen to run. Once a sample."""
    capture, picked = sampled.capture, sampled.picked
    pairs = zip(sampled.stack.layers, sampled.kept, strict=True)
    crossing = [(la.cross, k.cross or LayerCapture()) for la, k in pairs if la.cross is not None]
    if capture.memory is None or not crossing:
        return None
    layers, kept = [layer for layer, _ in crossing], [found for _, found in crossing]
    memory, batch = capture.memory
    device = picked.rows.device
    shape = len(picked.rows), len(picked.positions), memory.length
    implied = torch.ones(shape, dtype=torch.bool, device=device)
    padding = None
    if batch.mask is not None:
        padding = batch.mask.index_select(0, picked.rows) == 0
        implied = implied & ~padding[:, None, :]
    elif not sampled.parts.intent.family or batch.other_mask:
        habit = sampled.parts.habits, f"{sampled.stack.name}/cross_hides", True
        implied = _as_most_layers(*habit, implied, kept)
    return replace(
        sampled,
        stack=replace(sampled.stack, layers=layers, causal=None),
        kept=kept,
        implied=implied,
        padding=padding,
        documents=None,
        causal=None,
        memory=memory,
    )


def _causal(
    habits: Habits, counted: bool, stack: Stack, kept: list[LayerCapture], later: torch.Tensor
) -> torch.Tensor | None:
    if stack.causal is not None:
        return torch.tensor(stack.causal, device=later.device)
    calls = [layer.call for layer in kept if layer.call is not None]
    if not calls:
        return None
    # Nothing states it: what most layers do is what the others should do, and go on doing.
    shown = torch.stack([(call.visible & later).float().sum() for call in calls])
    now, name = shown.median() == 0, f"{stack.name}/causal"
    if counted:
        habits.saw(name, now)
    return habits.held_to(name, now)


def predicts_next(batch: Batch) -> torch.Tensor | None:
    """0-d bool: the labels given are the tokens given, one further on, so that whoever sees later
    tokens reads the answers. Not where a part has no label: it may be meant to be seen whole.
    None where no labels are given for the tokens."""
    ids, labels = batch.ids, batch.labels
    if ids is None or labels is None or labels.shape != ids.shape or ids.shape[1] < 2:
        return None
    same = (labels[:, :-1] == ids[:, 1:]).float().mean()
    # Text that repeats itself agrees with any shift.
    changes = (ids[:, :-1] != ids[:, 1:]).float().mean()
    return (same > _NEXT) & (changes > 0.5)


_NEXT = 0.99


def _given_mask(picked: Picked, batch: Batch) -> torch.Tensor | None:
    """A mask (batch or 1, h, n, n) that the caller built states by itself what may be seen."""
    mask = batch.full_mask
    if mask is None or mask.shape[-2:] != (picked.length, picked.length):
        return None
    rows = picked.rows if mask.shape[0] == picked.batch else torch.zeros_like(picked.rows)
    chosen = mask.detach()[rows[:, None], :, picked.positions[None, :]]
    shown = chosen if chosen.dtype == torch.bool else chosen > -1e4
    return shown.any(dim=2)


def _as_most_layers(
    habits: Habits, name: str, counted: bool, implied: torch.Tensor, kept: list[LayerCapture]
) -> torch.Tensor:
    """A hand-written model that was given no mask may make one of its own, from the ids or by a
    window: what most layers hide, the others should hide. One that never hid a key from some
    queries and not from others goes on so; padding is hidden from all, and may come at any time."""
    calls = [layer.call for layer in kept if layer.call is not None]
    if not calls:
        return implied
    seen = [call.visible.any(dim=1).expand_as(implied).float() for call in calls]
    most = implied & (torch.stack(seen).median(dim=0).values > 0)
    left_out = ~most.any(dim=1, keepdim=True) | ~most.any(dim=2, keepdim=True)
    chosen = implied & ~most & ~(left_out & most.any())
    now = chosen.any()
    if counted:
        habits.saw(name, now)
    return most | (chosen & ~habits.held_to(name, now))


def _documents(picked: Picked, batch: Batch) -> torch.Tensor | None:
    """Packed documents by position ids that start again at 0; only where the caller gave them."""
    positions = batch.positions
    if positions is None or positions.dim() != 2 or positions.shape[0] != batch.size:
        return None
    starts = positions == 0
    if batch.mask is not None:
        # Padding on the left may share the 0 of the first real token.
        starts = starts & (batch.mask != 0)
    return starts.index_select(0, picked.rows).cumsum(dim=1)


def linear(flow: Flow | None, module: torch.nn.Module | None) -> torch.Tensor | None:
    """What ``module``'s weights make of its input, float32; None where it was not seen."""
    if flow is None or flow.into is None or module is None or flow.terms is None:
        return None
    weight = weight_of(module).detach()
    if flow.into.shape[-1] != weight.shape[1]:
        return None
    out = flow.into.float() @ weight.float().t()
    bias = getattr(base_of(module), "bias", None)
    out = out if bias is None else out + bias.detach().float()
    return added(out, weight, flow.terms)


def projections(
    parts: LayerParts,
    kept: LayerCapture,
    adds_one: torch.Tensor | None = None,
    unstated: bool = False,
    may_norm: bool = False,
) -> Projections | None:
    """q, k and v by the projections' own weights, from separate linears or fused ones.

    ``adds_one``: 0-d bool, whether this model's norms multiply by 1 + w; None: they do not.
    ``unstated``: nothing says how the model is meant to be. It may order the rows of a fused
    projection as it likes: they are put in order, which copies. ``may_norm``: q and k may be normed
    without weights.
    """
    if parts.crossing and (parts.fused or parts.packed):
        made = _over_memory(parts, kept)
    elif parts.fused or parts.packed:
        made = _fused(parts, kept, unstated)
    else:
        made = _separate(parts, kept)
    call = kept.call
    if made is not None and call is not None:
        head_dim = call.q.shape[-1]
        made.q = _normed(made.q, parts.query_norm, head_dim, adds_one)
        made.k = _normed(made.k, parts.key_norm, head_dim, adds_one)
        if may_norm and parts.query_norm is None and parts.key_norm is None:
            kv_heads = made.k.shape[-1] // head_dim
            made.q, q_alike = _as_long(made.q, flat_heads(call.q), head_dim)
            made.k, k_alike = _as_long(made.k, flat_heads(call.k, kv_heads), head_dim)
            made.one_length = q_alike & k_alike
    return made


def _separate(parts: LayerParts, kept: LayerCapture) -> Projections | None:
    q_made, k_made, v_made = (
        linear(getattr(kept, name), getattr(parts, name)) for name in ("query", "key", "value")
    )
    if q_made is None or k_made is None or v_made is None:
        return None
    assert kept.query is not None and kept.query.out is not None
    assert parts.query is not None and parts.key is not None and parts.value is not None
    q, k, v = (weight_of(m).detach() for m in (parts.query, parts.key, parts.value))
    made = Projections(q_made, k_made, v_made, (q, k, v), kept.query.out.dtype)
    call = kept.call
    if call is not None and q_made.shape[-1] == 2 * call.heads * call.q.shape[-1]:
        by_head = q_made.unflatten(-1, (call.heads, 2, -1))
        made.q, made.gate = (by_head[..., half, :].flatten(-2) for half in (0, 1))
        made.weights = q.unflatten(0, (call.heads, 2, -1))[:, 0].flatten(0, 1), k, v
    return made


def _fused(parts: LayerParts, kept: LayerCapture, move_weights: bool) -> Projections | None:
    call = kept.call
    if call is None:
        return None
    if parts.packed is not None:
        whole, weight = _packed(parts.packed, kept.packed)
        dtype = call.kernel_dtype
    else:
        assert parts.fused is not None
        whole, weight = linear(kept.fused, parts.fused), weight_of(parts.fused).detach()
        flow = kept.fused
        dtype = flow.out.dtype if flow is not None and flow.out is not None else torch.float32
    if whole is None:
        return None
    q_size = call.heads * call.q.shape[-1]
    kv_size = (whole.shape[-1] - q_size) // 2
    if kv_size <= 0:
        q_size = kv_size = whole.shape[-1] // 3
    sizes = [q_size, kv_size, kv_size]
    if q_size == kv_size and whole.shape[-1] == 3 * q_size:
        whole, weight = _laid_out(whole, weight, kept, move_weights, _beside(parts, "v_bias"))
    weights = weight.split(sizes, dim=0)
    q, k, v = whole.split(sizes, dim=-1)
    q, v = q + _beside(parts, "q_bias"), v + _beside(parts, "v_bias")
    return Projections(q, k, v, (weights[0], weights[1], weights[2]), dtype)


def _beside(parts: LayerParts, name: str) -> torch.Tensor | float:
    """A bias of queries or values that the attention module adds by itself (DeBERTa, BEiT)."""
    bias = getattr(parts.attention, name, None)
    if not isinstance(bias, torch.nn.Parameter) or is_sharded(bias):
        return 0.0
    return bias.detach().float()


def _over_memory(parts: LayerParts, kept: LayerCapture) -> Projections | None:
    """Of a cross-attention with one parameter for q, k and v, or one linear for k and v."""
    call = kept.call
    if call is None:
        return None
    if parts.packed is not None:
        flow = kept.packed
        q_whole, weight = _packed(parts.packed, flow)
        whole, _ = _packed(parts.packed, Flow(flow.keys) if flow is not None else None)
        if q_whole is None or whole is None:
            return None
        q_made = q_whole.chunk(3, dim=-1)[0]
        _, k_made, v_made = whole.chunk(3, dim=-1)
        q, k, v = weight.chunk(3)
        return Projections(q_made, k_made, v_made, (q, k, v), call.kernel_dtype)
    made, whole = linear(kept.query, parts.query), linear(kept.fused, parts.fused)
    if made is None or whole is None:
        return None
    assert parts.query is not None and parts.fused is not None
    k_made, v_made = whole.chunk(2, dim=-1)
    k, v = weight_of(parts.fused).detach().chunk(2)
    weights = weight_of(parts.query).detach(), k, v
    return Projections(made, k_made, v_made, weights, call.kernel_dtype)


def _packed(module: torch.nn.Module, flow: Flow | None) -> tuple[torch.Tensor | None, torch.Tensor]:
    """(input times the packed weights, the weights): torch applies them without a module."""
    weight = module.in_proj_weight
    assert isinstance(weight, torch.Tensor)
    weight = weight.detach()
    if flow is None or flow.into is None or flow.into.shape[-1] != weight.shape[1]:
        return None, weight
    whole = flow.into.float() @ weight.float().t()
    bias = module.in_proj_bias
    return (whole + bias.detach().float() if isinstance(bias, torch.Tensor) else whole), weight


def _laid_out(
    whole: torch.Tensor,
    weight: torch.Tensor,
    kept: LayerCapture,
    move_weights: bool,
    v_bias: torch.Tensor | float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """[q|k|v] as it is; [heads, 3, head_dim] put in that order where the kernel's v says so."""
    call = kept.call
    assert call is not None
    heads, dim = call.heads, call.q.shape[-1]
    v = flat_heads(call.v).float() - v_bias
    if v.shape[-1] * 3 != whole.shape[-1] or v.shape[:-1] != whole.shape[:-1]:
        return whole, weight
    by_head = whole.unflatten(-1, (heads, 3, dim)).transpose(-3, -2).flatten(-3)
    plain, other = (relative(v, t[..., -v.shape[-1] :]) for t in (whole, by_head))
    swap = (other < 0.02) & (plain > 0.2)
    if move_weights:
        moved = weight.unflatten(0, (heads, 3, dim)).transpose(0, 1).flatten(0, 2)
        weight = torch.where(swap, moved, weight)
    return torch.where(swap, by_head, whole), weight


def _normed(
    flat: torch.Tensor,
    norm: torch.nn.Module | None,
    head_dim: int,
    adds_one: torch.Tensor | None,
) -> torch.Tensor:
    """q or k after a norm of its own, over a head or over all heads."""
    weight = gamma_of(norm) if norm is not None else None
    if norm is None or weight is None:
        return flat
    size, eps = weight.numel(), eps_of(norm) or 0.0
    if size not in (head_dim, flat.shape[-1]):
        return flat
    bias = getattr(norm, "bias", None)
    rms = not isinstance(norm, torch.nn.LayerNorm)
    parted, gamma = flat.unflatten(-1, (-1, size)), weight.detach().float()
    plain = norm_formula(parted, gamma, bias, eps, rms).flatten(-2)
    if adds_one is None:
        return plain
    more = norm_formula(parted, gamma + 1.0, bias, eps, rms).flatten(-2)
    return torch.where(adds_one, more, plain)


def _as_long(
    made: torch.Tensor, seen: torch.Tensor, head_dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """q or k as made of the weights, (r, p, heads * head_dim), with the lengths that heads have in
    ``seen``, where a head has the same at all tokens; and whether that is so, 0-d bool."""
    alike = torch.zeros((), dtype=torch.bool, device=seen.device)
    if made.shape != seen.shape or made.shape[-1] % head_dim or seen.shape[:2].numel() < _TOLD:
        return made, alike
    lengths = seen.float().unflatten(-1, (-1, head_dim)).norm(dim=-1)
    longest = lengths.amax(dim=(0, 1))
    # Padding may have a vector of zeros, which stays one.
    apart = longest - torch.where(lengths == 0, longest, lengths).amin(dim=(0, 1))
    alike = (apart < _ONE_LENGTH * longest).all()
    by_head = made.unflatten(-1, (-1, head_dim))
    unit = by_head / by_head.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return torch.where(alike, (unit * lengths[..., None]).flatten(-2), made), alike


_TOLD = 4
"""Tokens it takes to tell that heads are of one length."""
_ONE_LENGTH = 0.02
"""Rounding to 16 bits leaves lengths apart by less, projections leave them apart by far more."""


def heads_meant(
    intent: Intent, parts: LayerParts, kept: LayerCapture, made: Projections | None
) -> int | None:
    """Query heads a layer should have: the config's, or fewer where heads were pruned, which shows
    in the size of its weights and in the module's own count, where it has one."""
    call, stated = kept.call, intent.heads
    if stated is None or call is None or made is None or call.heads >= stated:
        return stated
    own = {getattr(parts.attention, name, None) for name in _HEADS} - {None}
    whole = call.q.shape[-1] == intent.head_dim and made.q.shape[-1] == call.heads * intent.head_dim
    return call.heads if whole and (not own or call.heads in own) else stated


_HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head", "heads")


def eps_of(norm: torch.nn.Module) -> float | None:
    """The epsilon a norm layer holds, under either of its usual names."""
    for name in ("eps", "variance_epsilon"):
        value = getattr(norm, name, None)
        if isinstance(value, float):
            return value
    return None


def norm_formula(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float, rms: bool
) -> torch.Tensor:
    """LayerNorm or RMSNorm of ``x`` over its last dimension, in float32."""
    if not rms:
        x = x - x.mean(dim=-1, keepdim=True)
    made = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight
    return made if bias is None else made + bias.detach().float()


def flat_heads(tensor: torch.Tensor, heads: int | None = None) -> torch.Tensor:
    """(r, h, p, d) -> (r, p, h * d). ``heads``: undo a repetition of key/value heads first."""
    if heads and tensor.shape[1] > heads and tensor.shape[1] % heads == 0:
        tensor = tensor[:, :: tensor.shape[1] // heads]
    return tensor.transpose(1, 2).flatten(2)
