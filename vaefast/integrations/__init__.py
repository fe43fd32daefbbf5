"""Adapters for the models of other libraries, none of which is imported here.

``vaefast.as_vae`` finds them by the class of the module it is given. How to add one is said in
:mod:`vaefast.models.adapters`.
"""
