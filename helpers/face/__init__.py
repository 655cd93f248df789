"""The face: `Tutorial`, all that a notebook, a command or a reader's script needs to know."""
