"""Numbers and names as a person reads them."""

from __future__ import annotations

import math

_THOUSANDS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float, digits: int = 3) -> str:
    """``digits`` significant digits, short: 2.31, 0.0123, 1.2e-5, 34.5k; nan, inf in words."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e15 or size < 1e-3:
        mantissa, exponent = f"{value:.{max(digits - 2, 0)}e}".split("e")
        return (
            f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
        )
    for scale, letter in _THOUSANDS:
        if size >= (scale if scale > 1e3 else 1e4):
            return f"{value / scale:.{_decimals(size / scale, digits)}f}{letter}"
    return f"{value:.{_decimals(size, digits)}f}"


def _decimals(size: float, digits: int) -> int:
    return max(0, digits - 1 - math.floor(math.log10(size)))


def percent(share: float) -> str:
    """A share as a whole percentage, never rounded to certainty: >99 %, <1 %."""
    if math.isnan(share):
        return "– %"
    if 0.995 <= share < 1:
        return ">99 %"
    if 0 < share < 0.005:
        return "<1 %"
    return f"{share * 100:.0f} %"


def ago(seconds: float) -> str:
    """A stretch of time in its largest unit: 3 d, 2 h, 5 min, 40 s."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def spoken(name: str) -> str:
    """A taxonomy name in words: ``mask_application`` -> ``mask application``."""
    return name.replace("_", " ").replace("kv cache", "KV cache").replace("qkv", "QKV")


def clipped(text: str, width: int, ellipsis: str = "…") -> str:
    """``text`` in at most ``width`` cells, shortened at its end where it must be."""
    if len(text) <= width:
        return text
    if width <= len(ellipsis):
        return text[: max(width, 0)]
    return text[: width - len(ellipsis)].rstrip() + ellipsis


def clipped_key(key: str, width: int) -> str:
    """A chart's name, ``component/metric``: the component is shortened before the metric is."""
    site, slash, metric = key.partition("/")
    room = width - len(slash) - len(metric)
    return f"{clipped(site, room)}{slash}{metric}" if room >= 4 else clipped(key, width)


def left_clipped(text: str, width: int, ellipsis: str = "…") -> str:
    """Shortened at its beginning where it must be: the end of a path tells most."""
    return text if len(text) <= width else ellipsis + text[len(text) - width + len(ellipsis) :]
