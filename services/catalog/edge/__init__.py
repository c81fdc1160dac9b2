"""The embedded backend: Qdrant Edge, in a child process of the Catalog.

`storage` runs in the Catalog. It sends commands to the child through `process`; its `indexer`
schedules the builds of HNSW indexes. The child (`__main__`) runs `engine`, which owns the data
folder. `builder` is a third, short-lived process that builds one index in a copy of a shard.
"""
