"""What everything stands on: places, the one error, whole files, words, what shows itself."""
