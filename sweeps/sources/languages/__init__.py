"""Languages that are made here, as corpora."""
