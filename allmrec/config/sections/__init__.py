"""The sections of the configuration: frozen, every field documented, checked before anything runs.

A file has the settings of one component. A field's docstring is its row in conf/README.md
(`allmrec.config.reference`).
"""
