"""Values that may travel between processes, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

numbers = st.integers(-(2**63), 2**64 - 1)
texts = st.text(max_size=20)
blobs = st.binary(max_size=40)
plain = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False) | texts | blobs,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
