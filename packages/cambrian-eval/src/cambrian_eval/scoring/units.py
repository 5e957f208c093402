"""Units of measurement, as far as answers are given in another one than was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian_eval.scoring.quantities import Quantity

if TYPE_CHECKING:
    from collections.abc import Iterator


def _spellings() -> Iterator[tuple[str, tuple[str, float]]]:
    for kind, factor, names in (
        ("length", 1e-3, "mm millimeter millimetre"),
        ("length", 1e-2, "cm centimeter centimetre"),
        ("length", 1.0, "m meter metre"),
        ("length", 1e3, "km kilometer kilometre"),
        ("length", 0.0254, "in inch inche"),
        ("length", 0.3048, "ft foot feet"),
        ("length", 0.9144, "yd yard"),
        ("length", 1609.344, "mi mile"),
        ("mass", 1e-3, "g gram"),
        ("mass", 1.0, "kg kilogram"),
        ("time", 1.0, "s sec second"),
        ("time", 60.0, "min minute"),
        ("time", 3600.0, "h hr hour"),
    ):
        for name in names.split():
            yield name, (kind, factor)
            yield f"{name}s", (kind, factor)


_UNITS = dict(_spellings())


def in_unit(quantity: Quantity, wanted: str) -> Quantity | None:
    """The quantity in the unit that was asked for.

    Units that are not known, or not given, are left as they are: only what is surely another unit is converted.

    Args:
        quantity: What was answered.
        wanted: The question's unit; empty if it has none.

    Returns:
        The quantity, or None where its unit measures something else: seconds where metres were asked for.
    """
    given, asked = _UNITS.get(quantity.unit), _UNITS.get(wanted.strip().casefold())
    if given is None or asked is None:
        return quantity
    if given[0] != asked[0]:
        return None
    return Quantity(quantity.value * given[1] / asked[1], quantity.scale, wanted)
