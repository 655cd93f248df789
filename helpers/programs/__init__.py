"""Other programs: started, guarded, logged, explained when they fail, and done once."""
