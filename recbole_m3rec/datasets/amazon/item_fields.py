"""Parses one line of Amazon metadata into item fields, never executing it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from recbole_m3rec.datasets.io.prices import price

# Name and type of each column of an .item file made from them, besides item_id:token.
ITEM_COLUMNS = {
    "title": "token_seq",
    "brand": "token",
    "categories": "token_seq",
    "price": "float",
    "description": "token_seq",
    "image_url": "token",
}
# RecBole reads tables with a limit of 131,072 characters a field.
LONGEST_TEXT = 100_000

# What a price begins with; others are pieces of a page, with numbers of their own.
_PRICE = re.compile(r"\s*(?:from\s+)?(?:[A-Z]{3}|[$€£¥])?\s*[-−]?\d", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


def parse_python(line: str) -> dict[str, Any]:
    """Parse a line that is a Python dict of constants, as release 2014 has them.

    Raises:
        ValueError: the line is anything else; nothing of it is run.
    """
    try:
        found = ast.literal_eval(line.strip())
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("not a Python literal") from error
    return _checked(found)


def parse_json(line: str) -> dict[str, Any]:
    """Parse a line that is a JSON object.

    Raises:
        ValueError: the line is anything else.
    """
    try:
        return _checked(json.loads(line))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _checked(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def item_fields(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of ``ITEM_COLUMNS``, clean single-line texts, ``""`` where missing."""
    return {
        "title": clean(_text(record.get("title"))),
        "brand": clean(_text(record.get("brand") or record.get("store"))),
        "categories": clean(_categories(record.get("categories") or record.get("category"))),
        "price": _price(record.get("price")),
        "description": clean(_text(record.get("description"))),
        "image_url": _image_url(record),
    }


def clean(text: str) -> str:
    """Make control characters and white space, line breaks and tabs included, single spaces."""
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


def _text(value: Any) -> str:
    """Return a text, or texts of a list one after another; anything else says nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return " ".join(filter(None, map(_text, value)))
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _categories(value: Any) -> str:
    """Return the names on all paths, each once."""
    return " ".join(dict.fromkeys(name.strip() for name in _leaves(value)))


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)


def _price(value: Any) -> str:
    """Return a price in plain digits, the lower one of a range."""
    text = _text(value)
    return price(text) if _PRICE.match(text) else ""


def _image_url(record: Mapping[str, Any]) -> str:
    """Return the address of the main picture, of about 500 pixels where there are several sizes."""
    images = record.get("images")
    if isinstance(images, dict):  # sizes, each with a list
        images = [
            dict(zip(images, sizes, strict=False))
            for sizes in zip(*(v for v in images.values() if isinstance(v, list)), strict=False)
        ]
    images = images if isinstance(images, list | tuple) else []
    found = [image for image in images if isinstance(image, dict)]
    found.sort(key=lambda image: image.get("variant") != "MAIN")
    candidates = [image.get(size) for image in found for size in ("large", "hi_res", "thumb")]
    for name in ("imageURLHighRes", "imageURL", "imUrl"):
        value = record.get(name)
        candidates += value if isinstance(value, list) else [value]
    for url in candidates:
        if isinstance(url, str) and re.match(r"https?://\S+$", url.strip()):
            return clean(url)
    return ""
