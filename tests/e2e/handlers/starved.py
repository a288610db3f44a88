"""Loads until there is no memory left, it says."""


class Starved:
    def initialize(self, context):
        raise MemoryError("no room for the weights")

    def handle(self, data, context):
        return ["never"]
