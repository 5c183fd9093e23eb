"""RecBole's atomic files: the interaction log (.inter) and the item table (.item)."""
