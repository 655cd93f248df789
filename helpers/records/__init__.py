"""What a run found, as it is stored: facts and codes, no sentences."""
