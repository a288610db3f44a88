"""Reading, unpacking, fetching and packing model archives."""
