"""One call of llamafactory-cli each: train, predict, merge, serve; and evalscope."""
