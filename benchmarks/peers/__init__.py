"""The servers we are compared with: one module for each, the same models in all."""
