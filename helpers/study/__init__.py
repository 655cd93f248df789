"""Many runs instead of one: sizes, methods and seeds, scheduled over the cards that are here."""
