"""Envelopes under the names that `service_envelope` takes."""
