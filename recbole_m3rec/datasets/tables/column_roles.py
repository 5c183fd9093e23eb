"""Guesses from its name what a column holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# By role, names in the order of trust; as words, so that CustomerID and customer-id are alike.
LOG_ROLES = {
    "user": "user_id user customer_id customer client_id client buyer_id buyer member_id member"
    " visitor_id visitor reviewer_id account_id account person_id uid user_name customer_name",
    "item": "item_id item product_id product sku asin article_id article parent_asin movie_id movie"
    " book_id isbn stock_code product_code item_code variant_id variation_id track_id iid pid"
    " number_of_item",
    "time": "timestamp time datetime date_time event_time ordered_at order_time order_date"
    " purchase_time purchase_date purchased_at bought_at created_at created invoice_date"
    " unix_review_time review_time date day ts",
    "rating": "rating stars score overall",
}
ITEM_ROLES = {
    "item": LOG_ROLES["item"] + " id code",
    "title": "title product_title item_title movie_title name product_name item_name article_name",
    "brand": "brand brand_name manufacturer maker vendor store author artist",
    "categories": "categories category category_name product_category genres genre product_type"
    " department class",
    "price": "price unit_price list_price sale_price",
    "description": "description product_description item_description overview summary details text"
    " body",
    "image": "image_url image image_file image_path image_name photo photo_url photo_file picture"
    " picture_url img img_url im_url poster thumbnail",
}


class ColumnError(ValueError):
    """A table lacks a column, or nobody can say which one is meant."""


def guess_columns(
    names: Sequence[str], roles: Mapping[str, str], given: Mapping[str, str | None]
) -> dict[str, str]:
    """Find the column of each role.

    Args:
        names: the columns of the table.
        roles: ``LOG_ROLES`` or ``ITEM_ROLES``.
        given: by role, the column that the user named; ``"-"`` for none, None for a guess.

    Returns:
        Columns by role, without those that have none. No column has two roles.

    Raises:
        ColumnError: the table has no column of a name given, or one is given two roles.
    """
    columns: dict[str, str] = {}
    for role, name in given.items():
        if name is None or name == "-":
            continue
        if name not in names:
            raise ColumnError(
                f"no column {name!r}, named as {role}; there are {', '.join(map(repr, names))}"
            )
        other = next((each for each, column in columns.items() if column == name), None)
        if other is not None:
            raise ColumnError(
                f"column {name!r} is named as {other} and as {role}, expected a column for each"
            )
        columns[role] = name
    words = {name: as_words(name) for name in names}
    for role, names_of_role in roles.items():
        if given.get(role) is not None:
            continue
        for candidate in names_of_role.split():
            free = [each for each in names if each not in columns.values()]
            match = next((each for each in free if words[each] == candidate), None)
            if match is not None:
                columns[role] = match
                break
    return {role: columns[role] for role in roles if role in columns}


def as_words(name: str) -> str:
    """Return a name in small letters with ``_`` between words, without RecBole's ``:type``.

    ``Item #`` is ``number_of_item``: beside an SKU it numbers the lines of an order.
    """
    if re.fullmatch(r"item\s*#", name.strip(), re.IGNORECASE):
        return "number_of_item"
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.partition(":")[0])
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
