"""What handlers of DJL Serving get and give: Input, Output and what they are made of.

They import them as `djl_python`; `compat/djl_python` leads here.
"""
