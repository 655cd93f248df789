"""What the records say: comparison, tests, verdict, checks, tables, figures."""
