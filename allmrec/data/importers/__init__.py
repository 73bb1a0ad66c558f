"""Files of other people's formats become the `interactions` and `items` tables."""
