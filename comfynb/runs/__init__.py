"""One pass over cells: who makes what when, what became of it, and who is told."""
