"""The base classes that handlers of MMS 0.x derive from."""
