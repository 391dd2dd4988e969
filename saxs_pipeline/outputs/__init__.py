"""Writing results: NeXus, NXcanSAS, tables, figures, report."""
