"""Numbers as people read them. A missing value is shown as "–", a NaN as "NaN": neither passes for a number."""

from __future__ import annotations

import math
import sys
from datetime import datetime
from typing import Any

MISSING = "–"


def is_number(value: Any) -> bool:
    """True for an int or float (NaN and infinities included), False for booleans, ints beyond floats, all else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < sys.float_info.max


def finite(value: Any) -> float | None:
    """The value as a float where it is a finite number, else None."""
    return float(value) if is_number(value) and math.isfinite(value) else None


def number(value: Any, digits: int = 4) -> str:
    """A number with `digits` significant figures; whole numbers in full with thousands separators.

    Example:
        >>> number(0.69314718), number(12345), number(5e-7), number(float("nan")), number(None)
        ('0.6931', '12,345', '5e-7', 'NaN', '–')
    """
    if not is_number(value):
        return MISSING if value is None else str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if float(value).is_integer() and abs(value) < 1e15:
        text = f"{int(value):,}"
    elif 1e-4 <= abs(value) < 1e6:
        text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    else:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def short(value: Any) -> str:
    """A number with at most three significant figures and no trailing zeros: 0.330 is "0.33"."""
    if finite(value) is None:
        return number(value)
    return (
        number(value)
        if float(value).is_integer()
        else f"{value:.3g}".replace("-", "−", 1 if value < 0 else 0)
    )


def percent(value: Any, decimals: int = 1) -> str:
    """A share in [0, 1] as a percentage: 0.8312 is "83.1%"."""
    share = finite(value)
    return number(value) if share is None else f"{100 * share:.{decimals}f}%".replace("-", "−")


def si(value: Any) -> str:
    """A large count in short: 1,234,567 is "1.23M"."""
    count = finite(value)
    if count is None:
        return number(value)
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(count) >= size:
            return f"{count / (1e3 if suffix == 'k' else size):.3g}{suffix}"
    return number(value)


def data_size(value: Any) -> str:
    """Bytes in binary units: 3221225472 is "3.00 GiB"."""
    size = finite(value)
    if size is None:
        return number(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


def duration(seconds: Any) -> str:
    """Seconds as "45 s", "5 min 12 s" or "3 h 20 min"."""
    total = finite(seconds)
    if total is None:
        return number(seconds)
    if total < 10:
        return f"{total:.1f} s"
    whole = round(total)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def moment(value: Any) -> str:
    """An ISO 8601 time, or seconds since 1970, to the minute; anything else as it is."""
    try:
        if is_number(value):
            return datetime.fromtimestamp(value).strftime("%Y-%m-%d %H:%M")
        text = str(value).replace("Z", "+00:00")
        time = datetime.fromisoformat(text)
    except (ValueError, OSError, OverflowError):
        return number(value)
    zone = time.strftime("%Z")
    return time.strftime("%Y-%m-%d %H:%M") + (f" {zone}" if zone else "")


def plain(value: Any) -> str:
    """A configuration value the way YAML would write it on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {plain(v)}" for k, v in value.items()) + "}"
    return str(value)


def items(value: Any) -> list[Any]:
    """A list; empty for anything else that a file may hold in its place."""
    return value if isinstance(value, list) else []
