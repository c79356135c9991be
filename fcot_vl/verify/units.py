"""Units, currencies and scales: possible meanings of a word after a number."""

from __future__ import annotations

import re
from fractions import Fraction

from fcot_vl.verify.currencies import AFTER_ONLY, BEFORE, CURRENCIES
from fcot_vl.verify.currencies import CASED as CASED_NAMES

Units = frozenset[tuple[str, Fraction]]  # (dimension, factor to its base unit); several if ambiguous

_TABLE: dict[str, dict[str, str]] = {  # dimension -> factor -> names
    "length": {
        "1/1000000000": "nm nanometer nanometers nanometre nanometres",
        "1/1000000": "µm μm um micrometer micrometers micrometre micrometres",
        "1/1000": "mm millimeter millimeters millimetre millimetres 毫米",
        "1/100": "cm centimeter centimeters centimetre centimetres 厘米",
        "1": "m meter meters metre metres 米",
        "1000": "km kilometer kilometers kilometre kilometres 公里 千米",
        "127/5000": "in inch inches",
        "381/1250": "ft foot feet",
        "1143/1250": "yd yard yards",
        "201168/125": "mi mile miles",
    },
    "mass": {
        "1/1000": "mg milligram milligrams 毫克",
        "1": "g gram grams gramme grammes 克",
        "1000": "kg kgs kilogram kilograms kilo kilos 千克 公斤",
        "1000000": "t tonne tonnes ton tons 吨",
        "45359237/100000": "lb lbs pound pounds",
        "45359237/1600000": "oz ounce ounces",
    },
    "time": {
        "1/1000": "ms millisecond milliseconds",
        "1": "s sec secs second seconds 秒",
        "60": "min mins minute minutes 分钟",
        "3600": "h hr hrs hour hours 小时",
        "86400": "day days 天",
        "604800": "week weeks 周",
    },
    "years": {"1": "month months mo 个月", "12": "year years yr yrs"},
    "volume": {
        "1/1000": "ml milliliter milliliters millilitre millilitres cm^3 毫升",
        "1": "l liter liters litre litres 升",
        "1000": "m^3",
    },
    "area": {
        "1/1000000": "mm^2",
        "1/10000": "cm^2",
        "1": "m^2 sqm 平方米",
        "10000": "ha hectare hectares",
        "1000000": "km^2",
    },
    "speed": {"1": "km/h kmh kph", "18/5": "m/s", "25146/15625": "mph"},
    "energy": {"1": "j joule joules", "1000": "kj", "3600000": "kwh"},
    "calories": {"1": "cal", "1000": "kcal"},
    "frequency": {"1": "hz", "1000": "khz", "1000000": "mhz", "1000000000": "ghz"},
    "data": {
        "1": "bytes byte",
        "1000": "kb",
        "1000000": "MB",
        "1000000000": "gb",
        "1000000000000": "tb",
    },
    "power": {"1/1000": "mW", "1": "w watt watts", "1000": "kw", "1000000": "MW", "1000000000": "GW"},
    "voltage": {"1/1000": "mV", "1": "v volt volts", "1000": "kv"},
    "celsius": {"1": "°C celsius"},
    "fahrenheit": {"1": "°F fahrenheit"},
    "kelvin": {"1": "K kelvin"},
    "angle": {"1": "° degree degrees deg 度"},
    "USD": {"1/100": "¢ cent cents"},
    "GBP": {"1/100": "pence"},
}
CASED = CASED_NAMES | {"MB", "mW", "MW", "GW", "mV", "K", "°C", "°F"}  # names whose case matters


def _collect() -> dict[str, Units]:
    units: dict[str, set[tuple[str, Fraction]]] = {}
    for dimension, factors in _TABLE.items():
        for factor, names in factors.items():
            for name in names.split():
                units.setdefault(name, set()).add((dimension, Fraction(factor)))
    for code, currency_names in CURRENCIES.items():
        for name in currency_names.split():
            units.setdefault(name, set()).add((code, Fraction(1)))
    return {name: frozenset(found) for name, found in units.items()}


UNITS = _collect()
CURRENCY: list[tuple[str, Units]] = sorted(  # symbols and names allowed before a number, longest first
    (
        (name, frozenset(unit for unit in units if unit[0] in CURRENCIES))
        for name, units in UNITS.items()
        if any(dimension in CURRENCIES and factor == 1 for dimension, factor in units)
        and name not in AFTER_ONLY
        and (not name.isalpha() or name in CASED or name in BEFORE or name.upper() in CURRENCIES)
    ),
    key=lambda pair: -len(pair[0]),
)
SCALES: dict[str, tuple[int, bool]] = {  # name -> (factor, True if it must directly follow a number)
    "thousand": (10**3, False),
    "million": (10**6, False),
    "billion": (10**9, False),
    "trillion": (10**12, False),
    "hundred": (10**2, False),
    "lakh": (10**5, False),
    "crore": (10**7, False),
    "mn": (10**6, False),
    "bn": (10**9, False),
    "百万": (10**6, False),
    "千万": (10**7, False),
    "万亿": (10**12, False),
    "万": (10**4, False),
    "亿": (10**8, False),
    "k": (10**3, True),
    "K": (10**3, True),
    "M": (10**6, True),
    "B": (10**9, True),
}
_SYMBOLS = "|".join(re.escape(name) for name, _ in CURRENCY if not name.isalpha())
_FIRST = re.compile(
    rf"\s*-?\s*({_SYMBOLS}|¢|°\s?[CF](?![A-Za-z])|°|km/h|m/s|[^\W\d_]+(?:\^[23])?)(?![\w/^])",
    re.IGNORECASE,
)
_TEMPERATURE = re.compile(r"(?:°|degrees?)\s*(celsius|centigrade|fahrenheit)\b", re.IGNORECASE)


def read_unit(text: str) -> tuple[Units, str]:
    """Read a known unit at the start of a text, and return it with the rest; without one, an empty set and the text."""
    text = _TEMPERATURE.sub(lambda found: f"°{found[1][0].upper()}", text, count=1)
    squared = re.match(r"\s*(?:square|sq\.?)\s+([A-Za-z]+)", text, re.IGNORECASE)
    if squared and (units := UNITS.get(squared[1].casefold())):
        ((dimension, factor), *_) = units
        return frozenset({(f"{dimension} squared", factor * factor)}) if dimension != "length" else frozenset(
            {("area", factor * factor)}
        ), text[squared.end() :]
    found = _FIRST.match(text)
    if found is None:
        return frozenset(), text
    name = found[1].replace(" ", "").rstrip(".") if found[1] not in UNITS else found[1]
    if name.casefold() == "in" and text[found.end() :].strip():
        return frozenset(), text  # "42 in total"
    if name in CASED or name in ("mb", "mw", "mv", "k"):
        units = UNITS.get(name, frozenset())
    else:
        units = UNITS.get(name.casefold(), frozenset())
        if name.casefold() in ("mb", "mw", "mv") and name not in CASED:
            units = frozenset()
    return (units, text[found.end() :]) if units else (frozenset(), text)
