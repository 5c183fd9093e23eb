"""The category Beauty as its publisher has it, small: every user reviews every item, one a day."""

import gzip
import json

START, DAY = 1_400_025_600, 86_400


def write_raw(folder, users=6, items=5):
    """Write the reviews and the items' titles."""
    folder.mkdir(parents=True, exist_ok=True)
    reviews = [
        {"reviewerID": f"U{user}", "asin": f"B{item}", "overall": 5.0,
         "unixReviewTime": START + DAY * (user + item)}
        for user in range(users) for item in range(items)
    ]  # fmt: skip
    titles = [repr({"asin": f"B{item}", "title": f"Item {item}"}) for item in range(items)]
    for name, lines in (("reviews_Beauty_5", map(json.dumps, reviews)), ("meta_Beauty", titles)):
        (folder / f"{name}.json.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
