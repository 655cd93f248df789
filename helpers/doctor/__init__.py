"""Whether this machine is fit for a run, and what to do about what is not."""
