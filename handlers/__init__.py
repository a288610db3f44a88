"""Ready-made handlers and their base class; torch is imported when a model loads, not before."""
